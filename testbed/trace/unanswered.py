"""Causes that lie where a packet ended: at its destination, which did not answer well, or at somebody else. Pure."""

from __future__ import annotations

from testbed.trace.case import Case, cause
from testbed.trace.context import blamed
from testbed.trace.evidence import Cause
from testbed.trace.packet import words
from testbed.trace.walk import is_reset


def refused(case: Case) -> Cause | None:
    """It was answered with a reset or "port unreachable"."""
    walk, scene = case.walk, case.scene
    answered = next((path for path in walk.paths if path.direction == "reply"), None)
    port = next((path for path in walk.errors if words(path.packet).endswith("port unreachable")), None)
    refusal = answered if answered is not None and is_reset(answered) else port
    if refusal is None or walk.forward is None or not walk.forward.delivered or scene is None:
        return None
    hop = walk.forward.last
    if refusal.first.node != hop.node or scene.listening:
        return None
    sentence = f"{hop.name} got the request, but nothing listens on port {hop.ends.destination_port} there"
    return blamed(cause(case, "no-listener", sentence, at=hop), case.context, hop)


def no_way_back(case: Case) -> Cause | None:
    walk, scene = case.walk, case.scene
    if walk.back is not None or walk.forward is None or not walk.forward.delivered or scene is None:
        return None
    hop = walk.forward.last
    answer = case.context.way_back
    if answer is not None and answer.error:
        sentence = f"{hop.name} got the request from {hop.ends.source}, to which it has no route back"
        return blamed(cause(case, "no-route", sentence, at=hop), case.context, hop, gateways=walk.forward.hops)
    if scene.listening is False:
        return cause(
            case,
            "no-listener",
            f"{hop.name} got the request, but nothing listens on port {hop.ends.destination_port} there",
            at=hop,
        )
    return None


def mute(case: Case) -> Cause | None:
    walk = case.walk
    if walk.back is None and walk.forward is not None and walk.forward.delivered:
        hop = walk.forward.last
        return blamed(
            cause(case, "no-answer", f"{hop.name} got the request and did not answer", at=hop), case.context, hop
        )
    return None


def silent(case: Case) -> Cause | None:
    """The connection came about, which is the kernel's doing; the program said nothing."""
    walk = case.walk
    if walk.back is None or not walk.back.delivered or is_reset(walk.back) or walk.forward is None:
        return None
    replies = [path for path in walk.paths if path.direction == "reply"]
    questions = [path for path in walk.paths if path.direction == "request" and path.packet.payload_length]
    if not questions or not questions[0].delivered or any(path.packet.payload_length for path in replies):
        return None
    hop = walk.forward.last
    return blamed(
        cause(case, "no-answer", f"{hop.name} accepted the connection, but its program did not answer", at=hop),
        case.context,
        hop,
    )


def strayed(case: Case) -> Cause | None:
    """It ended at a host that it was not meant for."""
    path = case.path
    if path is None or path.delivered or path.last.interface_out or len(path.hops) < 2:
        return None
    hop, before = path.last, path.hops[-2]
    if hop.node in case.lab.forwarders:
        return None
    routes = dict(zip(path.hops, case.facts, strict=False))
    route = routes[before].route if before in routes else None
    by = f" by {route}" if route and not route.error else ""
    sentence = (
        f"{case.subject} to {hop.ends.destination} strayed to {hop.name}, which does not have that address: "
        f"{before.name} sent it there{by}"
    )
    return blamed(cause(case, "no-route", sentence, at=before), case.context, before)
