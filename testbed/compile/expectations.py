"""What readiness waits for: the BGP sessions of all daemons, and the routes these must put into kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from testbed.compile.bgp import Routing, without_bgp
from testbed.compile.frr import BGPD_SOCKET
from testbed.compile.kube.cluster import Built
from testbed.compile.kube.cluster_plan import BIRD_SOCKET
from testbed.compile.propagation import propagate
from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.model.lab import Lab, Router
from testbed.plan import MAIN_TABLE, BgpSession, ExpectedRoute

FRR_MULTIPATH = 16  # next hops of a route that any FRR can have: configure --enable-multipath raises it


def expected_sessions(topology: Topology, routing: Routing, built: Built | None) -> tuple[BgpSession, ...]:
    """Every end of every session, asked of the daemon that has it."""
    found = [
        BgpSession(router, vrf, neighbour.address, neighbour.name, "frr", BGPD_SOCKET)
        for (router, vrf), neighbours in routing.neighbours.items()
        for neighbour in neighbours
    ]
    for node in built.nodes if built and built.cluster.provider == "embedded" else ():
        assert built is not None
        if node.name not in built.not_ready:
            found += _node_sessions(topology, built, node.name)
    return tuple(found)


def _node_sessions(topology: Topology, built: Built, node: str) -> Iterator[BgpSession]:
    """The sessions of a cluster's node, their peers named: nodes of the mesh, and what is on the node's own links."""
    owners = {address: name for name, address in built.node_ips.items()}
    for segment, _ in topology.of(node):
        owners |= {str(address.ip): other.node for other in segment.others(node) for address in other.addresses}
    for session in built.bird_sessions(node):
        name = owners.get(session.peer, session.peer)
        if name not in built.not_ready:
            yield BgpSession(node, None, session.peer, name, "bird", BIRD_SOCKET, session.protocol)
    for speaker in built.metallb_sessions(node):
        name = owners.get(speaker.address, speaker.address)
        yield BgpSession(node, speaker.vrf or None, speaker.address, name, "frr", BGPD_SOCKET)


def expected_routes(lab: Lab, topology: Topology, routing: Routing, built: Built | None) -> tuple[ExpectedRoute, ...]:
    """The routes that speakers learn, without those that Calico's BIRD keeps out of the kernel."""
    learned = propagate(tuple(routing.speakers.values()), routing.sessions)
    found: list[ExpectedRoute] = []
    others = set(kubernetes_nodes(built.lab)) if built and built.cluster.provider == "kind" else set()
    for (node, vrf, daemon), by_bgp in learned.items():
        if node in others:
            continue  # asked of the routers, which are the other ends
        leaked = routing.leaked.get((node, vrf, daemon), set())
        kept_out: list[IPv4Network | IPv6Network] = []
        if built and daemon == "bird":
            kept_out = [ip_network(text) for text in built.service_routes(node).not_in_kernel]
        table = topology.vrf_tables.get(vrf, MAIN_TABLE) if vrf else MAIN_TABLE
        wanted = [prefix for prefix in sorted(by_bgp.keys() | leaked) if not _within(prefix, kept_out)]
        router = lab.nodes[node]
        most, single = 1, leaked
        if isinstance(router, Router) and router.bgp:
            most = min(router.bgp.maximum_paths, FRR_MULTIPATH)
            single = leaked | without_bgp(router, node, topology, vrf)
        found += [
            ExpectedRoute(node, vrf, prefix, table, 1 if prefix in single else min(most, by_bgp[prefix]))
            for prefix in wanted
        ]
    return tuple(found)


def _within(prefix: str, ranges: Sequence[IPv4Network | IPv6Network]) -> bool:
    if not ranges:
        return False
    network = ip_network(prefix)
    return any(network.version == entry.version and network.subnet_of(entry) for entry in ranges)  # type: ignore[arg-type]
