"""The labs of a test run: each is brought up once, on first use, and ends with the run."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.deploy import apply
from testbed.errors import InputError, NoSuchNodeError, Problem, TestbedError, UnsupportedError
from testbed.load import lab as labs
from testbed.load.cells import Cell
from testbed.load.document import Document
from testbed.load.explain import suggest
from testbed.load.matrix import Variants
from testbed.load.yaml import validate
from testbed.model.lab import Flow
from testbed.plan import Flow as Question
from testbed.plan import Plan
from testbed.probe import flows as probes
from testbed.probe.result import Answer, Verdict
from testbed.pytest_plugin import FILE
from testbed.pytest_plugin.capabilities import missing_programs, not_run, require
from testbed.runtime.base import NodeState
from testbed.session import CONTAINER_RUNTIMES, TOPOLOGIES, Session, compiled_from, runtime_of
from testbed.session import compiled as topology
from testbed.trace.walk import Walk

if TYPE_CHECKING:
    from testbed.report.page import LabSection


@dataclass(frozen=True)
class NodeHandle:
    """A node or pod of a running lab.

    Args:
        instance: the VRF that what is run here gets its sockets in; None: the default one.
    """

    session: Session
    name: str
    instance: str | None = None

    def vrf(self, name: str) -> NodeHandle:
        """The same node in one of its VRFs. Raises NoSuchNodeError when it has no such VRF."""
        self.session.runtime.network(self.name, name)
        return dataclasses.replace(self, instance=name)

    def run(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run a program to its end and return what it printed. Raises CommandError when it fails."""
        return self.session.runtime.run(self.name, self.instance, argv, stdin)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new socket, which stays in the node whoever uses it."""
        return self.session.runtime.socket(self.name, self.instance, family, kind, protocol)

    def path(self, path: str) -> Path:
        """Where the test finds a file of the node."""
        return self.session.runtime.path(self.name, path)

    @property
    def state(self) -> NodeState:
        """The node as it is now, with its programs. Raises NoSuchNodeError when it does not run."""
        return self.session.node(self.name)


@dataclass(frozen=True)
class LiveLab:
    """A lab that is up.

    Args:
        source: the lab file and all that belongs to it; None for a containerlab topology. plan: what was made of it.
        form: the cell of the lab's matrix whose form it has; empty: that of the file.
    """

    session: Session
    source: labs.Loaded | None
    plan: Plan
    form: str = ""

    @property
    def name(self) -> str:
        return self.session.name

    def test(self, *flows: str) -> list[Verdict]:
        """Ask the network the flows of these names; all when none is given."""
        return self.session.test(flows)

    def trace(self, flow: str) -> Walk:
        """Ask a flow of this name and return its walk, of which a test can claim things (docs/trace.md)."""
        return self.session.trace(self.session.chosen([flow])[0]).walk

    def walk(
        self, source: str | dict[str, str], to: str | dict[str, str], protocol: str, **question: str | float
    ) -> Walk:
        """The walk of one question, in the words of `probe`."""
        return self.session.trace(self._question(source=source, to=to, protocol=protocol, **question)).walk

    def node(self, name: str) -> NodeHandle:
        """A node by its name. Raises NoSuchNodeError when it does not run."""
        return NodeHandle(self.session, self.session.node(name).name)

    def pod(self, name: str, node: str = "") -> NodeHandle:
        """A pod by its workload ("deployment/web", "daemonset/NAMESPACE/NAME"), or by the beginning of its name.

        Args:
            node: only a pod on this node. Of several pods it is the first.

        Raises:
            InputError: there is no such workload. NoSuchNodeError: there is no such pod.
        """
        if "/" in name:
            kind, _, workload = name.partition("/")
            place = {kind: workload, "node": node} if node else name
            return self.node(self._question(source=place, to="192.0.2.1", protocol="icmp").source)
        pods = [entry.name for entry in self.plan.nodes if entry.kind == "pod" and node in ("", entry.parent)]
        for beginning in (f"{name}-", name):
            for pod in pods:
                if pod == name or pod.startswith(beginning):
                    return self.node(pod)
        where = f" on {node}" if node else ""
        raise NoSuchNodeError(f"no pod {name!r}{where} ({suggest(name, pods)})")

    def probe(
        self, source: str | dict[str, str], to: str | dict[str, str], protocol: str, **question: str | float
    ) -> Answer:
        """Ask the network one question, in the words of a flow in a lab file.

        Args:
            source, to: places, as `from` and `to` of a flow: "amf", "deployment/web", "service/ssh", an address, or a
                mapping such as {"node": "n1", "vrf": "mgmt"}.
            protocol: ssh, http, tcp, udp, icmp or dns.
            question: more fields of a flow that say what is asked: port, family, host, path, user, command, query,
                timeout. (What must come of it is for the test to say.)

        Raises:
            InputError: a name or field is wrong. NoSuchNodeError: the source does not run.
        """
        flow = self._question(source=source, to=to, protocol=protocol, **question)
        return probes.ask(flow, self.session.runtime, self.session.secrets()).answer

    def _question(self, **fields: object) -> Question:
        """The fields as a flow of the lab, its names resolved as those in the lab file are."""
        if wrong := next((name for name in fields if name not in QUESTION), ""):
            raise InputError([Problem(f"a probe has no field {wrong!r}", hint=suggest(wrong, QUESTION))])
        value = {"name": "probe", **{"from" if name == "source" else name: entry for name, entry in fields.items()}}
        flow, problems = validate(Flow, Document(value, "probe", {}, {}), "probe")
        if flow is None:
            raise InputError(Problem(problem.message, hint=problem.hint) for problem in problems)
        if self.source is None:
            message = "probes are asked in a lab file's words, and this lab is a containerlab topology"
            raise InputError([Problem(message, hint="run a program in a node: lab.node(NAME).run([...])")])
        asking = dataclasses.replace(self.source, lab=self.source.lab.model_copy(update={"flows": (flow,)}))
        runtime, driver = self.session.runtime.name, self.plan.vrf_driver
        return compiled_from(asking, self.name, runtime=runtime, vrf_driver=driver).flows[0]


QUESTION = ("source", "to", "protocol", "port", "family", "host", "path", "user", "command", "query", "timeout")


class Labs:
    """The labs that a test run uses, by the name they run under."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runtime: str = config.getoption("--testbed-runtime")
        self._vrf_driver: str = config.getoption("--testbed-vrf-driver")
        self._labs: dict[str, LiveLab] = {}
        self._sources: dict[str, Path] = {}
        self._verdicts: dict[str, dict[str, Verdict]] = {}
        self._failures: dict[str, str] = {}
        self._sessions: dict[str, Session] = {}
        self._ours: list[Session] = []

    def find(self, where: str, beside: Path) -> Path:
        """The lab file meant by a path, relative to `beside` or the root folder of the tests, or by a lab's name."""
        for folder in (beside, self._config.rootpath):
            for candidate in (folder / where, folder / where / FILE):
                if candidate.is_file():
                    return candidate
        try:
            return labs.find(where)
        except InputError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None

    def name(self, own: str) -> str:
        """The name a lab runs under. Where pytest-xdist runs tests in several processes, each has labs of its own."""
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        return (self._config.getoption("--testbed-name") or own) + (f"-{worker}" if worker else "")

    def compiled(self, source: labs.Loaded, name: str = "") -> Plan:
        """The Plan of a lab, as `testbed up` makes it with the options of this run. Raises InputError likewise."""
        return compiled_from(source, name, runtime=self._runtime, vrf_driver=self._vrf_driver)

    def _planned(self, path: Path, source: labs.Loaded | None) -> Plan:
        """The Plan of a lab file, or of a topology where `source` is None, under the name it runs under."""
        if source is not None:
            return self.compiled(source, self.name(source.lab.name))
        plan = topology(shown(path), runtime=self._runtime)
        name = self.name(plan.name)
        return plan if name == plan.name else topology(shown(path), name, runtime=self._runtime)

    def up(self, path: Path, variants: Variants | None = None, cell: Cell | None = None) -> LiveLab:
        """The lab of a lab file, up.

        One that runs already, as the file describes it, is left as it is; where it is different, the difference is
        applied. Ends the current test when the lab cannot be had: skipped when the machine lacks something.

        Args:
            variants, cell: the cell of the lab's matrix whose form it shall have; None: the form of the file.
        """
        form = cell.name if cell else ""
        for capability in dict.fromkeys(("netns", self._runtime or "netns")):
            require(self._config, capability)
        try:
            source = None
            if not path.name.endswith(TOPOLOGIES):
                source = variants.load(cell) if variants and cell else labs.load(shown(path))
            plan = self._planned(path, source)
            name = plan.name
            self._claim(name, path)
            if name not in self._labs or self._labs[name].form != form:
                before = self._labs.pop(name, None)
                self._labs[name] = self._bring_up(plan, source, form, switch=bool(form or before))
        except TestbedError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        return self._labs[name]

    def _claim(self, name: str, path: Path) -> None:
        """Refuse two labs under one name (the second would undo the first), and a lab that has failed already."""
        if self._sources.setdefault(name, path.resolve()) != path.resolve():
            other = shown(self._sources[name])
            message = f"{shown(path)} and {other} would both run as lab {name}"
            raise InputError([Problem(message, hint="give them different names, or test one at a time")])
        if name in self._failures:
            pytest.fail(f"lab {name} did not come up before: {self._failures[name]}", pytrace=False)

    def _bring_up(self, plan: Plan, source: labs.Loaded | None, form: str, *, switch: bool) -> LiveLab:
        name = plan.name
        reason = missing_programs(plan)
        if reason and (self._runtime or runtime_of(name)) not in CONTAINER_RUNTIMES:  # an image has its own
            not_run(self._config, "programs", reason)
        if name not in self._sessions:
            self._sessions[name] = Session(name, self._runtime)
        session = self._sessions[name]
        before = apply.stored_plan(session.directory) if session.exists else None
        if before is None and session not in self._ours:
            self._ours.append(session)
        if before != plan:
            self._apply(session, plan, switch=switch)
        return LiveLab(session, source, plan, form)

    def _apply(self, session: Session, plan: Plan, *, switch: bool) -> None:
        lacking = ""
        try:
            session.switch(plan) if switch else session.up(plan)
        except UnsupportedError as error:
            lacking = str(error)
        except TestbedError as error:
            if not switch:  # the next form may well come up
                self._failures[session.name] = str(error)
            raise
        if lacking:
            not_run(self._config, "kernel", lacking)

    def record(self, lab: LiveLab, verdict: Verdict) -> None:
        """Keep a flow's verdict for the report of the run; in a cell of a matrix, under the cell's name, too."""
        if lab.form:
            flow = dataclasses.replace(verdict.flow, name=f"{lab.form}: {verdict.flow.name}")
            verdict = dataclasses.replace(verdict, flow=flow)
        self._verdicts.setdefault(lab.name, {})[verdict.flow.name] = verdict

    def sections(self) -> list[LabSection]:
        """The labs that are up, as they are now, with the verdicts that were recorded."""
        return [
            lab.session.report_section(list(self._verdicts.get(name, {}).values()))
            for name, lab in self._labs.items()
            if lab.session.exists
        ]

    def versions(self) -> list[tuple[str, str]]:
        """What took part in the run, with versions."""
        alive = [lab.session for lab in self._labs.values() if lab.session.exists]
        return alive[0].versions() if alive else []

    def close(self) -> list[str]:
        """Take down what was brought up, and let go of the rest; returns what went wrong."""
        errors = []
        for session in self._ours if not self._config.getoption("--testbed-keep") else ():
            try:
                session.down()
            except TestbedError as error:
                errors.append(f"lab {session.name} could not be taken down: {error}")
        for session in self._sessions.values():
            session.close()
        return errors


def shown(path: Path) -> str:
    """A path as messages show it: relative to the current folder where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
