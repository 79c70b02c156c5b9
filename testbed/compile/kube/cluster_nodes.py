"""The cluster's nodes as Kubernetes objects."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.load.manifests import Manifests
from testbed.model import kube
from testbed.model.lab import Cluster, KubernetesNode, Lab

CALICO_PREFIX = "projectcalico.org/"


def named(nodes: Iterable[kube.Node], name: str) -> kube.Node:
    """The node of that name, which is among them."""
    return next(node for node in nodes if node.name == name)


def internal_ip(node: kube.Node) -> str:
    """The address that other nodes know it by."""
    return next(entry.address for entry in node.status.addresses if entry.type == "InternalIP")


def node_objects(
    lab: Lab, cluster: Cluster, topology: Topology, manifests: Manifests
) -> tuple[tuple[kube.Node, ...], list[Problem]]:
    """The nodes: the lab file's, with what Node manifests add to them; and what is wrong with these.

    A node's InternalIP is its IPv4 address on its first link in the VRF of the default route.
    """
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


def unready(nodes: Iterable[kube.Node], names: Collection[str]) -> tuple[kube.Node, ...]:
    """The nodes, of which some have not been heard of: their Ready condition is Unknown.

    Source: Kubernetes pkg/controller/nodelifecycle/node_lifecycle_controller.go.
    """
    unknown = kube.Condition(type="Ready", status="Unknown", reason="NodeStatusUnknown")

    def status(node: kube.Node) -> kube.NodeStatus:
        others = (entry for entry in node.status.conditions if entry.type != "Ready")
        return node.status.model_copy(update={"conditions": (*others, unknown)})

    return tuple(node.model_copy(update={"status": status(node)}) if node.name in names else node for node in nodes)


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
