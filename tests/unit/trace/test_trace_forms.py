"""The kernel's filter lets in a flow's packets and their relatives, and little else. The kernel itself is asked."""

from __future__ import annotations

import ctypes
import socket
import struct

import pytest
from trace_frames import ACK, ICMP, IPIP, SYN, TCP, UDP, arp, icmp, ipv4, ipv6, tcp, udp, vxlan

from testbed.bpf import SNAP, encoded
from testbed.plan import Protocol
from testbed.trace.forms import WINDOW, program

A, B, MARK = "10.0.0.1", "10.0.0.2", 0x10203040
SO_ATTACH_FILTER = 26


def kept(data: bytes, protocol: Protocol = "tcp", version: int = 4, mark: int = MARK) -> bool:
    """Whether the filter lets a packet in; a datagram socket's filter begins where ours does."""
    code = program(protocol, version, mark)
    text = encoded(code)
    buffer = ctypes.create_string_buffer(text, len(text))
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        other.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(code), ctypes.addressof(buffer)))
        other.setblocking(False)
        try:
            one.send(data)
            return bool(other.recv(SNAP))
        except (PermissionError, BlockingIOError):  # some kernels tell the sender that it was filtered out
            return False


def segment(seq: int, ack: int = 0, flags: int = SYN) -> bytes:
    return tcp(1000, 80, seq % 2**32, ack % 2**32, flags)


SYN_OF_FLOW = ipv4(A, B, TCP, segment(MARK))
OUTER = ("1.1.1.1", "2.2.2.2")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(SYN_OF_FLOW, id="syn"),
        pytest.param(ipv4(A, B, TCP, segment(MARK + WINDOW, 9, ACK)), id="at the end of the window"),
        pytest.param(ipv4(B, A, TCP, segment(99, MARK + 1, SYN | ACK)), id="answer"),
        pytest.param(ipv4(*OUTER, IPIP, SYN_OF_FLOW), id="in ipip"),
        pytest.param(ipv4(*OUTER, UDP, udp(5, 4789, vxlan(1, SYN_OF_FLOW))), id="in vxlan"),
        pytest.param(ipv4(*OUTER, UDP, udp(5, 14789, vxlan(1, SYN_OF_FLOW))), id="in a tunnel of the lab's"),
        pytest.param(
            ipv4(*OUTER, UDP, udp(5, 4789, vxlan(1, ipv4(B, A, TCP, segment(9, MARK + 1))))), id="answer in vxlan"
        ),
        pytest.param(ipv4(B, A, ICMP, icmp(3, 1, 0, SYN_OF_FLOW)), id="icmp error"),
        pytest.param(ipv4(A, B, TCP, b"\0" * 20, fragment=185), id="later fragment"),
        pytest.param(arp(1, A, B), id="arp"),
    ],
)
def test_the_flow_and_its_relatives(data):
    assert kept(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ipv4(A, B, TCP, segment(MARK - 1)), id="just before the window"),
        pytest.param(ipv4(A, B, TCP, segment(MARK + WINDOW + 1)), id="just behind the window"),
        pytest.param(ipv4(A, B, UDP, udp(5, 53, b"question" * 4)), id="udp"),
        pytest.param(ipv4(*OUTER, UDP, udp(5, 4789, vxlan(1, ipv4(A, B, TCP, segment(5))))), id="another in vxlan"),
        pytest.param(ipv4(*OUTER, UDP, udp(5, 4788, vxlan(1, SYN_OF_FLOW))), id="another port than VXLAN's"),
        pytest.param(ipv4(A, B, 89, b"\0" * 40), id="ospf"),
        pytest.param(ipv6("fd00::1", "fd00::2", TCP, segment(MARK)), id="the other family"),
        pytest.param(b"\x45", id="cut off"),
    ],
)
def test_anything_else(data):
    assert not kept(data)


def test_marks_at_the_end_of_the_numbers_wrap():
    mark = 2**32 - 5
    assert kept(ipv4(A, B, TCP, segment(mark + 10)), mark=mark)
    assert not kept(ipv4(A, B, TCP, segment(mark - 1, 2**31)), mark=mark)


def test_datagrams_and_echoes_are_all_kept():
    assert kept(ipv4(A, B, UDP, udp(5, 53, b"anything")), "udp")
    assert kept(ipv4(A, B, UDP, udp(5, 53, b"anything")), "dns")
    assert kept(ipv4(A, B, ICMP, icmp(8, 0, 0, b"anything")), "icmp")
    assert not kept(ipv4(A, B, TCP, segment(MARK)), "udp")


def test_ipv6():
    assert kept(ipv6("fd00::1", "fd00::2", TCP, segment(MARK)), version=6)
    assert kept(ipv6("fd00::2", "fd00::1", TCP, segment(9, MARK + 1)), version=6)
    assert kept(ipv6("fd00::1", "ff02::1", 58, icmp(135, 0, 0, bytes(16))), version=6)
    assert not kept(ipv6("fd00::1", "fd00::2", TCP, segment(MARK - 1)), version=6)
