"""What a frame holds: headers, tunnels, fragments, ICMP errors with what they quote, ARP and neighbour discovery."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_frames import ACK, ICMP, IPIP, RST, SYN, TCP, UDP, arp, frame, icmp, ipv4, ipv6, tcp, udp, vxlan

from testbed.trace.packet import Ends, Frame, Neighbour, Packet, decode, words

A, B = "10.0.0.1", "10.0.0.2"
SEGMENT = tcp(1000, 80, 5, 9, SYN | ACK)


def packet(data: bytes) -> Packet:
    found = decode(frame(0, "n", "eth0", "in", data))
    assert isinstance(found, Packet)
    return found


def test_tcp():
    found = packet(ipv4(A, B, TCP, tcp(1000, 80, 5, 9, ACK, b"hello"), ttl=61, ident=300))
    assert found.ends == Ends(A, B, 1000, 80)
    assert (found.seq, found.ack, found.flags, found.payload, found.payload_length) == (5, 9, ACK, b"hello", 5)
    assert (found.ttl, found.ident, found.length, found.tunnels) == (61, 300, 45, ())


def test_ipv6():
    found = packet(ipv6("fd00::1", "fd00::2", TCP, SEGMENT))
    assert found.ends == Ends("fd00::1", "fd00::2", 1000, 80)
    assert str(found.ends) == "[fd00::1]:1000 → [fd00::2]:80"
    assert found.length == 60


@pytest.mark.parametrize(
    ("data", "tunnel", "carrier"),
    [
        (
            ipv4("1.1.1.1", "2.2.2.2", IPIP, ipv4(A, B, TCP, SEGMENT), ttl=9),
            "ipip 1.1.1.1 → 2.2.2.2",
            Ends("1.1.1.1", "2.2.2.2"),
        ),
        *(
            (
                ipv4("1.1.1.1", "2.2.2.2", UDP, udp(5, port, vxlan(4096, ipv4(A, B, TCP, SEGMENT))), ttl=9),
                "vxlan 4096 1.1.1.1 → 2.2.2.2",
                Ends("1.1.1.1", "2.2.2.2", 5, port),
            )
            for port in (4789, 14789)
        ),
    ],
)
def test_inside_of_a_tunnel(data, tunnel, carrier):
    found = packet(data)
    assert found.ends == Ends(A, B, 1000, 80)
    assert found.tunnels == (tunnel,)
    assert (found.carrier.ends, found.carrier.ttl, found.ttl) == (carrier, 9, 64)


def test_later_fragment_has_no_ports():
    found = packet(ipv4(A, B, UDP, b"\xff" * 20, fragment=185))
    assert (found.offset, found.more, found.ends) == (1480, False, Ends(A, B))


def test_error_quotes_its_subject():
    subject = ipv4(A, B, TCP, tcp(1000, 80, 77, 0, SYN)[:8])
    found = packet(ipv4("10.0.0.9", A, ICMP, icmp(3, 4, 1400, subject)))
    assert found.is_error
    assert words(found) == "ICMP fragmentation needed"
    assert found.info == 1400
    assert found.quoted is not None
    assert (found.quoted.seq, found.quoted.ends) == (77, Ends(A, B, 1000, 80))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ipv4(A, B, TCP, tcp(1, 2, 3, 0, SYN)), "TCP SYN"),
        (ipv4(A, B, TCP, tcp(1, 2, 3, 4, SYN | ACK)), "TCP SYN-ACK"),
        (ipv4(A, B, TCP, tcp(1, 2, 3, 4, RST | ACK)), "TCP RST"),
        (ipv4(A, B, TCP, tcp(1, 2, 3, 4, ACK, b"12345")), "TCP ACK, 5 bytes"),
        (ipv4(A, B, UDP, udp(1, 2, b"abc")), "UDP 3 bytes"),
        (ipv4(A, B, ICMP, icmp(8, 0, 0, b"")), "ICMP echo request"),
        (ipv4(A, B, ICMP, icmp(11, 0, 0, ipv4(A, B, TCP, SEGMENT))), "ICMP TTL exceeded"),
        (ipv6("fd00::1", "fd00::2", 58, icmp(1, 0, 0, b"")), "ICMPv6 no route"),
        (ipv4(A, B, 89, b""), "IP protocol 89"),
    ],
)
def test_words(data, said):
    assert words(packet(data)) == said


def test_arp_and_neighbour_discovery():
    assert decode(frame(0, "n", "eth0", "out", arp(1, A, B))) == Neighbour(request=True, sender=A, target=B)
    assert decode(frame(0, "n", "eth0", "in", arp(2, B, A))) == Neighbour(request=False, sender=B, target=A)
    target = ipaddress.ip_address("fd00::2").packed
    asked = decode(frame(0, "n", "eth0", "out", ipv6("fd00::1", "ff02::1", 58, icmp(135, 0, 0, target))))
    assert asked == Neighbour(request=True, sender="fd00::1", target="fd00::2")


@given(st.binary(max_size=200), st.sampled_from([0x0800, 0x0806, 0x86DD, 0x88CC]))
def test_anything_can_come(data, kind):
    """What is cut off, or no packet at all, gives nothing rather than an error."""
    found = decode(Frame(0, "n", None, "eth0", "in", kind, data))
    assert found is None or isinstance(found, Packet | Neighbour)


@given(st.data())
def test_cut_off_packets(data):
    whole = ipv4("1.1.1.1", "2.2.2.2", UDP, udp(5, 4789, vxlan(1, ipv4(A, B, TCP, SEGMENT))))
    decode(frame(0, "n", "e", "in", whole[: data.draw(st.integers(1, len(whole)))]))
