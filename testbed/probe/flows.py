"""Asks the questions of a lab, many at a time, and judges the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Protocol as Interface

from testbed.errors import TestbedError
from testbed.plan import Flow, Protocol
from testbed.probe.judge import judge
from testbed.probe.passage import new_mark, watch
from testbed.probe.result import Answer, Verdict
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets

LOGINS = 8
"""How many logins go on at a time."""


class Probe(Interface):
    """How one protocol is asked.

    Args of a call:
        sockets: opens the socket in the flow's source.
        secrets: keys, for ssh.
        mark: what the first packet shall carry (see `passage`); 0: the flow is not watched.

    Whatever the network does is an Answer. ProbeError and NoSuchNodeError say that nothing could be asked.
    """

    def __call__(self, sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer: ...


def probe_for(protocol: Protocol) -> Probe:
    """The probe of a protocol. Its module, and the library it speaks with, are imported only now."""
    match protocol:
        case "tcp":
            from testbed.probe.tcp import tcp

            return tcp
        case "udp":
            from testbed.probe.udp import udp

            return udp
        case "icmp":
            from testbed.probe.icmp import icmp

            return icmp
        case "http":
            from testbed.probe.http import http

            return http
        case "ssh":
            from testbed.probe.ssh import ssh

            return ssh
        case "dns":
            from testbed.probe.dns import resolve

            return resolve


def warm_up(protocols: Iterable[Protocol]) -> None:
    """Import what these protocols need (paramiko: 0.2 s), so that no probe has to. Meant for a thread of its own."""
    for protocol in sorted(set(protocols)):
        probe_for(protocol)


def run(
    flows: Sequence[Flow],
    sockets: Sockets,
    secrets: Secrets = NO_SECRETS,
    on_verdict: Callable[[Verdict], None] = lambda _: None,
    parallel: int = 16,
) -> list[Verdict]:
    """Ask every flow once, `parallel` at a time.

    Args:
        on_verdict: called with each verdict as soon as it is known, in the caller's thread.

    Returns the verdicts in the order of `flows`. A flow that could not be asked at all has failed, with the reason.
    """
    warm_up(flow.protocol for flow in flows)
    verdicts: dict[int, Verdict] = {}
    told: SimpleQueue[tuple[int, Verdict] | BaseException] = SimpleQueue()
    ended = Event()

    def go(lane: Sequence[int]) -> None:
        try:
            for index in lane:
                if not ended.is_set():
                    told.put((index, ask(flows[index], sockets, secrets)))
        except BaseException as error:  # raised again in the caller's thread
            told.put(error)

    pool = ThreadPoolExecutor(parallel, thread_name_prefix="probe")
    try:
        for lane in lanes(flows):
            pool.submit(go, lane)
        while len(verdicts) < len(flows):
            news = told.get()
            if isinstance(news, BaseException):
                raise news
            verdicts[news[0]] = news[1]
            on_verdict(news[1])
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
    return [verdicts[index] for index in range(len(flows))]


def lanes(flows: Sequence[Flow]) -> list[list[int]]:
    """The indexes of the flows in groups; the flows of a group are asked one after the other.

    Those of one source that may be answered by an ICMP error form a group, for a router sends few of them to one host:
    six and then one a second (icmp_ratelimit), for an unreachable route five and then one a second, whatever the
    sysctls of its namespace say (ip_error in net/ipv4/route.c of Linux). Asked together, the last would wait too long.

    The logins form as many groups as sshd takes at a time before it turns clients away (MaxStartups, 10).
    """
    groups: dict[tuple[str, str | int], list[int]] = {}
    logins = 0
    for index, flow in enumerate(flows):
        lane: tuple[str, str | int] = ("flow", index)
        if flow.expect in {"unreachable", "refused"}:
            lane = ("source", flow.source)
        elif flow.protocol == "ssh":
            lane = ("login", logins % LOGINS)
            logins += 1
        groups.setdefault(lane, []).append(index)
    return list(groups.values())


def ask(flow: Flow, sockets: Sockets, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Verdict:
    """Ask one flow, watch the places it names, and judge.

    Args:
        mark: what its first packet shall carry; 0: whatever suits.
    """
    probe = probe_for(flow.protocol)
    try:
        if not flow.via and not flow.not_via:
            return judge(flow, probe(sockets, flow, secrets, mark), ())
        mark = mark or new_mark(flow.protocol)
        with watch(sockets, flow, mark) as reached:
            answer = probe(sockets, flow, secrets, mark)
            return judge(flow, answer, reached())
    except TestbedError as error:
        detail = f"the question could not be asked: {error}"
        return Verdict(flow, Answer("error", detail), passed=False, reasons=(detail,))
