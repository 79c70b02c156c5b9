"""Looks closely at the place where a packet was last seen: asks again while the rules there tell what they decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from testbed.errors import TestbedError
from testbed.plan import Protocol
from testbed.trace.counters import Drops, more_drops, queue_drops
from testbed.trace.evidence import NextHop, Scene
from testbed.trace.inquire import Inquiry
from testbed.trace.map import Place
from testbed.trace.neighbours import known, next_hop
from testbed.trace.netfilter import OUTER, QUESTIONS, matches_of, rule_text, watched_rules
from testbed.trace.packet import Ends
from testbed.trace.routing import Decision
from testbed.trace.rules import RuleEvent, came, denial, dnat_target, marks
from testbed.trace.sockets import waiting
from testbed.trace.tunnels import far_end
from testbed.trace.walk import Hop, Path, Walk
from testbed.wait import Deadline

Again = Callable[[int, float], object]
"""Asks the flow once more, with a mark, and waits for an answer at least so many seconds."""
QUESTION = 1.2  # seconds: a next hop that does not answer is asked once a second (RETRANS_TIMER of RFC 4861; arp(7))
TRIES, SAME_WAY = 8, 8.0  # at most, and seconds: of two ways each is taken by one of 8 packets but once in 256 times
SETTINGS = ("rp_filter", "forwarding")
TELLING = {
    "TcpExt.IPReversePathFilter",
    "IpExt.InNoRoutes",
    "Ip.OutNoRoutes",
    "Ip.InAddrErrors",
    "Ip.FragFails",
    "Ip.InHdrErrors",
    "Ip6InNoRoutes",
    "Ip6OutNoRoutes",
    "Ip6InAddrErrors",
    "Ip6InTooBigErrors",
    "Ip6FragFails",
    "Udp.NoPorts",
    "Udp6NoPorts",
    "Udp.RcvbufErrors",
    "Udp6RcvbufErrors",
    "TcpExt.ListenOverflows",
}
"""Counters of the kernel that say why a packet was dropped."""


def look(
    inquiry: Inquiry,
    walk: Walk,
    path: Path,
    counted: Mapping[str, int],
    again: Again,
    mark: int,
    protocol: Protocol,
) -> Scene:
    """Everything that bears on what became of a packet at its last hop.

    Args:
        counted: what rose there while the flow was asked. again: asks the flow once more; mark: with this mark.
    """
    hop = path.last
    node, vrf = hop.place
    matches = (*matches_of(protocol, mark), *(OUTER if hop.tunnels_in or hop.tunnels_out else ()))
    drops = _drops(inquiry, hop.place)
    events = _rules_there(inquiry, path, matches, lambda: again(mark, 0))
    target = None
    if hop.left is None and path.direction == "request":
        target = dnat_target(inquiry.listing(hop.place), [event.chain for event in events])
    routed = inquiry.routed(path, hop, target)
    destination = target[0] if target else hop.ends.destination
    asked = Ends(hop.ends.source, destination)
    best, rule = inquiry.holding_route(hop.place, asked, inquiry.incoming(hop), list(marks(events)))
    handed = _handed(inquiry, path)
    fits, elsewhere = _sockets(inquiry, hop, protocol)
    return Scene(
        node,
        vrf,
        route=routed,
        destination=destination,
        best=_words(best, rule),
        best_kind=str(best.get("type", "unicast")) if best else "",
        denied=_denied(inquiry, hop.place, events, _addresses(walk)),
        marks=tuple(marks(events)),
        counted={name: more for name, more in counted.items() if name in TELLING},
        unresolved=tuple(
            entry.target for entry in walk.solicitations if (entry.node, entry.vrf) == hop.place and not entry.answered
        ),
        links=_links(inquiry, hop.place),
        peer_links=_peer_links(inquiry, hop),
        settings=_settings(inquiry, hop),
        listening=fits,
        listeners=elsewhere,
        next_hop=handed
        if "bridged" in hop.changes
        else _next_hop(inquiry, hop.place, routed, destination, lambda: again(mark, QUESTION), told=_told(walk, hop)),
        handed=handed,
        discarded=more_drops(drops, _drops(inquiry, hop.place)),
        tunnel=_far_end(inquiry, hop),
    )


def at_origin(inquiry: Inquiry, node: str, address: str, again: Again, mark: int, protocol: Protocol) -> Scene:
    """The place where a flow starts that sent nothing."""
    place = (node, None)
    drops = _drops(inquiry, place)
    events = _rules(inquiry, place, matches_of(protocol, mark), lambda: again(mark, 0))
    routed = inquiry.sent(place, address)
    return Scene(
        node,
        None,
        route=routed,
        destination=address,
        denied=_denied(inquiry, place, events, {address, *inquiry.lab.addresses.get(place, ())}),
        links=_links(inquiry, place),
        next_hop=_next_hop(inquiry, place, routed, address, lambda: again(mark, QUESTION)),
        discarded=more_drops(drops, _drops(inquiry, place)),
    )


def _drops(inquiry: Inquiry, place: Place) -> Drops:
    return queue_drops(inquiry.listed(place, "tc", "-s", "-j", "qdisc"))


def _next_hop(
    inquiry: Inquiry,
    place: Place,
    routed: Decision,
    destination: str,
    again: Callable[[], object],
    *,
    told: bool = False,
) -> NextHop | None:
    """Whom a packet is to be handed to. One that does not answer is looked at while it is asked again.

    Args:
        told: whether the place itself told the asker that it is unreachable. The entry may be gone already.
    """
    found = next_hop(inquiry, place, routed, destination)
    if found is None or not (found.unanswered or told) or not found.owner:
        return found
    port = next((port for port in inquiry.lab.segment((place[0], found.interface)) if port[0] == found.owner), None)
    if port is None:
        return found
    owner = (port[0], inquiry.lab.vrfs.get(port))
    # Where the kernel gave up while it was watched, no question was seen, and the next packet makes it ask anew.
    events = _rules(inquiry, owner, QUESTIONS, again, port[1]) or _rules(inquiry, owner, QUESTIONS, again, port[1])
    states = (*found.states, *known(inquiry, place, found.address, found.interface)[:1])
    return replace(found, states=states, dropped=_denied(inquiry, owner, events))


def _handed(inquiry: Inquiry, path: Path) -> NextHop | None:
    """Whom the last hop but one that routed a packet handed it to."""
    before = next((hop for hop in reversed(path.hops[:-1]) if "bridged" not in hop.changes), None)
    if before is None or before.tunnels_out:
        return None
    return next_hop(inquiry, before.place, inquiry.routed(path, before), before.ends.destination)


def _told(walk: Walk, hop: Hop) -> bool:
    """Whether a hop sent word that the next one is unreachable (RFC 792; RFC 4443, code 3)."""
    said = ("host unreachable", "address unreachable")
    return any(error.first.place == hop.place and error.words.endswith(said) for error in walk.errors)


def _far_end(inquiry: Inquiry, hop: Hop) -> str:
    """What is wrong with a tunnel's end here, where the packet came in by one and was not taken out of it."""
    if not hop.tunnels_in or hop.left is not None or hop.through:
        return ""
    return far_end(hop.tunnels_in[0], inquiry.listed(hop.place, "ip", "-d", "-j", "link"))


def _addresses(walk: Walk) -> set[str]:
    """All addresses that the flow's packets had anywhere, those of tunnels around them included."""
    hops = [hop for path in walk.paths for hop in path.hops]
    ends = [ends for hop in hops for ends in (hop.arrived, hop.left) if ends]
    around = [word for hop in hops for tunnel in (*hop.tunnels_in, *hop.tunnels_out) for word in tunnel.split()]
    return {walk.question.address, *around, *(text for entry in ends for text in (entry.source, entry.destination))}


def _denied(
    inquiry: Inquiry, place: Place, events: Sequence[RuleEvent], addresses: Collection[str] = ()
) -> tuple[str, str] | None:
    """(chain, rule) of what dropped a packet with these addresses; of any packet, where none are given."""
    event = denial(events, addresses)
    if event is None:
        return None
    text = rule_text(inquiry.runtime, *place, event) if event.handle else ""
    return f"{event.table} {event.chain}", text or f"{event.kind} {event.verdict}"


def _rules(
    inquiry: Inquiry, place: Place, matches: Sequence[str], again: Callable[[], object], device: str = ""
) -> list[RuleEvent]:
    try:
        with watched_rules(inquiry.runtime, *place, matches, device) as events:
            again()
    except (TestbedError, OSError):
        return []
    return events


def _rules_there(inquiry: Inquiry, path: Path, matches: Sequence[str], again: Callable[[], object]) -> list[RuleEvent]:
    """What the rules at a path's last hop decide about a packet that comes there as the path's did.

    Where a router has several next hops, another packet may go another way, and cannot be told not to: while it stays
    on one machine, Linux chooses by a random number of the socket that sent it (fib_multipath_hash in
    net/ipv4/route.c takes skb->hash; sk_set_txhash). So it is asked until one comes.
    """
    hop, deadline = path.last, Deadline(SAME_WAY)
    events = _rules(inquiry, hop.place, matches, again, hop.interface_in)
    if hop.arrived is None or came(events, hop.arrived) or not _split(inquiry, path):
        return events
    for _ in range(TRIES):
        other = _rules(inquiry, hop.place, matches, again, hop.interface_in)
        if came(other, hop.arrived):
            return other
        if deadline.passed:
            break
    return events


def _split(inquiry: Inquiry, path: Path) -> bool:
    """Whether a hop before the last has several next hops for the packet."""
    routers = (hop for hop in path.hops[:-1] if "bridged" not in hop.changes)
    return any(len(inquiry.routed(path, hop).ways) > 1 for hop in routers)


def _words(route: dict[str, object] | None, rule: str) -> str:
    if route is None:
        return ""
    table = f" in table {route.get('table', 'main')}, by rule {rule}" if rule else ""
    kind = f"{route['type']} " if "type" in route else ""
    via = f" via {route['gateway']}" if "gateway" in route else ""
    dev = f" dev {route['dev']}" if "dev" in route else ""
    origin = f" ({route['protocol']})" if "protocol" in route else ""
    return f"{kind}{route.get('dst', '')}{via}{dev}{origin}{table}"


def _links(inquiry: Inquiry, place: Place) -> dict[str, tuple[int, bool]]:
    return {
        name: (int(link.get("mtu", 0)), "UP" in link.get("flags", [])) for name, link in inquiry.links(place).items()
    }


def _peer_links(inquiry: Inquiry, hop: Hop) -> dict[str, tuple[int, bool]]:
    """The other end of the link that the packet left by."""
    peer = inquiry.lab.peers.get((hop.node, hop.interface_out))
    if not peer:
        return {}
    found = _links(inquiry, (peer[0], inquiry.lab.vrfs.get(peer)))
    return {hop.interface_out: found[peer[1]]} if peer[1] in found else {}


def _settings(inquiry: Inquiry, hop: Hop) -> dict[str, str]:
    family = "ipv4" if inquiry.version == 4 else "ipv6"
    interface = inquiry.incoming(hop)
    found = {}
    for name in SETTINGS:
        for where in dict.fromkeys(("all", interface) if interface else ("all",)):
            key = f"net/{family}/conf/{where}/{name}"
            if value := inquiry.sysctl(hop.place, key):
                found[key] = value
    ignores = "net/ipv4/icmp_echo_ignore_all" if inquiry.version == 4 else "net/ipv6/icmp/echo_ignore_all"
    return found | {ignores: inquiry.sysctl(hop.place, ignores)}


def _sockets(inquiry: Inquiry, hop: Hop, protocol: Protocol) -> tuple[bool | None, tuple[str, ...]]:
    """Whether a socket waits for a packet where it went, and at which other addresses of its port sockets do."""
    if protocol == "icmp":
        return None, ()
    kind = "udp" if protocol in ("udp", "dns") else "tcp"
    return waiting(inquiry, hop.place, kind, hop.ends.destination, hop.ends.destination_port)
