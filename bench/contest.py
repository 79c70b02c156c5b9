"""Runs one contender once: from nothing until every route is in every kernel, its memory then, and down again."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import Ending, command_line, memory, sysctls_restored, tree
from bench.peers import ROOT, Peer, mininet_topology, munet_config, write_scripts
from testbed.deploy.readiness import await_routes
from testbed.events import ignore
from testbed.plan import Plan
from testbed.run import network_namespace
from testbed.wait import Deadline, until

TIMEOUT = 120.0  # seconds until a contender has failed
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
DAEMONS = ("zebra", "bgpd")


class FailedRunError(Exception):
    """A contender did not come up; the text says how far it got."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender.

    Args:
        up: seconds from its start until every route was in every kernel. proven: until every flow was proven.
        down: seconds. memory: MB, of all its processes. parts: what took how long. failed: flows that failed.
        sysctls: what it changed of the host's.
    """

    up: float
    down: float
    memory: float
    proven: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()


def environment() -> dict[str, str]:
    """What contenders run in: compiled Python is kept, as it is for a user, but not in the checkout."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "pycache")}


@contextlib.contextmanager
def started(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A contender's process; what it leaves behind when the block ends is killed.

    It adopts its orphans (daemons that put themselves into the background), so that all its processes descend from it.
    """

    def adopt_orphans() -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    with log.open("w") as stderr:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env={**environment(), **(env or {})},
            preexec_fn=adopt_orphans,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        left = tree(process.pid)
        ending = Ending(left)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        ending.wait(10)


def _answer(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """The next line a contender prints, as JSON."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("{"):
        raise FailedRunError(_last_line(log))
    answer: dict[str, Any] = json.loads(line)
    return answer


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


# --- testbed ----------------------------------------------------------------------------------------------------------


def run_testbed(lab: str, name: str, runtime: str = "netns") -> Run:
    """A lab by testbed itself, up to the proof of all its flows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder, "log")
        argv = (sys.executable, "-m", "bench.ours", lab, name, str(time.monotonic()), runtime)
        with started(argv, log) as process:
            answer = _answer(process, log)
            used = memory(lab_processes(name))
            assert process.stdin is not None
            process.stdin.close()
            down = _answer(process, log)["down"]
            process.wait()
    return Run(answer["up"], down, used, answer["proven"], answer["parts"], tuple(answer["failed"]))


def lab_processes(name: str) -> list[int]:
    """All processes of a lab: the supervisor and the holders, found by their command lines, and all below them."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        argv = command_line(int(entry.name)) if entry.name.isdigit() else []
        ours = len(argv) > 4 and argv[3].endswith("/supervisor.py")
        if ours and argv[4].partition("/")[0] == name:  # LAB, or in a container LAB/NODE
            found.update(tree(int(entry.name)))
    return sorted(found)


# --- all others -------------------------------------------------------------------------------------------------------


def run_floor(lab: str, plan: Plan) -> Run:
    """The bare daemons. Their clock starts with the first namespace; their memory is the daemons' alone."""

    def argv(folder: Path, scripts: Mapping[str, Path]) -> Sequence[str]:
        folder.joinpath("scripts.json").write_text(json.dumps({name: str(path) for name, path in scripts.items()}))
        return (sys.executable, "-m", "bench.floor", lab, str(folder / "scripts.json"))

    return _run(plan, argv, waits_for_begin=True, only_daemons=True)


def run_munet(peer: Peer, plan: Plan) -> Run:
    """munet by its own command, which goes down when it is interrupted.

    It mounts a /proc below the folder for temporary files and leaves it: so it gets a mount namespace and that folder.
    """

    def argv(folder: Path, scripts: Mapping[str, Path]) -> Sequence[str]:
        config = folder / "munet.yaml"
        config.write_text(munet_config(plan, scripts))
        return (
            "unshare",
            "--mount",
            "env",
            f"TMPDIR={folder}",
            *peer.argv,
            "-c",
            str(config),
            "-d",
            str(folder / "run"),
        )

    return _run(plan, argv, peer.env, interrupt=True)


def run_mininet(peer: Peer, plan: Plan) -> Run:
    """Mininet from a script; the host's sysctls that it changes are put back."""

    def argv(folder: Path, scripts: Mapping[str, Path]) -> Sequence[str]:
        topology = folder / "topology.json"
        topology.write_text(mininet_topology(plan, scripts))
        return (*peer.argv, str(topology))

    with sysctls_restored(peer.sysctls) as changed:
        run = _run(plan, argv, peer.env)
    return Run(run.up, run.down, run.memory, run.up, sysctls=tuple(changed))


def _run(
    plan: Plan,
    argv: Callable[[Path, Mapping[str, Path]], Sequence[str]],
    env: Mapping[str, str] | None = None,
    *,
    interrupt: bool = False,
    waits_for_begin: bool = False,
    only_daemons: bool = False,
) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)  # the daemons read their files as the user frr
        log = Path(folder, "log")
        command = argv(Path(folder), write_scripts(plan, Path(folder, "nodes")))
        begin = time.monotonic()
        with started(command, log, env) as process:
            if waits_for_begin:
                assert process.stdout is not None
                process.stdout.readline()
                begin = time.monotonic()
            _await_routes(plan, process, log)
            up = time.monotonic() - begin
            everything = tree(process.pid)
            counted = [pid for pid in everything if Path(command_line(pid)[0]).name in DAEMONS or not only_daemons]
            used = memory(counted)
            down = _take_down(process, everything, interrupt=interrupt)
    return Run(up, down, used, up)


def _take_down(process: subprocess.Popen[str], everything: Sequence[int], *, interrupt: bool) -> float:
    """Ask a contender to end; seconds until nothing of it is left."""
    ending = Ending(everything)
    begin = time.monotonic()
    if interrupt:
        process.send_signal(signal.SIGINT)
    assert process.stdin is not None
    process.stdin.close()
    if not ending.wait(TIMEOUT):
        raise FailedRunError("it does not go down")
    return time.monotonic() - begin


# --- watching the kernels ---------------------------------------------------------------------------------------------


class Routers:
    """The routers' network namespaces, each found by its zebra, which reads a file in a folder of the router's name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._wanted = set(names)
        self._found: dict[str, int] = {}

    def look(self, root: int) -> bool:
        """Look for more of them among the descendants of a process; whether all have been found."""
        for pid in tree(root):
            argv = command_line(pid)
            if Path(argv[0]).name == "zebra" and "-f" in argv:
                name = Path(argv[argv.index("-f") + 1]).parent.name
                if name in self._wanted and name not in self._found:
                    with contextlib.suppress(OSError):
                        self._found[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return len(self._found) == len(self._wanted)

    @property
    def missing(self) -> list[str]:
        return sorted(self._wanted - set(self._found))

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See testbed.runtime.base.Sockets."""
        assert vrf is None
        with network_namespace(self._found[node]):
            return socket.socket(family, kind, protocol)

    def close(self) -> None:
        for descriptor in self._found.values():
            os.close(descriptor)


def _await_routes(plan: Plan, process: subprocess.Popen[str], log: Path) -> None:
    """Wait until every route that the Plan expects is in its kernel's table."""
    deadline = Deadline(TIMEOUT)
    routers = Routers([node.name for node in plan.nodes])
    try:
        ended = False

        def found() -> bool:
            nonlocal ended
            ended = process.poll() is not None
            return ended or routers.look(process.pid)

        if not until(found, deadline) or ended:
            raise FailedRunError(f"no zebra in {', '.join(routers.missing)}: {_last_line(log)}")
        if missing := await_routes(routers, plan.routes, deadline, ignore):
            raise FailedRunError(f"{len(missing)} of {len(plan.routes)} routes are missing")
    finally:
        routers.close()
