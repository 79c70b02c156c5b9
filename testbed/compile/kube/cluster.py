"""The embedded cluster: what its Kubernetes objects decide, before it becomes part of the Plan (see `cluster_plan`)."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from testbed.compile.kube import ingress
from testbed.compile.kube.calico import check as calico_check
from testbed.compile.kube.calico.bgp import BgpCluster, BirdSession, bgp_node
from testbed.compile.kube.calico.bgp import sessions as bird_sessions
from testbed.compile.kube.calico.ipam import Assignment, assign, request
from testbed.compile.kube.calico.services import ServiceRoutes, service_routes
from testbed.compile.kube.cluster_checks import refusals
from testbed.compile.kube.cluster_nodes import internal_ip, named, node_objects, unready
from testbed.compile.kube.egress.checks import Scene
from testbed.compile.kube.egress.election import Egress
from testbed.compile.kube.egress.nodes import announcement_problems, decide
from testbed.compile.kube.instances import PodInstance, with_addresses
from testbed.compile.kube.kube_proxy.service_ports import is_proxied
from testbed.compile.kube.metallb import frr as metallb_frr
from testbed.compile.kube.metallb.alloc import allocate, assigned
from testbed.compile.kube.metallb.announce import Announcements
from testbed.compile.kube.metallb.config import Config as MetalLBConfig
from testbed.compile.kube.metallb.config import read as read_metallb
from testbed.compile.kube.return_paths import return_path_problems
from testbed.compile.kube.service_checks import check
from testbed.compile.kube.services import api_service, completed
from testbed.compile.kube.uplinks import uplink_problems
from testbed.compile.kube.workloads import endpoint_slices, pods
from testbed.compile.topology import Topology
from testbed.errors import InputError, Problem
from testbed.load.manifests import Manifests
from testbed.model import calico, kube
from testbed.model.images import Catalogue
from testbed.model.lab import Cluster, Lab
from testbed.model.metallb import BGPPeer
from testbed.model.ovn import EgressService
from testbed.model.workloads import Ingress, IngressClass, Secret

BLOCK_SIZE = 26  # prefix length of a node's IPAM block, Calico's default


@dataclass(frozen=True)
class Built:
    """The cluster, compiled except for the BGP of others.

    Args:
        nodes: as Kubernetes objects. services: completed, with load balancer addresses in their status.
        addresses: pod key → addresses. metallb_peers: what `metallb` was read from, for where it was written.
        not_ready: the nodes that have ended.
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
    scene: Scene
    egresses: tuple[Egress, ...]
    announcements: Announcements
    ingress_config: str
    not_ready: frozenset[str] = frozenset()

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
        return named(self.nodes, node)

    def service_routes(self, node: str) -> ServiceRoutes:
        return service_routes(self.bgp, self.bgp.node(node), 4)


def pod_node(pod: PodInstance) -> str:
    """The name of a pod among the lab's nodes: its own, with its namespace where that is not `default`."""
    return pod.name if pod.namespace == "default" else f"{pod.namespace}.{pod.name}"


def build(
    lab: Lab,
    cluster: Cluster,
    topology: Topology,
    manifests: Manifests,
    images: Catalogue,
    not_ready: Collection[str] = (),
) -> Built:
    """Read the cluster's objects and decide everything they decide.

    Args:
        not_ready: nodes that have ended since pods were placed: these stay where they are, and are not ready either.

    Raises:
        InputError: with every problem that was found.
    """
    nodes, problems = node_objects(lab, cluster, topology, manifests)
    _stop(problems)
    problems += uplink_problems(lab, cluster, topology)
    with _noting(problems):
        metallb = read_metallb((*manifests.objects, *nodes))
    instances: tuple[PodInstance, ...] = ()  # of a real cluster nothing is known before it runs
    with _noting(problems):
        if cluster.provider == "embedded":
            instances = pods(manifests, nodes, images)
            problems += refusals(manifests, instances)
    if not_ready:
        nodes = unready(nodes, not_ready)
        instances = tuple(replace(pod, ready=pod.ready and pod.node_name not in not_ready) for pod in instances)
    pools = _pools(cluster, manifests, problems)
    every_service = (api_service(cluster.service_subnet), *manifests.of(kube.Service))
    services, found = completed(every_service, cluster.service_subnet)
    _stop([*problems, *found])
    assignment = _assign(instances, nodes, manifests, pools)
    addresses = _addresses(instances, nodes, assignment)
    slices = _slices(services, instances, addresses, manifests)
    allocation = allocate(services, metallb, manifests.of(kube.Namespace))
    services = assigned(services, allocation)
    scene = Scene(lab, cluster, topology, nodes, services, slices, instances, addresses)
    egress = decide(scene, manifests.of(EgressService), metallb)
    nodes, announcements = egress.nodes, egress.announcements
    bgp = _bgp(nodes, manifests, pools, assignment, services, slices)
    config, found = "", []
    if cluster.provider == "embedded":
        config, found = ingress.nginx(manifests.of(Ingress), manifests.of(IngressClass), services, slices)
        found += return_path_problems(lab, cluster, topology, services)
        if egress.egresses:
            advertised = {node.name: service_routes(bgp, bgp.node(node.name), 4).advertised for node in nodes}
            found += announcement_problems(egress.egresses, announcements, advertised)
    _stop([*allocation.problems, *egress.problems, *announcements.problems, *calico_check.problems(bgp), *found])
    hosts = {node.name: internal_ip(node) for node in nodes}
    return Built(
        lab=lab,
        cluster=cluster,
        topology=topology,
        nodes=nodes,
        pods=tuple(with_addresses(pod, addresses[pod.key], hosts[pod.node_name]) for pod in instances),
        services=services,
        slices=slices,
        addresses=addresses,
        bgp=bgp,
        metallb=metallb,
        metallb_peers=manifests.of(BGPPeer),
        scene=scene,
        egresses=egress.egresses,
        announcements=announcements,
        ingress_config=config,
        not_ready=frozenset(not_ready),
    )


def _addresses(
    instances: Iterable[PodInstance], nodes: Sequence[kube.Node], assignment: Assignment
) -> dict[str, tuple[str, ...]]:
    """Pod key → its addresses; those of its node when it has the node's network."""
    return {
        pod.key: (internal_ip(named(nodes, pod.node_name)),) if pod.host_network else assignment.addresses[pod.key]
        for pod in instances
    }


def _slices(
    services: Sequence[kube.Service],
    instances: Sequence[PodInstance],
    addresses: Mapping[str, tuple[str, ...]],
    manifests: Manifests,
) -> tuple[kube.EndpointSlice, ...]:
    """The EndpointSlices. Raises InputError for these and the Services when kube-proxy could not work with them."""
    found = endpoint_slices(services, instances, addresses, manifests.of(kube.EndpointSlice))
    check(tuple(filter(is_proxied, services)), found)
    return found


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
