"""Frames as a packet socket would give them, made by hand."""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Sequence
from pathlib import Path

from testbed.trace.packet import Frame, Way

TCP, UDP, ICMP, IPIP = 6, 17, 1, 4
SYN, RST, ACK = 0x02, 0x04, 0x10


def ipv4(
    source: str, destination: str, protocol: int, data: bytes, *, ttl: int = 64, ident: int = 7, fragment: int = 0
) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), ident, fragment, ttl, protocol, 0)
    return head + ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + data


def ipv6(source: str, destination: str, protocol: int, data: bytes, *, ttl: int = 64) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(data), protocol, ttl)
    return head + ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + data


def tcp(source: int, destination: int, seq: int, ack: int, flags: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, seq, ack, 0x50, flags, 1024, 0, 0) + data


def udp(source: int, destination: int, data: bytes) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data


def icmp(kind: int, code: int, info: int, data: bytes) -> bytes:
    return struct.pack("!BBHI", kind, code, 0, info) + data


def vxlan(network: int, packet: bytes) -> bytes:
    ethernet = bytes(12) + b"\x08\x00"
    return struct.pack("!II", 0x08000000, network << 8) + ethernet + packet


def arp(operation: int, sender: str, target: str) -> bytes:
    mac = bytes(6)
    return (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + mac
        + ipaddress.ip_address(sender).packed
        + mac
        + ipaddress.ip_address(target).packed
    )


def frame(time: int, node: str, interface: str, way: Way, data: bytes, *, vrf: str | None = None) -> Frame:
    kind = 0x0806 if data[:2] == b"\0\x01" else 0x86DD if data[0] >> 4 == 6 else 0x0800
    return Frame(time, node, vrf, interface, way, kind, data)


def stored(frames: Sequence[Frame]) -> str:
    """Frames as text, one a line."""
    rows = [
        [entry.time, entry.node, entry.vrf, entry.interface, entry.way, entry.ethertype, entry.data.hex()]
        for entry in frames
    ]
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def recorded(path: Path) -> list[Frame]:
    """The frames of a recording that `stored` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Frame(*row[:6], bytes.fromhex(row[6])) for row in rows]
