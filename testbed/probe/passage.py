"""Which places the packets of one flow reach: does its first packet show up in this namespace?

A watched flow is marked: its first packet carries a number of 32 bits that the prober chose (the sequence number of
the SYN; the first data of a datagram or echo request; the header of a DNS message). Routers, tunnels and address
translation leave it alone, so it is found after any number of DNAT and SNAT, and flows that run at the same time
cannot be taken for one another. What is seen is the way there, not the way back, and it ends where a proxy ends the
connection.

The kernel compares: each place has a packet socket with a filter that lets nothing else in. It sees packets as they
come in, before netfilter, and as they go out. Frames for other stations, flooded by a bridge, do not count.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from testbed.errors import ProbeError
from testbed.plan import Flow, Protocol
from testbed.probe.opening import family_of
from testbed.probe.result import Place
from testbed.runtime.base import Sockets

DNS_FLAGS = 0x0100
"""The second half of the header of a plain question: a query, recursion desired (RFC 1035, 4.1.1)."""

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
PACKET_OTHERHOST = 3
SO_ATTACH_FILTER = 26

# Classic BPF (linux/filter.h): load from a constant offset, mask, compare, end.
LOAD = {1: 0x30, 2: 0x28, 4: 0x20}
AND, JUMP, JUMP_IF_EQUAL, RETURN = 0x54, 0x05, 0x15, 0x06
PACKET_TYPE, INTERFACE = 0xFFFFF000 + 4, 0xFFFFF000 + 8
"""Where a load yields the packet's type and the index of its interface: SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_AD_IFINDEX."""
SNAP = 256
"""Bytes kept of a packet."""

IPPROTO_IPIP, VXLAN_PORT = 4, 4789

Instruction = tuple[int, int, int, int]


class Field(NamedTuple):
    """`size` bytes at `offset` from the outermost IP header must, under `mask`, be `value`."""

    size: int
    offset: int
    value: int
    mask: int = 0xFFFFFFFF


def new_mark(protocol: Protocol) -> int:
    """A random mark, never 0, for a flow of this protocol."""
    if protocol == "dns":
        return (int.from_bytes(os.urandom(2), "big") or 1) << 16 | DNS_FLAGS
    return int.from_bytes(os.urandom(4), "big") or 1


@contextmanager
def watch(sockets: Sockets, flow: Flow, mark: int) -> Iterator[Callable[[], tuple[Place, ...]]]:
    """Watch every place that `flow` names in `via` and `not_via` for its mark, from now on.

    Yields a function that tells which of them a packet with the mark has reached so far.
    Raises NoSuchNodeError for a place that is not running, ProbeError when it cannot be watched.
    """
    program = compiled(layouts(flow, mark))
    with ExitStack() as stack:
        taps = [
            (place, stack.enter_context(_tap(sockets, place, (*only(sockets.interfaces(*place)), *program))))
            for place in dict.fromkeys((*flow.via, *flow.not_via))
        ]
        yield lambda: tuple(place for place, tap in taps if _heard(tap, mark))


def layouts(flow: Flow, mark: int) -> tuple[tuple[Field, ...], ...]:
    """The forms in which the flow's first packet can appear: bare, in IPIP (RFC 2003), in VXLAN (RFC 7348).

    IPv4 options and IPv6 extension headers are not looked behind; the probes send none. Tunnels are looked into where
    both headers are IPv4.
    """
    if family_of(flow) == socket.AF_INET6:
        protocol, offset = _transport(flow.protocol, 6)
        return ((Field(1, 0, 0x60, 0xF0), Field(1, 6, protocol), Field(4, 40 + offset, mark)),)
    protocol, offset = _transport(flow.protocol, 4)
    ipip = (*_ipv4(0, IPPROTO_IPIP), *_ipv4(20, protocol), Field(4, 40 + offset, mark))
    vxlan = (
        *_ipv4(0, socket.IPPROTO_UDP),
        Field(2, 22, VXLAN_PORT),
        Field(2, 48, ETH_P_IP),
        *_ipv4(50, protocol),
        Field(4, 70 + offset, mark),
    )
    return ((*_ipv4(0, protocol), Field(4, 20 + offset, mark)), ipip, vxlan)


def compiled(forms: Sequence[Sequence[Field]]) -> tuple[Instruction, ...]:
    """A filter that lets in a packet of any of these forms, unless it is for another station.

    A load beyond the end of a packet ends a filter with "no", so forms that look further in come later.
    """
    program: list[Instruction] = [
        (LOAD[4], 0, 0, PACKET_TYPE),
        (JUMP_IF_EQUAL, 0, 1, PACKET_OTHERHOST),
        (RETURN, 0, 0, 0),
    ]
    for fields in forms:
        program += _form(fields)
    return (*program, (RETURN, 0, 0, 0))


def only(interfaces: Collection[int] | None) -> tuple[Instruction, ...]:
    """The beginning of a filter that goes on for packets of these interfaces alone; None: for all."""
    if interfaces is None:
        return ()
    program: list[Instruction] = [(LOAD[4], 0, 0, INTERFACE)]
    for passed, index in enumerate(sorted(interfaces), 1):
        program += [(JUMP_IF_EQUAL, 0, 1, index), (JUMP, 0, 0, 2 * (len(interfaces) - passed) + 1)]
    return (*program, (RETURN, 0, 0, 0))


def _form(fields: Sequence[Field]) -> list[Instruction]:
    """Instructions that return when all fields match, and else go on behind the last of them."""
    steps: list[Instruction] = []
    for field in fields:
        steps.append((LOAD[field.size], 0, 0, field.offset))
        if field.mask != 0xFFFFFFFF:
            steps.append((AND, 0, 0, field.mask))
        steps.append((JUMP_IF_EQUAL, 0, 0, field.value))
    steps.append((RETURN, 0, 0, SNAP))
    return [
        (code, 0, len(steps) - index - 1, value) if code == JUMP_IF_EQUAL else (code, yes, no, value)
        for index, (code, yes, no, value) in enumerate(steps)
    ]


def _ipv4(offset: int, protocol: int) -> tuple[Field, ...]:
    """An IPv4 header of 20 bytes at `offset`, of an unfragmented packet or a first fragment."""
    return Field(1, offset, 0x45), Field(1, offset + 9, protocol), Field(2, offset + 6, 0, 0x1FFF)


def _transport(protocol: Protocol, version: int) -> tuple[int, int]:
    """The IP protocol of a flow, and where in its first packet, after the IP header, the mark is."""
    match protocol:
        case "icmp":
            return (socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6), 8
        case "udp" | "dns":
            return socket.IPPROTO_UDP, 8
        case _:
            return socket.IPPROTO_TCP, 4


@contextmanager
def _tap(sockets: Sockets, place: Place, program: Sequence[Instruction]) -> Iterator[socket.socket]:
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    try:
        # SOCK_DGRAM: without the link's header, so that the IP header is at 0 whatever the interface.
        tap = sockets.socket(*place, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    except OSError as error:
        raise ProbeError(f"{place[0]} cannot be watched: {error}") from error
    with tap:
        tap.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer)))
        yield tap


def _heard(tap: socket.socket, mark: int) -> bool:
    """Whether a marked packet waits. The first packets may be others, from before the filter was attached."""
    needle = mark.to_bytes(4, "big")
    tap.setblocking(False)
    while True:
        try:
            if needle in tap.recv(SNAP):
                return True
        except BlockingIOError:
            return False
