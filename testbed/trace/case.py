"""A failed flow with all that is known of it, and how a cause is put into words. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.trace.context import ORDER, Context, Fault, within
from testbed.trace.evidence import Cause, HopFacts, Scene
from testbed.trace.map import Map
from testbed.trace.walk import Hop, Path, Walk


@dataclass(frozen=True)
class Case:
    """All that is known of a failed flow.

    Args:
        forward, back: facts of the hops of the walk's first packet, and of the first of the answer.
        scene: the place where `path` was last seen; None: nothing was sent at all.
        path: the packet that got lost, or was answered as it should not have been.
        context: what is not as planned in the lab.
        detail: what the asker was told.
    """

    walk: Walk
    lab: Map
    context: Context
    forward: tuple[HopFacts, ...] = ()
    back: tuple[HopFacts, ...] = ()
    path: Path | None = None
    scene: Scene | None = None
    detail: str = ""

    @property
    def subject(self) -> str:
        """The packet in words, as the beginning of a sentence."""
        if self.path is None:
            return "the request"
        what = "the reply" if self.path.direction == "reply" else "the request"
        first = self.path in (self.walk.forward, self.walk.back)
        return what if first else f"{what} ({self.path.words}, {self.path.packet.length} bytes)"

    @property
    def facts(self) -> tuple[HopFacts, ...]:
        """Of the hops of `path`, as far as it is one of those that were looked at."""
        if self.path is None:
            return ()
        return self.back if self.path.direction == "reply" else self.forward


def cause(case: Case, kind: str, sentence: str, *evidence: str, at: Hop | None = None) -> Cause:
    """A cause at a hop (the last one of the path when none is given)."""
    hop = at or (case.path.last if case.path else None)
    node, vrf = hop.place if hop else (case.walk.question.source, None)
    return Cause(kind, node, vrf, sentence, evidence)


KINDS = {"gone": "gone", "interface": "link-down", "port": "bridge-port", "address": "address-missing"}
"""Kind of fault that keeps a frame from a station, or its answer from coming → kind of cause."""


def culprit(case: Case) -> Fault | None:
    """What is not as planned at the next hop, or on the way to it."""
    scene = case.scene
    if scene is None or scene.next_hop is None or not scene.next_hop.owner:
        return None
    hop, own = scene.next_hop, (scene.node, scene.next_hop.interface)
    segment = case.lab.segment(own) | {own}

    def bears(fault: Fault) -> bool:
        port = (fault.node, fault.interface)
        match fault.kind:
            case "gone":
                return fault.node == hop.owner
            case "interface":
                return fault.node == hop.owner and port in segment
            case "address":
                return fault.node == hop.owner and fault.prefix.partition("/")[0] == hop.address
            case "port":
                return port in segment and case.lab.peers.get(port, ("", ""))[0] in (hop.owner, scene.node)
        return False

    return min(filter(bears, case.context.faults), key=lambda fault: ORDER.index(fault.kind), default=None)


def unresolved(case: Case, begin: str, node: str, vrf: str | None, target: str) -> Cause:
    """The cause where a place asked for a link-layer address and got no answer; `begin` begins the sentence."""
    hop = case.scene.next_hop if case.scene else None
    if hop and hop.dropped:
        chain, rule = hop.dropped
        sentence = f"{begin}: {hop.owner} dropped the question who has {target}, in chain {chain}: {rule}"
        return Cause("policy", hop.owner, None, sentence)
    segment = case.lab.segment((node, hop.interface)) if hop else ()
    about = [
        fault.text
        for fault in case.context.faults
        if (fault.kind == "extra-address" and fault.node == node and within(target, fault.prefix))
        or (fault.kind == "setting" and (fault.node, fault.interface) in segment)
    ]
    return Cause("unresolved", node, vrf, "; ".join((f"{begin}: {silence(case, target)}", *about)))


def silence(case: Case, target: str) -> str:
    place = case.path.last.place if case.path else (case.walk.question.source, None)
    owner = case.lab.neighbour(place, target)
    if not owner:
        return f"nobody in the lab has its next hop {target}, so nobody answers for its link-layer address"
    return f"{owner} did not answer who has {target}"
