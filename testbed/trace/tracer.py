"""Traces one flow of a live lab: captures while it is asked, makes the walk, and explains what went wrong."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from testbed.plan import Flow, Plan
from testbed.runtime.base import NodeState, Runtime
from testbed.trace.announced import withheld
from testbed.trace.capture import Recording, capture
from testbed.trace.case import Case
from testbed.trace.context import Context, Fault
from testbed.trace.counters import counters, risen
from testbed.trace.deviations import absent, deviations
from testbed.trace.evidence import Cause, HopFacts, Scene
from testbed.trace.forms import WINDOW, program
from testbed.trace.inquire import Inquiry
from testbed.trace.journeys import Question
from testbed.trace.map import Map, Place
from testbed.trace.packet import Ends
from testbed.trace.routing import Decision
from testbed.trace.scene import at_origin, look
from testbed.trace.verdict import explain
from testbed.trace.walk import Path, Walk, is_reset, walk

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Trace(Generic[Answer]):
    """One flow, asked and watched.

    Args:
        answer: what asking it brought. lab: the map that the walk was made with.
        forward, back: what the live lab says of the hops of the walk's first packet, and of the first of the answer.
        cause: why it failed; None: it did not, or nobody asked.
    """

    flow: Flow
    answer: Answer
    walk: Walk
    recording: Recording
    lab: Map
    forward: tuple[HopFacts, ...] = ()
    back: tuple[HopFacts, ...] = ()
    cause: Cause | None = None


def new_mark(flow: Flow) -> int:
    """A random mark from which WINDOW bytes can be counted without wrapping; for dns, an id and the header's flags."""
    if flow.protocol == "dns":
        return (int.from_bytes(os.urandom(2), "big") or 1) << 16 | 0x0100
    return int.from_bytes(os.urandom(4), "big") % ((1 << 32) - WINDOW - 2) + 1


class Tracer(Generic[Answer]):
    """Traces flows of a lab.

    Args:
        ask: asks a flow with a mark. failed: whether its answer calls for an explanation, and what the asker was told.
        faults: what is not as planned in the lab.
    """

    def __init__(
        self,
        runtime: Runtime,
        plan: Plan,
        ask: Callable[[Flow, int], Answer],
        failed: Callable[[Answer], tuple[bool, str]],
        faults: Callable[[], tuple[Fault, ...]],
    ) -> None:
        self.runtime, self.plan, self.ask, self.failed, self.faults = runtime, plan, ask, failed, faults
        self.lab = Map.of(plan)

    def trace(self, flow: Flow, *, plain: bool = False) -> Trace[Answer]:
        """Ask a flow and follow it.

        Args:
            plain: only the walk; nothing is asked about its hops, and a failure is not explained.

        Raises:
            ProbeError: the lab cannot be watched. NoSuchNodeError: the source does not run.
        """
        mark, version = new_mark(flow), ipaddress.ip_address(flow.address).version
        watched = places(self.plan, self.runtime.state())
        before = {} if plain else counters(self.runtime, watched)
        with capture(self.runtime, watched, program(flow.protocol, version, mark), (flow.source, None)) as recording:
            answer = self.ask(flow, mark)
        after = {} if plain else counters(self.runtime, watched)
        question = Question(flow.protocol, mark, flow.source, flow.address, flow.port)
        found = walk(recording.frames, question, self.lab, recording.dropped)
        if plain:
            return Trace(flow, answer, found, recording, self.lab)
        inquiry = Inquiry(self.runtime, self.lab, version)
        forward = inquiry.facts(found.forward) if found.forward else ()
        back = inquiry.facts(found.back) if found.back else ()
        trace = Trace(flow, answer, found, recording, self.lab, forward, back)
        failed, detail = self.failed(answer)
        if not failed:
            return trace
        return replace(trace, cause=self._explain(trace, inquiry, detail, _risen(before, after)))

    def _explain(
        self, trace: Trace[Answer], inquiry: Inquiry, detail: str, risen: Mapping[Place, Mapping[str, int]]
    ) -> Cause:
        flow, found = trace.flow, trace.walk
        path = found.lost or _suspect(found)
        unwatched = replace(flow, via=(), not_via=())

        def again(mark: int, least: float) -> None:
            self.ask(replace(unwatched, timeout=max(flow.timeout, least)), mark)

        if path is None:
            scene = at_origin(inquiry, flow.source, flow.address, again, new_mark(flow), flow.protocol)
        else:
            counted = risen.get(path.last.place, {})
            scene = look(inquiry, found, path, counted, again, new_mark(flow), flow.protocol)
        context = self._context(trace, inquiry, scene)
        return explain(Case(found, self.lab, context, trace.forward, trace.back, path, scene, detail))

    def _beside(self, scene: Scene) -> list[Place]:
        """The places on the segment that a packet was to go out to."""
        if scene.next_hop is None:
            return []
        segment = self.lab.segment((scene.node, scene.next_hop.interface))
        return sorted({(node, self.lab.vrfs.get((node, name))) for node, name in segment}, key=str)

    def _context(self, trace: Trace[Answer], inquiry: Inquiry, scene: Scene) -> Context:
        paths = [path for path in (trace.walk.forward, trace.walk.back, trace.walk.lost) if path]
        passed = [hop.place for path in paths for hop in path.hops] or [(trace.flow.source, None)]
        near = self._beside(scene)
        missing = absent(self.runtime, self.plan, passed)
        faults = self.faults()
        if not any(fault.kind in ("gone", "process", "session") for fault in faults):
            faults += withheld(self.runtime, self.plan, self.lab, missing)
        return Context(
            (*faults, *deviations(self.runtime, self.plan, (*passed, *near))),
            missing,
            _way_back(inquiry, trace.walk.forward) if trace.walk.forward else None,
        )


def _suspect(found: Walk) -> Path | None:
    """The packet to look at where none was lost: the answer, if one came that was not good enough; else the request."""
    return found.back if found.back is not None and not is_reset(found.back) else found.forward


def _way_back(inquiry: Inquiry, path: Path) -> Decision:
    """How the place that a request reached would send an answer."""
    hop = path.last
    ends = hop.ends.reverse
    return inquiry.route(hop.place, Ends(*_fields(ends)), path.packet.protocol, "", 0)


def _fields(ends: Ends) -> tuple[str, str, int, int]:
    return ends.source, ends.destination, ends.source_port, ends.destination_port


def places(plan: Plan, states: Mapping[str, NodeState]) -> list[Place]:
    """Every namespace of every node and pod that runs."""
    return [(node.name, vrf) for node in plan.nodes if node.name in states for vrf in (None, *node.vrfs)]


def _risen(
    before: Mapping[Place, Mapping[str, int]], after: Mapping[Place, Mapping[str, int]]
) -> dict[Place, dict[str, int]]:
    return {place: risen(before[place], values) for place, values in after.items() if place in before}
