"""The tcp probe: does a connection come about, and with whom."""

from __future__ import annotations

import contextlib
import socket
import time

from testbed.plan import Flow
from testbed.probe.facts import facts_of
from testbed.probe.opening import over_tcp
from testbed.probe.result import Answer
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets

QUESTION = b"testbed probe\n"
LONGEST_LINE = 65536


def tcp(sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer:  # noqa: ARG001 (Probe)
    """Connect. A flow that checks `seen_as` or `answered_by` then asks, in one line, as the echo program answers.

    Other flows send nothing, for a server of another protocol would take it amiss.
    """
    asks = bool(flow.seen_as or flow.answered_by)

    def talk(sock: socket.socket) -> Answer:
        line = _ask(sock) if asks else b""
        facts = facts_of(line)
        return Answer(
            "ok",
            f"{flow.address} port {flow.port} accepted the connection",
            seen_as=facts.seen_as,
            answered_by=facts.answered_by,
            answered_on=facts.answered_on,
            evidence=(line.decode(errors="replace").rstrip(),) if line else (),
        )

    return over_tcp(sockets, flow, mark, talk)


def _ask(sock: socket.socket) -> bytes:
    """The line a server answers; what came of it, if it is none of ours, too slow or closes the connection."""
    line = b""
    ends = time.monotonic() + (sock.gettimeout() or 0)
    with contextlib.suppress(OSError):  # the connection itself has come about, which is what the outcome says
        sock.sendall(QUESTION)
        while not line.endswith(b"\n") and len(line) < LONGEST_LINE and (left := ends - time.monotonic()) > 0:
            sock.settimeout(left)
            data = sock.recv(4096)
            if not data:
                break
            line += data
    return line
