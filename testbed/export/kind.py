"""A cluster as kind takes it, and the part of a containerlab topology that links it.

Sources: kind v0.32.0, pkg/apis/config/v1alpha4; kubeadm v1beta4 (NodeRegistrationOptions); containerlab 0.79,
docs/manual/kinds/k8s-kind.md and ext-container.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from testbed.errors import InputError, Problem
from testbed.export.text import dump
from testbed.plan import MAIN_TABLE, Cluster, Node, Plan

CONFIG, OBJECTS = "kind.yaml", "manifests.yaml"
API_VERSION = "kind.x-k8s.io/v1alpha4"


def render(plan: Plan) -> dict[str, str]:
    """What makes the cluster of a lab without this program.

    Returns:
        kind.yaml, for `kind create cluster --config`; cluster.clab.yml, the nodes and links that a containerlab
        topology gets; manifests.yaml, the lab's own objects in the order in which they are applied.

    Raises:
        InputError: the lab has no cluster that kind makes.
    """
    if plan.cluster is None:
        hint = "in the lab file, write provider: kind into its cluster"
        raise InputError([Problem(f"lab {plan.name} has no cluster that kind makes", hint=hint)])
    objects = [json.loads(entry.text) for entry in plan.cluster.objects]
    return {
        CONFIG: config_text(plan),
        "cluster.clab.yml": dump(topology(plan)),
        OBJECTS: "---\n".join(dump(entry) for entry in objects),
    }


def containers(plan: Plan) -> dict[str, str]:
    """Node → the container that kind makes of it (kind v0.32.0, pkg/cluster/internal/providers/common/namer.go)."""
    found = {}
    workers = 0
    for node in plan.cluster.nodes if plan.cluster else ():
        workers += node.role == "worker"
        suffix = str(workers) if node.role == "worker" and workers > 1 else ""
        found[node.name] = f"{plan.name}-{node.role}{suffix}"
    return found


def config_text(plan: Plan) -> str:
    """kind's configuration."""
    assert plan.cluster is not None
    return dump(config(plan.name, plan.cluster))


def config(name: str, cluster: Cluster) -> dict[str, Any]:
    """kind's configuration, as data.

    In Kubernetes a node has the name it has in the lab, whatever its container is called, and pods may run on every
    one, the control plane too.
    """
    return {
        "kind": "Cluster",
        "apiVersion": API_VERSION,
        "name": name,
        # Calico's manifest has policies of this beta (see its own hack/test/kind/kind.config).
        "featureGates": {"MutatingAdmissionPolicy": True},
        "runtimeConfig": {"admissionregistration.k8s.io/v1beta1": "true"},
        "networking": {
            "ipFamily": "ipv4",
            "disableDefaultCNI": True,
            "kubeProxyMode": cluster.kube_proxy_mode,
            "podSubnet": cluster.pod_subnet,
            "serviceSubnet": cluster.service_subnet,
        },
        "nodes": [
            {
                "role": node.role,
                "image": cluster.image,
                **({"labels": dict(node.labels)} if node.labels else {}),
                "kubeadmConfigPatches": [dump(_registration(node.name, node.role))],
            }
            for node in cluster.nodes
        ],
    }


def _registration(name: str, role: str) -> dict[str, Any]:
    """kubeadm's registration of a node; without a version the patch is for whichever kind writes."""
    if role == "worker":
        return {"kind": "JoinConfiguration", "nodeRegistration": {"name": name}}
    return {"kind": "InitConfiguration", "nodeRegistration": {"name": name, "taints": []}}


# --- containerlab -----------------------------------------------------------------------------------------------------


def topology(plan: Plan) -> dict[str, Any]:
    """Nodes and links for a containerlab topology in which the lab's other nodes are under their own names.

    The interfaces come up without anything: `exec` gives them addresses and routes. Return paths (rules, rulesets) are
    not in it: `testbed up` programs them itself.
    """
    assert plan.cluster is not None
    names = containers(plan)
    nodes: dict[str, Any] = {
        plan.name: {
            "kind": "k8s-kind",
            "image": plan.cluster.image,
            "startup-config": CONFIG,
            "extras": {"k8s_kind": {"deploy": {"wait": "0s"}}},  # nodes are ready only with a pod network
        }
    }
    for name, container in names.items():
        nodes[container] = {"kind": "ext-container", "exec": list(_commands(plan.node(name)))}
    links = []
    for link in plan.links:
        if link.a.node in names or link.b.node in names:
            ends = [f"{names.get(end.node, end.node)}:{end.interface}" for end in (link.a, link.b)]
            links.append({"endpoints": ends})
    return {"topology": {"nodes": nodes, "links": links}}


def _commands(node: Node) -> Iterator[str]:
    for entry in node.interfaces:
        if entry.kind == "veth":
            yield from (f"ip address add {address} dev {entry.name}" for address in entry.addresses)
            yield f"ip link set {entry.name} up" + (f" mtu {entry.mtu}" if entry.mtu else "")
    for route in node.routes:
        if route.table == MAIN_TABLE:
            yield f"ip route add {route.to} via {route.via} dev {route.dev}"
