"""A lab for clabernetes, which runs containerlab topologies on a Kubernetes cluster, each node in a pod of its own.

Source: clabernetes, the CRD of Topology (c9s.run/v1alpha1; before 0.7 the group was clabernetes.containerlab.dev), and
controllers/topology/deployment.go: a file with a relative path is put beside the topology that the launcher deploys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.errors import InputError, Position, Problem
from testbed.export import clab_topology
from testbed.export.text import dump
from testbed.plan import Node, Plan

API_VERSION = "c9s.run/v1alpha1"
MOST = 1024 * 1024  # bytes of a ConfigMap (k8s.io/api/core/v1, MaxSecretSize)


def render(
    plan: Plan, places: Mapping[str, Position] | None = None, image: str = clab_topology.IMAGE
) -> dict[str, str]:
    """The Topology of a lab and the ConfigMaps with its nodes' files, for `kubectl apply -f`.

    Args:
        places: node → where it was written, for errors. image: of all nodes, where the cluster can get it.

    Returns:
        {"NAME.c9s.yaml": text}

    Raises:
        InputError: naming every node that cannot be exported, and why.
    """
    clab_topology.render(plan, places, image)  # for what it refuses
    problems = [
        Problem(
            f"{node.name}: its files have {size} bytes, and a ConfigMap takes {MOST}", (places or {}).get(node.name)
        )
        for node in plan.nodes
        if (size := sum(len(text.encode()) for text in clab_topology.node_files(node).values())) > MOST
    ]
    if problems:
        raise InputError(problems)
    objects = [*(_config_map(plan, node) for node in plan.nodes), topology(plan, image)]
    return {f"{plan.name}.c9s.yaml": "---\n".join(dump(entry) for entry in objects)}


def topology(plan: Plan, image: str) -> dict[str, Any]:
    """The Topology resource."""
    definition = dump({"name": plan.name, **clab_topology.topology(plan, image)})
    return {
        "apiVersion": API_VERSION,
        "kind": "Topology",
        "metadata": {"name": plan.name},
        "spec": {
            "definition": {"containerlab": definition},
            "naming": "non-prefixed",
            "connectivity": "vxlan",
            "expose": {"exposeType": "ClusterIP"},
            "deployment": {"filesFromConfigMap": {node.name: _mounts(plan, node) for node in plan.nodes}},
        },
    }


def _mounts(plan: Plan, node: Node) -> Sequence[Mapping[str, str]]:
    return [
        {
            "filePath": f"{node.name}/{name}",
            "configMapName": _name(plan, node),
            "configMapPath": name,
            "mode": "execute" if name == clab_topology.START else "read",
        }
        for name in clab_topology.node_files(node)
    ]


def _config_map(plan: Plan, node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(plan, node)},
        "data": clab_topology.node_files(node),
    }


def _name(plan: Plan, node: Node) -> str:
    return f"{plan.name}-{node.name}-files"
