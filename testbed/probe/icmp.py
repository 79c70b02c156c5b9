"""The icmp probe: an echo request (RFC 792, RFC 4443), through a raw socket.

Raw, because the kernel's own ping sockets are closed to everyone in a new network namespace (ping_group_range "1 0").
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace

from testbed.plan import Flow
from testbed.probe.datagram import exchange, over_datagrams
from testbed.probe.opening import family_of
from testbed.probe.result import Answer
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets

ECHO_REQUEST, ECHO_REPLY = 8, 0
ECHO_REQUEST_V6, ECHO_REPLY_V6 = 128, 129
PADDING = b"testbed probe"


def icmp(sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer:  # noqa: ARG001 (Probe)
    """Send an echo request whose data begins with the mark. The answer's `local_port` is the identifier."""
    version = 4 if family_of(flow) == socket.AF_INET else 6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    identifier = int.from_bytes(os.urandom(2), "big")
    data = mark.to_bytes(4, "big") + PADDING

    def talk(sock: socket.socket) -> Answer:
        request = echo_request(version, identifier, data)
        exchange(
            sock,
            flow,
            request,
            lambda packet: is_reply(version, packet, identifier, data) or None,
            lambda quoted: quoted[4:6] == request[4:6],
        )
        return Answer("ok", f"{flow.address} answered the echo request")

    return replace(over_datagrams(sockets, flow, (socket.SOCK_RAW, protocol), talk), local_port=identifier)


def echo_request(version: int, identifier: int, data: bytes) -> bytes:
    """An echo request with sequence number 1. The kernel fills in the checksum of ICMPv6, not that of ICMP."""
    if version == 6:
        return struct.pack("!BBHHH", ECHO_REQUEST_V6, 0, 0, identifier, 1) + data
    blank = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, 1) + data
    return blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]


def is_reply(version: int, packet: bytes, identifier: int, data: bytes) -> bool:
    """Whether what a raw socket received (IPv4: with the IP header) answers our request."""
    message = packet[(packet[0] & 0x0F) * 4 :] if version == 4 else packet
    if len(message) < 8:
        return False
    kind, _, _, of, sequence = struct.unpack_from("!BBHHH", message)
    expected = ECHO_REPLY if version == 4 else ECHO_REPLY_V6
    return (kind, of, sequence, message[8:]) == (expected, identifier, 1, data)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[index : index + 2], "big") for index in range(0, len(padded), 2))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
