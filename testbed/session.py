"""The composition root: the only place that names concrete runtimes and wires them to the rest."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import run
from testbed.deploy import apply, login, needs
from testbed.deploy.control import SessionState
from testbed.deploy.readiness import describe_session, log_path, sessions
from testbed.deploy.status import Outline, Status, take
from testbed.errors import (
    InputError,
    NoSuchLabError,
    NoSuchNodeError,
    ProbeError,
    Problem,
    TestbedError,
)
from testbed.events import Event, Observer, Step, ignore
from testbed.model.names import host_label
from testbed.plan import BgpSession, Flow, Node, Plan, VrfDriver
from testbed.plan.diff import PlanDiff, diff
from testbed.probe import flows as probes
from testbed.probe.result import Answer, LastVerdict, Verdict
from testbed.probe.secrets import Secrets
from testbed.questions import asked
from testbed.runtime import engine, kernel, lock, workshop
from testbed.runtime.base import NodeState
from testbed.runtime.containerlab import ContainerlabRuntime
from testbed.runtime.kind_nodes import KindNodesRuntime
from testbed.runtime.netns import NetnsRuntime
from testbed.runtime.netns import labs as netns_labs
from testbed.runtime.supervised import STATE

if TYPE_CHECKING:
    from testbed.deploy.watch import Watch
    from testbed.load.lab import Loaded
    from testbed.model.lab import Lab
    from testbed.report.page import FlowSection, LabSection
    from testbed.trace.context import Fault
    from testbed.trace.tracer import Trace, Tracer  # a tenth of a second that only those pay who follow packets

RUNTIMES: dict[str, type[NetnsRuntime | KindNodesRuntime | ContainerlabRuntime]] = {
    "netns": NetnsRuntime,
    "docker": KindNodesRuntime,
    "containerlab": ContainerlabRuntime,
}
CONTAINER_RUNTIMES = ("docker", "containerlab")
TOPOLOGIES = (".clab.yml", ".clab.yaml")  # containerlab's files, by their names
VRF_DRIVERS: tuple[VrfDriver, ...] = ("netns", "device")
TIMEOUT = 60.0  # seconds until a lab must be ready
APPLYING = 600.0  # seconds that an `up` may take before a watch gives up
VERDICTS = "verdicts.json"


def running() -> list[str]:
    """The names of the labs that run on this machine."""
    return sorted({*netns_labs(), *engine.labs()})


def runtime_of(name: str) -> str:
    """The runtime that a lab runs on; empty when nothing of it does."""
    return "netns" if NetnsRuntime(name).exists() else engine.runtime(name)


def known() -> list[str]:
    """The names of the labs of which anything is left on this machine, running or not: `Session.down` removes it."""
    left = [entry.name for entry in STATE.iterdir() if entry.is_dir()] if STATE.is_dir() else []
    return sorted({*running(), *left})


def compiled(lab: str, name: str = "", *, runtime: str = "", vrf_driver: str = "") -> Plan:
    """The Plan of a lab, by its path or name; a containerlab topology by its path (*.clab.yml).

    Args:
        name: under which it shall run; its own name when empty.
        runtime: that it shall run on; what images of nodes are is decided by it.
        vrf_driver: one of VRF_DRIVERS; empty: see `vrf_driver_of`.

    Raises:
        InputError: with everything that is wrong with the lab's files; or there is no such driver.
    """
    if lab.endswith(TOPOLOGIES):
        return _compiled_topology(lab, name, runtime)
    return compiler(lab, name, runtime=runtime, vrf_driver=vrf_driver)(())


def compiler(lab: str, name: str = "", *, runtime: str = "", vrf_driver: str = "") -> Callable[[Collection[str]], Plan]:
    """Reads a lab's files; what it returns makes the Plan of them, given the cluster's nodes that are not ready.

    Arguments and errors are those of `compiled`, but for containerlab's topologies.
    """
    from testbed.load.lab import load  # the models take a quarter of a second to import

    return _compiler(load(lab), name, runtime, vrf_driver)


def compiled_from(loaded: Loaded, name: str = "", *, runtime: str = "", vrf_driver: str = "") -> Plan:
    """The Plan of a lab that has been read, as its file is or in a cell of its matrix; otherwise as `compiled`."""
    return _compiler(loaded, name, runtime, vrf_driver)(())


def _compiler(loaded: Loaded, name: str, runtime: str, vrf_driver: str) -> Callable[[Collection[str]], Plan]:
    from testbed.compile import compile_lab

    own = name or loaded.lab.name
    images = any(getattr(node, "image", None) for node in loaded.lab.nodes.values())
    there = runtime or (runtime_of(own) if images else "")  # what runs does not matter to others
    containers = there in CONTAINER_RUNTIMES
    driver = vrf_driver_of(loaded.lab, own, vrf_driver)

    def plan(not_ready: Collection[str]) -> Plan:
        return compile_lab(
            loaded.lab,
            loaded.manifests,
            loaded.images,
            own,
            containers=containers,
            vrf_driver=driver,
            not_ready=not_ready,
        )

    return plan


def _compiled_topology(path: str, name: str, runtime: str) -> Plan:
    from testbed.compile.clab import compile_clab
    from testbed.load.clab import load_clab

    loaded = load_clab(Path(path))
    there = runtime or runtime_of(name or loaded.file.name)
    binds = there == ContainerlabRuntime.name
    return compile_clab(loaded, name, containers=there in CONTAINER_RUNTIMES, binds=binds)


def vrf_driver_of(lab: Lab, name: str, wanted: str = "") -> VrfDriver:
    """What the VRFs of a lab are to be made of: as wanted, as its file says, as it runs, as the kernel can.

    Devices where the kernel has them: they are what routers run, and only they can leak routes from VRF to VRF.

    Args:
        name: under which the lab runs or shall run. wanted: one of VRF_DRIVERS; empty: not stated.
    """
    if wanted and wanted not in VRF_DRIVERS:
        raise InputError([Problem(f"no VRF driver {wanted!r}", hint=_hint(wanted, VRF_DRIVERS))])
    stated = wanted or (lab.vrf_driver if lab.vrf_driver != "auto" else "")
    if stated or not lab.vrfs:
        return "device" if stated == "device" else "netns"
    try:
        running: VrfDriver = json.loads((STATE / name / apply.PLAN).read_text())["vrf_driver"]
    except (OSError, ValueError, LookupError):
        return "device" if kernel.try_all({"vrf": kernel.VRF})["vrf"].works else "netns"
    return running


def _hint(word: str, choices: Iterable[str]) -> str:
    from testbed.load.explain import suggest  # with the models, which most questions do without

    return suggest(word, choices)


def check(name: str, runtime: str = "") -> None:
    """Raise InputError when a lab cannot run under that name, or there is no such runtime."""
    if runtime and runtime not in RUNTIMES:
        raise InputError([Problem(f"no runtime {runtime!r}", hint=_hint(runtime, RUNTIMES))])
    try:
        host_label(name)
    except ValueError as error:
        raise InputError([Problem(f"the name of a lab: {error}")]) from None


def _meant(name: str, nodes: Iterable[str], pods: Sequence[str]) -> str:
    """The pod that is meant by the beginning of its name, or the node or pod of just that name.

    Raises:
        NoSuchNodeError: there is none, or several pods' names begin so.
    """
    if name in nodes:
        return name
    for beginning in (f"{name}-", name):  # "client" is the client Deployment's pod, though there is "client2" too
        alike = [pod for pod in pods if pod.startswith(beginning)]
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise NoSuchNodeError(f"{name!r} could be any of {', '.join(alike)}")
    raise NoSuchNodeError(f"no node {name!r} ({_hint(name, nodes)})")


def planned_node(plan: Plan, name: str) -> Node:
    """A node or pod of a Plan, named as `Session.node` names it. Raises NoSuchNodeError when there is none."""
    nodes = {node.name: node for node in plan.nodes}
    return nodes[_meant(name, nodes, [node.name for node in plan.nodes if node.parent])]


def faults(status: Status) -> tuple[Fault, ...]:
    """What a lab's status says is not as planned, as an explanation takes it."""
    from testbed.trace.context import Fault

    found: list[Fault] = []
    for node in status.nodes:
        if not node.running:
            found.append(Fault("gone", node.name, None, f"{node.name} is {node.absence}"))
            continue
        for link in node.interfaces:
            if link.state != "up":
                kind = "carrier" if link.state == "no carrier" else "interface"  # the other end is what is down
                text = f"{node.name}: {link.name} is {link.state}"
                found.append(Fault(kind, node.name, link.vrf, text, interface=link.name))
        ended = [process.name for process in node.processes if not process.running]
        found += [Fault("process", node.name, None, f"{node.name}: {name} has ended") for name in ended]
    for session, state in status.sessions:
        if not state.established:
            found.append(Fault("session", session.node, session.vrf, describe_session(session, state)))
    return tuple(found)


def _failed(verdict: Verdict) -> tuple[bool, str]:
    """Whether a flow calls for an explanation, and what is wrong with its answer."""
    if verdict.answer.outcome != "ok":
        return True, verdict.answer.detail
    return not verdict.passed, "; ".join(verdict.reasons)


class Session:
    """A lab on this machine, by the name it runs under.

    Args:
        name: of the lab. runtime: one of RUNTIMES; empty: the one it runs on, else netns.

    Raises:
        InputError: the name is no host name, or there is no such runtime.
    """

    def __init__(self, name: str, runtime: str = "") -> None:
        check(name, runtime)
        self.name = name
        self.runtime = RUNTIMES[runtime or runtime_of(name) or "netns"](name)

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
    def whole(self) -> bool:
        """Whether it runs, and was made from its Plan to the end."""
        finished = (self.directory / apply.PLAN).exists() and not (self.directory / apply.UNFINISHED).exists()
        return finished and self.exists

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

        See testbed.deploy.apply.up for arguments and errors; besides, InputError when the lab runs on another runtime.
        """
        plan = dataclasses.replace(plan, name=self.name)
        warming = threading.Thread(target=probes.warm_up, args=({flow.protocol for flow in plan.flows},), daemon=True)

        def told(event: Event) -> None:
            if event == Step("convergence"):
                warming.start()  # the probes' libraries load while the daemons wait; before, they would be in the way
            observer(event)

        with self._alone():
            self._refuse_elsewhere()
            self._refuse_without_containers(plan)
            needs.refuse(plan)
            self.runtime.prepare(observer)
            change = apply.up(plan, self.runtime, self.directory, timeout=timeout, observer=told, keep=keep)
        warming.join()
        return change

    def switch(self, plan: Plan, *, timeout: float = TIMEOUT, observer: Observer = ignore) -> PlanDiff:
        """As `up`, for a lab that is to be looked at in another form: what its nodes' connection tracking knows of the
        form before is forgotten."""
        change = self.up(plan, timeout=timeout, observer=observer)
        self.forget_connections()
        return change

    def forget_connections(self) -> None:
        """Empty the tables of tracked connections of all nodes that have any."""
        from testbed.runtime.namespaces import forget_connections  # pyroute2 takes 0.15 s to import

        for node in self.plan.present().nodes:
            for vrf in dict.fromkeys(entry.vrf for entry in node.rulesets):  # without rules nothing is tracked
                forget_connections(self.runtime.network(node.name, vrf), node.name)

    def _refuse_without_containers(self, plan: Plan) -> None:
        if plan.cluster and self.runtime.name != "docker":
            nodes = ", ".join(node.name for node in plan.cluster.nodes)
            problem = f"kind makes {nodes} on the docker runtime only, and the runtime is {self.runtime.name}"
            hint = "use --runtime docker, or provider: embedded in the lab file"
            raise InputError([Problem(f"lab {self.name}, cluster.provider: {problem}", hint=hint)])

    def _refuse_elsewhere(self) -> None:
        there = runtime_of(self.name)
        if there not in ("", self.runtime.name):
            problem = f"lab {self.name} runs on the runtime {there}, not on {self.runtime.name}"
            raise InputError([Problem(problem, hint=f"`testbed down {self.name}` ends it; or use another --name")])

    def watch(self, lab: str) -> Watch:
        """The embedded cluster's controllers, for as long as somebody asks them for reactions.

        Args:
            lab: its path or name: what it was made from.

        Raises:
            NoSuchLabError: it does not run, or not whole. InputError: its files do not say what runs, or there is
                nothing to watch.
        """
        from testbed.deploy.watch import Watch, cluster_nodes

        plan = self.plan
        if lab.endswith(TOPOLOGIES) or plan.cluster or not cluster_nodes(plan):
            problem = f"lab {self.name} has no embedded cluster, and nothing else is watched"
            hint = "kind's clusters have controllers of their own" if plan.cluster else ""
            raise InputError([Problem(problem, hint=hint)])
        made = compiler(lab, self.name, runtime=self.runtime.name)
        return Watch(self.runtime, self.directory, made, lambda: self._alone(APPLYING))

    def down(self) -> bool:
        """End the lab, whatever state it is in; returns whether there was anything to end."""
        there = self.exists or self.directory.exists()
        self.runtime.destroy()
        workshop.sweep()
        return there

    def diff(self, plan: Plan) -> PlanDiff:
        """What `up` with this Plan would change; against nothing when the lab does not run."""
        return diff(self.stored().present(), dataclasses.replace(plan, name=self.name))

    def stored(self) -> Plan:
        """The Plan the running lab was made from; an empty one when it does not run, or not whole."""
        return (apply.stored_plan(self.directory) if self.exists else None) or Plan(self.name)

    def _alone(self, seconds: float = 0) -> AbstractContextManager[int]:
        """One `up` of a lab at a time; `seconds` to wait for another one."""
        return lock.held(f"lab/{self.name}", seconds, f"another `testbed up` of lab {self.name} is at work")

    # --- questions --------------------------------------------------------------------------------------------------

    def nodes(self) -> dict[str, NodeState]:
        """The nodes and pods that run, with their programs."""
        if not self.exists:
            raise NoSuchLabError(f"lab {self.name} is not running: `testbed up {self.name}` starts it")
        return self.runtime.state()

    def sessions(self) -> dict[BgpSession, SessionState]:
        """The state of every BGP session the Plan expects."""
        return sessions(self.runtime, self.plan.sessions)

    def status(self) -> Status:
        """Everything the Plan names, as it is now."""
        plan = self.plan
        return take(plan, self.runtime)

    def versions(self) -> list[tuple[str, str]]:
        """(name, version) of what the lab runs on and what runs in it."""
        from testbed.deploy.versions import versions

        return versions(self.plan, self.runtime)

    def report_section(self, verdicts: Sequence[Verdict]) -> LabSection:
        """The lab as it is now with these verdicts, for a report; each flow is asked once more, and followed."""
        from testbed.report.page import lab_section

        tracer = self._tracer()
        now = take(tracer.plan, self.runtime)
        return lab_section(now, tracer.plan, self.runtime.name, [self._section(entry, tracer) for entry in verdicts])

    def _section(self, verdict: Verdict, tracer: Tracer[Verdict]) -> FlowSection:
        """A flow's verdict with the walk of its packets, and what the lab says of it where it failed."""
        from testbed.deploy import evidence
        from testbed.report.page import FlowSection
        from testbed.report.picture import drawing
        from testbed.report.sequence import sequence
        from testbed.report.walks import nodes_passed, walk_lines

        said = () if verdict.passed else tuple(evidence.gather(tracer.plan, self.runtime, verdict.flow))
        try:
            trace = tracer.trace(verdict.flow)
        except (TestbedError, OSError) as error:
            return FlowSection(verdict, (f"its packets could not be followed: {error}",), evidence=said)
        path = tuple(nodes_passed(tracer.plan, trace.walk))
        return FlowSection(verdict, tuple(walk_lines(trace)), path, drawing(sequence(trace), alone=False), said)

    def outline(self) -> Outline:
        """The lab in a few words. Cheap."""
        states = self.nodes()
        pods = sum(bool(state.parent) for state in states.values())
        starts = [process.started for state in states.values() for process in state.processes.values()]
        since = min(starts, default=0.0)
        return Outline(self.name, self.whole, len(states) - pods, pods, since, self.runtime.name)

    def log_files(self, node: str, process: str = "") -> dict[str, Path]:
        """Program → the file that holds what it prints, for one program of a node or all of them.

        Raises:
            NoSuchNodeError: there is no such node or program, or its image keeps what it prints.
        """
        state = self.node(node)
        if process and process not in state.processes:
            raise NoSuchNodeError(f"{state.name} runs no {process!r} ({_hint(process, state.processes)})")
        if any(node.image for node in self.stored().nodes if node.name == state.name):
            container = engine.of_lab(self.name)[state.name].name
            raise NoSuchNodeError(
                f"{state.name} runs an image of its own: `docker logs {container}` has what it prints"
            )
        chosen = [process] if process else list(state.processes)
        return {name: self.runtime.path(state.name, log_path(name)) for name in chosen}

    def log(self, node: str, process: str) -> str:
        """What a program of a node has printed. Raises NoSuchNodeError when there is no such node or program."""
        return self.log_files(node, process)[process].read_text(errors="replace")

    def node(self, name: str) -> NodeState:
        """A node or pod by its name, or by the beginning of a pod's name when only one pod has it."""
        states = self.nodes()
        if name in states:
            return states[name]
        return states[_meant(name, states, [entry for entry, state in states.items() if state.parent])]

    # --- inside a node ----------------------------------------------------------------------------------------------

    def attach(self, node: str, argv: Sequence[str], vrf: str | None = None) -> int:
        """Run a program in a node or pod, on the caller's terminal and streams; returns its exit status.

        Args:
            vrf: the routing instance whose network it has; None: the default one.
        """
        name = self.node(node).name
        return run.attach(argv, self.runtime.instance(name, vrf))

    def ssh(self, node: str, through: Sequence[str], command: Sequence[str] = ()) -> int:
        """A session of OpenSSH with a node or pod, on the caller's terminal; returns the client's exit status.

        Args:
            through: a command line that runs what is appended to it in the node. command: see deploy.login.client.
        """
        login.prepare(self.runtime, self.node(node).name, self.name, self.directory)
        passed = {name: os.environ[name] for name in ("TERM", "PYTHONPATH") if name in os.environ}
        argv = login.client(self.name, self.directory, through, command)
        return run.attach(argv, env={**run.ENVIRONMENT, **passed})

    # --- flows ------------------------------------------------------------------------------------------------------

    def secrets(self) -> Secrets:
        """The lab's ssh key and the host key its servers show."""
        try:
            return Secrets((self.directory / "ssh").read_text(), ((self.directory / "ssh-host.pub").read_text(),))
        except OSError:
            return Secrets()

    def flow_names(self) -> list[str]:
        """The names of the Plan's flows, without reading the rest of it. Cheap."""
        stored = json.loads((self.directory / apply.PLAN).read_text())
        return [flow["name"] for flow in stored["flows"]]

    def chosen(self, names: Sequence[str] = ()) -> tuple[Flow, ...]:
        """The flows of these names; all when none is given. Raises ProbeError for an unknown one."""
        flows = self.plan.flows
        known = [flow.name for flow in flows]
        for name in names:
            if name not in known:
                raise ProbeError(f"lab {self.name} has no flow {name!r} ({_hint(name, known)})")
        return tuple(flow for flow in flows if not names or flow.name in names)

    def test(self, names: Sequence[str] = (), on_verdict: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        """Ask the live network the flows of these names (all when none is given) and remember the verdicts."""
        chosen = self.chosen(names)
        plain = [flow for flow in chosen if not flow.steps]
        found = {verdict.flow.name: verdict for verdict in probes.run(plain, self.runtime, self.secrets(), on_verdict)}
        if walked := [flow for flow in chosen if flow.steps]:
            tracer = self._tracer()
            for flow in walked:
                found[flow.name] = self._walked(flow, tracer)
                on_verdict(found[flow.name])
        verdicts = [found[flow.name] for flow in chosen]
        self._remember(verdicts)
        return verdicts

    def _walked(self, flow: Flow, tracer: Tracer[Verdict]) -> Verdict:
        """The verdict of a flow with steps: its packets must have taken them, too."""
        from testbed.trace.steps import unmet

        try:
            trace = tracer.trace(flow, plain=True)
        except TestbedError as error:
            detail = f"the question could not be asked: {error}"
            return Verdict(flow, Answer("error", detail), passed=False, reasons=(detail,))
        reasons = (*trace.answer.reasons, *unmet(trace.walk, flow.steps))
        return dataclasses.replace(trace.answer, passed=not reasons, reasons=reasons)

    def explained(self, flow: Flow) -> list[str]:
        """Why a flow fails, as lines: it is asked once more, and followed. Says why where that cannot be done."""
        from testbed.report.walks import cause_lines

        try:
            return cause_lines(self.trace(flow))
        except (TestbedError, OSError) as error:
            return [f"its packets could not be followed: {error}"]

    def question(self, source: str, to: str, protocol: str, port: int = 0) -> Flow:
        """A flow that the lab does not declare.

        Args:
            source: a node or pod. to: an address, a node, "NODE/VRF", or "service/NAME" ("service/NAMESPACE/NAME").
            protocol: tcp, udp, icmp or http. port: 0: the only one of a Service; 80 for http; none for icmp.

        Raises:
            InputError: it cannot be asked so. NoSuchNodeError: there is no such node.
        """
        return asked(self.plan, self.node(source).name, to, protocol, port)

    def trace(self, flow: Flow) -> Trace[Verdict]:
        """Ask one flow, and follow its packets through every namespace of the lab.

        Raises:
            ProbeError: the lab cannot be watched. NoSuchNodeError: the flow's source does not run.
        """
        return self._tracer().trace(flow)

    def _tracer(self) -> Tracer[Verdict]:
        """What follows flows through the lab as its Plan is now; good for many of them."""
        from testbed.trace.tracer import Tracer

        secrets, plan = self.secrets(), self.plan
        return Tracer(
            self.runtime,
            plan,
            lambda flow, mark: probes.ask(flow, self.runtime, secrets, mark),
            _failed,
            lambda: faults(take(plan, self.runtime)),
        )

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
