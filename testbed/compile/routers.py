"""FRR routers: interfaces, configuration from configs/frr/*.j2, source NAT."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from testbed import plan
from testbed.compile import frr, nft
from testbed.compile.base import with_base
from testbed.compile.bgp import Neighbour, Routing
from testbed.compile.topology import End, Segment, Topology
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.lab import Lab, Nat, Router, StaticRoute
from testbed.render import environment

# FRR waits to batch updates; on a small fabric the wait is longer than the work it saves (measured: 1.2 s of 2.4 s).
SMALL_FABRIC = 100

# Linux sends few ICMP errors to one host (icmp(7)); in a lab many probes share one source.
ICMP_SYSCTLS = (("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0"))

SYSCTLS = (
    *ICMP_SYSCTLS,
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/fib_multipath_hash_policy", "1"),
    ("net/ipv6/fib_multipath_hash_policy", "1"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
)


@dataclass(frozen=True)
class _Instance:
    vrf: str | None
    neighbours: tuple[Neighbour, ...]


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
    routes = tuple(_resolved(lab, topology, name, node, problems))
    rulesets = tuple(_nat(lab, topology, name, node, problems))
    daemons = ["zebra"]
    files = [frr.VTYSH, frr.daemon_file("zebra", _render("zebra", name=name))]
    if routes:
        daemons.append("staticd")
        files.append(frr.daemon_file("staticd", _render("staticd", name=name, routes=routes, vrfs=vrfs)))
    if node.bgp:
        daemons.append("bgpd")
        files.append(frr.daemon_file("bgpd", _bgpd(lab, topology, routing, name, node)))
    return plan.Node(
        name=name,
        kind="router",
        vrfs=vrfs,
        interfaces=tuple(interfaces(topology, name)),
        rulesets=rulesets,
        sysctls=(*SYSCTLS, *extra_sysctls(node.sysctls)),
        directories=frr.DIRECTORIES,
        files=with_base(files, name, topology.addresses(name)),
        processes=frr.processes(daemons, namespace_vrfs=bool(vrfs)),
    ), problems


def interfaces(topology: Topology, name: str) -> Iterator[plan.Interface]:
    """The interfaces of a node, in the order of the lab file; a bridge is followed by its ports."""
    if loopback := topology.loopbacks.get(name):
        yield plan.Interface("lo", "loopback", None, tuple(str(address) for address in loopback))
    for segment, end in topology.of(name):
        addresses = tuple(str(address) for address in end.addresses)
        kind: plan.InterfaceKind = "bridge" if end.ports else "veth"
        yield plan.Interface(end.interface, kind, end.vrf, addresses, mtu=segment.mtu)
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


def extra_sysctls(settings: dict[str, str | int]) -> Iterator[tuple[str, str]]:
    """Sysctls from the lab file, with slashes."""
    for key, value in settings.items():
        yield key.replace(".", "/"), str(value)


def _render(daemon: str, **facts: object) -> str:
    return environment().get_template(f"frr/{daemon}.conf.j2").render(**facts)


def _bgpd(lab: Lab, topology: Topology, routing: Routing, name: str, node: Router) -> str:
    assert node.bgp is not None
    loopback = next((str(entry.ip) for entry in topology.loopbacks.get(name, ()) if entry.version == 4), "")
    instances = [
        _Instance(vrf, tuple(sorted(neighbours, key=lambda entry: ipaddress.ip_address(entry.address).packed)))
        for (router, vrf), neighbours in routing.neighbours.items()
        if router == name
    ]
    return _render(
        "bgpd",
        name=name,
        asn=node.bgp.asn,
        router_id=node.bgp.router_id or loopback,
        transit=node.bgp.transit,
        redistribute=node.bgp.redistribute,
        maximum_paths=node.bgp.maximum_paths,
        coalesce=len(routing.sessions) < SMALL_FABRIC,
        instances=sorted(instances, key=lambda entry: entry.vrf or ""),
    )


def _resolved(
    lab: Lab, topology: Topology, name: str, node: Router, problems: list[Problem]
) -> Iterator[_Route]:
    """Static routes with their next hops as addresses."""
    for route in node.routes:
        hop = _next_hop(lab, topology, name, route, problems)
        if hop:
            yield _Route(route.to, hop, route.vrf)


def _next_hop(lab: Lab, topology: Topology, name: str, route: StaticRoute, problems: list[Problem]) -> str:
    version = ipaddress.ip_network(route.to).version
    try:
        address = ipaddress.ip_address(route.via)
    except ValueError:
        found = _neighbour(lab, topology, name, route.via, route.vrf, problems, route.origin.at("via"))
        if found and not found[2].address(version):
            problems.append(Problem(f"{route.via} has no IPv{version} address on that link", route.origin.at("via")))
        return found[2].address(version) if found else ""
    if address.version != version:
        problems.append(Problem(f"{route.via} is no IPv{version} address", route.origin.at("via")))
    return route.via


def _neighbour(
    lab: Lab, topology: Topology, name: str, other: str, vrf: str | None, problems: list[Problem], position: object
) -> tuple[Segment, End, End] | None:
    """The segment of a router in `vrf` that `other` is on; adds a problem when there is none."""
    reachable = []
    for segment, end in topology.of(name):
        if end.vrf == vrf:
            for candidate in segment.others(name):
                if candidate.node == other:
                    return segment, end, candidate
                reachable.append(candidate.node)
    where = f" in VRF {vrf}" if vrf else ""
    problems.append(
        Problem(f"{name} has no link to {other!r}{where}", position, suggest(other, reachable))  # type: ignore[arg-type]
    )
    return None


def _nat(lab: Lab, topology: Topology, name: str, node: Router, problems: list[Problem]) -> Iterator[plan.Ruleset]:
    """Masquerading towards the outside, in the routing instance it belongs to."""
    by_vrf: dict[str | None, list[str]] = {}
    for nat in node.nat:
        if interface := _outside(lab, topology, name, nat, problems):
            by_vrf.setdefault(nat.vrf, []).append(interface)
    for vrf, outside in by_vrf.items():
        rules = [f'oifname "{interface}" masquerade' for interface in outside]
        chain = nft.chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", rules)
        yield nft.table("ip", "testbed-nat", [chain], vrf)


def _outside(lab: Lab, topology: Topology, name: str, nat: Nat, problems: list[Problem]) -> str:
    found = _neighbour(lab, topology, name, nat.outside, nat.vrf, problems, nat.origin.at("outside"))
    return found[1].interface if found else ""
