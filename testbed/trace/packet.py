"""What a captured frame says: the innermost IP packet, the tunnels around it, or a question of ARP. Pure.

Sources: RFC 791, RFC 8200 (IP), RFC 9293 (TCP), RFC 768 (UDP), RFC 792, RFC 4443 (ICMP), RFC 826 (ARP), RFC 4861 (ND),
RFC 2003 (IPIP), RFC 7348 (VXLAN).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import Literal

from testbed.bpf import (
    IPPROTO_FRAGMENT,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IPIP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    VXLAN_PORTS,
)

ETH_P_ARP, ETH_P_IPV6, ETH_P_IPV4 = 0x0806, 0x86DD, 0x0800
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ERRORS = {IPPROTO_ICMP: {3, 4, 5, 11, 12}, IPPROTO_ICMPV6: {1, 2, 3, 4}}
"""Types of ICMP messages that quote the packet they are about."""
ECHO = {(IPPROTO_ICMP, 8), (IPPROTO_ICMP, 0), (IPPROTO_ICMPV6, 128), (IPPROTO_ICMPV6, 129)}
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
KEPT = 32
"""Bytes of payload by which packets are told apart."""

Way = Literal["in", "out", "other"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One packet as one packet socket saw it.

    Args:
        time: nanoseconds since the epoch, by the kernel's clock, which all namespaces share.
        way: `in`, `out`, or `other` for a frame that came in for another station.
        ethertype: of what `data` begins with. hardware: ARPHRD type of the interface (linux/if_arp.h).
        index: of the interface in its namespace. sender: link-layer address it came from.
    """

    time: int
    node: str
    vrf: str | None
    interface: str
    way: Way
    ethertype: int
    data: bytes
    hardware: int = 1
    index: int = 0
    sender: bytes = b""


@dataclass(frozen=True, slots=True)
class Ends:
    """Who speaks to whom; ports are 0 where a protocol has none (ICMP: the source port is the identifier)."""

    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0

    def __str__(self) -> str:
        return f"{_joined(self.source, self.source_port)} → {_joined(self.destination, self.destination_port)}"

    @property
    def reverse(self) -> Ends:
        return Ends(self.destination, self.source, self.destination_port, self.source_port)


def _joined(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class Packet:
    """The innermost IP packet of a frame.

    Args:
        length: of the IP packet in bytes, by its header. payload: at most KEPT bytes of what the transport carries.
        offset: of a fragment, in bytes; more: whether more fragments follow.
        tunnels: the headers around it, from the outside in, such as "vxlan 4096 172.16.1.2 → 172.16.2.2".
        carrier: the outermost packet, by which those around it are routed that only pass it on; None: it is itself.
        kind, code: of ICMP. quoted: the packet an ICMP error is about. info: ICMP's second word (the MTU, say).
    """

    version: int
    ends: Ends
    protocol: int
    ttl: int
    length: int
    ident: int = 0
    fixed: bool = False
    offset: int = 0
    more: bool = False
    seq: int = 0
    ack: int = 0
    flags: int = 0
    payload: bytes = b""
    payload_length: int = 0
    kind: int = -1
    code: int = 0
    info: int = 0
    quoted: Packet | None = None
    tunnels: tuple[str, ...] = ()
    carrier: Packet | None = None

    @property
    def is_error(self) -> bool:
        return self.kind in ERRORS.get(self.protocol, ())


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A question or answer of ARP or of neighbour discovery: who has `target`?"""

    request: bool
    sender: str
    target: str


def decode(frame: Frame) -> Packet | Neighbour | None:
    """What a frame holds; None when it is neither IP nor ARP, or cut off too early."""
    try:
        if frame.ethertype == ETH_P_ARP:
            return _arp(frame.data)
        if frame.ethertype in (ETH_P_IPV4, ETH_P_IPV6):
            packet = _ip(frame.data, ())
            return _discovery(packet) or packet
    except (struct.error, IndexError, ValueError):
        pass
    return None


def _arp(data: bytes) -> Neighbour | None:
    kind, protocol, _, size, operation = struct.unpack_from("!HHBBH", data)
    if (kind, protocol, size) != (1, ETH_P_IPV4, 4):
        return None
    sender, target = data[14:18], data[24:28]
    return Neighbour(operation == 1, str(ipaddress.IPv4Address(sender)), str(ipaddress.IPv4Address(target)))


def _discovery(packet: Packet) -> Neighbour | None:
    if packet.protocol != IPPROTO_ICMPV6 or packet.kind not in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        return None
    target = str(ipaddress.IPv6Address(packet.payload[:16]))
    request = packet.kind == NEIGHBOUR_SOLICITATION
    return Neighbour(request, packet.ends.source if request else target, target)


def _ip(data: bytes, tunnels: tuple[str, ...]) -> Packet:
    return _ipv6(data, tunnels) if data[0] >> 4 == 6 else _ipv4(data, tunnels)


def _ipv4(data: bytes, tunnels: tuple[str, ...]) -> Packet:
    first, _, length, ident, fragment, ttl, protocol, _ = struct.unpack_from("!BBHHHBBH", data)
    if first >> 4 != 4:
        raise ValueError("no IPv4")
    header = (first & 0x0F) * 4
    packet = Packet(
        4,
        Ends(str(ipaddress.IPv4Address(data[12:16])), str(ipaddress.IPv4Address(data[16:20]))),
        protocol,
        ttl,
        length,
        ident,
        bool(fragment & 0x4000),
        (fragment & 0x1FFF) * 8,
        bool(fragment & 0x2000),
        tunnels=tunnels,
    )
    return packet if packet.offset else _transport(packet, data[header:], length - header)


def _ipv6(data: bytes, tunnels: tuple[str, ...]) -> Packet:
    _, length, protocol, ttl = struct.unpack_from("!IHBB", data)
    source, destination = (str(ipaddress.IPv6Address(data[start : start + 16])) for start in (8, 24))
    packet = Packet(6, Ends(source, destination), protocol, ttl, length + 40, tunnels=tunnels)
    rest, size = data[40:], length
    if protocol == IPPROTO_FRAGMENT:
        protocol, _, fragment, ident = struct.unpack_from("!BBHI", rest)
        packet = replace(packet, protocol=protocol, ident=ident, offset=fragment & 0xFFF8, more=bool(fragment & 1))
        rest, size = rest[8:], size - 8
    return packet if packet.offset else _transport(packet, rest, size)


def _transport(packet: Packet, data: bytes, size: int) -> Packet:
    match packet.protocol:
        case _ if packet.protocol == IPPROTO_IPIP:
            return replace(_ip(data, (*packet.tunnels, f"ipip {packet.ends}")), carrier=packet)
        case _ if packet.protocol == IPPROTO_TCP:
            return _tcp(packet, data, size)
        case _ if packet.protocol == IPPROTO_UDP:
            return _udp(packet, data, size)
        case _ if packet.protocol in ERRORS:
            return _icmp(packet, data, size)
    return packet


def _tcp(packet: Packet, data: bytes, size: int) -> Packet:
    """A TCP segment; of one that an ICMP error quotes there may be no more than 8 bytes (RFC 792)."""
    source, destination, seq = struct.unpack_from("!HHI", data)
    ends = replace(packet.ends, source_port=source, destination_port=destination)
    if len(data) < 14:
        return replace(packet, ends=ends, seq=seq)
    ack, offset, flags = struct.unpack_from("!IBB", data, 8)
    header = (offset >> 4) * 4
    return replace(
        packet,
        ends=ends,
        seq=seq,
        ack=ack,
        flags=flags,
        payload=data[header : header + KEPT],
        payload_length=max(size - header, 0),
    )


def _udp(packet: Packet, data: bytes, size: int) -> Packet:
    source, destination = struct.unpack_from("!HH", data)
    tunnel = destination in VXLAN_PORTS
    if tunnel and len(data) >= 16 + 14 + 20 and data[28:30] in (b"\x08\x00", b"\x86\xdd"):
        network = int.from_bytes(data[12:15], "big")
        carrier = replace(packet, ends=replace(packet.ends, source_port=source, destination_port=destination))
        return replace(_ip(data[30:], (*packet.tunnels, f"vxlan {network} {packet.ends}")), carrier=carrier)
    ends = replace(packet.ends, source_port=source, destination_port=destination)
    length = int.from_bytes(data[4:6], "big") or size  # of the whole datagram, also in its first fragment
    return replace(packet, ends=ends, payload=data[8 : 8 + KEPT], payload_length=max(length - 8, 0))


def _icmp(packet: Packet, data: bytes, size: int) -> Packet:
    kind, code, _, info = struct.unpack_from("!BBHI", data)
    found = replace(
        packet, kind=kind, code=code, info=info, payload=data[8 : 8 + KEPT], payload_length=max(size - 8, 0)
    )
    if found.is_error:
        return replace(found, quoted=_quoted(data[8:]))
    if (packet.protocol, kind) in ECHO:
        return replace(found, ends=replace(packet.ends, source_port=info >> 16))
    return found


def _quoted(data: bytes) -> Packet | None:
    try:
        return _ip(data, ())
    except (struct.error, IndexError, ValueError):
        return None


ICMP_WORDS = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 9): "network administratively prohibited",
    (3, 10): "host administratively prohibited",
    (3, 13): "administratively prohibited",
    (5, 0): "redirect",
    (5, 1): "redirect",
    (11, 0): "TTL exceeded",
    (11, 1): "fragment reassembly time exceeded",
}
ICMPV6_WORDS = {
    (1, 0): "no route",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "failed policy",
    (1, 6): "rejected by a route",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
}


def words(packet: Packet) -> str:
    """What a packet is, in few words: "TCP SYN", "UDP 15 bytes", "ICMP host unreachable"."""
    if packet.protocol == IPPROTO_TCP:
        names = [name for bit, name in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST")) if packet.flags & bit]
        if packet.flags & ACK and (not names or names == ["SYN"]):
            names.append("ACK")
        data = f", {packet.payload_length} bytes" if packet.payload_length else ""
        return f"TCP {'-'.join(names)}{data}"
    if packet.protocol == IPPROTO_UDP:
        return f"UDP {packet.payload_length} bytes"
    if packet.protocol in ERRORS:
        name, known = ("ICMP", ICMP_WORDS) if packet.version == 4 else ("ICMPv6", ICMPV6_WORDS)
        echo = {8: "echo request", 0: "echo reply", 128: "echo request", 129: "echo reply"}
        if (packet.protocol, packet.kind) in ECHO:
            return f"{name} {echo[packet.kind]}"
        return f"{name} {known.get((packet.kind, packet.code), f'type {packet.kind} code {packet.code}')}"
    return f"IP protocol {packet.protocol}"
