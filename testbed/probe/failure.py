"""The one place where the errors of sockets become outcomes.

refused
    ECONNREFUSED: a TCP reset in answer to the SYN; ICMP or ICMPv6 port unreachable (netfilter's default REJECT).
    ENOPROTOOPT: ICMP protocol unreachable.
unreachable
    EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENONET: ICMP host or network unreachable or administratively prohibited, hop
    limit exceeded; no route, or an `unreachable` one, at the source.
    EACCES: ICMPv6 administratively prohibited or rejected by a route; a `prohibit` route at the source.
    EADDRNOTAVAIL: the source has no address that it could use.
timeout
    ETIMEDOUT, or a wait that ended: nobody said anything.
    EPERM: the packet filter of the source itself dropped the packet (TCP is not told of that, and waits).
    EINVAL: a `blackhole` route at the source, which is a silent drop wherever else it stands.
reset
    ECONNRESET: a TCP reset on a connection that had come about.
error
    Anything else.

Source: icmp_err_convert in net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c, fib_props in net/ipv4/fib_semantics.c and
nf_hook_slow in net/netfilter/core.c of Linux.
"""

from __future__ import annotations

import errno
import os

from testbed.plan import Flow
from testbed.probe.result import Answer, Outcome

OUTCOMES: dict[int, Outcome] = {
    errno.ECONNREFUSED: "refused",
    errno.ENOPROTOOPT: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENONET: "unreachable",
    errno.EACCES: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EPERM: "timeout",
    errno.EINVAL: "timeout",
}

MEANINGS: dict[int, str] = {
    errno.EPERM: "the source's own packet filter dropped it",
    errno.EINVAL: "a blackhole route at the source dropped it",
    errno.EACCES: "administratively prohibited",
    errno.EADDRNOTAVAIL: "the source has no address to use",
}


def outcome_of(error: OSError) -> Outcome:
    """The outcome that an error of connect, send or receive stands for."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return OUTCOMES.get(error.errno or 0, "error")


def failed(flow: Flow, error: OSError) -> Answer:
    """The answer when `error` ended the probe of `flow`."""
    outcome = outcome_of(error)
    where = f"{flow.address} port {flow.port}" if flow.port else flow.address
    reason = _reason(error)
    sentences: dict[Outcome, str] = {
        "refused": f"{where} refused it",
        "unreachable": f"{where} is unreachable",
        "timeout": f"{where} did not answer",
        "reset": f"{where} reset the connection",
        "error": f"the exchange with {where} broke off",
    }
    detail = sentences[outcome] + (f" ({reason})" if reason else "")
    return Answer(outcome, detail, evidence=tuple(getattr(error, "__notes__", ())))


def _reason(error: OSError) -> str:
    number = error.errno or 0
    if not number:
        return str(error)
    return f"{MEANINGS.get(number, os.strerror(number))}, {errno.errorcode.get(number, str(number))}"
