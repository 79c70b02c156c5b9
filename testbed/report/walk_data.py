"""A walk as plain data, for --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.probe.result import Verdict
from testbed.report.data import verdict_data
from testbed.trace.evidence import HopFacts
from testbed.trace.packet import Ends
from testbed.trace.routing import Decision
from testbed.trace.tracer import Trace
from testbed.trace.walk import Hop, Path

Data = dict[str, Any]


def trace_data(lab: str, trace: Trace[Verdict]) -> Data:
    """A trace; times are in seconds, `time` since the epoch."""
    walk, cause = trace.walk, trace.cause
    return {
        "lab": lab,
        **verdict_data(trace.answer),
        "request": _path(walk.forward, trace.forward),
        "reply": _path(walk.back, trace.back),
        "errors": [_path(path, ()) for path in walk.errors],
        "cause": cause
        and {
            "kind": cause.kind,
            "node": cause.node,
            "vrf": cause.vrf,
            "sentence": cause.sentence,
            "evidence": list(cause.evidence),
        },
        "captured": len(trace.recording.frames),
        "lost": [{"node": node, "vrf": vrf, "packets": lost} for (node, vrf), lost in walk.dropped.items()],
    }


def _path(path: Path | None, facts: Sequence[HopFacts]) -> Data | None:
    if path is None:
        return None
    return {
        "packet": path.words,
        "copies": path.copies,
        "delivered": path.delivered,
        "hops": [_hop(hop, facts[index] if index < len(facts) else None) for index, hop in enumerate(path.hops)],
    }


def _hop(hop: Hop, facts: HopFacts | None) -> Data:
    return {
        "node": hop.node,
        "vrf": hop.vrf,
        "in": hop.interface_in,
        "out": hop.interface_out,
        "through": list(hop.through),
        "vrfIn": hop.network_in,
        "vrfOut": hop.network_out,
        "arrived": _ends(hop.arrived),
        "left": _ends(hop.left),
        "changes": list(hop.changes),
        "tunnels": list(hop.tunnels_out or hop.tunnels_in),
        "ttlIn": hop.ttl_in,
        "ttlOut": hop.ttl_out,
        "time": hop.time / 1e9,
        "since": hop.since / 1e9,
        "length": hop.length,
        **(
            {"route": _route(facts.route), "rewrites": list(facts.rewrites), "connection": facts.connection}
            if facts
            else {}
        ),
    }


def _ends(ends: Ends | None) -> Data | None:
    if ends is None:
        return None
    return {
        "source": ends.source,
        "destination": ends.destination,
        "sourcePort": ends.source_port,
        "destinationPort": ends.destination_port,
    }


def _route(route: Decision | None) -> Data | None:
    if route is None:
        return None
    return {
        "to": route.to,
        "ways": [{"via": via, "dev": dev} for via, dev in route.ways],
        "kind": route.kind,
        "table": route.table,
        "rule": route.rule,
        "mark": route.mark,
        "error": route.error,
    }
