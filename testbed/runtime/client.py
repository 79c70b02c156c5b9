"""Speaks with a supervisor (testbed/runtime/supervisor.py): requests and answers as JSON, namespaces as descriptors."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.errors import DeployError, NoSuchLabError, NoSuchNodeError
from testbed.patience import stretched
from testbed.plan import Node, Process
from testbed.run import Namespaces
from testbed.runtime.base import NodeState, ProcessState
from testbed.wait import readable

UNKNOWN_NODE = "KeyError: 'no node "


class Supervisor:
    """A connection to a supervisor, opened when it is first needed. Safe to use from several threads.

    Args:
        path: of its socket. where: what it supervises, in the user's words.
        timeout: seconds it has to answer; None: it cannot but answer, or end.
    """

    def __init__(self, path: Path, where: str, timeout: float | None = None) -> None:
        self._path, self._where, self._timeout = path, where, timeout
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open: dict[str, _Opened] = {}

    def connect(self) -> bool:
        """Whether the supervisor answers."""
        if self._connection:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout and stretched(self._timeout))
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return False
        self._connection = connection
        return True

    def close(self) -> None:
        """Let go of the supervisor, which goes on."""
        self.forget_namespaces()
        if self._connection:
            self._connection.close()
            self._connection = None

    def ask(self, op: str, **request: Any) -> tuple[dict[str, Any], list[int]]:
        """One request; returns the answer and the descriptors that came with it.

        Raises:
            NoSuchLabError: nobody answers. NoSuchNodeError: it knows no such node. DeployError: it could not be done.
        """
        with self._lock:
            if not self.connect():
                raise NoSuchLabError(f"{self._where} is not running")
            try:
                answer, descriptors = self._exchange(json.dumps({"op": op, **request}).encode())
            except (OSError, struct.error) as error:
                self._connection = None
                raise NoSuchLabError(f"the supervisor of {self._where} ended: {error}") from None
        if reason := answer.get("error", ""):
            if reason.startswith(UNKNOWN_NODE):
                raise NoSuchNodeError(f"node {reason.removeprefix(UNKNOWN_NODE)[:-1]} does not run")
            raise DeployError(reason)
        return answer, descriptors

    def _exchange(self, body: bytes) -> tuple[dict[str, Any], list[int]]:
        assert self._connection is not None
        self._connection.sendall(struct.pack("!I", len(body)) + body)
        head, descriptors, _, _ = socket.recv_fds(self._connection, 4, 64)
        size = struct.unpack("!I", head)[0]
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(size - len(parts))
            if not part:
                raise OSError("it hung up")
            parts += part
        return json.loads(parts), descriptors

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def node(self, node: str) -> tuple[Namespaces, dict[str, int], int]:
        """A node's namespaces, the network namespaces of its VRFs, and its holder's pid.

        They stay open until `close`, or until the node is asked for again after it has ended: a node of the same name
        that was made since is another one.
        """
        with self._opening:
            if (known := self._open.get(node)) and known.ended:
                self._open.pop(node).close()
            if node not in self._open:
                answer, descriptors = self.ask("namespaces", node=node)
                self._open[node] = _Opened(node, descriptors, answer["vrfs"], int(answer["pid"]))
            known = self._open[node]
        return known.namespaces, known.vrfs, known.pid

    def holder(self, node: str) -> int:
        """A pidfd of the process that holds a node, for the caller to close: readable once it has ended."""
        self.node(node)
        with self._opening:
            return os.dup(self._open[node].holder)

    def forget_namespaces(self, node: str = "") -> None:
        """Close what `node` opened, of one node or of all: they are about to go."""
        with self._opening:
            for name in [name for name in self._open if node in ("", name)]:
                self._open.pop(name).close()

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NodeState]:
        """The nodes it holds, with their programs."""
        answer, _ = self.ask("state")
        return {
            name: NodeState(
                name=name,
                pid=node["pid"],
                parent=node["parent"],
                vrfs=tuple(node["vrfs"]),
                processes={
                    process: ProcessState(name=process, **(facts | {"argv": tuple(facts["argv"])}))
                    for process, facts in node["processes"].items()
                },
            )
            for name, node in answer["nodes"].items()
        }


class _Opened:
    """The descriptors of one node, in the order in which the supervisor sends them."""

    def __init__(self, node: str, descriptors: list[int], vrfs: list[str], pid: int) -> None:
        self._all = descriptors
        self.holder = descriptors[-1]
        net, mnt, uts, ipc, pids = descriptors[:5]
        self.namespaces = Namespaces(node, net, mnt, uts, ipc, pids)
        self.vrfs = dict(zip(vrfs, descriptors[5:-1], strict=True))
        self.pid = pid

    @property
    def ended(self) -> bool:
        """Whether the node has (pidfd_open(2): the descriptor of a process that has ended is readable)."""
        return bool(readable([self.holder], 0))

    def close(self) -> None:
        for descriptor in self._all:
            os.close(descriptor)


def node_request(node: Node, contents: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """What a supervisor must know to make a node."""
    return {
        "name": node.name,
        "hostname": node.hostname or node.name,
        "parent": node.parent,
        "vrfs": list(node.vrf_namespaces),
        **file_request(node, contents),
    }


def file_request(node: Node, contents: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The directories and files of a node; `contents` has the texts of those that are secrets."""
    files = [
        {
            "path": file.path,
            "content": file.content if isinstance(file.content, str) else contents[node.name, file.path],
            "mode": file.mode,
            "owner": file.owner,
        }
        for file in node.files
    ]
    return {"directories": [list(entry) for entry in node.directories], "files": files}


def process_request(node: str, process: Process) -> dict[str, Any]:
    """What a supervisor must know to start a program."""
    return {
        "node": node,
        "name": process.name,
        "argv": list(process.argv),
        "env": dict(process.env),
        "vrf": process.vrf or "",
        "directory": process.directory,
    }
