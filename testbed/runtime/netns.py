"""The embedded runtime: every node is a set of namespaces over the host's own programs. No images, no Docker."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed import run as door
from testbed.errors import DeployError, NoSuchLabError, NoSuchNodeError
from testbed.plan import Link, Node, Process
from testbed.runtime.base import NodeState, ProcessState
from testbed.wait import Deadline, until

STATE = Path("/run/testbed")
SUPERVISOR = Path(__file__).with_name("supervisor.py")
GRACE = 2.0  # seconds a program has to end by itself
LOGS = "/var/log/testbed"


class NetnsRuntime:
    """The lab `lab` on this machine's kernel. See testbed.runtime.base.Runtime for the methods."""

    name = "netns"

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.directory = STATE / lab
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[str, tuple[door.Namespaces, dict[str, int], int]] = {}

    # --- the lab --------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return bool(self._pids())

    def open(self) -> None:
        if self._connect():
            return
        if self._pids():
            raise DeployError(
                f"lab {self.lab} is half there (an interrupted start?): run `testbed down {self.lab}` first"
            )
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        door.start_detached([sys.executable, "-I", "-S", str(SUPERVISOR), self.lab, str(self.directory)])
        if not self._connect():
            raise DeployError(f"the supervisor of lab {self.lab} started but does not answer")

    def _connect(self) -> bool:
        if self._connection:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self.directory / "supervisor.sock"))
        except OSError:
            connection.close()
            return False
        self._connection = connection
        return True

    def close(self) -> None:
        """Let go of the lab, which goes on."""
        self._forget_open()
        if self._connection:
            self._connection.close()
            self._connection = None

    def destroy(self) -> None:
        """Kill the supervisor: it is pid 1 of the lab's pid namespace, so the kernel ends all the rest with it."""
        self.close()

        def gone() -> bool:
            for pid in self._pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self._pids()

        if not until(gone, Deadline(30)):
            raise DeployError(f"processes of lab {self.lab} do not end: {self._pids()}")
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATE.rmdir()  # only when no other lab is left

    def _pids(self) -> list[int]:
        """The lab's supervisor and holders, found by their command line: no file is needed to find a lab."""
        wanted = [str(SUPERVISOR).encode(), self.lab.encode()]
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    argv = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                    if argv[3:5] == wanted:
                        found.append(int(entry.name))
        return found

    # --- asking the supervisor ------------------------------------------------------------------------------------

    def _ask(self, op: str, **request: Any) -> tuple[dict[str, Any], list[int]]:
        if not self._connect():
            raise NoSuchLabError(f"lab {self.lab} is not running")
        connection = self._connection
        assert connection is not None
        body = json.dumps({"op": op, **request}).encode()
        with self._lock:
            try:
                connection.sendall(struct.pack("!I", len(body)) + body)
                head, descriptors, _, _ = socket.recv_fds(connection, 4, 64)
                size = struct.unpack("!I", head)[0]
                parts = bytearray()
                while len(parts) < size:
                    part = connection.recv(size - len(parts))
                    if not part:
                        raise OSError("it hung up")  # noqa: TRY301 - the same end as any other broken connection
                    parts += part
            except (OSError, struct.error) as error:
                self.close()
                raise NoSuchLabError(f"the supervisor of lab {self.lab} ended: {error}") from None
        answer: dict[str, Any] = json.loads(parts)
        if "error" in answer:
            if answer["error"].startswith("KeyError: 'no node "):
                raise NoSuchNodeError(f"node {answer['error'].removeprefix(chr(75) + 'eyError: ')[9:-1]} does not run")
            raise DeployError(answer["error"])
        return answer, descriptors

    # --- nodes ----------------------------------------------------------------------------------------------------

    def create(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str]) -> None:
        for generation in (
            [node for node in nodes if not node.parent],
            [node for node in nodes if node.parent],
        ):
            if generation:
                self._ask("create", nodes=[self._request(node, contents) for node in generation])

    def _request(self, node: Node, contents: Mapping[tuple[str, str], str]) -> dict[str, Any]:
        return {
            "name": node.name,
            "hostname": node.hostname or node.name,
            "parent": node.parent,
            "vrfs": list(node.vrfs),
            **_file_request(node, contents),
        }

    def remove(self, nodes: Sequence[str]) -> None:
        if nodes:
            self._forget_open()
            self._ask("remove", nodes=list(nodes))

    def write(self, node: Node, contents: Mapping[tuple[str, str], str], remove: Sequence[str]) -> None:
        self._ask("files", node=node.name, remove=list(remove), **_file_request(node, contents))

    def state(self) -> dict[str, NodeState]:
        answer, _ = self._ask("state")
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

    # --- programs -------------------------------------------------------------------------------------------------

    def start(self, processes: Sequence[tuple[str, Process]]) -> None:
        requests = [
            {
                "node": node,
                "name": process.name,
                "argv": list(process.argv),
                "env": dict(process.env),
                "vrf": process.vrf or "",
                "directory": process.directory,
            }
            for node, process in processes
        ]
        if requests:
            self._ask("spawn", processes=requests)

    def stop(self, node: str, process: str) -> None:
        self._ask("stop", node=node, process=process, grace=GRACE)

    def signal(self, node: str, process: str, number: int) -> bool:
        answer, _ = self._ask("kill", node=node, process=process, signal=number)
        return bool(answer["running"])

    def run(self, node: str, vrf: str | None, argv: Sequence[str], stdin: str = "") -> str:
        namespaces = self.namespaces(node)
        if vrf:
            namespaces = dataclasses.replace(namespaces, net=self.network(node, vrf))
        return door.run(argv, stdin=stdin, namespaces=namespaces)

    # --- namespaces -----------------------------------------------------------------------------------------------

    def _node(self, node: str) -> tuple[door.Namespaces, dict[str, int], int]:
        if node not in self._open:
            answer, descriptors = self._ask("namespaces", node=node)
            net, mnt, uts, ipc, pid = descriptors[:5]
            vrfs = dict(zip(answer["vrfs"], descriptors[5:], strict=True))
            self._open[node] = (door.Namespaces(node, net, mnt, uts, ipc, pid), vrfs, int(answer["pid"]))
        return self._open[node]

    def _forget_open(self) -> None:
        for namespaces, vrfs, _ in self._open.values():
            kept = (namespaces.net, namespaces.mnt, namespaces.uts, namespaces.ipc, namespaces.pid, *vrfs.values())
            for descriptor in kept:
                os.close(descriptor)
        self._open.clear()

    def namespaces(self, node: str) -> door.Namespaces:
        return self._node(node)[0]

    def network(self, node: str, vrf: str | None) -> int:
        namespaces, vrfs, _ = self._node(node)
        if vrf is None:
            return namespaces.net
        if vrf not in vrfs:
            raise NoSuchNodeError(f"{node} has no VRF {vrf}")
        return vrfs[vrf]

    def path(self, node: str, path: str) -> Path:
        return Path(f"/proc/{self._node(node)[2]}/root{path}")

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with door.network_namespace(self.network(node, vrf)):
            return socket.socket(family, kind, protocol)

    def program(self, nodes: Sequence[Node], links: Sequence[Link], *, fresh: bool) -> None:
        from testbed.runtime.namespaces import Networks  # pyroute2 takes 0.15 s to import

        with Networks(nodes, self.network) as networks:
            if not fresh:
                networks.read()
            networks.program(links)

    def retract(self, old: Sequence[Node], new: Mapping[str, Node]) -> None:
        from testbed.runtime.namespaces import Networks, retract

        with Networks(old, self.network) as networks:
            networks.read()
            for network in networks.all():
                retract(network, new[network.node.name])


def _file_request(node: Node, contents: Mapping[tuple[str, str], str]) -> dict[str, Any]:
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


def labs() -> list[str]:
    """The labs that run on this machine, found in /proc."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if len(argv) > 4 and argv[3].endswith(b"/testbed/runtime/supervisor.py"):
                    found.add(argv[4].decode())
    return sorted(found)
