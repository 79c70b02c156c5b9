"""Causes that lie where a packet ended: at its destination, which did not answer well, or at somebody else. Pure."""

from __future__ import annotations

from testbed.trace.case import Case, cause
from testbed.trace.context import blamed
from testbed.trace.evidence import Cause, Scene
from testbed.trace.packet import words
from testbed.trace.walk import Hop, is_reset


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
    return blamed(cause(case, "no-listener", _nobody(scene, hop), at=hop), case.context, hop)


def _nobody(scene: Scene, hop: Hop) -> str:
    """That nothing listens, as a sentence; and where something does, if it is the port alone that fits."""
    port = hop.ends.destination_port
    if not scene.listeners:
        return f"{hop.name} got the request, but nothing listens on port {port} there"
    others = ", ".join(scene.listeners)
    return (
        f"{hop.name} got the request, but nothing listens at {hop.ends.destination} port {port} there: "
        f"what has the port listens at {others} alone"
    )


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
        return cause(case, "no-listener", _nobody(scene, hop), at=hop)
    return None


def mute(case: Case) -> Cause | None:
    walk = case.walk
    if walk.back is None and walk.forward is not None and walk.forward.delivered:
        hop = walk.forward.last
        ignores = (
            [key for key, value in case.scene.settings.items() if "echo_ignore" in key and value == "1"]
            if (case.scene and walk.question.protocol == "icmp")
            else []
        )
        if ignores:
            sentence = f"{hop.name} got the request and does not answer such: {ignores[0]} = 1"
            return cause(case, "setting", sentence, at=hop)
        full = [words for counter, words in FULL.items() if case.scene and case.scene.counted.get(counter)]
        sentence = ": ".join((f"{hop.name} got the request and did not answer", *full[:1]))
        return blamed(cause(case, "no-answer", sentence, at=hop), case.context, hop)
    return None


FULL = {
    "TcpExt.ListenOverflows": "the queue of connections that its program has not accepted yet is full",
    "Udp.RcvbufErrors": "the buffer of datagrams that its program has not read yet is full",
    "Udp6RcvbufErrors": "the buffer of datagrams that its program has not read yet is full",
}
"""Counter of the kernel → what it says of a program that does not answer."""


def foreign(case: Case) -> Cause | None:
    """The answer came to the one who asked, from another address than the one that was asked."""
    walk = case.walk
    back, forward, question = walk.back, walk.forward, walk.question
    if back is None or forward is None or back.last.node != question.source or back.last.interface_out:
        return None
    source = back.last.ends.source
    if source == question.address:
        return None
    for hop, facts in zip(forward.hops, case.forward, strict=False):
        if "dnat" in hop.changes:
            passed = any(entry.place == hop.place for entry in back.hops)
            why = (
                "did not undo that"
                if passed
                else (
                    "did not see the reply, for it had not given the request an address of its own"
                    if "snat" not in hop.changes
                    else "did not see the reply"
                )
            )
            sentence = (
                f"the reply reached {question.source} from {source}, and not from {question.address}, which it had "
                f"asked: {hop.name} had translated the request and {why}"
            )
            return cause(case, "nat-missing", sentence, *(f"{hop.name}: {text}" for text in facts.rewrites), at=hop)
    sentence = f"the reply reached {question.source} from {source}, and not from {question.address}, which it had asked"
    return cause(case, "wrong-source", sentence, at=back.first)


def kept(case: Case) -> Cause | None:
    """The answer came to the node that had given the request its own address, and went no further."""
    walk, path = case.walk, case.path
    if path is None or path.direction != "reply" or walk.forward is None or path.last.interface_out:
        return None
    hop = path.last
    if hop.node == walk.question.source:
        return None
    for before, facts in zip(walk.forward.hops, case.forward, strict=False):
        if before.place == hop.place and "snat" in before.changes and before.ends.source == hop.ends.destination:
            sentence = (
                f"{hop.name} took {case.subject} for its own: it had given the request its address "
                f"{hop.ends.destination}, and did not undo that, for it found no connection that the reply belongs to"
            )
            return cause(case, "nat-missing", sentence, *(f"{hop.name}: {text}" for text in facts.rewrites))
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
    hop = path.last
    before = next((entry for entry in reversed(path.hops[:-1]) if "bridged" not in entry.changes), path.hops[-2])
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


def twice(case: Case) -> Cause | None:
    """It ended at one who has the address of the one who was meant, too."""
    path = case.path
    if path is None or path.delivered or path.last.interface_out or len(path.hops) < 2:
        return None
    hop = path.last
    address = hop.ends.destination
    for fault in case.context.faults:
        if (fault.kind, fault.node) == ("extra-address", hop.node) and fault.prefix.partition("/")[0] == address:
            meant = case.lab.neighbour(path.hops[-2].place, address) or "somebody else"
            sentence = f"{case.subject} to {address} went to {hop.name}, and it is {meant}'s: {fault.text}"
            return cause(case, "duplicate-address", sentence, at=hop)
    return None
