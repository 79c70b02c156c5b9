"""The udp probe: a datagram to the labs' echo program, or to anything that answers one."""

from __future__ import annotations

import socket

from testbed.plan import Flow
from testbed.probe.datagram import exchange, over_datagrams
from testbed.probe.facts import facts_of
from testbed.probe.result import Answer
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets

QUESTION = b" testbed probe\n"


def udp(sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer:  # noqa: ARG001 (Probe)
    """Send a datagram that begins with the mark, and take any answer from the target's address and port for one."""

    def talk(sock: socket.socket) -> Answer:
        data = exchange(sock, flow, mark.to_bytes(4, "big") + QUESTION, lambda received: received)
        facts = facts_of(data)
        return Answer(
            "ok",
            f"{flow.address} port {flow.port} answered",
            seen_as=facts.seen_as,
            answered_by=facts.answered_by,
            answered_on=facts.answered_on,
            evidence=(data[:1000].decode(errors="replace"),),
        )

    return over_datagrams(sockets, flow, (socket.SOCK_DGRAM, 0), talk)
