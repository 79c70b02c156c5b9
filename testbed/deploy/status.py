"""A running lab compared with its Plan: what runs, what does not, and how it is connected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.deploy.control import SessionState
from testbed.deploy.readiness import describe_session, sessions
from testbed.errors import NoSuchNodeError
from testbed.plan import BgpSession, Node, Plan, Service
from testbed.runtime.base import NodeState, ProcessState, Runtime
from testbed.runtime.interfaces import LinkState, link_states


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """A planned interface as it is now."""

    name: str
    vrf: str | None
    state: LinkState


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A planned program; `state` is None when it was never started."""

    name: str
    state: ProcessState | None

    @property
    def running(self) -> bool:
        return self.state is not None and self.state.running


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A planned node or pod as it is now; one that does not run has no interfaces and no processes.

    Args:
        absence: why it does not run.
    """

    name: str
    kind: str
    parent: str
    running: bool
    interfaces: tuple[InterfaceStatus, ...] = ()
    processes: tuple[ProcessStatus, ...] = ()
    absence: str = "gone"

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as planned, in words; empty when all is well."""
        if not self.running:
            return (self.absence,)
        links = [f"{entry.name}{_vrf(entry.vrf)}: {entry.state}" for entry in self.interfaces if entry.state != "up"]
        return (*links, *(f"{entry.name} {_end(entry)}" for entry in self.processes if not entry.running))


def _vrf(vrf: str | None) -> str:
    return f" (VRF {vrf})" if vrf else ""


def _end(process: ProcessStatus) -> str:
    if process.state is None:
        return "was not started"
    status = process.state.status or 0
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


@dataclass(frozen=True, slots=True)
class Status:
    """A lab as it is now, in the order of its Plan."""

    name: str
    description: str
    nodes: tuple[NodeStatus, ...]
    sessions: tuple[tuple[BgpSession, SessionState], ...]
    services: tuple[Service, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each thing that is not as planned."""
        return tuple(_problems(self))


def _problems(status: Status) -> Iterator[str]:
    for node in status.nodes:
        for fault in node.faults:
            yield f"{node.name}: {fault}"
    for session, state in status.sessions:
        if not state.established:
            yield describe_session(session, state)


@dataclass(frozen=True, slots=True)
class Outline:
    """A running lab in a few words.

    Args:
        whole: whether its Plan was made real to the end. nodes, pods: how many run.
        since: when its first program was started, in seconds since the epoch; 0: it has none.
        runtime: what its nodes are made of.
    """

    name: str
    whole: bool
    nodes: int
    pods: int
    since: float
    runtime: str = "netns"


def take(plan: Plan, runtime: Runtime) -> Status:
    """Look at everything the Plan names, now. Nodes that do not run are part of the answer, not an error."""
    states = runtime.state()
    answers = sessions(runtime, plan.sessions)
    return Status(
        name=plan.name,
        description=plan.description,
        nodes=tuple(_node(node, states.get(node.name), runtime) for node in plan.nodes),
        sessions=tuple((entry, answers[entry]) for entry in plan.sessions),
        services=plan.services,
    )


def _node(node: Node, state: NodeState | None, runtime: Runtime) -> NodeStatus:
    try:
        links = link_states(runtime, node) if state else []
    except NoSuchNodeError:  # it ended just now
        state = None
    if state is None:
        absence = runtime.absence(node.parent or node.name)
        return NodeStatus(node.name, node.kind, node.parent, running=False, absence=absence)
    return NodeStatus(
        node.name,
        node.kind,
        node.parent,
        running=True,
        interfaces=tuple(InterfaceStatus(entry.name, entry.vrf, link) for entry, link in links),
        processes=tuple(ProcessStatus(entry.name, state.processes.get(entry.name)) for entry in node.processes),
    )
