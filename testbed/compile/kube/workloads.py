"""Workloads → pods: names, nodes, programs. Pure: the same manifests and nodes give the same pods."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from testbed.compile.kube.commands import Facts
from testbed.compile.kube.containers import Context, containers
from testbed.compile.kube.endpoint_slices import endpoint_slices
from testbed.compile.kube.instances import ContainerInstance, PodInstance, with_addresses
from testbed.compile.kube.owners import Owner, owner_of, pod_labels, pod_name
from testbed.compile.kube.placement import Placement, place
from testbed.compile.kube.volumes import Sources
from testbed.errors import InputError, Problem
from testbed.load.manifests import Manifests
from testbed.model.images import Catalogue
from testbed.model.kube import Node
from testbed.model.workloads import Pod, StatefulSet

__all__ = ["ContainerInstance", "PodInstance", "endpoint_slices", "pods", "with_addresses"]

_ZONE = "topology.kubernetes.io/zone"


def pods(
    manifests: Manifests, cluster_nodes: Sequence[Node], images: Catalogue, not_ready: Collection[str] = ()
) -> tuple[PodInstance, ...]:
    """All pods of a cluster, by owner in the order written, then by index.

    Args:
        manifests: Deployments, ReplicaSets, StatefulSets, DaemonSets and Pods, the ConfigMaps and Secrets they use.
        cluster_nodes: the nodes, with labels, taints and a Ready condition where they are not alive: a Deployment's
            pods leave such a node, others stay there and are not ready.
        images: which programs stand for images.
        not_ready: keys (namespace/name) of pods that are known not to be ready.

    Raises:
        InputError: with everything that is wrong: unknown images, references to nothing, pods that fit no node, names
            that two pods would share.
    """
    owners = [owner for item in manifests.objects if (owner := owner_of(item)) is not None]
    placed, problems = place(owners, cluster_nodes)
    context = Context(images, Sources(manifests))
    made: list[PodInstance] = []
    names: dict[str, Owner] = {}
    for position, owner in enumerate(owners):
        if not placed[position]:
            problems += containers(owner, _sample(owner), context)[1]
        for placement in placed[position]:
            pod, found = _pod(owner, placement, context, names)
            problems += found
            made += [pod] if pod else []
    if problems:
        raise InputError(dict.fromkeys(problems))
    return tuple(replace(pod, ready=False) if pod.key in not_ready else pod for pod in made)


def _pod(
    owner: Owner, placement: Placement, context: Context, names: dict[str, Owner]
) -> tuple[PodInstance | None, list[Problem]]:
    name, problems = _name(owner, placement, names)
    node = placement.node
    spec = owner.spec
    own_hostname = spec.hostname or name[:63].rstrip("-.")
    hostname = node.name if spec.host_network else own_hostname
    made, found = containers(owner, Facts(name, owner.object.namespace, node.name, hostname), context)
    if problems or found:
        return None, [*problems, *found]
    statefulset = owner.object if isinstance(owner.object, StatefulSet) else None
    cluster_dns = spec.dns_policy == "ClusterFirstWithHostNet" or (
        spec.dns_policy == "ClusterFirst" and not spec.host_network
    )
    return PodInstance(
        name=name,
        namespace=owner.object.namespace,
        labels=pod_labels(owner, name, placement.index),
        annotations=owner.annotations,
        node_name=node.name,
        zone=node.metadata.labels.get(_ZONE, ""),
        host_network=spec.host_network,
        hostname=hostname,
        pod_hostname=name if statefulset else spec.hostname or "",
        subdomain=statefulset.spec.service_name if statefulset else spec.subdomain or "",
        dns_policy="ClusterFirst" if cluster_dns else "Default",
        containers=made,
        origin=owner.object,
        index=placement.index,
        ready=not placement.lost,
    ), []


def _name(owner: Owner, placement: Placement, names: dict[str, Owner]) -> tuple[str, list[Problem]]:
    """The pod's name. Names that are made up avoid those that are taken; of others two must not be the same."""
    node = placement.node.name
    name = pod_name(owner, placement.index, placement.moved, node=node)
    namespace = owner.object.namespace
    attempt = 0
    while f"{namespace}/{name}" in names and not isinstance(owner.object, Pod | StatefulSet):
        attempt += 1
        name = pod_name(owner, placement.index, placement.moved, attempt, node)
    other = names.setdefault(f"{namespace}/{name}", owner)
    if other is owner:
        return name, []
    message = f"its pod {namespace}/{name} has the name of one of {other.title}"
    return name, [Problem(f"{owner.title}: {message}", owner.object.origin.at("metadata", "name"))]


def _sample(owner: Owner) -> Facts:
    """Facts for a look at a template that makes no pod (now), so that its mistakes are found all the same."""
    return Facts(owner.object.name, owner.object.namespace, "node", owner.object.name)
