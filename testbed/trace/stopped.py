"""Causes that lie where a packet was last seen on its way. Pure."""

from __future__ import annotations

from testbed.trace.case import Case, cause, silence
from testbed.trace.context import blamed, expected
from testbed.trace.evidence import Cause
from testbed.trace.packet import words


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


def unresolved(case: Case) -> Cause | None:
    scene = case.scene
    if scene is None or case.path is None or case.path.delivered or not scene.unresolved:
        return None
    return cause(
        case,
        "unresolved",
        f"{case.path.last.name} could not pass {case.subject} on: {silence(case, scene.unresolved[0])}",
    )


def reverse_path(case: Case) -> Cause | None:
    scene = case.scene
    if scene is None or case.path is None or case.path.delivered:
        return None
    strict = [key for key, value in scene.settings.items() if key.endswith("rp_filter") and value == "1"]
    if scene.counted.get("TcpExt.IPReversePathFilter") and strict:
        hop = case.path.last
        return cause(
            case,
            "rp-filter",
            f"{hop.name} dropped {case.subject}: rp_filter is strict, and its way back to {hop.ends.source} "
            f"is not by {hop.interface_in}",
            f"{hop.name}: {strict[-1]} = 1",
        )
    return None


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
    """The frame was for a station that is not there."""
    path = case.path
    if path is None or path.delivered or not path.ignored or not path.last.interface_out:
        return None
    hop, other = path.last, path.ignored[0]
    sentence = (
        f"{hop.name} sent {case.subject} out by {hop.interface_out} to a link-layer address that nobody there has: "
        f"{other} got the frame and ignored it"
    )
    return cause(case, "wrong-neighbour", sentence)


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
    if off and scene.route and "No route to host" in scene.route.error:
        return cause(case, "forwarding-off", f"{path.last.name} does not forward packets ({off[-1]} = 0)")
    return None


KINDS = {
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
    if scene.route.kind in KINDS or (scene.route.error and scene.best_kind in KINDS):
        kind = scene.route.kind if scene.route.kind in KINDS else scene.best_kind
        route = scene.best or scene.route
        sentence = f"{hop.name} did not pass on {case.subject} to {scene.destination}: {KINDS[kind]} ({route})"
        return blamed(cause(case, kind, sentence), case.context, hop)
    if hop.node not in case.lab.forwarders:
        return None
    if scene.route.error in ("Network is unreachable", "No route to host"):
        sentence = f"{hop.name} has no route to {scene.destination}"
        gates = case.walk.forward.hops if path.direction == "reply" and case.walk.forward else ()
        return blamed(cause(case, "no-route", sentence + expected(case.context, hop)), case.context, hop, gates)
    return None
