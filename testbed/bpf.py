"""Classic BPF (linux/filter.h): what the kernel lets a packet socket see. Pure: it makes instructions, no socket.

Every offset counts from the outermost IP header, which is where a packet socket of type SOCK_DGRAM has offset 0.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple

# Load from a constant offset; arithmetic; compare; end.
LOAD = {1: 0x30, 2: 0x28, 4: 0x20}
AND, SUBTRACT, JUMP, JUMP_IF_EQUAL, JUMP_IF_GREATER, RETURN = 0x54, 0x14, 0x05, 0x15, 0x25, 0x06
PACKET_TYPE, INTERFACE = 0xFFFFF000 + 4, 0xFFFFF000 + 8
"""Where a load yields the packet's type and the index of its interface: SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_AD_IFINDEX."""
PACKET_OTHERHOST = 3  # linux/if_packet.h
SNAP = 256
"""Bytes kept of a packet."""

ETH_P_IP = 0x0800  # linux/if_ether.h
IPPROTO_ICMP, IPPROTO_IPIP, IPPROTO_TCP, IPPROTO_UDP = 1, 4, 6, 17
IPPROTO_FRAGMENT, IPPROTO_ICMPV6 = 44, 58
VXLAN_PORT, TUNNEL_PORT = 4789, 14789
"""UDP ports: IANA's, which Calico's pools have, and that of the tunnels that are the lab's own."""
VXLAN_PORTS = (VXLAN_PORT, TUNNEL_PORT)

Instruction = tuple[int, int, int, int]


class Field(NamedTuple):
    """`size` bytes at `offset` must, under `mask`, be `value`, or at most `span` above it (modulo 2^32)."""

    size: int
    offset: int
    value: int
    mask: int = 0xFFFFFFFF
    span: int = 0


Form = Sequence[Field]


def ipv4(offset: int, protocol: int) -> tuple[Field, ...]:
    """An IPv4 header of 20 bytes at `offset`, of an unfragmented packet or a first fragment."""
    return Field(1, offset, 0x45), Field(1, offset + 9, protocol), Field(2, offset + 6, 0, 0x1FFF)


def vxlan(port: int) -> tuple[Field, ...]:
    """An outermost VXLAN header (RFC 7348) around an IPv4 packet, which then begins at offset 50."""
    return *ipv4(0, IPPROTO_UDP), Field(2, 22, port), Field(2, 48, ETH_P_IP)


def compiled(forms: Sequence[Form], *, others: bool = False) -> tuple[Instruction, ...]:
    """A filter that lets in a packet of any of these forms.

    Args:
        others: also frames for other stations, which a bridge passes on or floods.

    A load beyond the end of a packet ends a filter with "no", so forms that look further in come later.
    """
    program: list[Instruction] = []
    if not others:
        program += [(LOAD[4], 0, 0, PACKET_TYPE), (JUMP_IF_EQUAL, 0, 1, PACKET_OTHERHOST), (RETURN, 0, 0, 0)]
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


def _form(fields: Form) -> list[Instruction]:
    """Instructions that return when all fields match, and else go on behind the last of them."""
    steps: list[Instruction] = []
    for field in fields:
        steps.append((LOAD[field.size], 0, 0, field.offset))
        if field.mask != 0xFFFFFFFF:
            steps.append((AND, 0, 0, field.mask))
        if field.span:
            steps += [(SUBTRACT, 0, 0, field.value), (JUMP_IF_GREATER, 0, 0, field.span)]
        else:
            steps.append((JUMP_IF_EQUAL, 0, 0, field.value))
    steps.append((RETURN, 0, 0, SNAP))
    return [_aimed(step, len(steps) - index - 1) for index, step in enumerate(steps)]


def _aimed(step: Instruction, away: int) -> Instruction:
    """An instruction whose jump leads `away` instructions on when the field does not match."""
    code, yes, no, value = step
    if code == JUMP_IF_EQUAL:
        return code, 0, away, value
    if code == JUMP_IF_GREATER:
        return code, away, 0, value
    return code, yes, no, value


def encoded(program: Sequence[Instruction]) -> bytes:
    """The instructions as an array of `struct sock_filter`."""
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
