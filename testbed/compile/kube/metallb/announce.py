"""Who announces a Service's addresses, how and to whom: the decisions of MetalLB's speakers.

Behaviour after MetalLB's documentation and recordings of the program. All speakers decide from the same facts, so
the decisions of all of them are made here together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import ip_network
from itertools import combinations

from testbed.compile.kube.metallb.advertisements import BgpAdvertisement, Layer2Advertisement, preferences_clash
from testbed.compile.kube.metallb.config import Config
from testbed.compile.kube.metallb.peers import Peer
from testbed.compile.kube.metallb.pools import Address, Network, Pool
from testbed.compile.kube.metallb.services import SHARING, annotation, concerns, ingress_addresses, quoted
from testbed.errors import Problem
from testbed.model.kube import Endpoint, EndpointConditions, EndpointSlice, Node, Service

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
MOST_COMMUNITIES = 63  # of one advertisement; MetalLB's speaker refuses more
_SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Route:
    """A prefix as a node tells it to a peer. `local_pref` 0 means none; `communities` are sorted as text."""

    prefix: Network
    local_pref: int = 0
    communities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Announcement:
    """How one Service is announced.

    Args:
        bgp: node → names of the peers it tells, for each node that tells any.
        l2: the node that answers for the addresses; empty for none.
        interfaces: the interfaces of that node on which it answers; none means all.
    """

    bgp: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    l2: str = ""
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Announcements:
    """All decisions.

    Args:
        services: by the key ("namespace/name") of each Service that is announced by anybody.
        routes: node → name of a peer → what it is told, sorted by prefix.
        problems: why a Service is not announced where an advertisement says that it should be.
    """

    services: Mapping[str, Announcement] = field(default_factory=dict)
    routes: Mapping[str, Mapping[str, tuple[Route, ...]]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Speakers:
    """Where MetalLB's speakers run.

    Args:
        nodes: the names of the nodes that have one; None means every node.
        memberlist: whether they know of each other. If not, every node takes part in the layer 2 election, and a
            winner without a speaker leaves the address unanswered.
        lb_class: the `loadBalancerClass` they are responsible for; empty: Services without a class.
    """

    nodes: frozenset[str] | None = None
    memberlist: bool = True
    lb_class: str = ""

    def on(self, node: Node) -> bool:
        """Whether the node has one."""
        return self.nodes is None or node.name in self.nodes


def announce(
    services: Sequence[Service],
    slices: Iterable[EndpointSlice],
    config: Config,
    nodes: Sequence[Node],
    speakers: Speakers | None = None,
    only: Mapping[str, str] | None = None,
) -> Announcements:
    """Decide who announces what.

    Args:
        services: with their addresses in their status (`alloc.assigned`).
        slices: the endpoints of any services.
        only: key of a Service → the one node that may announce it.
    """
    speakers = speakers or Speakers()
    tables: dict[str, _Table] = {node.name: _Table() for node in nodes}
    decided: dict[str, Announcement] = {}
    problems: list[Problem] = []
    endpoints = _endpoints(slices)
    for service in services:
        addresses = ingress_addresses(service)
        if not addresses or not concerns(service, speakers.lb_class):
            continue
        pool = config.pool_of(addresses)
        if pool is None:
            problems.append(_problem(service, f"no pool holds its addresses {quoted(addresses)}"))
            continue
        case = _Case(service, addresses, pool, tuple(endpoints.get(service.key, ())), config, speakers)
        chosen = (only or {}).get(service.key)
        by = [node for node in nodes if chosen in (None, node.name)]
        bgp, obstacles = _announce_bgp(case, by, tables)
        l2, l2_obstacles = _announce_l2(case, by)
        problems += (_problem(service, text) for text in dict.fromkeys([*obstacles, *l2_obstacles]))
        if bgp or l2.l2:
            decided[service.key] = replace(l2, bgp=bgp)
    routes = {name: table.routes() for name, table in tables.items()}
    return Announcements(decided, routes, tuple(problems))


def can_serve(conditions: EndpointConditions) -> bool:
    """Whether an endpoint counts: it is ready (or does not say), or still serving while it terminates."""
    return conditions.ready is not False or bool(conditions.serving)


def excluded(node: Node) -> bool:
    """Whether the node must not announce: without network, or labelled so (with any value)."""
    unavailable = any(one.type == "NetworkUnavailable" and one.status == "True" for one in node.status.conditions)
    return unavailable or EXCLUDED in node.metadata.labels


@dataclass(frozen=True, slots=True)
class _Case:
    """One Service, and what it depends on whether it is announced."""

    service: Service
    addresses: tuple[Address, ...]
    pool: Pool
    endpoints: tuple[Endpoint, ...]
    config: Config
    speakers: Speakers

    def served_for(self, node: Node) -> bool:
        """Whether the endpoints let the node announce: any, or with policy Local any on the node."""
        serving = [endpoint for endpoint in self.endpoints if can_serve(endpoint.conditions)]
        if self.service.spec.external_traffic_policy == "Local":
            return any(endpoint.node_name == node.name for endpoint in serving)
        return bool(serving)


class _Table:
    """What one node tells its peers, while it is being gathered."""

    def __init__(self) -> None:
        self._told: dict[str, dict[Network, Route]] = {}

    def conflict(self, told: Mapping[str, Sequence[Route]]) -> str:
        """What keeps the routes from being added; empty for nothing."""
        for peer, routes in told.items():
            for route in routes:
                known = self._told.get(peer, {}).get(route.prefix, route)
                if known.local_pref != route.local_pref:
                    preferences = f"{known.local_pref} and {route.local_pref}"
                    return f"{route.prefix} would be told to peer {peer} with the local preferences {preferences}"
        return ""

    def add(self, told: Mapping[str, Sequence[Route]]) -> None:
        """Add the routes; the communities of equal prefixes are united."""
        for peer, routes in told.items():
            known = self._told.setdefault(peer, {})
            for route in routes:
                united = {*route.communities, *known.get(route.prefix, route).communities}
                known[route.prefix] = replace(route, communities=tuple(sorted(united)))

    def routes(self) -> dict[str, tuple[Route, ...]]:
        """Peer → routes, all sorted."""
        return {peer: tuple(sorted(self._told[peer].values(), key=_order)) for peer in sorted(self._told)}


def _order(route: Route) -> tuple[int, int, int]:
    return (route.prefix.version, int(route.prefix.network_address), route.prefix.prefixlen)


def _announce_bgp(
    case: _Case, nodes: Sequence[Node], tables: Mapping[str, _Table]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Enter the routes of a Service into the tables; node → peers, and why it is announced less than asked for."""
    told_by: dict[str, tuple[str, ...]] = {}
    obstacles: list[str] = []
    for node in nodes:
        if not case.speakers.on(node) or excluded(node) or not case.served_for(node):
            continue
        wanted = [one for one in case.config.bgp if one.scope.covers(case.pool.name, case.service, node)]
        told = {
            peer.name: tuple(_routes(case, peer, wanted))
            for peer in case.config.peers
            if peer.selects(node) and any(_tells(one, peer) for one in wanted)
        }
        if obstacle := _obstacle(wanted, case.pool) or tables[node.name].conflict(told):
            obstacles.append(obstacle)
        elif told:
            tables[node.name].add(told)
            told_by[node.name] = tuple(told)
    return told_by, obstacles


def _obstacle(wanted: Sequence[BgpAdvertisement], pool: Pool) -> str:
    """Why the advertisements cannot be made together; empty for nothing."""
    for one in wanted:
        if len(one.communities) > MOST_COMMUNITIES:
            return f"{one.name}: max supported communities is {MOST_COMMUNITIES}, got {len(one.communities)}"
    for one, other in combinations(wanted, 2):
        if preferences_clash(one, other, pool):
            return f"BGPAdvertisements {one.name} and {other.name} give it different local preferences"
    return ""


def _tells(advertisement: BgpAdvertisement, peer: Peer) -> bool:
    return not advertisement.peers or peer.name in advertisement.peers


def _routes(case: _Case, peer: Peer, wanted: Sequence[BgpAdvertisement]) -> Iterator[Route]:
    """What the peer is told of the Service; families that its session does not carry are left out."""
    for one in wanted:
        for address in case.addresses:
            if _tells(one, peer) and address.version in peer.families:
                prefix = ip_network(f"{address}/{one.lengths[address.version]}", strict=False)
                yield Route(prefix, one.local_pref, one.communities)


def _announce_l2(case: _Case, nodes: Sequence[Node]) -> tuple[Announcement, list[str]]:
    """Who answers for the Service, and why nobody does though an advertisement asks for it."""
    pools = [one for one in case.config.l2 if case.pool.name in one.scope.pools]
    if annotation(case.service, SHARING) and any(one.scope.services for one in pools):
        return Announcement(), ["allow-shared-ip is incompatible with serviceSelectors on L2 advertisements"]
    wanted = {
        node.name: [one for one in pools if one.scope.covers(case.pool.name, case.service, node)] for node in nodes
    }
    candidates = [node for node in nodes if wanted[node.name] and _may_answer(case, node)]
    if not candidates:
        return Announcement(), []
    winner = min(candidates, key=lambda node: _rank(node, wanted[node.name], case.addresses[0]))
    if not case.speakers.on(winner):
        return Announcement(), [f"node {winner.name}, which should answer for it, has no speaker"]
    return Announcement(l2=winner.name, interfaces=_interfaces(wanted[winner.name])), []


def _may_answer(case: _Case, node: Node) -> bool:
    known = case.speakers.on(node) or not case.speakers.memberlist
    return known and not excluded(node) and case.served_for(node)


def _rank(node: Node, wanted: Sequence[Layer2Advertisement], address: Address) -> tuple[int, bytes]:
    """Sorts candidates, the winner first: greatest preference, then least hash, which spreads addresses over nodes."""
    weight = sum(one.weight(node) for one in wanted)
    return (-weight, sha256(f"{node.name}#{address}".encode()).digest())


def _interfaces(wanted: Collection[Layer2Advertisement]) -> tuple[str, ...]:
    if not all(one.interfaces for one in wanted):
        return ()
    return tuple(sorted({name for one in wanted for name in one.interfaces}))


def _endpoints(slices: Iterable[EndpointSlice]) -> dict[str, list[Endpoint]]:
    """Endpoints by the key of their Service."""
    found: dict[str, list[Endpoint]] = {}
    for one in slices:
        name = one.metadata.labels.get(_SERVICE_NAME, "")
        found.setdefault(f"{one.namespace}/{name}", []).extend(one.endpoints)
    return found


def _problem(service: Service, why: str) -> Problem:
    return Problem(f"Service {service.key}: MetalLB does not announce it: {why}", service.origin.at())
