"""What an EgressService is about, and what is wrong with one by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.compile.kube.instances import PodInstance
from testbed.compile.kube.uplinks import default_uplink
from testbed.compile.lab_checks import no_vrf
from testbed.compile.return_path_checks import STRICT, effective
from testbed.compile.topology import Topology
from testbed.compile.uplinks import Uplink, uplinks
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model import kube
from testbed.model.lab import Cluster, Lab
from testbed.model.ovn import EgressService


@dataclass(frozen=True)
class Scene:
    """What there is to choose from.

    Args:
        nodes: as Kubernetes objects. services: with load balancer addresses in their status.
        pods: with `addresses` by their keys.
    """

    lab: Lab
    cluster: Cluster
    topology: Topology
    nodes: Sequence[kube.Node]
    services: Sequence[kube.Service]
    slices: Sequence[kube.EndpointSlice]
    pods: Sequence[PodInstance]
    addresses: Mapping[str, tuple[str, ...]]

    def uplink(self, node: str, network: str) -> Uplink | None:
        """The node's way into the network: a VRF, or empty for that of the default route."""
        if not network:
            return default_uplink(self.lab, self.topology, node)
        found = uplinks(self.lab, self.topology, node)
        return next((entry for entry in found if entry.vrf == network), None)


def service_of(scene: Scene, item: EgressService) -> kube.Service | None:
    return next((entry for entry in scene.services if entry.key == item.key), None)


def balanced(scene: Scene, item: EgressService) -> str:
    """The Service's load balancer address (IPv4); empty where it has none."""
    service = service_of(scene, item)
    found = (entry.ip for entry in service.status.load_balancer.ingress) if service else ()
    return next((ip for ip in found if ip and ":" not in ip), "")


def item_problems(scene: Scene, item: EgressService) -> Iterator[Problem]:
    what, spec = f"EgressService {item.key}", item.spec
    service = service_of(scene, item)
    if service is None:
        names = [entry.name for entry in scene.services if entry.namespace == item.namespace]
        yield Problem(f"{what}: no Service of this name", item.origin.at("metadata", "name"), suggest(item.name, names))
    elif service.spec.type != "LoadBalancer":
        message = f"{what}: the Service is of type {service.spec.type}, not LoadBalancer"
        yield Problem(message, item.origin.at("metadata", "name"))
    elif not balanced(scene, item):
        yield Problem(f"{what}: the Service has no load balancer address (IPv4)", item.origin.at("metadata", "name"))
    place = item.origin.at("spec", "network")
    if spec.network in scene.cluster.node_vrfs:
        message = f"{what}: network {spec.network} is a VRF of the nodes (nodeVrfs), which is not supported yet"
        yield Problem(message, place, "leave it out of nodeVrfs")
    elif spec.network.isdecimal():
        hint = "give the name of a VRF of the lab"
        yield Problem(f"{what}: network {spec.network}: tables are numbered by the lab", place, hint)
    elif spec.network and spec.network not in scene.lab.vrfs:
        yield no_vrf(scene.lab, spec.network, place)
    if spec.source_ip_by == "Network" and "node_selector" in spec.model_fields_set:
        message = f"{what}: nodeSelector means nothing to sourceIPBy Network: each node translates for its own pods"
        yield Problem(message, item.origin.at("spec", "nodeSelector"), "leave it out")
    yield from _source_check(scene, item)


def _source_check(scene: Scene, item: EgressService) -> Iterator[Problem]:
    """The kernel's source check drops replies, or what pods send; see `return_path_checks`."""
    for node in scene.nodes:
        uplink, settings = scene.uplink(node.name, item.spec.network), scene.lab.nodes[node.name]
        if uplink is None:
            continue
        key, strictness = effective(settings.sysctls, "rp_filter", uplink.interface)
        what, place = f"EgressService {item.key}: {node.name}", settings.origin.at("sysctls", key)
        if strictness == STRICT and uplink != default_uplink(scene.lab, scene.topology, node.name):
            message = f"{what}: {key} = 1 drops replies on {uplink.interface}: the way back is the default route"
            yield Problem(message, place, "set it to 0 or 2")
        key, valid_mark = effective(settings.sysctls, "src_valid_mark", "default")
        check, strictness = effective(settings.sysctls, "rp_filter", "default")
        if valid_mark and strictness:
            message = f"{what}: {key} = 1 and {check} = {strictness} drop what pods send: the way back to the pod is"
            message += " looked up with the mark"
            yield Problem(message, settings.origin.at("sysctls", key), "set either to 0")
