"""Plan → the topology file with which containerlab makes the nodes of a running lab, and their links.

What is in the nodes is made by the runtime; a topology that needs nothing of ours is made by `clab_topology`.

Source: containerlab's documents, docs/manual/{topo-def-file,nodes,network}.md and docs/manual/kinds/linux.md. It reads
the file strictly: a key that is not in them is an error.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.plan import Endpoint, Link, Plan

PREFIX = "clab"  # containerlab's own default: containers are called clab-LAB-NODE
KIND = "linux"
MTU = 1500  # bytes, the kernel's for a veth; containerlab's would be 9500
_LEFT_OUT = ("entrypoint", "cmd", "env", "tmpfs", "binds")  # where they are empty


@dataclass(frozen=True, slots=True)
class Container:
    """A node that is on no network but its links.

    Args:
        entrypoint, cmd: what it runs; () for what its image runs. env: is added to that of the image.
        binds: "HOST:CONTAINER[:ro]". tmpfs: path → mount options.
        capabilities: besides those that the engine gives by itself.
    """

    image: str
    hostname: str
    labels: Mapping[str, str]
    sysctls: Mapping[str, str]
    capabilities: Sequence[str]
    security: Sequence[str]
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[str] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)


def container_name(lab: str, node: str) -> str:
    """What containerlab calls the container of a node."""
    return f"{PREFIX}-{lab}-{node}"


def topology(lab: str, containers: Mapping[str, Container], links: Sequence[Link], plan: Plan) -> str:
    """A topology file of containers by their nodes' names, and of links between them.

    Args:
        plan: where the interfaces of the links are.
    """
    return _document(lab, {name: _container(entry) for name, entry in containers.items()}, links, plan)


def links_between(plan: Plan) -> list[Link]:
    """The links that containerlab can make: those between nodes; a pod is inside its node's container."""
    pods = {node.name for node in plan.nodes if node.parent}
    return [link for link in plan.links if not pods & {link.a.node, link.b.node}]


def interface_sysctls(sysctls: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Those that every interface begins with: they must be set before containerlab makes links."""
    chosen = [(key, value) for key, value in sysctls if "/default/" in key or "/all/" in key]
    return {key.replace("/", "."): value for key, value in chosen}


# --- the file ---------------------------------------------------------------------------------------------------------


def _document(lab: str, nodes: Mapping[str, Mapping[str, Any]], links: Sequence[Link], plan: Plan) -> str:
    import yaml  # takes 0.03 s to import

    sizes = {Endpoint(node.name, entry.name): entry.mtu or MTU for node in plan.nodes for entry in node.interfaces}
    document = {
        "name": lab,
        "mgmt": {"skip-when-unused": True},  # no node is on the management network (since 0.76)
        "topology": {**_nodes(nodes), "links": [_link(link, min(sizes[link.a], sizes[link.b])) for link in links]},
    }
    text = yaml.safe_dump(document, sort_keys=False, width=1 << 20)
    # containerlab takes the file for a template first (text/template), and then expands variables.
    return text.replace("{{", '{{"{{"}}').replace("$", "$$")


def _nodes(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Nodes, with what they have in common said once, of their kind."""
    first = next(iter(nodes.values()), {})
    common = {key: value for key, value in first.items() if all(node.get(key) == value for node in nodes.values())}
    return {
        "kinds": {KIND: common},
        "nodes": {
            name: {"kind": KIND, **{key: value for key, value in node.items() if key not in common}}
            for name, node in nodes.items()
        },
    }


def _container(container: Container) -> dict[str, Any]:
    made = {
        "image": container.image,
        "image-pull-policy": "Never",  # it is there, whoever brought it
        "hostname": container.hostname,
        "entrypoint": shlex.join(container.entrypoint),
        "cmd": shlex.join(container.cmd),
        "env": dict(container.env),
        "network-mode": "none",
        "restart-policy": "no",
        "privileged": False,
        "cap-add": list(container.capabilities),
        "security-opts": list(container.security),
        "sysctls": dict(container.sysctls),
        "tmpfs": dict(container.tmpfs),
        "binds": list(container.binds),
        "labels": dict(container.labels),
    }
    return {key: value for key, value in made.items() if value or key not in _LEFT_OUT}


def _link(link: Link, mtu: int) -> dict[str, Any]:
    return {"endpoints": [f"{end.node}:{end.interface}" for end in (link.a, link.b)], "mtu": mtu}
