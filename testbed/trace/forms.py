"""Which packets the kernel hands to a capture: those of one flow and their relatives. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.bpf import (
    IPPROTO_FRAGMENT,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IPIP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    VXLAN_PORTS,
    Field,
    Form,
    Instruction,
    compiled,
    ipv4,
    vxlan,
)
from testbed.plan import Protocol

WINDOW = 1 << 20
"""Bytes of a TCP stream, from its beginning, that are followed: a packet belongs to the flow when its sequence or
acknowledgement number is at most so far above the flow's mark. A packet of another connection does with a probability
of 1 in 2000; it is sorted out afterwards."""

_ARP = (Field(4, 0, 0x00010800),)  # Ethernet, IPv4 (RFC 826): cannot be taken for the first bytes of an IP header
_FRAGMENT = Field(2, 6, 1, 0x1FFF, 0x1FFE)  # an offset of 1 to 0x1FFF


def program(protocol: Protocol, version: int, mark: int) -> tuple[Instruction, ...]:
    """The filter for a flow of this protocol and IP version whose first packet carries `mark`.

    TCP: by sequence numbers, which survive address translation. UDP and ICMP: all there is of them, for an answer
    carries no mark, and it is sorted out afterwards. Besides, ICMP errors, later fragments, ARP and neighbour
    discovery. Bare, in IPIP and in VXLAN (both headers IPv4).
    """
    kind = {"icmp": IPPROTO_ICMP, "udp": IPPROTO_UDP, "dns": IPPROTO_UDP}.get(protocol, IPPROTO_TCP)
    return compiled(tuple(_forms(kind, version, mark)), others=True)


def _forms(kind: int, version: int, mark: int) -> Iterator[Form]:
    if version == 6:
        yield from _ipv6(kind, mark)
        return
    yield _ARP
    yield Field(1, 0, 0x40, 0xF0), Field(1, 9, kind), _FRAGMENT
    tunnels = [(ipv4(0, IPPROTO_IPIP), 20), *((vxlan(port), 50) for port in VXLAN_PORTS)]
    for outer, offset in (((), 0), *tunnels):
        for protocol in dict.fromkeys((IPPROTO_ICMP, kind)):
            for fields in _marks(protocol, offset + 20, mark):
                yield (*outer, *ipv4(offset, protocol), *fields)


def _ipv6(kind: int, mark: int) -> Iterator[Form]:
    six = Field(1, 0, 0x60, 0xF0)
    yield six, Field(1, 6, IPPROTO_ICMPV6)
    yield six, Field(1, 6, IPPROTO_FRAGMENT)
    if kind != IPPROTO_ICMP:
        for fields in _marks(kind, 40, mark):
            yield (six, Field(1, 6, kind), *fields)


def _marks(protocol: int, offset: int, mark: int) -> Iterator[tuple[Field, ...]]:
    """The forms of the transport's header at `offset`: one for the way there, one for the way back."""
    if protocol == IPPROTO_TCP:
        yield (Field(4, offset + 4, mark, span=WINDOW),)
        yield (Field(4, offset + 8, mark, span=WINDOW),)
    else:
        yield ()
