"""Walks for a terminal: aligned steps, what decided each, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.plan import Plan
from testbed.probe.result import Verdict
from testbed.report.flows import source, target
from testbed.report.words import columns, count
from testbed.trace.evidence import HopFacts
from testbed.trace.tracer import Trace
from testbed.trace.walk import Hop, Path, Walk

TITLES = {"request": "request", "reply": "reply", "error": "ICMP error"}


def walk_lines(trace: Trace[Verdict]) -> list[str]:
    """The walk of a flow as lines: a title, the steps there and back, errors, and the verdict."""
    flow, walk = trace.flow, trace.walk
    port = f" port {flow.port}" if flow.port else ""
    lines = [f"{flow.name}: {source(flow)} → {target(flow)} ({flow.address}{port}, {flow.protocol})"]
    if walk.forward:
        lines += ["", *_path(walk.forward, trace.forward)]
    if walk.back:
        lines += ["", *_path(walk.back, trace.back)]
    for error in walk.errors[:1]:
        lines += ["", *_path(error, ())]
    shown = (walk.forward, walk.back, *walk.errors[:1])
    if walk.lost and trace.cause and walk.lost not in shown:
        lines += ["", *_path(walk.lost, ())]
    return [*lines, "", *_end(trace)]


def _path(path: Path, facts: Sequence[HopFacts]) -> Iterator[str]:
    copies = f", sent {path.copies} times" if path.copies > 1 else ""
    yield f"{TITLES[path.direction]}: {path.words}{copies}"
    rows = [_row(number, hop) for number, hop in enumerate(path.hops, 1)]
    lines = columns(rows, indent="  ")
    indent = " " * (2 + max(len(row[0]) for row in rows) + 2)
    for index, line in enumerate(lines):
        yield line
        for more in _details(facts[index]) if index < len(facts) else ():
            yield f"{indent}{more}"
    if not path.delivered:
        yield f"{indent}✗ seen last here"


def _row(number: int, hop: Hop) -> tuple[str, ...]:
    ttl = hop.ttl_out or hop.ttl_in
    tunnel = ", ".join(hop.tunnels_out or hop.tunnels_in)
    side = "out of" if "decapsulated" in hop.changes and hop.left else "in"
    return (
        str(number),
        hop.name,
        f"{_side(hop.interface_in, hop.network_in, hop.vrf)} → {_side(hop.interface_out, hop.network_out, hop.vrf)}",
        str(hop.ends) + (f" {side} {tunnel}" if tunnel else ""),
        _changes(hop),
        f"ttl {ttl}",
        f"+{hop.since / 1000:.0f} µs" if number > 1 else "",
    )


def _side(interface: str, network: str, vrf: str | None) -> str:
    if not interface:
        return "·"
    return f"{interface} ({network})" if network and not vrf else interface


def _changes(hop: Hop) -> str:
    names = {"dnat": "DNAT", "snat": "SNAT"}
    return ", ".join(names.get(change, change) for change in hop.changes)


def _details(facts: HopFacts) -> Iterator[str]:
    if facts.route is not None:
        yield f"route: {facts.route}"
    yield from facts.rewrites
    if facts.connection:
        yield f"connection: {facts.connection}"


def _end(trace: Trace[Verdict]) -> Iterator[str]:
    walk, answer = trace.walk, trace.answer
    yield f"{'✓' if answer.passed else '✗'} {answer.answer.detail}"
    yield from (f"  {reason}" for reason in answer.reasons)
    if trace.cause:
        yield f"why: {trace.cause.sentence}"
        yield from (f"  {line}" for line in trace.cause.evidence)
    yield captured(walk, len(trace.recording.frames), len(trace.recording.places))


def captured(walk: Walk, frames: int, places: int) -> str:
    """How much was captured, and what was lost of it."""
    lost = sum(walk.dropped.values())
    where = ", ".join(f"{node} (VRF {vrf})" if vrf else node for node, vrf in walk.dropped)
    loss = f"{lost} lost at {where}: the walk may have gaps" if lost else "none lost"
    return f"captured {count(frames, 'packet')} in {count(places, 'namespace')}, {loss}"


def cause_lines(trace: Trace[Verdict]) -> list[str]:
    """Why a flow failed, for the text of a failed test: the verdict, its evidence, and where the packets went."""
    if trace.cause is None:
        lines = ["asked again, it was answered; its packets went:"]
    else:
        lines = [f"why: {trace.cause.sentence}", *(f"  {line}" for line in trace.cause.evidence)]
    for path in (trace.walk.forward, trace.walk.back):
        if path:
            lines += ["", *_path(path, ())]
    return lines


def nodes_passed(plan: Plan, walk: Walk) -> list[str]:
    """The nodes that a flow's packets passed, there and back, in that order; pods are their nodes."""
    parents = {node.name: node.parent or node.name for node in plan.nodes}
    return [parents[hop.node] for path in (walk.forward, walk.back) if path for hop in path.hops]
