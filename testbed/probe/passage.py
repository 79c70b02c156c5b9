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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from testbed.bpf import (
    IPPROTO_IPIP,
    SNAP,
    VXLAN_PORTS,
    Field,
    Instruction,
    compiled,
    encoded,
    ipv4,
    only,
    vxlan,
)
from testbed.errors import ProbeError
from testbed.plan import Flow, Protocol
from testbed.probe.opening import family_of
from testbed.probe.result import Place
from testbed.runtime.base import Sockets

DNS_FLAGS = 0x0100
"""The second half of the header of a plain question: a query, recursion desired (RFC 1035, 4.1.1)."""

ETH_P_ALL = 0x0003  # linux/if_ether.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h


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
    ipip = (*ipv4(0, IPPROTO_IPIP), *ipv4(20, protocol), Field(4, 40 + offset, mark))
    inside = (*ipv4(50, protocol), Field(4, 70 + offset, mark))
    in_vxlan = [(*vxlan(port), *inside) for port in VXLAN_PORTS]
    return ((*ipv4(0, protocol), Field(4, 20 + offset, mark)), ipip, *in_vxlan)


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
    code = encoded(program)
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
