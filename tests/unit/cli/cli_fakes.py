"""A running lab that is none, for the commands that ask one: the methods of `testbed.session.Session` they use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.deploy.control import SessionState
from testbed.deploy.status import InterfaceStatus, NodeStatus, Outline, ProcessStatus, Status
from testbed.errors import NoSuchLabError, NoSuchNodeError, ProbeError, UnsupportedError
from testbed.events import Awaited, Observer, Step
from testbed.plan import BgpSession, Flow, Node, Plan
from testbed.plan.diff import PlanDiff, diff
from testbed.probe.result import Answer, LastVerdict, Verdict
from testbed.runtime.base import NodeState, ProcessState

PING = Flow("ping", "h1", "10.0.0.1", "icmp", target="r1")
WEB = Flow("web", "h1", "10.0.0.1", "http", 80, target="r1", expect="refused")
PLAN = Plan("fake", nodes=(Node("r1", "router"), Node("h1", "host")), flows=(PING, WEB))
SESSION = BgpSession("r1", None, "10.0.0.2", "r2", "frr", "/run/frr/bgpd.vty")


@dataclass
class Machine:
    """What runs on the pretended machine, and what was done to it."""

    labs: dict[str, Plan] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    link: str = "up"
    answers: dict[str, str] = field(default_factory=lambda: {"ping": "ok", "web": "refused"})
    exec_result: int | Exception = 0
    done: list[tuple[object, ...]] = field(default_factory=list)
    up_error: BaseException | None = None
    log: Path = Path("/nonexistent")

    def session(self, name: str, runtime: str = "netns") -> FakeSession:
        return FakeSession(self, name, runtime)


class FakeSession:
    def __init__(self, machine: Machine, name: str, runtime: str) -> None:
        self.machine, self.name, self.runtime_name = machine, name, runtime

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def whole(self) -> bool:
        return self.name in self.machine.labs

    exists = whole

    @property
    def plan(self) -> Plan:
        if not self.whole:
            raise NoSuchLabError(f"lab {self.name} is not running: `testbed up {self.name}` starts it")
        return self.machine.labs[self.name]

    def stored(self) -> Plan:
        return self.machine.labs.get(self.name, Plan(self.name))

    def diff(self, plan: Plan) -> PlanDiff:
        return diff(self.stored(), plan)

    def nodes(self) -> dict[str, NodeState]:
        process = ProcessState("bgpd", ("/bgpd",), 7, 1.0)
        return {node.name: NodeState(node.name, 1, node.parent, (), {"bgpd": process}) for node in self.plan.nodes}

    def node(self, name: str) -> NodeState:
        if name not in self.nodes():
            raise NoSuchNodeError(f"no node {name!r}")
        return self.nodes()[name]

    def up(self, plan: Plan, *, timeout: float, observer: Observer, keep: bool) -> PlanDiff:
        self.machine.done.append(("up", self.name, timeout, keep))
        observer(Step("links"))
        observer(Awaited("routes", ("r1: route to 10.0.0.0/8",), 1))
        if self.machine.up_error:
            raise self.machine.up_error
        observer(Step("links", 0.25))
        change = diff(self.stored(), plan)
        self.machine.labs[self.name] = plan
        return change

    def switch(self, plan: Plan, *, timeout: float) -> PlanDiff:
        self.machine.done.append(("switch", self.name, timeout))
        if self.machine.up_error:
            raise self.machine.up_error
        change = diff(self.stored(), plan)
        self.machine.labs[self.name] = plan
        return change

    def down(self) -> bool:
        there = self.machine.labs.pop(self.name, None) is not None or self.name in self.machine.left_over
        self.machine.done.append(("down", self.name))
        return there

    def chosen(self, names: Sequence[str]) -> list[Flow]:
        known = {flow.name: flow for flow in self.plan.flows}
        for name in names:
            if name not in known:
                raise ProbeError(f"lab {self.name} has no flow {name!r}")
        return [known[name] for name in names or known]

    def test(self, names: Sequence[str] = (), on_verdict: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        verdicts = []
        for flow in self.chosen(names):
            outcome = self.machine.answers.get(flow.name, "ok")
            passed = outcome == flow.expect
            reasons = () if passed else (f"expected {flow.expect}, but found {outcome}",)
            verdicts.append(Verdict(flow, Answer(outcome, "it answered"), passed, reasons))  # type: ignore[arg-type]
            on_verdict(verdicts[-1])
        return verdicts

    def last_verdicts(self) -> list[LastVerdict]:
        return [LastVerdict("ping", True, "ok", (), 1.0)]

    def status(self) -> Status:
        interface = InterfaceStatus("eth0", None, self.machine.link)  # type: ignore[arg-type]
        process = ProcessStatus("bgpd", self.nodes()["r1"].processes["bgpd"])
        node = NodeStatus("r1", "router", "", True, (interface,), (process,))
        return Status(self.name, "", (node,), ((SESSION, SessionState("Established", "", 3, "00:00:09")),), ())

    def outline(self) -> Outline:
        return Outline(self.name, True, len(self.plan.nodes), 0, 1.0)

    def attach(self, node: str, argv: Sequence[str], vrf: str | None = None) -> int:
        self.machine.done.append(("attach", self.name, self.node(node).name, tuple(argv), vrf))
        if isinstance(self.machine.exec_result, Exception):
            raise self.machine.exec_result
        return self.machine.exec_result

    def ssh(self, node: str, through: Sequence[str], command: Sequence[str]) -> int:
        self.machine.done.append(("ssh", self.name, node, tuple(through), tuple(command)))
        return 3

    def log_files(self, node: str, process: str = "") -> dict[str, Path]:
        return {process or name: self.machine.log for name in self.node(node).processes}

    def flow_names(self) -> list[str]:
        return [flow.name for flow in self.plan.flows]


MISSING = UnsupportedError("nope is not installed")
