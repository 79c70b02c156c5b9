"""BGP sessions of the lab's routers, both ends from one statement, and who learns what by them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from testbed.compile.propagation import Key, Session, Speaker
from testbed.compile.topology import Topology
from testbed.errors import Position, Problem
from testbed.model.lab import Lab, Router, Timers


@dataclass(frozen=True)
class Neighbour:
    """One neighbour in a router's configuration.

    Args:
        name: the neighbour in the user's words. remote: the speaker at the other end.
        asked_by: who states the session, for errors. multihop: the two are not on one subnet.
    """

    address: str
    asn: int
    name: str
    remote: Key
    asked_by: str
    timers: Timers
    password: str = ""
    local_address: str = ""
    position: Position | None = None

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


@dataclass
class Routing:
    """All BGP of a lab: neighbours by (router, VRF), speakers and sessions."""

    neighbours: dict[tuple[str, str | None], list[Neighbour]] = field(default_factory=dict)
    speakers: dict[Key, Speaker] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)

    def connect(self, router: str, vrf: str | None, neighbour: Neighbour) -> list[Problem]:
        """Add a neighbour to a router; a router has one neighbour per address."""
        own = self.neighbours.setdefault((router, vrf), [])
        for other in own:
            if other.address == neighbour.address:
                where = f" in VRF {vrf}" if vrf else ""
                return [
                    Problem(
                        f"{router} would have two BGP neighbours with the address {neighbour.address}{where}: "
                        f"{other.asked_by} and {neighbour.asked_by}",
                        neighbour.position,
                        "peer with another address of the router, or in another VRF",
                    )
                ]
        own.append(neighbour)
        return []


def router_key(router: str, vrf: str | None) -> Key:
    return (router, vrf, "frr")


def link_sessions(lab: Lab, topology: Topology) -> Routing:
    """The sessions that links with `bgp: true` state, one per family that both ends have an address in."""
    routing = Routing()
    for segment in topology.segments:
        if not segment.bgp:
            continue
        for index, a in enumerate(segment.ends):
            for b in segment.ends[index + 1 :]:
                for version in (4, 6):
                    if not (a.address(version) and b.address(version)):
                        continue
                    for own, other in ((a, b), (b, a)):
                        routing.connect(
                            own.node,
                            own.vrf,
                            Neighbour(
                                address=other.address(version),
                                asn=_asn(lab, other.node),
                                name=other.node,
                                remote=router_key(other.node, other.vrf),
                                asked_by=f"the link to {other.node}",
                                timers=_timers(lab, own.node),
                                position=segment.position,
                            ),
                        )
                    routing.sessions.append(Session(router_key(a.node, a.vrf), router_key(b.node, b.vrf), version))
    return routing


def add_router_speakers(lab: Lab, topology: Topology, routing: Routing) -> None:
    """A speaker per routing instance that has neighbours, with the prefixes it originates."""
    for router, vrf in routing.neighbours:
        node = lab.nodes[router]
        if isinstance(node, Router) and node.bgp:
            key = router_key(router, vrf)
            prefixes = frozenset(originated(node, router, topology, vrf))
            routing.speakers[key] = Speaker(key, node.bgp.asn, prefixes, node.bgp.transit)


def originated(node: Router, name: str, topology: Topology, vrf: str | None) -> Iterable[str]:
    """The prefixes that a router redistributes into BGP in a routing instance."""
    assert node.bgp is not None
    if "connected" in node.bgp.redistribute:
        for _, end in topology.of(name):
            if end.vrf == vrf:
                yield from (str(address.network) for address in end.addresses)
        if vrf is None:
            yield from (str(address.network) for address in topology.loopbacks.get(name, ()))
    if "static" in node.bgp.redistribute:
        yield from (route.to for route in node.routes if route.vrf == vrf)


def _asn(lab: Lab, name: str) -> int:
    node = lab.nodes[name]
    assert isinstance(node, Router)
    assert node.bgp is not None
    return node.bgp.asn


def _timers(lab: Lab, name: str) -> Timers:
    node = lab.nodes[name]
    assert isinstance(node, Router)
    return (node.bgp.timers if node.bgp else None) or lab.bgp.timers


def lab_timers(lab: Lab, router: str) -> Timers:
    """The timers of a router's sessions."""
    return _timers(lab, router)


def router_at(topology: Topology, lab: Lab, node: str, address: str) -> tuple[str, str | None, str] | None:
    """The router that has `address` on a segment of `node`: (router, its VRF, the node's own address there)."""
    version = 6 if ":" in address else 4
    for segment, own in topology.of(node):
        for other in segment.others(node):
            if other.address(version) == address and isinstance(lab.nodes[other.node], Router):
                return other.node, other.vrf, own.address(version)
    return None


def names(keys: Sequence[Key]) -> str:
    return ", ".join(f"{node}{f' (VRF {vrf})' if vrf else ''}" for node, vrf, _ in keys)
