"""A failed flow with all that is known of it, and how a cause is put into words. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.trace.context import Context
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


def silence(case: Case, target: str) -> str:
    place = case.path.last.place if case.path else (case.walk.question.source, None)
    owner = case.lab.neighbour(place, target)
    if not owner:
        return f"nobody in the lab has its next hop {target}, so nobody answers for its link-layer address"
    return f"{owner} did not answer who has {target}"
