"""Causes that lie in the way a packet took: it was sent into the wrong network, or not at all. Pure."""

from __future__ import annotations

from testbed.trace import stopped
from testbed.trace.case import Case, cause, unresolved
from testbed.trace.evidence import Cause, HopFacts
from testbed.trace.walk import Hop


def nothing_sent(case: Case) -> Cause | None:
    if case.walk.forward is not None:
        return None
    source = case.walk.question.source
    if case.scene and case.scene.denied:
        chain, rule = case.scene.denied
        return Cause("policy", source, None, f"{source} dropped the request itself, in chain {chain}: {rule}")
    if discard := stopped.discarded(case):
        return discard
    if missing := stopped.next_hop_faulty(case):
        return missing
    asked = [entry.target for entry in case.walk.solicitations if entry.node == source and not entry.answered]
    hop = case.scene.next_hop if case.scene else None
    asked += [hop.address] if hop and hop.unanswered else []
    if asked:
        return unresolved(case, f"{source} sent nothing", source, None, asked[0])
    if case.scene and case.scene.route and case.scene.route.error:
        lacks = [fault.text for fault in case.context.faults if (fault.kind, fault.node) == ("route", source)]
        sentence = f"{source} sent nothing: it has no route to {case.scene.destination}"
        return Cause("no-route", source, None, "; ".join((sentence, *lacks)))
    return Cause("not-sent", source, None, f"{source} sent nothing: {case.detail}", ())


def by_mark(case: Case) -> Cause | None:
    """A mark led a packet away from who has its destination."""
    for hop, facts in _decided(case):
        route = facts.route
        owners = {node for node, _ in case.lab.owners(hop.ends.destination)}
        if not route or not route.mark or route.error or not owners or case.path is None:
            continue
        nearer = case.lab.peers.get((hop.node, hop.interface_out), ("", ""))[0]
        beside = {peer[0] for port, peer in case.lab.peers.items() if port[0] == hop.node}
        if owners & beside and nearer not in owners:
            sentence = (
                f"{hop.name} routed {case.subject} to {hop.ends.destination} out by {_by(hop)}, "
                f"by its mark {route.mark:#x} "
                f"(rule {route.rule}); {hop.ends.destination} is {sorted(owners)[0]}, which is beside it"
            )
            return cause(case, "wrong-mark", sentence, f"{hop.name}: {route}", at=hop)
    return None


def wrong_vrf(case: Case) -> Cause | None:
    """A node between networks sent the packet into another than the one its destination is in."""
    for hop, facts in _decided(case):
        there = _wanted(case, hop)
        if not there or not hop.network_out or hop.network_out in there or len(case.lab.networks(hop.place)) < 2:
            continue
        if hop.tunnels_out:
            continue
        what = "the client" if case.path and case.path.direction == "reply" else hop.ends.destination
        by = f" by table {facts.route.table}'s {facts.route.to}" if facts.route and not facts.route.error else ""
        sentence = (
            f"{case.subject} from {(hop.arrived or hop.ends).source} left {hop.node} by {_by(hop)}{by}; "
            f"{what} is in VRF {' or '.join(sorted(there))}"
        )
        evidence = [f"{hop.name}: {facts.route}"] if facts.route else []
        evidence += [_not_consulted(hop, rule) for rule in facts.too_late]
        return cause(case, "wrong-vrf", sentence, *evidence, at=hop)
    return None


def _not_consulted(hop: Hop, rule: str) -> str:
    routed = (hop.arrived or hop.ends).source
    return f"{hop.name}: rule {rule} did not match: the source was {routed} when it was routed, {hop.ends.source} later"


def _decided(case: Case) -> list[tuple[Hop, HopFacts]]:
    return list(zip(case.path.hops, case.facts, strict=False)) if case.path else []


def _wanted(case: Case, hop: Hop) -> frozenset[str]:
    """The VRFs in which the packet's destination is: for a reply, the one its request came in by; else its owners'."""
    if case.path is None or case.walk.forward is None:
        return frozenset()
    if case.path.direction == "reply":
        entered = [other.network_in for other in case.walk.forward.hops if other.node == hop.node and other.network_in]
        return frozenset(entered)
    owners = [place for place in case.lab.owners(hop.ends.destination) if place[0] != hop.node]
    return frozenset(network for place in owners for network in case.lab.networks(place))


def _by(hop: Hop) -> str:
    return f"{hop.interface_out} (VRF {hop.network_out})" if hop.network_out else hop.interface_out
