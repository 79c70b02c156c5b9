"""What runtimes share whose nodes are held by supervisors: all that is done inside a node."""

from __future__ import annotations

import dataclasses
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import run as door
from testbed.errors import NoSuchNodeError
from testbed.events import Observer
from testbed.plan import Link, Node
from testbed.runtime.client import Supervisor, file_request
from testbed.runtime.vrf import members

STATE = Path("/run/testbed")  # a folder per lab: its Plan, its secrets, its last verdicts
SUPERVISOR = Path(__file__).with_name("supervisor.py")
GRACE = 2.0  # seconds a program has to end by itself


class Supervised(ABC):
    """The part of testbed.runtime.base.Runtime that is the same wherever the supervisors are."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.directory = STATE / lab

    def prepare(self, observer: Observer) -> None:  # noqa: B027 - nothing takes long: nodes are made of what is there
        pass

    def absence(self, node: str) -> str:  # noqa: ARG002 - it left no trace
        return "gone"

    @abstractmethod
    def supervisor(self, node: str) -> Supervisor:
        """The supervisor that holds a node or pod. Raises NoSuchNodeError."""

    @abstractmethod
    def proc(self, node: str, pid: int) -> Path: ...

    # --- files and programs -------------------------------------------------------------------------------------------

    def write(self, node: Node, contents: Mapping[tuple[str, str], str], remove: Sequence[str]) -> None:
        request = file_request(node, contents)
        self.supervisor(node.name).ask("files", node=node.name, remove=list(remove), **request)

    def stop(self, node: str, process: str) -> None:
        self.supervisor(node).ask("stop", node=node, process=process, grace=GRACE)

    def signal(self, node: str, process: str, number: int) -> bool:
        answer, _ = self.supervisor(node).ask("kill", node=node, process=process, signal=number)
        return bool(answer["running"])

    def run(self, node: str, vrf: str | None, argv: Sequence[str], stdin: str = "") -> str:
        return door.run(argv, stdin=stdin, namespaces=self.instance(node, vrf))

    def holder(self, node: str) -> int:
        return self.supervisor(node).holder(node)

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def namespaces(self, node: str) -> door.Namespaces:
        return self.supervisor(node).node(node)[0]

    def instance(self, node: str, vrf: str | None) -> door.Namespaces:
        network, device = self._instance(node, vrf)
        return dataclasses.replace(self.namespaces(node), net=network, device=vrf if vrf and device else "")

    def network(self, node: str, vrf: str | None) -> int:
        return self._instance(node, vrf)[0]

    def _instance(self, node: str, vrf: str | None) -> tuple[int, bool]:
        """Descriptor of the namespace that a routing instance is in, and whether the instance is a VRF device there."""
        own = self.namespaces(node).net
        if vrf is None:
            return own, False
        if namespace := self.vrf_namespaces(node).get(vrf):
            return namespace, False
        if vrf in members(own):
            return own, True
        raise NoSuchNodeError(f"{node} has no VRF {vrf}")

    def vrf_namespaces(self, node: str) -> dict[str, int]:
        """The VRFs of a node that are network namespaces, with their descriptors."""
        return self.supervisor(node).node(node)[1]

    def interfaces(self, node: str, vrf: str | None) -> frozenset[int] | None:
        if vrf in self.vrf_namespaces(node):
            return None
        found = members(self.namespaces(node).net)
        if vrf not in found:
            raise NoSuchNodeError(f"{node} has no VRF {vrf}")
        return found[vrf] if len(found) > 1 else None

    def instances(self, node: Node) -> None:
        supervisor = self.supervisor(node.name)
        supervisor.forget_namespaces(node.name)
        supervisor.ask("vrfs", node=node.name, vrfs=list(node.vrf_namespaces))

    def path(self, node: str, path: str) -> Path:
        holder = self.supervisor(node).node(node)[2]
        return Path(f"{self.proc(node, holder)}/root{path}")

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        namespace, device = self._instance(node, vrf)
        with door.network_namespace(namespace):
            made = socket.socket(family, kind, protocol)
        if vrf and device and family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, vrf.encode())
        return made

    def program(self, nodes: Sequence[Node], links: Sequence[Link], *, fresh: bool) -> None:
        from testbed.runtime.namespaces import Networks  # pyroute2 takes 0.15 s to import

        with Networks(nodes, self.network) as networks:
            if not fresh:
                networks.read()
            networks.program(links)

    def retract(self, old: Sequence[Node], new: Mapping[str, Node]) -> None:
        if not old:
            return
        from testbed.runtime.namespaces import Networks, retract

        with Networks(old, self.network) as networks:
            networks.read()
            for network in networks.all():
                retract(network, new[network.node.name])
