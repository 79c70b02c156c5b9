"""The embedded runtime: every node is a set of namespaces over the host's own programs. No images, no Docker."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from testbed import run as door
from testbed.errors import DeployError
from testbed.plan import Node, Plan, Process
from testbed.runtime import processes
from testbed.runtime.base import NodeState
from testbed.runtime.client import Supervisor, node_request, process_request
from testbed.runtime.supervised import STATE, SUPERVISOR, Supervised
from testbed.wait import Deadline

SUFFIX = "/testbed/runtime/supervisor.py"  # wherever the package is that started a lab
LAST = 30.0  # seconds the kernel has to end a lab


class NetnsRuntime(Supervised):
    """The lab `lab` on this machine's kernel. See testbed.runtime.base.Runtime for the methods."""

    name = "netns"

    def __init__(self, lab: str) -> None:
        super().__init__(lab)
        self._supervisor = Supervisor(self.directory / "supervisor.sock", f"lab {lab}")

    # --- the lab --------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return bool(_pids(self.lab))

    def open(self) -> None:
        if self._supervisor.connect():
            return
        if self.exists():
            raise DeployError(f"lab {self.lab} is half there: run `testbed down {self.lab}` first")
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        door.start_detached([sys.executable, "-I", "-S", str(SUPERVISOR), self.lab, str(self.directory)])
        if not self._supervisor.connect():
            raise DeployError(f"the supervisor of lab {self.lab} started but does not answer")

    def close(self) -> None:
        """Let go of the lab, which goes on."""
        self._supervisor.close()

    def destroy(self) -> None:
        """Kill the supervisor: it is pid 1 of the lab's pid namespace, so the kernel ends all the rest with it."""
        self.close()

        deadline = Deadline(LAST)
        while pids := _pids(self.lab):
            for pid in pids:
                if not processes.end(pid, deadline):
                    raise DeployError(f"processes of lab {self.lab} do not end: {_pids(self.lab)}")
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATE.rmdir()  # only when no other lab is left

    # --- nodes ----------------------------------------------------------------------------------------------------

    def create(
        self,
        nodes: Sequence[Node],
        contents: Mapping[tuple[str, str], str],
        plan: Plan,  # noqa: ARG002 - links are made later
    ) -> None:
        for generation in (
            [node for node in nodes if not node.parent],
            [node for node in nodes if node.parent],
        ):
            if generation:
                self._supervisor.ask("create", nodes=[node_request(node, contents) for node in generation])

    def remove(self, nodes: Sequence[str]) -> None:
        if nodes:
            self._supervisor.forget_namespaces()
            self._supervisor.ask("remove", nodes=list(nodes))

    def state(self) -> dict[str, NodeState]:
        return self._supervisor.state()

    # --- programs -------------------------------------------------------------------------------------------------

    def start(self, processes: Sequence[tuple[str, Process]]) -> None:
        if processes:
            self._supervisor.ask("spawn", processes=[process_request(*entry) for entry in processes])

    def supervisor(self, node: str) -> Supervisor:  # noqa: ARG002 - one holds all
        return self._supervisor

    def proc(self, node: str, pid: int) -> Path:  # noqa: ARG002 - the host numbers all of them
        return Path(f"/proc/{pid}")


def _supervised() -> Iterator[tuple[int, str]]:
    """(pid, lab) of every supervisor and holder, found by their command line: no file is needed to find a lab."""
    for pid, argv in processes.running():
        if len(argv) > 4 and argv[3].endswith(SUFFIX):
            yield pid, argv[4]


def _pids(lab: str) -> list[int]:
    return [pid for pid, name in _supervised() if name == lab]


def labs() -> list[str]:
    """The labs that run on this machine."""
    return sorted({name for _, name in _supervised()})
