"""BGP sessions of the lab's routers, both ends from one statement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from testbed.compile.propagation import Key, Session, Speaker
from testbed.compile.topology import End, Segment, Topology
from testbed.errors import Position, Problem
from testbed.model.lab import Lab, Router, RouterBgp, Timers


@dataclass(frozen=True)
class Neighbour:
    """One neighbour in a router's configuration.

    Args:
        asn: the neighbour's. name: the neighbour in the user's words. remote: the speaker at the other end.
        asked_by: who states the session, for errors. position: where that was written.
        password: of TCP MD5 (RFC 2385); empty for none.
    """

    address: str
    asn: int
    name: str
    remote: Key
    asked_by: str
    timers: Timers
    password: str = ""
    position: Position | None = None

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


@dataclass
class Routing:
    """All BGP of a lab: neighbours by (router, VRF), speakers, sessions, and prefixes leaked from other VRFs."""

    neighbours: dict[tuple[str, str | None], list[Neighbour]] = field(default_factory=dict)
    speakers: dict[Key, Speaker] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    leaked: dict[Key, set[str]] = field(default_factory=dict)

    def connect(self, router: str, vrf: str | None, neighbour: Neighbour) -> list[Problem]:
        """Add a neighbour to a router; a router has one neighbour per address."""
        own = self.neighbours.setdefault((router, vrf), [])
        if other := next((other for other in own if other.address == neighbour.address), None):
            where = f" in VRF {vrf}" if vrf else ""
            message = f"{router} would have two BGP neighbours with the address {neighbour.address}{where}"
            hint = "peer with another address of the router, or in another VRF"
            return [Problem(f"{message}: {other.asked_by} and {neighbour.asked_by}", neighbour.position, hint)]
        own.append(neighbour)
        return []

    def without(self, nodes: Collection[str]) -> Routing:
        """What of it there is while these nodes are gone."""
        return Routing(
            {
                place: [neighbour for neighbour in neighbours if neighbour.remote[0] not in nodes]
                for place, neighbours in self.neighbours.items()
                if place[0] not in nodes
            },
            {key: speaker for key, speaker in self.speakers.items() if key[0] not in nodes},
            [entry for entry in self.sessions if entry.a[0] not in nodes and entry.b[0] not in nodes],
            self.leaked,
        )


def router_key(router: str, vrf: str | None) -> Key:
    """The speaker that a router is in a routing instance."""
    return (router, vrf, "frr")


def link_sessions(lab: Lab, topology: Topology) -> Routing:
    """The sessions that links with `bgp: true` state, one per family that both ends have an address in."""
    routing = Routing()
    for segment in topology.segments:
        for a, b in _pairs(segment) if segment.bgp else ():
            for version in (4, 6):
                if not (a.address(version) and b.address(version)):
                    continue
                for own, other in ((a, b), (b, a)):
                    # Segments of one VRF do not overlap, so no router has a neighbour twice.
                    routing.connect(own.node, own.vrf, _neighbour(lab, segment, own, other, version))
                ends = router_key(a.node, a.vrf), router_key(b.node, b.vrf)
                routing.sessions.append(Session(*ends, version, a.network(version)))
    return routing


def _pairs(segment: Segment) -> Iterator[tuple[End, End]]:
    for index, a in enumerate(segment.ends):
        for b in segment.ends[index + 1 :]:
            yield a, b


def _neighbour(lab: Lab, segment: Segment, own: End, other: End, version: int) -> Neighbour:
    return Neighbour(
        address=other.address(version),
        asn=_speaker(lab, other.node).asn,
        name=other.node,
        remote=router_key(other.node, other.vrf),
        asked_by=f"the link to {other.node}",
        timers=session_timers(lab, own.node),
        position=segment.position,
    )


def _speaker(lab: Lab, name: str) -> RouterBgp:
    node = lab.nodes[name]
    assert isinstance(node, Router)
    assert node.bgp is not None
    return node.bgp


def add_router_speakers(lab: Lab, topology: Topology, routing: Routing) -> None:
    """A speaker per routing instance that has neighbours, with the prefixes it originates."""
    for router, vrf in routing.neighbours:
        node = lab.nodes[router]
        if isinstance(node, Router) and node.bgp:
            key = router_key(router, vrf)
            prefixes = frozenset(originated(node, router, topology, vrf))
            uneven = frozenset(_static(node, vrf) if _shares_a_segment(topology, router, vrf) else ())
            routing.speakers[key] = Speaker(key, node.bgp.asn, prefixes, node.bgp.transit, uneven=uneven)


def _shares_a_segment(topology: Topology, router: str, vrf: str | None) -> bool:
    """Whether it may have a static route by a router that its neighbours have on the same link: it tells them so."""
    return any(len(segment.ends) > 2 for segment, own in topology.of(router) if own.vrf == vrf)


def originated(node: Router, name: str, topology: Topology, vrf: str | None) -> Iterable[str]:
    """The prefixes that a router redistributes into BGP in a routing instance."""
    assert node.bgp is not None
    if "connected" in node.bgp.redistribute:
        yield from _connected(name, topology, vrf)
    if "static" in node.bgp.redistribute:
        yield from _static(node, vrf)


def without_bgp(node: Router, name: str, topology: Topology, vrf: str | None) -> frozenset[str]:
    """The prefixes that a router has a route to in a routing instance, and prefers to what BGP brings."""
    return frozenset((*_connected(name, topology, vrf), *_static(node, vrf)))


def _connected(name: str, topology: Topology, vrf: str | None) -> Iterator[str]:
    for _, end in topology.of(name):
        if end.vrf == vrf:
            yield from (str(address.network) for address in end.addresses)
    if vrf is None:
        yield from (str(address.network) for address in topology.loopbacks.get(name, ()))


def _static(node: Router, vrf: str | None) -> Iterator[str]:
    return (route.to for route in node.routes if route.vrf == vrf)


def session_timers(lab: Lab, router: str) -> Timers:
    """The timers of a router's sessions."""
    return _speaker(lab, router).timers or lab.bgp.timers


def router_id(topology: Topology, name: str, node: Router) -> str:
    """A router's BGP identifier: as stated, else its IPv4 loopback; empty when it has neither."""
    if node.bgp and node.bgp.router_id:
        return node.bgp.router_id
    return next((str(entry.ip) for entry in topology.loopbacks.get(name, ()) if entry.version == 4), "")


def router_id_problems(lab: Lab, topology: Topology) -> Iterator[Problem]:
    """Routers without a BGP identifier, and such that share one (RFC 6286 wants it unique within an AS)."""
    owners: dict[str, str] = {}
    for name, node in lab.nodes.items():
        if not isinstance(node, Router) or node.bgp is None:
            continue
        own, place = router_id(topology, name, node), node.origin.at("bgp", "routerId")
        if not own:
            message = f"{name} has no BGP router id: addressing.loopbacks has no ipv4 address for it"
            yield Problem(message, place, "add routerId: ADDRESS to its bgp")
        elif own in owners:
            yield Problem(f"{name} has the BGP router id {own}, which is {owners[own]}'s already", place)
        owners.setdefault(own, name)


def router_at(topology: Topology, lab: Lab, node: str, address: str) -> tuple[End, End] | None:
    """The router that has `address` on a segment of `node`: (its end, the node's own)."""
    version = 6 if ":" in address else 4
    for segment, own in topology.of(node):
        for other in segment.others(node):
            if other.address(version) == address and isinstance(lab.nodes[other.node], Router):
                return other, own
    return None
