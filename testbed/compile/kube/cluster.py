"""The embedded cluster: Kubernetes objects → what its nodes and pods are in the Plan, and whom they speak BGP with."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from testbed import plan
from testbed.compile import frr
from testbed.compile.base import with_base
from testbed.compile.kube import calico_bird, calico_check, ingress, metallb_frr, netfilter
from testbed.compile.kube.calico_bgp import BgpCluster, BirdSession, bgp_node
from testbed.compile.kube.calico_bgp import sessions as bird_sessions
from testbed.compile.kube.calico_ipam import Assignment, assign, request
from testbed.compile.kube.calico_network import PodNetwork, nat_outgoing, node_sysctls, pod_network
from testbed.compile.kube.calico_services import ServiceRoutes, service_routes
from testbed.compile.kube.instances import ContainerInstance, PodInstance, with_addresses
from testbed.compile.kube.kube_proxy import ProxyConfig, ProxyRules, iptables
from testbed.compile.kube.metallb_alloc import allocate, assigned
from testbed.compile.kube.metallb_announce import Announcements, announce
from testbed.compile.kube.metallb_config import Config as MetalLBConfig
from testbed.compile.kube.metallb_config import read as read_metallb
from testbed.compile.kube.services import api_service, completed
from testbed.compile.kube.workloads import endpoint_slices, pods
from testbed.compile.return_path import ReturnPath, Uplink, connmark
from testbed.compile.routers import ICMP_SYSCTLS, extra_sysctls, interfaces
from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.errors import InputError, Problem
from testbed.load.explain import suggest
from testbed.load.manifests import Manifests
from testbed.model import calico, kube
from testbed.model.images import Catalogue
from testbed.model.lab import Cluster, KubernetesNode, Lab, Router
from testbed.model.workloads import Ingress, IngressClass, Secret
from testbed.render import environment

BIRD_CONFIG = "/etc/calico/confd/config"
BIRD_SOCKET = "/run/calico/bird.ctl"
BIRDC = "/usr/sbin/birdc"
# Calico waits 2 s before it first connects, and 5 s between attempts; in a lab both ends start together.
BIRD_TIMERS = calico_bird.Timers(connect_delay=1, connect_retry=1)

# Felix's and kube-proxy's own settings follow these; a reply may come in where no route leads back, so rp_filter is off.
SYSCTLS = (
    *ICMP_SYSCTLS,
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/fib_multipath_hash_policy", "1"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
)


@dataclass(frozen=True)
class Built:
    """The cluster, compiled except for the BGP of others.

    Args:
        objects: its nodes as Kubernetes objects. services: completed, with LB addresses in their status.
        addresses: pod key → addresses.
    """

    lab: Lab
    cluster: Cluster
    topology: Topology
    nodes: tuple[kube.Node, ...]
    pods: tuple[PodInstance, ...]
    services: tuple[kube.Service, ...]
    slices: tuple[kube.EndpointSlice, ...]
    addresses: Mapping[str, tuple[str, ...]]
    bgp: BgpCluster
    metallb: MetalLBConfig
    announcements: Announcements
    ingress_config: str
    problems: tuple[Problem, ...] = field(default=())

    @cached_property
    def node_ips(self) -> dict[str, str]:
        """Node → its InternalIP."""
        return {node.name: internal_ip(node) for node in self.nodes}

    def pods_on(self, node: str) -> list[PodInstance]:
        return [pod for pod in self.pods if pod.node_name == node]

    def bird_sessions(self, node: str) -> tuple[BirdSession, ...]:
        return bird_sessions(self.bgp, node)

    def metallb_sessions(self, node: str) -> tuple[metallb_frr.MetalLBSession, ...]:
        return metallb_frr.sessions(self.object(node), self.metallb)

    def object(self, node: str) -> kube.Node:
        return next(entry for entry in self.nodes if entry.name == node)

    def service_routes(self, node: str) -> ServiceRoutes:
        return service_routes(self.bgp, self.bgp.node(node), 4)


def internal_ip(node: kube.Node) -> str:
    return next(entry.address for entry in node.status.addresses if entry.type == "InternalIP")


def build(lab: Lab, cluster: Cluster, topology: Topology, manifests: Manifests, images: Catalogue) -> Built:
    """Read the cluster's objects and decide everything they decide.

    Raises:
        InputError: with every problem that was found.
    """
    nodes, problems = _nodes(lab, cluster, topology, manifests)
    _stop(problems)
    instances = pods(manifests, nodes, images)
    pools = _pools(cluster, manifests, problems)
    assignment = _assign(instances, nodes, manifests, pools)
    stated = manifests.of(kube.Service)
    services, found = completed((api_service(cluster.service_subnet), *stated), cluster.service_subnet)
    _stop([*problems, *found])
    hosts = {node.name: (internal_ip(node),) for node in nodes}
    addresses = {pod.key: hosts[pod.node_name] if pod.host_network else assignment.addresses[pod.key] for pod in instances}
    slices = endpoint_slices(services, instances, addresses, manifests.of(kube.EndpointSlice))
    metallb = read_metallb((*manifests.objects, *nodes))
    allocation = allocate(services, metallb, manifests.of(kube.Namespace))
    services = assigned(services, allocation)
    announcements = announce(services, slices, metallb, nodes)
    bgp = _bgp(nodes, manifests, pools, assignment, services, slices)
    config, more = ingress.nginx(manifests.of(Ingress), manifests.of(IngressClass), services, slices)
    _stop([*allocation.problems, *announcements.problems, *calico_check.problems(bgp), *more])
    ready = tuple(with_addresses(pod, addresses[pod.key], hosts[pod.node_name][0]) for pod in instances)
    return Built(lab, cluster, topology, nodes, ready, services, slices, addresses, bgp, metallb, announcements, config)


def _stop(problems: Sequence[Problem]) -> None:
    if problems:
        raise InputError(dict.fromkeys(problems))


# --- nodes ----------------------------------------------------------------------------------------------------------


def _nodes(
    lab: Lab, cluster: Cluster, topology: Topology, manifests: Manifests
) -> tuple[tuple[kube.Node, ...], list[Problem]]:
    """The nodes as Kubernetes objects: the lab file's, with what Node manifests add to them."""
    problems: list[Problem] = []
    stated = {entry.name: entry for entry in manifests.of(kube.Node)}
    names = kubernetes_nodes(lab)
    for name, entry in stated.items():
        if name not in names:
            problems.append(Problem(f"no node {name!r} in the lab", entry.origin.at("metadata", "name"), suggest(name, names)))
    if not names:
        problems.append(Problem("the cluster has no node", cluster.origin.at(), "add nodes of kind kubernetes"))
    made = []
    for name in names:
        address = _internal(topology, cluster, name)
        if address is None:
            where = f" in VRF {cluster.default_route}" if cluster.default_route else ""
            problems.append(Problem(f"{name} has no IPv4 address{where}", lab.nodes[name].origin.at()))
        else:
            made.append(_node_object(lab, name, address, stated.get(name)))
    return tuple(made), problems


def _internal(topology: Topology, cluster: Cluster, name: str) -> ipaddress.IPv4Interface | None:
    for segment, end in topology.of(name):
        if cluster.default_route in (None, segment.vrf):
            for address in end.addresses:
                if isinstance(address, ipaddress.IPv4Interface):
                    return address
    return None


def _node_object(lab: Lab, name: str, address: ipaddress.IPv4Interface, stated: kube.Node | None) -> kube.Node:
    node = lab.nodes[name]
    assert isinstance(node, KubernetesNode)
    metadata = stated.metadata if stated else kube.Metadata(name=name)
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **node.labels, **metadata.labels}
    annotations = {"projectcalico.org/IPv4Address": str(address), **metadata.annotations}
    ready = kube.Condition(type="Ready", status="True")
    status = kube.NodeStatus(
        addresses=(
            kube.NodeAddress(type="InternalIP", address=str(address.ip)),
            kube.NodeAddress(type="Hostname", address=name),
        ),
        conditions=stated.status.conditions if stated and stated.status.conditions else (ready,),
    )
    made = kube.Node(
        api_version="v1",
        kind="Node",
        metadata=metadata.model_copy(update={"labels": labels, "annotations": annotations}),
        spec=stated.spec if stated else kube.NodeSpec(),
        status=status,
    )
    made._origin = stated.origin if stated else node.origin
    return made


# --- Calico -----------------------------------------------------------------------------------------------------------


def _pools(cluster: Cluster, manifests: Manifests, problems: list[Problem]) -> tuple[calico.IPPool, ...]:
    """The IPPools; without any, the one that Calico's installation makes of the pod subnet."""
    subnet = ipaddress.ip_network(cluster.pod_subnet)
    stated = manifests.of(calico.IPPool)
    for pool in stated:
        network = ipaddress.ip_network(pool.spec.cidr)
        if network.version == 6:
            problems.append(Problem("IPv6 pods are not supported yet", pool.origin.at("spec", "cidr")))
        elif not network.subnet_of(subnet):  # type: ignore[arg-type]
            message = f"IPPool {pool.name}: {network} is not within the cluster's podSubnet {subnet}"
            problems.append(Problem(message, pool.origin.at("spec", "cidr")))
    if stated:
        return stated
    default = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
        "spec": {"cidr": cluster.pod_subnet, "natOutgoing": True, "ipipMode": "Never", "vxlanMode": "Never"},
    }
    return (calico.IPPool.model_validate(default),)


def _assign(
    instances: Sequence[PodInstance], nodes: Sequence[kube.Node], manifests: Manifests, pools: Sequence[calico.IPPool]
) -> Assignment:
    namespaces = {entry.name: entry.metadata for entry in manifests.of(kube.Namespace)}
    by_name = {node.name: node.metadata for node in nodes}
    requests = []
    for pod in instances:
        if pod.host_network:
            continue
        metadata = kube.Metadata(
            name=pod.name, namespace=pod.namespace, labels=dict(pod.labels), annotations=dict(pod.annotations)
        )
        namespace = namespaces.get(pod.namespace, kube.Metadata(name=pod.namespace))
        requests.append(request(metadata, namespace, by_name[pod.node_name], (4,), pod.origin.origin.at()))
    return assign(pools, requests)


def _bgp(
    nodes: Sequence[kube.Node],
    manifests: Manifests,
    pools: tuple[calico.IPPool, ...],
    assignment: Assignment,
    services: tuple[kube.Service, ...],
    slices: tuple[kube.EndpointSlice, ...],
) -> BgpCluster:
    return BgpCluster(
        nodes=tuple(bgp_node(node) for node in nodes),
        configurations=manifests.of(calico.BGPConfiguration),
        peers=manifests.of(calico.BGPPeer),
        filters=manifests.of(calico.BGPFilter),
        pools=pools,
        blocks=assignment.blocks,
        services=services,
        slices=slices,
        passwords=_passwords(manifests),
    )


def _passwords(manifests: Manifests) -> dict[tuple[str, str], str]:
    """The texts of the Secrets that Calico reads, by (name, key)."""
    return {
        (secret.name, key): text
        for secret in manifests.of(Secret)
        if secret.namespace in ("kube-system", "calico-system")
        for key, text in secret.texts.items()
    }


# --- the Plan ---------------------------------------------------------------------------------------------------------


def node_plan(built: Built, name: str) -> plan.Node:
    """A Kubernetes node's part of the Plan."""
    node = built.lab.nodes[name]
    own = built.pods_on(name)
    networks = {pod.key: _network(built, pod) for pod in own if not pod.host_network}
    path = _return_path(built, name)
    proxy = iptables(built.services, built.slices, built.object(name), ProxyConfig((built.cluster.pod_subnet,)))
    cali = [
        plan.Interface(network.host_interface, addresses=(), mac=network.host_mac) for network in networks.values()
    ]
    routes = [*_default_routes(built, name), *path.routes]
    routes += [route for network in networks.values() for route in network.host_routes]
    sysctls = [*SYSCTLS, *node_sysctls((4,)), *proxy.sysctls]
    sysctls += [entry for network in networks.values() for entry in network.host_sysctls]
    programs = _Programs(built, name)
    return plan.Node(
        name=name,
        kind="kubernetes",
        interfaces=(*interfaces(built.topology, name), *cali),
        routes=tuple(routes),
        rules=path.rules,
        rulesets=(*_rulesets(built, proxy), *path.rulesets),
        sysctls=(*sysctls, *extra_sysctls(node.sysctls)),
        directories=programs.directories,
        files=with_base(programs.files, name, (built.node_ips[name],)),
        processes=programs.processes,
    )


def _rulesets(built: Built, proxy: ProxyRules) -> Iterable[plan.Ruleset]:
    """The netfilter rules of kube-proxy and Calico; the counters that they name come first."""
    if proxy.nfacct:
        yield plan.Ruleset("kube-proxy-counters", "nfacct", "\n".join(proxy.nfacct))
    own = plan.Ruleset("kube-proxy", "iptables-restore", proxy.v4)
    yield netfilter.merge("iptables", (own, nat_outgoing(built.bgp.pools)))


def _default_routes(built: Built, name: str) -> Iterable[plan.Route]:
    """The default route into the cluster's default VRF, and the stated routes into others."""
    for uplink in _uplinks(built, name):
        if built.cluster.default_route in (None, uplink.vrf):
            yield plan.Route("0.0.0.0/0", via=uplink.gateway, dev=uplink.interface)
            break
    for route in built.cluster.routes:
        for uplink in _uplinks(built, name):
            if uplink.vrf == route.vrf:
                yield plan.Route(route.to, via=uplink.gateway, dev=uplink.interface)


def _uplinks(built: Built, name: str) -> list[Uplink]:
    """The node's ways out: each segment with a router on it."""
    found = []
    for segment, own in built.topology.of(name):
        for other in segment.others(name):
            if isinstance(built.lab.nodes[other.node], Router) and other.address(4) and own.address(4):
                networks = tuple(str(entry) for entry in segment.networks if entry.version == 4)
                found.append(Uplink(own.interface, segment.vrf or "", other.address(4), networks))
                break
    return found


def _return_path(built: Built, name: str) -> ReturnPath:
    if built.cluster.return_path == "none":
        return ReturnPath()
    default = next((route.dev for route in _default_routes(built, name)), "")
    return connmark([uplink for uplink in _uplinks(built, name) if uplink.interface != default])


def _network(built: Built, pod: PodInstance) -> PodNetwork:
    return pod_network(pod.namespace, pod.name, built.addresses[pod.key])


class _Programs:
    """What runs on a node beside its pods: Calico's BIRD, MetalLB's FRR, and pods with hostNetwork."""

    def __init__(self, built: Built, name: str) -> None:
        bird = _bird(built, name)
        speaker = _speaker(built, name)
        hosted = [pod for pod in built.pods_on(name) if pod.host_network]
        self.files = (*bird[0], *speaker[0], *(file for pod in hosted for file in _files(built, pod)))
        self.processes = (*bird[1], *speaker[1], *(entry for pod in hosted for entry in _processes(built, pod, own=False)))
        directories = dict(frr.DIRECTORIES) if speaker[1] else {}
        self.directories = (("/run/calico", "root"), *directories.items())
        self.directories += tuple((path, "root") for pod in hosted for path in pod.directories)


def _bird(built: Built, name: str) -> tuple[list[plan.File], list[plan.Process]]:
    texts = calico_bird.bird(environment(), built.bgp, name, BIRD_TIMERS)
    files = [plan.File(f"{BIRD_CONFIG}/{file}", text) for file, text in sorted(texts.items())]
    process = plan.Process(
        name="bird",
        argv=("/usr/sbin/bird", "-d", "-R", "-s", BIRD_SOCKET, "-c", f"{BIRD_CONFIG}/bird.cfg"),
        ready=plan.Ready("path", path=BIRD_SOCKET),
        reload="bird",
        reload_command=(BIRDC, "-s", BIRD_SOCKET, "configure"),
        files=tuple(file.path for file in files),
        directory=BIRD_CONFIG,  # its includes are relative
    )
    return files, [process]


def _speaker(built: Built, name: str) -> tuple[list[plan.File], list[plan.Process]]:
    """MetalLB's speaker: FRR with the text the speaker writes, cut in two because each daemon reads a file of its own."""
    if not built.metallb_sessions(name):
        return [], []
    asns = dict.fromkeys(session.my_asn for session in built.metallb_sessions(name))
    # FRR waits a second to batch updates (routers.SMALL_FABRIC); a speaker announces too little for that to pay.
    extras = "".join(f"router bgp {asn}\n coalesce-time 0\nexit\n" for asn in asns)
    text = metallb_frr.frr(built.object(name), built.metallb, built.announcements, extras)
    lines = text.splitlines()
    zebra = [line for line in lines if line.startswith(("hostname", "ip nht", "ipv6 nht"))]
    bgpd = [line for line in lines if not line.startswith(("ip nht", "ipv6 nht"))]
    files = [
        frr.VTYSH,
        frr.daemon_file("zebra", "\n".join([*zebra, ""])),
        frr.daemon_file("bgpd", "\n".join(["log stdout informational", *bgpd, ""])),
    ]
    return files, list(frr.processes(("zebra", "bgpd"), namespace_vrfs=False, listen=False))


def pod_plans(built: Built) -> tuple[list[plan.Node], list[plan.Link]]:
    """The pods with a network of their own, and the links to their nodes."""
    nodes, links = [], []
    for pod in built.pods:
        if pod.host_network:
            continue
        network = _network(built, pod)
        name = pod_node(pod)
        directories = tuple((path, "root") for path in pod.directories)
        nodes.append(
            plan.Node(
                name=name,
                kind="pod",
                hostname=pod.hostname,
                parent=pod.node_name,
                interfaces=(plan.Interface("eth0", addresses=network.addresses),),
                routes=network.pod_routes,
                sysctls=network.pod_sysctls,
                directories=directories,
                files=with_base(_files(built, pod), pod.hostname, built.addresses[pod.key]),
                processes=tuple(_processes(built, pod, own=True)),
            )
        )
        links.append(plan.Link(plan.Endpoint(pod.node_name, network.host_interface), plan.Endpoint(name, "eth0")))
    return nodes, links


def pod_node(pod: PodInstance) -> str:
    """The name of a pod among the lab's nodes: its own, with its namespace where that is not `default`."""
    return pod.name if pod.namespace == "default" else f"{pod.namespace}.{pod.name}"


def _files(built: Built, pod: PodInstance) -> Iterable[plan.File]:
    yield from pod.files
    if pod.role == "ingress-nginx":
        yield plan.File(ingress.CONFIG, built.ingress_config)


def _processes(built: Built, pod: PodInstance, *, own: bool) -> Iterable[plan.Process]:
    """The containers as processes. A container that restarts takes over its files; nginx reads its own again."""
    for container in pod.containers:
        paths = tuple(file.path for file in _files(built, pod))
        yield plan.Process(
            name=container.name if own else f"{pod.name}.{container.name}",
            argv=container.argv,
            env=container.env,
            ready=container.ready,
            reload="hup" if container.role == "ingress-nginx" else "restart",
            files=paths,
            directory=container.directory,
        )


def refuse_roles(built: Built) -> list[Problem]:
    """Roles that the catalogue knows and this cluster does not configure yet."""
    found = []
    for pod in built.pods:
        for container in pod.containers:
            if container.role == "dns":
                found.append(Problem(f"{pod.origin.kind} {pod.origin.name}: the cluster's DNS is not supported yet", pod.origin.origin.at()))
            elif container.role == "ingress-nginx" and container.options:
                found.append(_option_problem(pod, container))
    return list(dict.fromkeys(found))


def _option_problem(pod: PodInstance, container: ContainerInstance) -> Problem:
    names = ", ".join(f"--{name}" for name, _ in container.options)
    return Problem(f"{pod.origin.kind} {pod.origin.name}: {names} of ingress-nginx is not supported yet", pod.origin.origin.at())


def services(built: Built) -> tuple[plan.Service, ...]:
    """The Services as `status` shows them."""
    return tuple(_service(built, entry) for entry in built.services)


def _service(built: Built, service: kube.Service) -> plan.Service:
    endpoints = []
    for entry in built.slices:
        if entry.metadata.labels.get("kubernetes.io/service-name") == service.name and entry.namespace == service.namespace:
            numbers = [port.port for port in entry.ports]
            endpoints += [f"{end.addresses[0]}:{number}" for end in entry.endpoints for number in numbers]
    announced = built.announcements.services.get(service.key)
    return plan.Service(
        name=service.name,
        namespace=service.namespace,
        type=service.spec.type,
        cluster_ips=tuple(entry for entry in service.spec.cluster_ips or (service.spec.cluster_ip,) if entry),
        ports=tuple(f"{port.port}/{port.protocol}" for port in service.spec.ports),
        addresses=tuple(entry.ip for entry in service.status.load_balancer.ingress),
        endpoints=tuple(endpoints),
        announced_by=tuple(sorted(announced.bgp)) if announced else (),
    )


__all__ = ["Built", "build", "node_plan", "pod_node", "pod_plans", "refuse_roles", "services"]
