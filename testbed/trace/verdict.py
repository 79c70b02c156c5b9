"""Why a flow failed: one sentence, drawn from its walk and from what the lab says. Pure.

Each function of `astray`, `stopped` and `unanswered` looks for one kind of cause, and the first that finds its own
decides. Those that say that a packet went a wrong way come before those that say what became of it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from testbed.trace import astray, stopped, unanswered
from testbed.trace.case import Case
from testbed.trace.evidence import Cause
from testbed.trace.map import place_name


def explain(case: Case) -> Cause:
    """The cause of a failure; of kind "unknown" when nothing explains it."""
    found = next((cause for look in LOOKS if (cause := look(case))), None)
    if found is None:
        place = case.path.last if case.path else None
        node, vrf = place.place if place else (case.walk.question.source, None)
        where = f" at {place.name}" if place else ""
        found = Cause(
            "unknown", node, vrf, f"{case.subject} was last seen{where}; nothing found says why ({case.detail})"
        )
    return replace(found, evidence=(*found.evidence, *_general(case)))


def _general(case: Case) -> Iterator[str]:
    scene = case.scene
    if scene is None:
        return
    name = place_name(scene.node, scene.vrf)
    if scene.route:
        yield f"{name} routes the packet by {scene.route}" if not scene.route.error else f"{name}: {scene.route.error}"
    if scene.denied:
        yield f"{name}, chain {scene.denied[0]}: {scene.denied[1]}"
    yield from (f"{name} counted {counter}: {more} more" for counter, more in scene.counted.items())
    yield from case.context.lines


LOOKS: Sequence[Callable[[Case], Cause | None]] = (
    astray.nothing_sent,
    astray.by_mark,
    astray.wrong_vrf,
    stopped.denied,
    stopped.discarded,
    stopped.tunnel_end,
    stopped.next_hop_faulty,
    stopped.next_hop_silent,
    stopped.reverse_path,
    stopped.expired,
    stopped.too_big,
    stopped.not_forwarding,
    stopped.no_route,
    unanswered.twice,
    stopped.misaddressed,
    stopped.link_down,
    stopped.lost_in_tunnel,
    unanswered.refused,
    unanswered.no_way_back,
    unanswered.foreign,
    unanswered.kept,
    unanswered.mute,
    unanswered.silent,
    unanswered.strayed,
    stopped.rules_lost,
)
