"""The composition root: the only place that names concrete runtimes and wires them to the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.compile import compile_lab
from testbed.deploy import apply
from testbed.deploy.control import SessionState
from testbed.deploy.readiness import log_path, sessions
from testbed.errors import DeployError, InputError, NoSuchLabError, NoSuchNodeError, ProbeError, Problem
from testbed.events import Observer, ignore
from testbed.load.explain import suggest
from testbed.load.lab import load
from testbed.plan import BgpSession, Flow, Plan
from testbed.plan.diff import PlanDiff, diff
from testbed.probe import flows as probes
from testbed.probe.result import Verdict
from testbed.probe.secrets import Secrets
from testbed.runtime.base import NodeState
from testbed.runtime.netns import NetnsRuntime, labs

RUNTIMES = ("netns",)
TIMEOUT = 60.0  # seconds until a lab must be ready
VERDICTS = "verdicts.json"


@dataclass(frozen=True, slots=True)
class LastVerdict:
    """How a flow ended when it was last asked; `when` is in seconds since the epoch."""

    flow: str
    passed: bool
    outcome: str
    reasons: tuple[str, ...]
    when: float


def running() -> list[str]:
    """The names of the labs that run on this machine."""
    return labs()


def compiled(lab: str, name: str = "") -> Plan:
    """The Plan of a lab, by its path or name.

    Args:
        name: under which it shall run; its own name when empty.

    Raises:
        InputError: with everything that is wrong with the lab's files.
    """
    loaded = load(lab)
    return compile_lab(loaded.lab, loaded.manifests, loaded.images, name)


class Session:
    """A lab on this machine, by the name it runs under.

    Args:
        name: of the lab. runtime: one of RUNTIMES.
    """

    def __init__(self, name: str, runtime: str = "netns") -> None:
        if runtime not in RUNTIMES:
            raise InputError([Problem(f"no runtime {runtime!r}", hint=suggest(runtime, RUNTIMES))])
        self.name = name
        self.runtime = NetnsRuntime(name)

    @property
    def directory(self) -> Path:
        """Where the lab keeps its Plan, its secrets and its last verdicts (mode 0700)."""
        return self.runtime.directory

    def close(self) -> None:
        """Let go of the lab, which goes on."""
        self.runtime.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether anything of the lab runs."""
        return self.runtime.exists()

    @property
    def plan(self) -> Plan:
        """The Plan the running lab was made from. Raises NoSuchLabError when it does not run, or not whole."""
        if not self.exists:
            raise NoSuchLabError(f"lab {self.name} is not running: `testbed up {self.name}` starts it")
        found = apply.stored_plan(self.directory)
        if found is None:
            raise NoSuchLabError(
                f"lab {self.name} is only half there: `testbed up` makes it anew, `testbed down` ends it"
            )
        return found

    def up(self, plan: Plan, *, timeout: float = TIMEOUT, observer: Observer = ignore, keep: bool = False) -> PlanDiff:
        """Make the Plan real, or apply its difference to what runs; returns what was applied.

        See testbed.deploy.apply.up for arguments and errors.
        """
        plan = dataclasses.replace(plan, name=self.name)
        warming = threading.Thread(target=probes.warm_up, args=({flow.protocol for flow in plan.flows},), daemon=True)
        warming.start()  # the probes' libraries load while the network converges
        with self._alone():
            change = apply.up(plan, self.runtime, self.directory, timeout=timeout, observer=observer, keep=keep)
        warming.join()
        return change

    def down(self) -> bool:
        """End the lab, whatever state it is in; returns whether there was anything to end."""
        there = self.exists or self.directory.exists()
        self.runtime.destroy()
        return there

    def diff(self, plan: Plan) -> PlanDiff:
        """What `up` with this Plan would change; against nothing when the lab does not run."""
        old = apply.stored_plan(self.directory) if self.exists else None
        plan = dataclasses.replace(plan, name=self.name)
        return diff(old or Plan(self.name), plan)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` of a lab at a time. The lock is an abstract socket (unix(7)): no file, gone with its process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
            try:
                lock.bind(f"\0testbed/{self.name}")
            except OSError:
                raise DeployError(f"another `testbed up` of lab {self.name} is at work") from None
            yield

    # --- questions --------------------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, NodeState]:
        """The nodes and pods that run, with their programs."""
        if not self.exists:
            raise NoSuchLabError(f"lab {self.name} is not running: `testbed up {self.name}` starts it")
        return self.runtime.state()

    def sessions(self) -> dict[BgpSession, SessionState]:
        """The state of every BGP session the Plan expects."""
        return sessions(self.runtime, self.plan.sessions)

    def log(self, node: str, process: str) -> str:
        """What a program of a node has printed. Raises NoSuchNodeError when there is no such node or program."""
        state = self.node(node)
        if process not in state.processes:
            raise NoSuchNodeError(f"{node} runs no {process!r} ({suggest(process, state.processes)})")
        return self.runtime.path(state.name, log_path(process)).read_text(errors="replace")

    def node(self, name: str) -> NodeState:
        """A node or pod by its name, or by the beginning of a pod's name when only one pod has it."""
        states = self.nodes()
        if name in states:
            return states[name]
        alike = [entry for entry in states if entry.startswith(f"{name}-")]
        if len(alike) == 1:
            return states[alike[0]]
        raise NoSuchNodeError(f"no node {name!r} ({suggest(name, alike or states)})")

    # --- flows ------------------------------------------------------------------------------------------------------

    def secrets(self) -> Secrets:
        """The lab's ssh key and the host key its servers show."""
        try:
            return Secrets((self.directory / "ssh").read_text(), ((self.directory / "ssh-host.pub").read_text(),))
        except OSError:
            return Secrets()

    def chosen(self, names: Sequence[str] = ()) -> tuple[Flow, ...]:
        """The flows of these names; all when none is given. Raises ProbeError for an unknown one."""
        flows = self.plan.flows
        known = [flow.name for flow in flows]
        for name in names:
            if name not in known:
                raise ProbeError(f"lab {self.name} has no flow {name!r} ({suggest(name, known)})")
        return tuple(flow for flow in flows if not names or flow.name in names)

    def test(self, names: Sequence[str] = (), on_verdict: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        """Ask the live network the flows of these names (all when none is given) and remember the verdicts."""
        verdicts = probes.run(self.chosen(names), self.runtime, self.secrets(), on_verdict)
        self._remember(verdicts)
        return verdicts

    def _remember(self, verdicts: Sequence[Verdict]) -> None:
        kept = {verdict.flow: verdict for verdict in self.last_verdicts()}
        for verdict in verdicts:
            kept[verdict.flow.name] = LastVerdict(
                verdict.flow.name, verdict.passed, verdict.answer.outcome, tuple(verdict.reasons), time.time()
            )
        text = json.dumps([dataclasses.asdict(verdict) for verdict in kept.values()])
        (self.directory / VERDICTS).write_text(text)

    def last_verdicts(self) -> list[LastVerdict]:
        """The verdicts of the last time each flow was asked, in that order."""
        try:
            stored = json.loads((self.directory / VERDICTS).read_text())
        except (OSError, ValueError):
            return []
        return [LastVerdict(**(entry | {"reasons": tuple(entry["reasons"])})) for entry in stored]
