"""Questions in single packets: sent again each second, as TCP does; ICMP errors reach the asker.

IP_RECVERR makes the kernel hand every ICMP error to a connected socket, also those that it keeps from it otherwise
(host and network unreachable), together with the packet that caused it and who said so (ip(7), ipv6(7)).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from testbed.plan import Flow
from testbed.probe.failure import failed
from testbed.probe.opening import local_port, open_socket, patience
from testbed.probe.result import Answer
from testbed.runtime.base import Sockets

T = TypeVar("T")

# linux/in.h, linux/in6.h; the socket module does not name them in every supported Python.
IP_RECVERR, IPV6_RECVERR = 11, 25
AGAIN = 1.0
"""Seconds until an unanswered packet is sent again."""


def over_datagrams(
    sockets: Sockets, flow: Flow, kind: tuple[int, int], talk: Callable[[socket.socket], Answer]
) -> Answer:
    """Let `talk` turn a socket of this (type, protocol), connected to the flow's target, into an answer."""
    started = time.monotonic()
    with open_socket(sockets, flow, *kind) as sock:
        try:
            connect(sock, (flow.address, flow.port))
            answer = talk(sock)
        except OSError as error:
            answer = failed(flow, error)
        port = local_port(sock) if kind[0] == socket.SOCK_DGRAM else 0
        return replace(answer, latency=time.monotonic() - started, local_port=answer.local_port or port)


def connect(sock: socket.socket, address: tuple[str, int]) -> None:
    """Fix the peer of a datagram or raw socket, and have ICMP errors reported on it."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sock.connect(address)


def exchange(
    sock: socket.socket,
    flow: Flow,
    payload: bytes,
    accept: Callable[[bytes], T | None],
    ours: Callable[[bytes], bool] = lambda _: True,
) -> T:
    """Send `payload` until something comes back.

    Args:
        accept: what a packet that came in means; None: it is not the answer.
        ours: whether an ICMP error that quotes this payload concerns us.

    Raises:
        TimeoutError: nothing acceptable came in the flow's time.
        OSError: with the errno of the ICMP error; who said so is added as a note.
    """
    ends = time.monotonic() + patience(flow)
    while (now := time.monotonic()) < ends:
        _send(sock, payload, ours)
        answer = _receive(sock, min(now + AGAIN, ends), accept, ours)
        if answer is not None:
            return answer
    raise TimeoutError


def _send(sock: socket.socket, payload: bytes, ours: Callable[[bytes], bool]) -> None:
    """Send, also when errors that do not concern us wait on the socket: each of them makes one send fail."""
    while True:
        try:
            sock.send(payload)
        except OSError:
            if not _drain(sock, ours):
                raise
        else:
            return


def _receive(
    sock: socket.socket, ends: float, accept: Callable[[bytes], T | None], ours: Callable[[bytes], bool]
) -> T | None:
    while (left := ends - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data = sock.recv(65535)
        except TimeoutError:
            return None
        except OSError:
            if not _drain(sock, ours):
                raise
            continue
        answer = accept(data)
        if answer is not None:
            return answer
    return None


def _drain(sock: socket.socket, ours: Callable[[bytes], bool]) -> int:
    """Empty the queue of errors, and raise the first that concerns us. Returns how many there were."""
    count = 0
    while True:
        try:
            quoted, controls, _, _ = sock.recvmsg(512, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return count
        count += 1
        for level, kind, data in controls:
            if (level, kind) in {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)} and ours(quoted):
                raise _error(data)


def _error(data: bytes) -> OSError:
    """The error in a `struct sock_extended_err` and the address after it (linux/errqueue.h)."""
    number, origin, kind, code = struct.unpack_from("=IBBB", data)
    error = OSError(number, os.strerror(number))
    offender = _address(data[16:])
    if offender:
        error.add_note(f"{offender} sent ICMP{'v6' if origin == 3 else ''} type {kind} code {code}")
    return error


def _address(data: bytes) -> str:
    family = struct.unpack_from("=H", data)[0] if len(data) >= 2 else 0
    if family == socket.AF_INET and len(data) >= 8:
        return socket.inet_ntop(socket.AF_INET, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24])
    return ""
