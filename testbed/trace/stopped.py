"""Causes that lie where a packet was last seen on its way. Pure."""

from __future__ import annotations

from testbed.trace.case import KINDS, Case, cause, culprit, unresolved
from testbed.trace.context import blamed, expected
from testbed.trace.evidence import Cause, NextHop
from testbed.trace.packet import words
from testbed.trace.walk import Hop


def denied(case: Case) -> Cause | None:
    scene = case.scene
    if scene is None or scene.denied is None or case.path is None:
        return None
    chain, rule = scene.denied
    name = case.path.last.name
    if "no local endpoints" in rule:
        return cause(
            case,
            "no-local-endpoint",
            f"{name} dropped {case.subject}: the Service has no endpoint on this node ({rule})",
        )
    if "no endpoints" in rule:
        return cause(case, "no-endpoints", f"{name} rejected {case.subject}: the Service has no endpoints ({rule})")
    if "invalid" in rule.lower():
        return cause(
            case,
            "conntrack-invalid",
            f"{name} dropped {case.subject}: connection tracking takes it for INVALID ({rule})",
        )
    rejects = "reject" in rule.lower()
    kind, verb = ("reject", "rejected") if rejects else ("policy", "dropped")
    return cause(case, kind, f"{name} {verb} {case.subject} in chain {chain}: {rule}")


def discarded(case: Case) -> Cause | None:
    """A queueing discipline dropped it, or a classifier beside one (tc(8))."""
    scene, path = case.scene, case.path
    if scene is None or not scene.discarded:
        return None
    if path is not None and ((path.delivered and case.walk.back is not None) or path.last.interface_out):
        return None
    interface, kind, more = scene.discarded[0]
    what = "an answer" if path is not None and path.delivered else case.subject
    name = path.last.name if path else scene.node
    sentence = f"{name} dropped {what} at {interface}: its queueing discipline {kind} counted {more} more drops"
    return cause(case, "queue", sentence)


def next_hop_faulty(case: Case) -> Cause | None:
    """Whom it was to be handed to is down, or cannot be reached on the segment."""
    path, fault = case.path, culprit(case)
    if fault is None or case.scene is None or case.scene.next_hop is None or (path is not None and path.delivered):
        return None
    name = path.last.name if path else case.scene.node
    sentence = f"{name} could not hand {case.subject} to {case.scene.next_hop.owner}: {fault.text}"
    return Cause(KINDS[fault.kind], fault.node, fault.vrf, sentence)


def next_hop_silent(case: Case) -> Cause | None:
    """Nobody told the link-layer address of whom it was to be handed to."""
    scene, path = case.scene, case.path
    if scene is None or path is None or path.delivered:
        return None
    hop = scene.next_hop
    asked = [*scene.unresolved, *([hop.address] if hop and hop.unanswered and not path.last.interface_out else [])]
    if not asked:
        return None
    last = path.last
    return unresolved(case, f"{last.name} could not pass {case.subject} on", *last.place, asked[0])


def tunnel_end(case: Case) -> Cause | None:
    """It came in a tunnel, and the node does not take it out of that."""
    scene, path = case.scene, case.path
    if scene is None or path is None or not scene.tunnel:
        return None
    hop = path.last
    sentence = f"{hop.name} got {case.subject} in a tunnel ({hop.tunnels_in[0]}), but {scene.tunnel}"
    return cause(case, "tunnel", sentence)


def reverse_path(case: Case) -> Cause | None:
    scene = case.scene
    if scene is None or case.path is None or case.path.delivered:
        return None
    hop = case.path.last
    modes = {key: value for key, value in scene.settings.items() if key.endswith("rp_filter") and value in "12"}
    if not scene.counted.get("TcpExt.IPReversePathFilter") or not modes:
        return None
    key, mode = max(modes.items(), key=lambda item: item[1])  # the kernel takes the greater one (ip-sysctl.rst)
    if mode == "2":
        why = f"rp_filter is loose, and there is no way back to {hop.ends.source} at all"
    else:
        why = f"rp_filter is strict, and its way back to {hop.ends.source} is not by {hop.interface_in}"
    return cause(case, "rp-filter", f"{hop.name} dropped {case.subject}: {why}", f"{hop.name}: {key} = {mode}")


def expired(case: Case) -> Cause | None:
    for error in case.walk.errors:
        if error.packet.kind in (11, 3) and words(error.packet).endswith("exceeded") and case.path:
            seen = [hop.node for hop in case.path.hops]
            loop = next((node for node in seen if seen.count(node) > 1), "")
            if loop:
                ring = ", ".join(dict.fromkeys(node for node in seen if seen.count(node) > 1))
                sentence = f"{case.subject} went round and round by {ring} until its TTL ended"
                return blamed(cause(case, "loop", sentence), case.context, case.path.last)
            return cause(case, "ttl", f"the TTL of {case.subject} ended at {error.first.name}", at=error.first)
    return None


def too_big(case: Case) -> Cause | None:
    path, scene = case.path, case.scene
    if path is None or scene is None or path.delivered:
        return None
    hop, size = path.last, path.packet.length
    if hop.interface_out and (peer := scene.peer_links.get(hop.interface_out)) and size > peer[0] > 0:
        node, interface = case.lab.peers[(hop.node, hop.interface_out)]
        vrf = case.lab.vrfs.get((node, interface))
        sentence = (
            f"{case.subject} is lost on the link of {hop.name} and {node}: "
            f"{node}'s {interface} takes at most {peer[0]} bytes (MTU)"
        )
        return Cause("mtu", node, vrf, sentence)
    for error in case.walk.errors:
        if words(error.packet).endswith(("fragmentation needed", "too big")) and error.about == path.direction:
            mtu = error.packet.info & 0xFFFF
            sentence = f"{error.first.name} could not pass on {case.subject}: the next link's MTU is {mtu}"
            return cause(case, "mtu", sentence, at=error.first)
    routed = scene.route
    for _, dev in routed.ways if routed and not hop.interface_out else ():
        mtu = scene.links.get(dev, (0, True))[0]
        if 0 < mtu < size:
            return cause(
                case,
                "mtu",
                f"{hop.name} cannot pass on {case.subject}: {size} bytes do not fit the MTU of {dev}, {mtu}",
            )
    return None


def misaddressed(case: Case) -> Cause | None:
    """The frame was for a station that is not there, or not the one that was meant."""
    path, scene = case.path, case.scene
    if path is None or scene is None or path.delivered:
        return None
    if (
        not path.last.interface_out or "bridged" in path.last.changes
    ):  # it may have come to the last hop only because a bridge gives such frames to all
        before = next((hop for hop in reversed(path.hops[:-1]) if "bridged" not in hop.changes), None)
        return _misnoted(case, before, scene.handed) if before else None
    hop, known = path.last, scene.next_hop
    if known and known.noted and known.real:
        return _misnoted(case, hop, known)
    if not path.ignored:
        return None
    sentence = (
        f"{hop.name} sent {case.subject} out by {hop.interface_out} to a link-layer address that nobody there has: "
        f"{path.ignored[0]} got the frame and ignored it"
    )
    return cause(case, "wrong-neighbour", sentence)


def _misnoted(case: Case, hop: Hop, known: NextHop | None) -> Cause | None:
    """The cause where a hop has noted another link-layer address for its next hop than that has."""
    if known is None or not known.noted or not known.real or known.noted in known.real:
        return None
    whose = f"which is {known.holder}'s" if known.holder else "which nobody there has"
    sentence = (
        f"{hop.name} sent {case.subject} to the link-layer address that it has noted for {known.address}, "
        f"{known.noted}, {whose}; {known.owner} has {', '.join(sorted(known.real))}"
    )
    return cause(case, "wrong-neighbour", sentence, at=hop)


def link_down(case: Case) -> Cause | None:
    path, scene = case.path, case.scene
    if path is None or scene is None or path.delivered or not path.last.interface_out:
        return None
    hop = path.last
    peer = case.lab.peers.get((hop.node, hop.interface_out))
    if peer and not scene.peer_links.get(hop.interface_out, (0, False))[1]:
        sentence = f"{case.subject} left {hop.name}, but {peer[0]}'s {peer[1]} is down or gone"
        gone = any(fault.kind == "gone" and fault.node == peer[0] for fault in case.context.faults)
        return Cause("gone" if gone else "link-down", peer[0], case.lab.vrfs.get(peer), sentence)
    return None


def lost_in_tunnel(case: Case) -> Cause | None:
    """It went into a tunnel's interface, and nothing around it was seen afterwards."""
    path = case.path
    if path is None or path.delivered or (path.last.node, path.last.interface_out) not in case.lab.tunnels:
        return None
    hop = path.last
    sentence = f"{hop.name} put {case.subject} into the tunnel {hop.interface_out}, and sent nothing on"
    return blamed(cause(case, "tunnel", sentence), case.context, hop)


def not_forwarding(case: Case) -> Cause | None:
    path, scene = case.path, case.scene
    if path is None or scene is None or path.delivered or path.last.interface_out:
        return None
    if path.last.node not in case.lab.forwarders:
        return None
    off = [key for key, value in scene.settings.items() if key.endswith("/forwarding") and value == "0"]
    if scene.route is None:
        return None
    # For IPv6, the kernel answers as if it forwarded, and looks at `all` alone (ip6_forward in net/ipv6/ip6_output.c).
    six = "net/ipv6/conf/all/forwarding" in off and scene.route.kind != "local"
    if six or (off and "No route to host" in scene.route.error):
        return cause(case, "forwarding-off", f"{path.last.name} does not forward packets ({off[-1]} = 0)")
    return None


REFUSALS = {
    "blackhole": "a blackhole route drops it",
    "unreachable": "an unreachable route rejects it",
    "prohibit": "a prohibit route rejects it",
}


def no_route(case: Case) -> Cause | None:
    path, scene = case.path, case.scene
    if path is None or scene is None or path.delivered or path.last.interface_out or scene.route is None:
        return None
    hop = path.last
    if scene.route.error and scene.route.rule:
        return cause(case, scene.route.kind, f"{hop.name} did not pass on {case.subject}: rule {scene.route.rule}")
    if scene.route.kind in REFUSALS or (scene.route.error and scene.best_kind in REFUSALS):
        kind = scene.route.kind if scene.route.kind in REFUSALS else scene.best_kind
        route = scene.best or scene.route
        sentence = f"{hop.name} did not pass on {case.subject} to {scene.destination}: {REFUSALS[kind]} ({route})"
        return blamed(cause(case, kind, sentence), case.context, hop)
    if hop.node not in case.lab.forwarders:
        return None
    if scene.route.error in ("Network is unreachable", "No route to host"):
        sentence = f"{hop.name} has no route to {scene.destination}"
        if given := _given(case):
            return given
        gates = case.walk.forward.hops if path.direction == "reply" and case.walk.forward else ()
        return blamed(cause(case, "no-route", sentence + expected(case.context, hop)), case.context, hop, gates)
    return None


def _given(case: Case) -> Cause | None:
    """Of a reply without a route: who gave its request a source that nobody has, and that nobody was to have."""
    forward, scene = case.walk.forward, case.scene
    if forward is None or scene is None or case.path is None or case.path.direction != "reply":
        return None
    if case.lab.owners(scene.destination) or expected(case.context, case.path.last):
        return None
    for hop, facts in zip(forward.hops, case.forward, strict=False):
        if "snat" in hop.changes and hop.ends.source == scene.destination:
            sentence = (
                f"{hop.name} gave the request the source {scene.destination}, which nobody in the lab has: "
                f"{case.path.last.name} has no route to it for the reply"
            )
            return cause(case, "wrong-nat", sentence, *(f"{hop.name}: {text}" for text in facts.rewrites), at=hop)
    return None


def rules_lost(case: Case) -> Cause | None:
    """Nothing else explains it, and the place where it was last seen has fewer rules than planned."""
    path = case.path
    if path is None or path.delivered:
        return None
    for fault in case.context.faults:
        if fault.kind == "rules" and (fault.node, fault.vrf) == path.last.place:
            sentence = f"{path.last.name} did not pass on {case.subject} to {path.last.ends.destination}: {fault.text}"
            return cause(case, "nat-missing", sentence)
    return None
