"""The filters that find a flow's first packet, run by the kernel on packets made by hand; no privilege needed.

A filter works on any socket: here on a pair of Unix sockets, where a message stands for a packet.
"""

from __future__ import annotations

import ctypes
import socket
import struct

import pytest

from testbed.bpf import INTERFACE, JUMP, JUMP_IF_EQUAL, LOAD, RETURN, Field, compiled, only
from testbed.plan import Flow
from testbed.probe.passage import SO_ATTACH_FILTER, layouts, new_mark

MARK = 0xA1B2C3D4
IN_MARK = MARK.to_bytes(4, "big")
TCP, UDP, ICMP, ICMPV6, IPIP = 6, 17, 1, 58, 4


def passes(program, packet: bytes) -> bool:
    """Whether the kernel's interpreter lets `packet` through the filter."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        option = struct.pack("HL", len(program), ctypes.addressof(buffer))
        far.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
        far.setblocking(False)
        try:
            near.send(packet)
            return bool(far.recv(65536))
        except (PermissionError, BlockingIOError):  # a message that is filtered out fails at the sender
            return False


def ipv4(protocol: int, payload: bytes, fragment: int = 0, source: str = "10.0.0.1", to: str = "10.0.0.2") -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0) + addresses + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 0x60012345, len(payload), protocol, 64) + bytes(32) + payload


def syn(sequence: int = MARK) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, 80, sequence, 0, 0x50, 2, 65535, 0, 0)


def datagram(data: bytes = IN_MARK + b" data", port: int = 8080) -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data


def echo(data: bytes = IN_MARK + b" data") -> bytes:
    return bytes([8, 0, 0, 0, 0, 5, 0, 1]) + data


def vxlan(inner: bytes, kind: int = 0x0800, port: int = 4789) -> bytes:
    frame = bytes(12) + kind.to_bytes(2, "big") + inner
    return ipv4(UDP, datagram(b"\x08\0\0\0\0\x10\0\0" + frame, port))


def program(protocol: str, address: str = "10.0.0.2"):
    return compiled(layouts(Flow("f", "here", address, protocol), MARK))


FOUND = {
    "tcp": ("tcp", ipv4(TCP, syn())),
    "tcp under other addresses": ("tcp", ipv4(TCP, syn(), source="192.0.2.1", to="192.0.2.2")),
    "tcp that may not be fragmented": ("tcp", ipv4(TCP, syn(), fragment=0x4000)),
    "http": ("http", ipv4(TCP, syn())),
    "ssh": ("ssh", ipv4(TCP, syn())),
    "udp": ("udp", ipv4(UDP, datagram())),
    "first fragment": ("udp", ipv4(UDP, datagram(), fragment=0x2000)),
    "dns": ("dns", ipv4(UDP, datagram(port=53))),
    "icmp": ("icmp", ipv4(ICMP, echo())),
    "tcp in IPIP": ("tcp", ipv4(IPIP, ipv4(TCP, syn()))),
    "icmp in IPIP": ("icmp", ipv4(IPIP, ipv4(ICMP, echo()))),
    "tcp in VXLAN": ("tcp", vxlan(ipv4(TCP, syn()))),
    "tcp in a tunnel of the lab's": ("tcp", vxlan(ipv4(TCP, syn()), port=14789)),
    "udp in VXLAN": ("udp", vxlan(ipv4(UDP, datagram()))),
}
MISSED = {
    "other sequence number": ("tcp", ipv4(TCP, syn(MARK + 1))),
    "udp instead of tcp": ("tcp", ipv4(UDP, bytes(4) + IN_MARK)),
    "tcp instead of udp": ("udp", ipv4(TCP, datagram())),
    "other data": ("udp", ipv4(UDP, datagram(b"other data"))),
    "no data": ("udp", ipv4(UDP, datagram(b""))),
    "later fragment": ("udp", ipv4(UDP, datagram(), fragment=0x2001)),
    "other echo": ("icmp", ipv4(ICMP, echo(b"other data"))),
    "other in IPIP": ("tcp", ipv4(IPIP, ipv4(TCP, syn(1)))),
    "udp port of another than VXLAN": ("tcp", vxlan(ipv4(TCP, syn()), port=4790)),
    "ARP in VXLAN": ("tcp", vxlan(ipv4(TCP, syn()), kind=0x0806)),
    "IPv6": ("tcp", ipv6(TCP, syn())),
    "cut off": ("tcp", ipv4(TCP, syn())[:27]),
    "ARP": ("tcp", bytes.fromhex("0001080006040001") + bytes(20)),
}


@pytest.mark.parametrize(("protocol", "packet"), FOUND.values(), ids=FOUND)
def test_marked_packet_is_found(protocol, packet):
    assert passes(program(protocol), packet)


@pytest.mark.parametrize(("protocol", "packet"), MISSED.values(), ids=MISSED)
def test_other_packet_is_not(protocol, packet):
    assert not passes(program(protocol), packet)


@pytest.mark.parametrize(
    ("protocol", "packet", "found"),
    [
        ("tcp", ipv6(TCP, syn()), True),
        ("tcp", ipv6(TCP, syn(1)), False),
        ("udp", ipv6(UDP, datagram()), True),
        ("dns", ipv6(UDP, datagram()), True),
        ("icmp", ipv6(ICMPV6, echo()), True),
        ("icmp", ipv6(ICMP, echo()), False),
        ("tcp", ipv4(TCP, syn()), False),
    ],
)
def test_ipv6(protocol, packet, found):
    assert passes(program(protocol, "fd00::2"), packet) == found


def goes_on(interfaces, index):
    """Whether the beginning of a filter goes on with what follows it, for a packet of this interface (bpf(4))."""
    program, place, loaded = only(interfaces), 0, None
    while place < len(program):
        code, yes, no, value = program[place]
        if code == RETURN:
            return False
        if code == LOAD[4]:
            assert value == INTERFACE
            loaded = index
        place += 1 + (value if code == JUMP else (yes if loaded == value else no) if code == JUMP_IF_EQUAL else 0)
    assert place == len(program), "it jumps beyond what follows"
    return True


def test_only_packets_of_some_interfaces():
    assert goes_on(None, 7)
    for interfaces in ({7}, {5, 7, 9}, range(600)):
        assert all(goes_on(interfaces, index) == (index in interfaces) for index in range(700))
    assert not goes_on(set(), 7)


def test_mask_and_order_of_forms():
    either = compiled([[Field(1, 0, 0x20, 0xF0)], [Field(2, 0, 0x1234), Field(1, 2, 0x56)]])
    assert [passes(either, packet) for packet in (b"\x2f", b"\x12\x34\x56", b"\x12\x34\x57")] == [True, True, False]


@pytest.mark.parametrize("protocol", ["tcp", "dns"])
def test_marks_are_random_and_never_zero(protocol):
    marks = {new_mark(protocol) for _ in range(200)}
    assert len(marks) > 150
    assert all(0 < mark < 1 << 32 for mark in marks)


def test_mark_of_a_question_ends_in_its_flags():
    assert new_mark("dns") & 0xFFFF == 0x0100
