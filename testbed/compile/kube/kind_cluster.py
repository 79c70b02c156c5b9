"""A cluster that kind makes: what of it is the lab's, and what is handed over to it.

The nodes get the links, addresses and routes of the lab; everything else in them is Kubernetes' own. The objects go to
the cluster as they were written. What they are read for here is what the lab needs to know: BGP peers, for the routers'
ends of the sessions, and addresses of load balancers, for the flows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from testbed import plan
from testbed.compile import sysctls
from testbed.compile.kube.cluster import Built
from testbed.compile.return_path import MOST_UPLINKS, connmark, ways
from testbed.compile.routers import interfaces
from testbed.compile.uplinks import uplinks
from testbed.errors import Problem
from testbed.load.kind import SCHEME
from testbed.load.manifests import Manifests
from testbed.model import calico
from testbed.model.kube import KubeObject
from testbed.model.lab import Cluster, Kind, KubernetesNode, Lab

CALICO_GROUP = "projectcalico.org/"
# Prefixes that kubelet may set on its own node: k8s.io/kubernetes, pkg/apis/... IsKubeletLabel; others of kubernetes.io
# and k8s.io make it end at once.
_KUBELET_MAY = ("node.kubernetes.io", "kubelet.kubernetes.io")
_KUBELET_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
_LONGEST_NAME = 63 - len("-control-plane")  # a container's name is its host name too (RFC 1123)


def node_plan(built: Built, name: str) -> plan.Node:
    """The links of a node, and the return path of what comes in by them.

    Its default route stays that of the container, by which it gets images: so every uplink has its return path.
    """
    own = uplinks(built.lab, built.topology, name)
    by_vrf = {uplink.vrf: uplink for uplink in own}
    routes = [
        plan.Route(route.to, via=by_vrf[route.vrf].gateway, dev=by_vrf[route.vrf].interface)
        for route in built.cluster.routes
    ]
    back = connmark(ways(own, None) if built.cluster.return_path.mode == "connmark" else ())
    node = built.lab.nodes[name]
    return plan.Node(
        name=name,
        kind="kubernetes",
        interfaces=tuple(interfaces(built.topology, name)),
        routes=(*routes, *back.routes),
        rules=back.rules,
        rulesets=back.rulesets,
        sysctls=(*sysctls.ROUTER, *sysctls.stated(node.sysctls)),
    )


def cluster_plan(built: Built, manifests: Manifests) -> plan.Cluster:
    """What kind and the cluster are told."""
    cluster = built.cluster
    kind = cluster.kind or Kind()
    return plan.Cluster(
        image=kind.image,
        pod_subnet=cluster.pod_subnet,
        service_subnet=cluster.service_subnet,
        kube_proxy_mode=cluster.kube_proxy_mode,
        nodes=tuple(_nodes(built.lab)),
        upstream=manifests.upstream,
        images=(*manifests.archives, *kind.images),
        settings=tuple(_settings(built, manifests)),
        objects=tuple(_objects(manifests)),
        timeout=float(kind.timeout),
    )


def _nodes(lab: Lab) -> Iterator[plan.ClusterNode]:
    names = [name for name, node in lab.nodes.items() if isinstance(node, KubernetesNode)]
    for name in names:
        node = lab.nodes[name]
        assert isinstance(node, KubernetesNode)
        role: Any = "control-plane" if name == names[0] else "worker"
        yield plan.ClusterNode(name, role, tuple(sorted(node.labels.items())))


def _settings(built: Built, manifests: Manifests) -> Iterator[tuple[str, str]]:
    """Calico's node agent: its address is the lab's, not that of the engine's network (calico/node, startup)."""
    networks = sorted({str(entry) for entry in _networks(built)})
    yield "IP_AUTODETECTION_METHOD", f"cidr={','.join(networks)}"
    if manifests.of(calico.IPPool):
        yield "NO_DEFAULT_POOLS", "true"
    else:
        yield "CALICO_IPV4POOL_CIDR", built.cluster.pod_subnet
    yield "CALICO_IPV4POOL_IPIP", "Never"
    yield "CALICO_IPV4POOL_VXLAN", "Never"


def _networks(built: Built) -> Iterator[str]:
    for node in built.nodes:
        for segment, end in built.topology.of(node.name):
            if built.node_ips[node.name] in {str(entry.ip) for entry in end.addresses}:
                yield from (str(entry) for entry in segment.networks if entry.version == 4)


def _objects(manifests: Manifests) -> Iterator[plan.KubeObject]:
    """In the order in which they can be had: namespaces, what the network needs, MetalLB's, then all else."""
    made = list(zip(manifests.objects, manifests.texts, strict=True))
    for item, text in sorted(made, key=lambda entry: _turn(entry[0])):
        value = json.loads(text)
        value.pop("status", None)  # the cluster's own to say
        if item.namespaced:
            value["metadata"].setdefault("namespace", item.namespace)
        yield plan.KubeObject(json.dumps(value, ensure_ascii=False), str(item.origin.at() or ""))


def _turn(item: KubeObject) -> int:
    if item.kind in ("Namespace", "Node"):
        return 0
    if item.api_version.startswith(CALICO_GROUP):
        return 1
    return 2 if item.api_version.startswith("metallb.io/") else 3


# --- what is wrong ----------------------------------------------------------------------------------------------------


def problems(lab: Lab, cluster: Cluster, name: str) -> list[Problem]:
    """What kind could not make, before anything is derived from it; `name`: of the lab as it runs."""
    if cluster.provider != "kind":
        if cluster.kind is None:
            return []
        hint = "add provider: kind, or leave it out"
        return [
            Problem("kind says how kind makes a cluster, and this one is embedded", cluster.origin.at("kind"), hint)
        ]
    return [*_names(lab, name), *_labels(lab), *_uplinks(lab, cluster), *_images(cluster)]


def _names(lab: Lab, running: str) -> Iterator[Problem]:
    if len(running) > _LONGEST_NAME:
        message = f"{running!r} is too long for a lab with a cluster of kind's: at most {_LONGEST_NAME}"
        yield Problem(message, lab.origin.at("name"))
    taken = {"control-plane", "worker", *(f"worker{number}" for number in range(2, len(lab.nodes) + 1))}
    for name, node in lab.nodes.items():
        if name in taken and not isinstance(node, KubernetesNode):
            message = f"no node can be named {name} in a lab with a cluster of kind's: one of its containers is"
            yield Problem(message, node.origin.at())


def _labels(lab: Lab) -> Iterator[Problem]:
    for name, node in lab.nodes.items():
        for key in node.labels if isinstance(node, KubernetesNode) else ():
            prefix = key.rpartition("/")[0]
            reserved = any(prefix == end or prefix.endswith(f".{end}") for end in ("kubernetes.io", "k8s.io"))
            allowed = prefix.endswith(_KUBELET_MAY) or key in _KUBELET_LABELS
            if reserved and not allowed:
                message = f"{name}: kubelet may not give its own node the label {key}"
                yield Problem(message, node.origin.at("labels", key), "write it into a manifest of the Node")


def _uplinks(lab: Lab, cluster: Cluster) -> Iterator[Problem]:
    yield from _return_paths(lab, cluster)
    if cluster.return_path.mode != "connmark":
        return
    for name, node in lab.nodes.items():
        links = sum(len(link.instances) for link in lab.links if name in {end.node for end in link.ends})
        if isinstance(node, KubernetesNode) and links > MOST_UPLINKS:
            message = f"{name} has {links} links, and returnPath connmark tells {MOST_UPLINKS} apart with kind"
            yield Problem(message, cluster.origin.at("returnPath"))


def _return_paths(lab: Lab, cluster: Cluster) -> Iterator[Problem]:
    policy = cluster.return_path
    if policy.mode not in ("none", "connmark"):
        message = f"returnPath {policy.mode} is not supported yet for a cluster of kind's"
        yield Problem(message, policy.origin.at("mode"), "use connmark, or provider: embedded")
    for field in ("vrf", "to", "addresses"):
        if field in policy.model_fields_set:
            message = f"returnPath.{field} is not supported yet for a cluster of kind's"
            yield Problem(message, policy.origin.at(field), "leave it out")
    for node in lab.nodes.values():
        if isinstance(node, KubernetesNode) and node.return_path is not None:
            message = "a returnPath of a node's own is not supported yet for a cluster of kind's"
            yield Problem(message, node.origin.at("returnPath"), "state it for the cluster")


def _images(cluster: Cluster) -> Iterator[Problem]:
    for index, name in enumerate(cluster.kind.images if cluster.kind else ()):
        if name.startswith(("-", "/", SCHEME)):
            hint = "archives go into the offline folder"
            yield Problem(f"{name!r} is no name of an image", (cluster.origin.at("kind", "images", index)), hint)
