"""What a runtime offers to those who deploy, probe and trace: a small Protocol, and the facts it reports."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.events import Observer
from testbed.plan import Link, Node, Plan, Process
from testbed.run import Namespaces


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A program of a node as it is now.

    Args:
        pid: in the terms of Runtime.proc; the host's own with the netns runtime.
        status: exit status, negative for a signal; None while it runs.
        started, ended: seconds since the epoch.
    """

    name: str
    argv: tuple[str, ...]
    pid: int
    started: float
    status: int | None = None
    ended: float | None = None

    @property
    def running(self) -> bool:
        return self.status is None


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it is now.

    Args:
        pid: of the process that holds it (see ProcessState). vrfs: those that are network namespaces.
    """

    name: str
    pid: int
    parent: str
    vrfs: tuple[str, ...]
    processes: Mapping[str, ProcessState]


class Sockets(Protocol):
    """Opens sockets inside a node's network namespace, from outside it."""

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new, unconnected socket in `node` (or pod), in routing instance `vrf`.

        The socket stays in that namespace whatever thread uses it. Safe to call from several threads. Where the
        VRF is a device, sockets of IP are bound to it; sockets for packets and for netlink are not: they see the
        whole namespace (see `interfaces`).
        Raises NoSuchNodeError when the node is not running, or has no such VRF.
        """
        ...

    def interfaces(self, node: str, vrf: str | None) -> frozenset[int] | None:
        """Indexes of the interfaces of a routing instance that shares its network namespace with others.

        None: it has the namespace to itself. Raises NoSuchNodeError like `socket`.
        """
        ...


class Runtime(Sockets, Protocol):
    """Makes nodes and what is in them. It knows nothing of Kubernetes, BGP or VRF policy.

    Every method raises DeployError (or a CommandError) when the machine refuses, NoSuchNodeError for a node that does
    not run, and NoSuchLabError when the lab does not exist.
    """

    name: str

    def prepare(self, observer: Observer) -> None:
        """Get what takes long to get and belongs to no lab: the image that nodes are made of."""
        ...

    def open(self) -> None:
        """Make sure that the lab itself exists and answers (an empty lab, where it is new)."""
        ...

    def exists(self) -> bool:
        """Whether anything of the lab runs on this machine."""
        ...

    def create(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str], plan: Plan) -> None:
        """Make nodes with the namespaces of their VRFs, directories and files; all of them or none.

        Args:
            contents: (node, path) → text, for files whose content is a secret.
            plan: what the nodes are part of; links may be made here, or by `program`.
        """
        ...

    def remove(self, nodes: Sequence[str]) -> None:
        """End nodes, and the pods in them; returns when nothing of them is left."""
        ...

    def destroy(self) -> None:
        """End the whole lab, whatever state it is in; returns when nothing of it is left."""
        ...

    def program(self, nodes: Sequence[Node], links: Sequence[Link], *, fresh: bool) -> None:
        """Assert links, addresses, routes, rules and sysctls; `fresh`: nothing of them can exist yet."""
        ...

    def instances(self, node: Node) -> None:
        """Give a node that runs just the namespaces of its VRFs: make those it lacks, end the others."""
        ...

    def retract(self, old: Sequence[Node], new: Mapping[str, Node]) -> None:
        """Take away what nodes had and no longer have (links, addresses, routes, rules)."""
        ...

    def write(self, node: Node, contents: Mapping[tuple[str, str], str], remove: Sequence[str]) -> None:
        """Write all files of a node; remove the paths that are no longer wanted."""
        ...

    def start(self, processes: Sequence[tuple[str, Process]]) -> None:
        """Start programs, (node, process) each; returns when each has been executed (not: when it is ready)."""
        ...

    def stop(self, node: str, process: str) -> None:
        """End a program, kindly first; returns when it has ended."""
        ...

    def signal(self, node: str, process: str, number: int) -> bool:
        """Send a signal; returns whether the program was running."""
        ...

    def state(self) -> dict[str, NodeState]:
        """All nodes that run, by name."""
        ...

    def holder(self, node: str) -> int:
        """A descriptor, for the caller to close, that becomes readable when the node ends (pidfd_open(2))."""
        ...

    def absence(self, node: str) -> str:
        """Why a node (not: a pod) that `state` does not name does not run, in a few words."""
        ...

    def namespaces(self, node: str) -> Namespaces:
        """The namespaces of a node, open; they stay open as long as the runtime."""
        ...

    def instance(self, node: str, vrf: str | None) -> Namespaces:
        """The namespaces that a program has which is to run in a routing instance of a node; open like those above."""
        ...

    def run(self, node: str, vrf: str | None, argv: Sequence[str], stdin: str = "") -> str:
        """Run a program in a node to its end and return its output. Raises CommandError when it fails.

        Where the VRF is a device, the program's sockets of IP are bound to it; what it does over netlink, and what
        `ip route` shows therefore, concerns the whole namespace.
        """
        ...

    def path(self, node: str, path: str) -> Path:
        """Where the host finds a path of the node (for reading, and for the sockets of its daemons)."""
        ...

    def proc(self, node: str, pid: int) -> Path:
        """Where the host finds the /proc directory of a process of the node; `pid` as NodeState gives it."""
        ...

    def network(self, node: str, vrf: str | None) -> int:
        """Descriptor of the network namespace that a routing instance is in; stays open as long as the runtime."""
        ...


class ClusterRuntime(Runtime, Protocol):
    """A runtime on which kind can make a lab's cluster, whose nodes are then nodes of the lab."""

    @property
    def kubeconfig(self) -> Path:
        """The file by which clients find the cluster."""
        ...

    def make_cluster(self, config: str, containers: Mapping[str, str], images: Sequence[str], timeout: float) -> None:
        """Have kind make the cluster, unless it is there; returns when its nodes run.

        Args:
            config: kind's configuration. containers: node → the container that kind makes of it.
            images: that the nodes get: names on the engine, or absolute paths of archives. timeout: seconds.
        """
        ...
