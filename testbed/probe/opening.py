"""What every probe begins with: a socket of the source's namespace, an address, and how long to wait.

A TCP or ICMP flow can be marked: its first packet then carries a number that no router, tunnel or address translation
changes, by which `passage` knows it anywhere in the network.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace

from testbed.errors import ProbeError
from testbed.patience import stretched
from testbed.plan import Expectation, Flow
from testbed.probe.failure import failed
from testbed.probe.result import Answer
from testbed.runtime.base import Sockets

# The least number of seconds to wait where an answer is expected: a lost first SYN is sent again after 1 s (RFC 6298,
# section 2), and address resolution gives up, and says so, after 3 requests 1 s apart (RFC 4861, section 10).
LEAST: dict[Expectation, float] = {"ok": 3.0, "refused": 3.0, "reset": 3.0, "unreachable": 4.0, "timeout": 0.0}

# linux/tcp.h; Python names none of them.
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_REPAIR_ON, TCP_REPAIR_OFF_NO_WP, TCP_SEND_QUEUE = 1, -1, 2


def patience(flow: Flow) -> float:
    """Seconds to wait for an answer: the flow's timeout, and more where an answer is expected but may take its time."""
    return stretched(max(flow.timeout, LEAST[flow.expect]))


def family_of(flow: Flow) -> socket.AddressFamily:
    """AF_INET or AF_INET6. Raises ProbeError when the flow's address is a name, or needs a zone ("fe80::1%eth0")."""
    try:
        address = ipaddress.ip_address(flow.address)
    except ValueError as error:
        raise ProbeError(f'flow "{flow.name}": {flow.address!r} is not an IP address') from error
    if isinstance(address, ipaddress.IPv4Address):
        return socket.AF_INET
    if address.is_link_local:
        raise ProbeError(f'flow "{flow.name}": probing a link-local address ({flow.address}) is not supported')
    return socket.AF_INET6


def open_socket(sockets: Sockets, flow: Flow, kind: int, protocol: int = 0) -> socket.socket:
    """A new socket in the flow's source. Raises ProbeError when the system refuses to open one."""
    try:
        return sockets.socket(flow.source, None, family_of(flow), kind, protocol)
    except OSError as error:
        raise ProbeError(f'flow "{flow.name}": no socket could be opened in {flow.source}: {error}') from error


def local_port(sock: socket.socket) -> int:
    """The port a socket is bound to; 0 when it has none (any more)."""
    with contextlib.suppress(OSError):
        return int(sock.getsockname()[1])
    return 0


def over_tcp(
    sockets: Sockets, flow: Flow, mark: int, talk: Callable[[socket.socket], Answer], least: float = 0.0
) -> Answer:
    """Connect to the flow's target, once, and let `talk` turn the connected socket into an answer.

    Args:
        mark: what the flow's first packet shall carry as its sequence number; 0: whatever the kernel chooses.
        talk: gets the socket with a timeout set. Its OSErrors become outcomes.
        least: seconds that `talk` has at least for each step.
    """
    started = time.monotonic()
    with open_socket(sockets, flow, socket.SOCK_STREAM) as sock:
        if mark:
            choose_sequence_number(sock, mark)
        port = 0
        try:
            sock.settimeout(patience(flow))
            sock.connect((flow.address, flow.port))
            port = local_port(sock)
            sock.settimeout(max(patience(flow), stretched(least)))
            answer = talk(sock)
        except OSError as error:
            answer = failed(flow, error)
        return replace(answer, latency=time.monotonic() - started, local_port=port or local_port(sock))


def choose_sequence_number(sock: socket.socket, number: int) -> None:
    """Let the SYN of an unconnected TCP socket carry `number` (1 to 2^32-1) as its initial sequence number.

    tcp_v4_connect and tcp_v6_connect draw a number only where write_seq is 0; TCP_REPAIR, made for moving connections
    between hosts (tcp(7), needs CAP_NET_ADMIN), sets it. Raises ProbeError when the kernel refuses.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", number))
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
    except OSError as error:
        raise ProbeError(f"via and notVia need TCP_REPAIR, which this kernel refuses: {error}") from error
