"""FRR routers: interfaces, configuration from configs/frr/*.j2, source NAT."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed import plan
from testbed.compile import frr, leaks, nft, sysctls, vrf_devices
from testbed.compile.base import with_base
from testbed.compile.bgp import Neighbour, Routing, router_id
from testbed.compile.topology import End, Topology
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.lab import Lab, Router, StaticRoute
from testbed.render import environment

# FRR waits to batch updates; on a small fabric the wait is longer than the work it saves (measured: 1.2 s of 2.4 s).
SMALL_FABRIC = 100


@dataclass(frozen=True)
class _Instance:
    vrf: str | None
    neighbours: tuple[Neighbour, ...]
    imports: tuple[leaks.Import, ...] = ()
    families: frozenset[int] = frozenset()  # with something to say


@dataclass(frozen=True)
class _Route:
    to: str
    via: str
    vrf: str | None


def compile_router(lab: Lab, topology: Topology, routing: Routing, name: str) -> tuple[plan.Node, list[Problem]]:
    """A router's part of the Plan, and what is wrong with its routes and NAT."""
    node = lab.nodes[name]
    assert isinstance(node, Router)
    problems: list[Problem] = []
    vrfs = topology.vrfs(name)
    devices = bool(vrfs and topology.vrf_tables)
    routes = tuple(_resolved(lab, topology, name, node, problems))
    own = tuple(interfaces(topology, name))
    rulesets = tuple(_nat(topology, name, node, problems))
    joined = [(entry.source, entry.to) for entry in node.leaks]
    if rulesets and (zones := vrf_devices.zones(own, topology.vrf_tables, joined)):
        rulesets = (zones, *rulesets)
    daemons = ["zebra"]
    files = [frr.VTYSH, frr.daemon_file("zebra", _render("zebra", name=name))]
    if routes:
        daemons.append("staticd")
        files.append(frr.daemon_file("staticd", _render("staticd", name=name, routes=routes, vrfs=vrfs)))
    if node.bgp:
        daemons.append("bgpd")
        files.append(frr.daemon_file("bgpd", _bgpd(topology, routing, name, node)))
    return plan.Node(
        name=name,
        kind="router",
        vrfs=vrfs,
        interfaces=own,
        routes=tuple(vrf_devices.last_routes(vrfs, topology.vrf_tables)),
        rules=vrf_devices.LOCAL_RULES if devices else (),
        rulesets=rulesets,
        sysctls=(*sysctls.ROUTER, *(vrf_devices.SYSCTLS if devices else ()), *sysctls.stated(node.sysctls)),
        directories=frr.DIRECTORIES,
        files=with_base(files, name, topology.addresses(name)),
        processes=frr.processes(daemons, namespace_vrfs=bool(vrfs) and not devices),
    ), problems


def interfaces(topology: Topology, name: str) -> Iterator[plan.Interface]:
    """The interfaces of a node, in the order of the lab file; a bridge is followed by its ports. VRF devices lead."""
    if loopback := topology.loopbacks.get(name):
        yield plan.Interface("lo", "loopback", None, tuple(str(address) for address in loopback))
    yield from vrf_devices.devices(topology.vrfs(name), topology.vrf_tables)
    for segment, end in topology.of(name):
        addresses = tuple(str(address) for address in end.addresses)
        kind: plan.InterfaceKind = "bridge" if end.ports else "veth"
        master = end.vrf if end.vrf in topology.vrf_tables else ""
        yield plan.Interface(end.interface, kind, end.vrf, addresses, mtu=segment.mtu, master=master or "")
        for port in end.ports:
            yield plan.Interface(port, "veth", end.vrf, mtu=segment.mtu, master=end.interface)


def links(topology: Topology) -> Iterator[plan.Link]:
    """The cables: one for a link, one for each port of a switched segment."""
    for segment in topology.segments:
        first, *rest = segment.ends
        if first.ports:
            for port, end in zip(first.ports, rest, strict=True):
                yield plan.Link(plan.Endpoint(first.node, port), plan.Endpoint(end.node, end.interface))
        else:
            yield plan.Link(plan.Endpoint(first.node, first.interface), plan.Endpoint(rest[0].node, rest[0].interface))


def _render(daemon: str, **facts: object) -> str:
    return environment().get_template(f"frr/{daemon}.conf.j2").render(**facts)


def _bgpd(topology: Topology, routing: Routing, name: str, node: Router) -> str:
    assert node.bgp is not None
    leaked = leaks.imports(node)
    instances = [
        _instance(vrf, neighbours, leaked) for (router, vrf), neighbours in routing.neighbours.items() if router == name
    ]
    return _render(
        "bgpd",
        name=name,
        asn=node.bgp.asn,
        router_id=router_id(topology, name, node),
        transit=node.bgp.transit,
        redistribute=node.bgp.redistribute,
        maximum_paths=node.bgp.maximum_paths,
        coalesce=len(routing.sessions) < SMALL_FABRIC,
        leaks=leaked,
        instances=sorted(instances, key=lambda entry: entry.vrf or ""),
    )


def _instance(vrf: str | None, neighbours: Sequence[Neighbour], leaked: Sequence[leaks.Import]) -> _Instance:
    ordered = sorted(neighbours, key=lambda entry: ipaddress.ip_address(entry.address).packed)
    families = {entry.version for entry in ordered} | {
        entry.family for entry in leaked if vrf in (entry.source, entry.to)
    }
    own = tuple(entry for entry in leaked if entry.to == vrf)
    return _Instance(vrf, tuple(ordered), own, frozenset(families))


def _resolved(lab: Lab, topology: Topology, name: str, node: Router, problems: list[Problem]) -> Iterator[_Route]:
    """Static routes with their next hops as addresses."""
    for index, route in enumerate(node.routes):
        place = node.origin.at("routes", index, "via")
        try:
            yield _Route(route.to, _next_hop(lab, _Ways(topology, name, route.vrf), route), route.vrf)
        except _NoWayError as error:
            problems.append(Problem(str(error), place, error.hint))


class _NoWayError(Exception):
    """A static route or NAT names what the router has no link to."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class _Ways:
    """A router's links in one routing instance."""

    topology: Topology
    name: str
    vrf: str | None

    @property
    def where(self) -> str:
        return f" in VRF {self.vrf}" if self.vrf else ""

    def ends(self) -> Iterator[tuple[End, End]]:
        """(its own end, another end) of each."""
        for segment, own in self.topology.of(self.name):
            if own.vrf == self.vrf:
                yield from ((own, other) for other in segment.others(self.name))

    def towards(self, node: str) -> list[tuple[End, End]]:
        """The links to a node. Raises _NoWayError when there is none."""
        found = [(own, other) for own, other in self.ends() if other.node == node]
        if not found:
            neighbours = [other.node for _, other in self.ends()]
            raise _NoWayError(f"{self.name} has no link to {node!r}{self.where}", suggest(node, neighbours))
        return found


def _next_hop(lab: Lab, ways: _Ways, route: StaticRoute) -> str:
    version = ipaddress.ip_network(route.to).version
    try:
        address = ipaddress.ip_address(route.via)
    except ValueError:
        return _neighbour_address(lab, ways, route.via, version)
    if address.version != version:
        raise _NoWayError(f"the route {route.to} needs an IPv{version} next hop, and {route.via} is none")
    own = [entry for end, _ in ways.ends() for entry in end.addresses]
    if any(entry.ip == address for entry in own):
        raise _NoWayError(f"{route.via} is {ways.name}'s own address")
    if not any(address in entry.network for entry in own):
        raise _NoWayError(f"{route.via} is on no link of {ways.name}{ways.where}", "name a neighbour or its address")
    return str(address)


def _neighbour_address(lab: Lab, ways: _Ways, node: str, version: int) -> str:
    if node not in lab.nodes:
        raise _NoWayError(f"no node {node!r}", suggest(node, [other.node for _, other in ways.ends()]))
    found = [other.address(version) for _, other in ways.towards(node) if other.address(version)]
    if not found:
        raise _NoWayError(f"{node} has no IPv{version} address on its link to {ways.name}")
    if len(found) > 1:
        message = f"{ways.name} has {len(found)} links to {node}{ways.where}"
        raise _NoWayError(message, f"state the address: {' or '.join(found)}")
    return found[0]


def _nat(topology: Topology, name: str, node: Router, problems: list[Problem]) -> Iterator[plan.Ruleset]:
    """Masquerading towards the outside, in the routing instance it belongs to."""
    by_vrf: dict[str | None, list[str]] = {}
    for index, nat in enumerate(node.nat):
        place = node.origin.at("nat", index, "outside")
        try:
            found = _Ways(topology, name, nat.vrf).towards(nat.outside)
        except _NoWayError as error:
            problems.append(Problem(str(error), place, error.hint))
            continue
        if not any(own.address(4) for own, _ in found):
            problems.append(
                Problem(f"{name} has no IPv4 address on its link to {nat.outside}", place, "NAT is for IPv4")
            )
        by_vrf.setdefault(nat.vrf, []).extend(own.interface for own, _ in found)
    for vrf, outside in by_vrf.items():
        rules = [f'oifname "{interface}" masquerade' for interface in dict.fromkeys(outside)]
        chain = nft.chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", rules)
        if vrf in topology.vrf_tables:  # all VRFs in one namespace, a table each
            yield nft.table("ip", f"testbed-nat-{vrf}", [chain])
        else:
            yield nft.table("ip", "testbed-nat", [chain], vrf)
