"""The embedded cluster: what its Kubernetes objects decide, before it becomes part of the Plan (see `cluster_plan`)."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from testbed.compile.kube import calico_check, ingress, metallb_frr
from testbed.compile.kube.calico_bgp import BgpCluster, BirdSession, bgp_node
from testbed.compile.kube.calico_bgp import sessions as bird_sessions
from testbed.compile.kube.calico_ipam import Assignment, assign, request
from testbed.compile.kube.calico_services import ServiceRoutes, service_routes
from testbed.compile.kube.cluster_checks import refusals
from testbed.compile.kube.instances import PodInstance, with_addresses
from testbed.compile.kube.metallb_alloc import allocate, assigned
from testbed.compile.kube.metallb_announce import Announcements, announce
from testbed.compile.kube.metallb_config import Config as MetalLBConfig
from testbed.compile.kube.metallb_config import read as read_metallb
from testbed.compile.kube.service_checks import check
from testbed.compile.kube.service_ports import is_proxied
from testbed.compile.kube.services import api_service, completed
from testbed.compile.kube.uplinks import uplink_problems
from testbed.compile.kube.workloads import endpoint_slices, pods
from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.errors import InputError, Problem
from testbed.load.explain import suggest
from testbed.load.manifests import Manifests
from testbed.model import calico, kube
from testbed.model.images import Catalogue
from testbed.model.lab import Cluster, KubernetesNode, Lab
from testbed.model.metallb import BGPPeer
from testbed.model.workloads import Ingress, IngressClass, Secret

CALICO_PREFIX = "projectcalico.org/"
BLOCK_SIZE = 26  # prefix length of a node's IPAM block, Calico's default


@dataclass(frozen=True)
class Built:
    """The cluster, compiled except for the BGP of others.

    Args:
        nodes: as Kubernetes objects. services: completed, with load balancer addresses in their status.
        addresses: pod key → addresses. metallb_peers: what `metallb` was read from, for where it was written.
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
    metallb_peers: tuple[BGPPeer, ...]
    announcements: Announcements
    ingress_config: str

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
        return _named(self.nodes, node)

    def service_routes(self, node: str) -> ServiceRoutes:
        return service_routes(self.bgp, self.bgp.node(node), 4)


def _named(nodes: Iterable[kube.Node], name: str) -> kube.Node:
    return next(node for node in nodes if node.name == name)


def internal_ip(node: kube.Node) -> str:
    return next(entry.address for entry in node.status.addresses if entry.type == "InternalIP")


def pod_node(pod: PodInstance) -> str:
    """The name of a pod among the lab's nodes: its own, with its namespace where that is not `default`."""
    return pod.name if pod.namespace == "default" else f"{pod.namespace}.{pod.name}"


def build(lab: Lab, cluster: Cluster, topology: Topology, manifests: Manifests, images: Catalogue) -> Built:
    """Read the cluster's objects and decide everything they decide.

    Raises:
        InputError: with every problem that was found.
    """
    nodes, problems = _nodes(lab, cluster, topology, manifests)
    _stop(problems)
    problems += uplink_problems(lab, cluster, topology)
    with _noting(problems):
        metallb = read_metallb((*manifests.objects, *nodes))
    with _noting(problems):
        instances = pods(manifests, nodes, images)
        problems += refusals(manifests, instances)
    pools = _pools(cluster, manifests, problems)
    services, found = completed(
        (api_service(cluster.service_subnet), *manifests.of(kube.Service)), cluster.service_subnet
    )
    _stop([*problems, *found])
    assignment = _assign(instances, nodes, manifests, pools)
    addresses = {
        pod.key: (internal_ip(_named(nodes, pod.node_name)),) if pod.host_network else assignment.addresses[pod.key]
        for pod in instances
    }
    with _noting(problems):
        slices = endpoint_slices(services, instances, addresses, manifests.of(kube.EndpointSlice))
        check(tuple(filter(is_proxied, services)), slices)
    _stop(problems)
    allocation = allocate(services, metallb, manifests.of(kube.Namespace))
    services = assigned(services, allocation)
    announcements = announce(services, slices, metallb, nodes)
    bgp = _bgp(nodes, manifests, pools, assignment, services, slices)
    config, found = ingress.nginx(manifests.of(Ingress), manifests.of(IngressClass), services, slices)
    _stop([*allocation.problems, *announcements.problems, *calico_check.problems(bgp), *found])
    return Built(
        lab=lab,
        cluster=cluster,
        topology=topology,
        nodes=nodes,
        pods=tuple(
            with_addresses(pod, addresses[pod.key], internal_ip(_named(nodes, pod.node_name))) for pod in instances
        ),
        services=services,
        slices=slices,
        addresses=addresses,
        bgp=bgp,
        metallb=metallb,
        metallb_peers=manifests.of(BGPPeer),
        announcements=announcements,
        ingress_config=config,
    )


def _stop(problems: Sequence[Problem]) -> None:
    if problems:
        raise InputError(dict.fromkeys(problems))


@contextlib.contextmanager
def _noting(problems: list[Problem]) -> Iterator[None]:
    """Keep what an InputError tells, and go on to find more; the caller stops when there are problems."""
    try:
        yield
    except InputError as error:
        problems += error.problems


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
            place = entry.origin.at("metadata", "name")
            problems.append(Problem(f"no node {name!r} of kind kubernetes in the lab", place, suggest(name, names)))
    made = []
    for name in names:
        address = _internal(topology, cluster, name)
        if address is None:
            where = f" in VRF {cluster.default_route}" if cluster.default_route else ""
            problems.append(Problem(f"{name} has no IPv4 address{where}", lab.nodes[name].origin.at()))
            continue
        problems += _annotation_problems(stated.get(name), str(address))
        made.append(_node_object(lab, name, address, stated.get(name)))
    return tuple(made), problems


def _internal(topology: Topology, cluster: Cluster, name: str) -> ipaddress.IPv4Interface | None:
    for segment, end in topology.of(name):
        if cluster.default_route in (None, segment.vrf):
            for address in end.addresses:
                if isinstance(address, ipaddress.IPv4Interface):
                    return address
    return None


def _annotation_problems(stated: kube.Node | None, address: str) -> Iterator[Problem]:
    """Addresses are the lab file's: what a Node's annotations say of them must be the same."""
    annotations = stated.metadata.annotations if stated else {}
    for key, known in ((f"{CALICO_PREFIX}IPv4Address", address), (f"{CALICO_PREFIX}IPv6Address", "")):
        if stated and annotations.get(key, known) != known:
            message = f"Node {stated.name}: {key} is {annotations[key]!r}, and the lab gives the node {known or 'none'}"
            yield Problem(message, stated.origin.at("metadata", "annotations", key), "leave it out")


def _node_object(lab: Lab, name: str, address: ipaddress.IPv4Interface, stated: kube.Node | None) -> kube.Node:
    node = lab.nodes[name]
    assert isinstance(node, KubernetesNode)
    metadata = stated.metadata if stated else kube.Metadata(name=name)
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **node.labels, **metadata.labels}
    annotations = {f"{CALICO_PREFIX}IPv4Address": str(address), **metadata.annotations}
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
            problems.append(
                Problem(f"IPPool {pool.name}: IPv6 pods are not supported yet", pool.origin.at("spec", "cidr"))
            )
        elif not network.subnet_of(subnet):  # type: ignore[arg-type]
            message = f"IPPool {pool.name}: {network} is not within the cluster's podSubnet {subnet}"
            problems.append(Problem(message, pool.origin.at("spec", "cidr")))
    if stated:
        return stated
    if subnet.prefixlen > BLOCK_SIZE:
        message = f"podSubnet {subnet} is smaller than the block of a node, a /{BLOCK_SIZE}"
        problems.append(Problem(message, cluster.origin.at("podSubnet")))
        return ()
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
