"""Asks the kernel which interfaces of a network namespace belong to which VRF device (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from testbed.run import network_namespace

RTM_NEWLINK, RTM_GETLINK, NLMSG_DONE = 16, 18, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 10, 18, 1  # linux/if_link.h
NESTED = 0x8000


@dataclass(frozen=True, slots=True)
class Device:
    """An interface; `master` is the index of the bridge or VRF device it belongs to, 0 for none."""

    index: int
    name: str
    kind: str
    master: int


def members(descriptor: int) -> dict[str | None, frozenset[int]]:
    """The interfaces of a network namespace, as indexes, by VRF; None: those of the default instance.

    A VRF's device is one of its own interfaces; the ports of a bridge belong where the bridge does.

    Args:
        descriptor: of the namespace.
    """
    with network_namespace(descriptor):
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with channel:
        devices = {device.index: device for device in _devices(channel)}
    found: dict[str | None, set[int]] = {None: set()}
    for device in devices.values():
        found.setdefault(_vrf_of(device, devices), set()).add(device.index)
    return {vrf: frozenset(indexes) for vrf, indexes in found.items()}


def _vrf_of(device: Device, devices: Mapping[int, Device]) -> str | None:
    while device.kind != "vrf":
        if device.master not in devices:
            return None
        device = devices[device.master]
    return device.name


def _devices(channel: socket.socket) -> Iterator[Device]:
    """Every interface of the socket's namespace."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    channel.send(struct.pack("=IHHII", 16 + len(body), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
    while True:
        data = channel.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == NLMSG_DONE or length < 16:
                return
            if kind == RTM_NEWLINK:
                yield _device(data[offset + 16 : offset + length])
            offset += (length + 3) & ~3


def _device(body: bytes) -> Device:
    attributes = dict(_attributes(body[16:]))
    info = dict(_attributes(attributes.get(IFLA_LINKINFO, b"")))
    master = attributes.get(IFLA_MASTER, bytes(4))
    return Device(
        index=struct.unpack_from("=i", body, 4)[0],
        name=_text(attributes[IFLA_IFNAME]),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        master=struct.unpack("=I", master)[0],
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            return
        yield kind & ~NESTED, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
