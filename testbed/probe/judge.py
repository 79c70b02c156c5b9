"""Is this the answer the flow must give? Pure, and the only place that compares."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from testbed.plan import Flow
from testbed.probe.result import Answer, Place, Verdict

WISHES = {
    "ok": "an answer",
    "refused": "to be refused",
    "timeout": "no answer",
    "reset": "the connection to be reset",
    "unreachable": "to be told that it is unreachable",
}


def judge(flow: Flow, answer: Answer, path: Sequence[Place]) -> Verdict:
    """Compare an answer with what its flow expects.

    The contents of an answer are compared only where one came; the path always is, for a packet that is dropped has
    gone some way too. An HTTP flow that names no status expects one below 400.

    Args:
        path: those places of the flow's `via` and `not_via` that its packets reached.
    """
    reasons = [*_outcome(flow, answer)]
    if answer.outcome == flow.expect == "ok":
        reasons += [*_parties(flow, answer), *_status(flow, answer), *_contents(flow, answer)]
    reasons += _path(flow, path)
    return Verdict(flow, answer, passed=not reasons, reasons=tuple(reasons), path=tuple(path))


def _outcome(flow: Flow, answer: Answer) -> Iterator[str]:
    if answer.outcome != flow.expect:
        yield f"expected {WISHES[flow.expect]}, but {answer.detail}"


def _parties(flow: Flow, answer: Answer) -> Iterator[str]:
    if flow.seen_as and not _same_address(flow.seen_as, (answer.seen_as,)):
        found = f"saw {answer.seen_as}" if answer.seen_as else "did not say whom it saw"
        yield f"expected the server to see {_any(flow.seen_as)} as its client, but it {found}"
    if flow.answered_by and not {answer.answered_by, answer.answered_on} & set(flow.answered_by):
        yield f"expected {_any(flow.answered_by)} to answer, but {_server(answer)}"
    hops = [hop.strip() for hop in answer.forwarded_for.split(",") if hop.strip()]
    if flow.forwarded_for and not _same_address(flow.forwarded_for, hops):
        found = f"it held {answer.forwarded_for!r}" if hops else "the backend got no such header, or did not say"
        yield f"expected X-Forwarded-For to hold {_any(flow.forwarded_for)}, but {found}"


def _server(answer: Answer) -> str:
    if not answer.answered_by:
        return "the server did not say who it is"
    where = f" on {answer.answered_on}" if answer.answered_on not in {"", answer.answered_by} else ""
    return f"{answer.answered_by}{where} did"


def _status(flow: Flow, answer: Answer) -> Iterator[str]:
    if flow.protocol != "http":
        return
    if flow.status and answer.status != flow.status:
        yield f"expected HTTP status {flow.status}, but it was {answer.status}"
    if not flow.status and answer.status >= 400:
        yield f"expected an HTTP status below 400, but it was {answer.status}"


def _contents(flow: Flow, answer: Answer) -> Iterator[str]:
    if flow.output and flow.output not in answer.output:
        yield f"expected the output to contain {flow.output!r}, but it was {_short(answer.output)!r}"
    if flow.answer and not _same_address((flow.answer,), answer.output.split()):
        yield f"expected {flow.query} to have the address {flow.answer}, but it has {answer.output or 'none'}"


def _path(flow: Flow, path: Sequence[Place]) -> Iterator[str]:
    for place in flow.via:
        if place not in path:
            yield f"expected the packets to go by {_place(place)}, but none did"
    for place in flow.not_via:
        if place in path:
            yield f"expected no packet to go by {_place(place)}, but at least one did"


def _place(place: Place) -> str:
    node, vrf = place
    return f"{node} (VRF {vrf})" if vrf else node


def _any(names: Sequence[str]) -> str:
    return " or ".join(names)


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


def _same_address(wanted: Sequence[str], found: Sequence[str]) -> bool:
    return not {_canonical(text) for text in wanted}.isdisjoint({_canonical(text) for text in found if text})


def _canonical(text: str) -> str:
    """One spelling for each address: IPv6 has many, and IPv4 can be mapped into it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
