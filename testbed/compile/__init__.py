"""Lab → Plan. Pure: the same lab, manifests and catalogue give the same Plan."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

from testbed import plan
from testbed.compile import bgp, routers
from testbed.compile.flows import compile_flows
from testbed.compile.frr import BGPD_SOCKET
from testbed.compile.hosts import compile_host
from testbed.compile.kube import cluster as kube_cluster
from testbed.compile.propagation import Key, Session, Speaker, propagate
from testbed.compile.topology import Topology
from testbed.compile.topology import build as build_topology
from testbed.errors import InputError, Problem
from testbed.load.manifests import Manifests
from testbed.model.images import Catalogue
from testbed.model.lab import Host, KubernetesNode, Lab, Router, Timers
from testbed.plan import SecretRef


def compile_lab(lab: Lab, manifests: Manifests, images: Catalogue, name: str = "") -> plan.Plan:
    """The Plan of a lab.

    Args:
        manifests: what the cluster's files hold. images: the catalogue with the lab's own entries.
        name: under which it runs; the lab's own name when empty.

    Raises:
        InputError: with every problem that was found.
    """
    problems = _check(lab)
    topology, found = build_topology(lab)
    problems += found
    _stop(problems)
    built = _cluster(lab, topology, manifests, images)
    routing, found = _routing(lab, topology, built)
    nodes, more = _nodes(lab, topology, routing, built, images)
    flows, wrong = compile_flows(lab, topology, built)
    _stop([*found, *more, *wrong])
    pods, pod_links = kube_cluster.pod_plans(built) if built else ([], [])
    everything = (*nodes, *pods)
    return plan.Plan(
        name=name or lab.name,
        description=lab.description,
        nodes=everything,
        links=(*routers.links(topology), *pod_links),
        secrets=_secrets(everything, flows),
        sessions=_expected_sessions(lab, routing, built),
        routes=_expected_routes(routing, built),
        services=kube_cluster.services(built) if built else (),
        flows=flows,
    )


def _stop(problems: list[Problem]) -> None:
    if problems:
        raise InputError(dict.fromkeys(problems))


def _check(lab: Lab) -> list[Problem]:
    """What is wrong between the parts of a lab, before addresses."""
    problems = []
    if len(set(lab.vrfs)) < len(lab.vrfs):
        problems.append(Problem("a VRF is named twice", lab.origin.at("vrfs")))
    kubernetes = [name for name, node in lab.nodes.items() if isinstance(node, KubernetesNode)]
    if kubernetes and lab.cluster is None:
        problems.append(Problem(f"{kubernetes[0]} is a Kubernetes node, and the lab has no cluster", lab.origin.at("nodes")))
    for name, node in lab.nodes.items():
        for key in node.sysctls:
            if not re.fullmatch(r"net(\.[A-Za-z0-9_-]+)+", key):
                problems.append(
                    Problem(f"{name}: sysctl {key!r} is not a node's own", node.origin.at("sysctls", key), "only net.* is")
                )
        if isinstance(node, Router):
            for timers, place in ((node.bgp.timers if node.bgp else None, node),):
                problems += _timer_problems(timers, place)
    problems += _timer_problems(lab.bgp.timers, lab)
    return problems


def _timer_problems(timers: Timers | None, place: Lab | Router) -> list[Problem]:
    """RFC 4271, section 4.2: a hold time is 0 or at least 3 s; keepalive messages come more often."""
    if timers is None or timers.hold == 0 == timers.keepalive:
        return []
    position = timers.origin.at("hold") or place.origin.at("bgp")
    if timers.hold < 3:
        return [Problem(f"hold {timers.hold}: a BGP hold time is 0 or at least 3 seconds", position)]
    if timers.keepalive >= timers.hold:
        return [Problem(f"keepalive {timers.keepalive} must be less than hold {timers.hold}", position)]
    return []


def _cluster(lab: Lab, topology: Topology, manifests: Manifests, images: Catalogue) -> kube_cluster.Built | None:
    if lab.cluster is None:
        return None
    problems = []
    for field, vrf in (("defaultRoute", lab.cluster.default_route), *(("routes", route.vrf) for route in lab.cluster.routes)):
        if vrf is not None and vrf not in lab.vrfs:
            problems.append(Problem(f"no VRF {vrf!r}", lab.cluster.origin.at(field)))
    _stop(problems)
    built = kube_cluster.build(lab, lab.cluster, topology, manifests, images)
    _stop(kube_cluster.refuse_roles(built))
    return built


# --- BGP --------------------------------------------------------------------------------------------------------------


def _routing(lab: Lab, topology: Topology, built: kube_cluster.Built | None) -> tuple[bgp.Routing, list[Problem]]:
    """All sessions: the links', and those the cluster's nodes open towards routers."""
    routing = bgp.link_sessions(lab, topology)
    problems: list[Problem] = []
    if built:
        for node in built.nodes:
            problems += _calico_sessions(lab, topology, routing, built, node.name)
            problems += _metallb_sessions(lab, topology, routing, built, node.name)
    bgp.add_router_speakers(lab, topology, routing)
    return routing, problems


def _calico_sessions(
    lab: Lab, topology: Topology, routing: bgp.Routing, built: kube_cluster.Built, node: str
) -> list[Problem]:
    key: Key = (node, None, "bird")
    sessions = built.bird_sessions(node)
    routes = built.service_routes(node)
    originated = frozenset((*built.bgp.blocks.get(node, ()), *routes.advertised))
    allowed = max((session.allowed_local_as for session in sessions), default=0)
    asn = built.bgp.as_number(built.bgp.node(node))
    # Calico's export filter lets pools and Service ranges out, nothing else: a node is no transit for the fabric.
    routing.speakers[key] = Speaker(key, asn, originated, transit=False, allow_own_as=allowed)
    problems = []
    for session in sessions:
        peers = [entry.name for entry in built.nodes if built.node_ips[entry.name] == session.peer]
        if peers:
            routing.sessions.append(Session(key, (peers[0], None, "bird"), session.family))
            continue
        wanted = _Wanted(f"Calico's session {session.protocol}", key, session.local_asn, session.peer_asn, session.password or "")
        problems += _router_side(lab, topology, routing, node, session.peer, wanted)
    return problems


def _metallb_sessions(
    lab: Lab, topology: Topology, routing: bgp.Routing, built: kube_cluster.Built, node: str
) -> list[Problem]:
    key: Key = (node, None, "metallb")
    sessions = built.metallb_sessions(node)
    problems = []
    for session in sessions:
        position = None
        if session.vrf or session.interface or session.bfd:
            what = "vrf" if session.vrf else "interface" if session.interface else "bfdProfile"
            problems.append(Problem(f"BGPPeer {session.peer}: {what} is not supported yet", position))
            continue
        asn = session.peer_asn if isinstance(session.peer_asn, int) else 0
        wanted = _Wanted(f"MetalLB's BGPPeer {session.peer}", key, session.my_asn, asn, session.password)
        problems += _router_side(lab, topology, routing, node, session.address, wanted)
    told = built.announcements.routes.get(node, {})
    prefixes = frozenset(str(route.prefix) for routes in told.values() for route in routes)
    if sessions:
        routing.speakers[key] = Speaker(key, sessions[0].my_asn, prefixes, receives=False)
    return problems


class _Wanted:
    """What a node's BGP speaker expects of the router at the other end. `peer_asn` 0: any."""

    def __init__(self, asked_by: str, key: Key, asn: int, peer_asn: int, password: str) -> None:
        self.asked_by, self.key, self.asn, self.peer_asn, self.password = asked_by, key, asn, peer_asn, password


def _router_side(
    lab: Lab, topology: Topology, routing: bgp.Routing, node: str, address: str, wanted: _Wanted
) -> list[Problem]:
    """Configure the lab's router at the other end of a session that a node's manifests state."""
    found = bgp.router_at(topology, lab, node, address)
    if found is None:
        return [Problem(f"{wanted.asked_by} on {node} goes to {address}, which no router on {node}'s links has")]
    router, vrf, own = found
    model = lab.nodes[router]
    assert isinstance(model, Router)
    if model.bgp is None:
        return [Problem(f"{wanted.asked_by} on {node} goes to {router}, which has no asn")]
    if wanted.peer_asn not in (0, model.bgp.asn):
        message = f"{wanted.asked_by} on {node} expects AS {wanted.peer_asn} at {router}, which is AS {model.bgp.asn}"
        return [Problem(message)]
    neighbour = bgp.Neighbour(
        address=own,
        asn=wanted.asn,
        name=node,
        remote=wanted.key,
        asked_by=wanted.asked_by,
        timers=bgp.lab_timers(lab, router),
        password=wanted.password,
    )
    version = 6 if ":" in address else 4
    routing.sessions.append(Session(wanted.key, bgp.router_key(router, vrf), version))
    return routing.connect(router, vrf, neighbour)


# --- nodes --------------------------------------------------------------------------------------------------------------


def _nodes(
    lab: Lab, topology: Topology, routing: bgp.Routing, built: kube_cluster.Built | None, images: Catalogue
) -> tuple[list[plan.Node], list[Problem]]:
    nodes: list[plan.Node] = []
    problems: list[Problem] = []
    for name, model in lab.nodes.items():
        if isinstance(model, Router):
            node, found = routers.compile_router(lab, topology, routing, name)
        elif isinstance(model, Host):
            node, found = compile_host(lab, topology, images, name)
        else:
            assert built is not None
            node, found = kube_cluster.node_plan(built, name), []
        nodes.append(node)
        problems += found
    return nodes, problems


def _secrets(nodes: tuple[plan.Node, ...], flows: tuple[plan.Flow, ...]) -> tuple[str, ...]:
    """The key pairs that files name, and `ssh` where a flow logs in."""
    named = {file.content.secret for node in nodes for file in node.files if isinstance(file.content, SecretRef)}
    if any(flow.protocol == "ssh" for flow in flows):
        named |= {"ssh", "ssh-host"}
    return tuple(sorted(named))


# --- readiness ------------------------------------------------------------------------------------------------------------


def _expected_sessions(lab: Lab, routing: bgp.Routing, built: kube_cluster.Built | None) -> tuple[plan.BgpSession, ...]:
    found = [
        plan.BgpSession(router, vrf, neighbour.address, neighbour.name, "frr", BGPD_SOCKET)
        for (router, vrf), neighbours in routing.neighbours.items()
        for neighbour in neighbours
    ]
    for node in built.nodes if built else ():
        assert built is not None
        owner = {address: name for name in lab.nodes for address in built.topology.addresses(name)}
        for session in built.bird_sessions(node.name):
            peer = owner.get(session.peer, session.peer)
            found.append(
                plan.BgpSession(node.name, None, session.peer, peer, "bird", kube_cluster.BIRD_SOCKET, session.protocol)
            )
        for speaker in built.metallb_sessions(node.name):
            peer = owner.get(speaker.address, speaker.address)
            found.append(plan.BgpSession(node.name, None, speaker.address, peer, "frr", BGPD_SOCKET))
    return tuple(found)


def _expected_routes(routing: bgp.Routing, built: kube_cluster.Built | None) -> tuple[plan.ExpectedRoute, ...]:
    learned = propagate(tuple(routing.speakers.values()), routing.sessions)
    found = []
    for (node, vrf, daemon), prefixes in learned.items():
        kept_out = [ip_network(text) for text in built.service_routes(node).not_in_kernel] if built and daemon == "bird" else []
        found += [plan.ExpectedRoute(node, vrf, prefix) for prefix in sorted(prefixes) if not _within(prefix, kept_out)]
    return tuple(found)


def _within(prefix: str, ranges: list[IPv4Network | IPv6Network]) -> bool:
    network = ip_network(prefix)
    return any(network.version == entry.version and network.subnet_of(entry) for entry in ranges)  # type: ignore[arg-type]
