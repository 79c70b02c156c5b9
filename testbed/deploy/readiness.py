"""Waits until a lab is what its Plan says: processes ready, routes in the kernels' tables, BGP sessions established."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from testbed.deploy import control
from testbed.errors import NotReadyError, NoSuchNodeError
from testbed.events import Awaited, Observer
from testbed.plan import BgpSession, ExpectedRoute, Plan, Process
from testbed.runtime.base import NodeState, Runtime
from testbed.runtime.monitor import RouteMonitor
from testbed.wait import Deadline, until

TCP_LISTEN = "0A"  # include/net/tcp_states.h


def start_all(runtime: Runtime, wanted: Sequence[tuple[str, Process]], deadline: Deadline, observer: Observer) -> None:
    """Start programs, each as soon as those it comes after are ready, and wait until all are.

    Raises:
        NotReadyError: naming the programs that did not get ready, and how those that ended did.
    """
    waiting = list(wanted)
    started: list[tuple[str, Process]] = []
    ready: set[tuple[str, str]] = {
        (node, name) for node, state in runtime.state().items() for name, process in state.processes.items() if process.running
    }
    ready -= {(node, process.name) for node, process in wanted}

    def progress() -> bool:
        due = [(node, process) for node, process in waiting if all((node, name) in ready for name in process.after)]
        runtime.start(due)
        for entry in due:
            waiting.remove(entry)
            started.append(entry)
        states = runtime.state()
        for node, process in list(started):
            if process_ready(runtime, states, node, process):
                started.remove((node, process))
                ready.add((node, process.name))
        missing = tuple(f"{node}: {process.name}" for node, process in (*started, *waiting))
        observer(Awaited("processes", missing, len(wanted)))
        ended = [entry for entry in started if _ended(states, *entry)]
        return not missing or bool(ended)

    until(progress, deadline)
    if started or waiting:
        states = runtime.state()
        raise NotReadyError(deadline.elapsed, [_process_state(runtime, states, *entry) for entry in (*started, *waiting)])


def process_ready(runtime: Runtime, states: dict[str, NodeState], node: str, process: Process) -> bool:
    """Whether a program runs and answers its ready check."""
    state = states[node].processes.get(process.name) if node in states else None
    if state is None or not state.running:
        return False
    check = process.ready
    if check.kind == "path":
        return runtime.path(node, check.path).exists()
    if check.kind == "listen":
        return _listens(state.pid, check.port, "tcp")
    if check.kind == "listen-udp":
        return _listens(state.pid, check.port, "udp")
    return True


def _listens(pid: int, port: int, protocol: str) -> bool:
    """Whether a socket of the process's network namespace listens on the port (proc(5), /proc/net/tcp)."""
    for name in (protocol, f"{protocol}6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == port and (protocol == "udp" or fields[3] == TCP_LISTEN):
                return True
    return False


def _ended(states: dict[str, NodeState], node: str, process: Process) -> bool:
    state = states[node].processes.get(process.name) if node in states else None
    return state is not None and not state.running


def _process_state(runtime: Runtime, states: dict[str, NodeState], node: str, process: Process) -> str:
    state = states[node].processes.get(process.name) if node in states else None
    if state is None:
        return f"{node}: {process.name}: not started, it comes after {', '.join(process.after) or 'nothing'}"
    if state.running:
        return f"{node}: {process.name}: running, but {_unanswered(process)}"
    return f"{node}: {process.name}: ended with status {state.status}; its log ends: {log_end(runtime, node, process.name)}"


def _unanswered(process: Process) -> str:
    check = process.ready
    return f"{check.path} does not exist" if check.kind == "path" else f"nothing listens on port {check.port}"


def log_path(process: str) -> str:
    """Where a node keeps the output of a program."""
    return f"/var/log/testbed/{process}.log"


def log_end(runtime: Runtime, node: str, process: str, lines: int = 5) -> str:
    """The last lines of a program's output."""
    try:
        text = runtime.path(node, log_path(process)).read_text(errors="replace")
    except (OSError, NoSuchNodeError):
        return "(no log)"
    return " / ".join(text.splitlines()[-lines:]) or "(empty)"


def await_routes(runtime: Runtime, routes: Sequence[ExpectedRoute], deadline: Deadline, observer: Observer) -> list[ExpectedRoute]:
    """Wait until every expected route is in its kernel table; returns those still missing at the deadline."""
    wanted: dict[tuple[str, str | None], set[str]] = {}
    for route in routes:
        wanted.setdefault((route.node, route.vrf), set()).add(route.prefix)
    monitors = {place: RouteMonitor(runtime, *place) for place in wanted}
    missing: list[ExpectedRoute] = list(routes)

    def arrived() -> bool:
        for monitor in monitors.values():
            monitor.read()
        missing[:] = [route for route in missing if route.prefix not in monitors[route.node, route.vrf].prefixes]
        observer(Awaited("routes", tuple(describe_route(route) for route in missing), len(routes)))
        return not missing

    try:
        until(arrived, deadline, monitors.values())
    finally:
        for monitor in monitors.values():
            monitor.close()
    return missing


def describe_route(route: ExpectedRoute) -> str:
    where = f" (VRF {route.vrf})" if route.vrf else ""
    return f"{route.node}{where}: route to {route.prefix}"


def sessions(runtime: Runtime, wanted: Sequence[BgpSession]) -> dict[BgpSession, control.SessionState]:
    """The state of BGP sessions now; one question per daemon. A daemon that does not answer is `Down`."""
    found: dict[BgpSession, control.SessionState] = {}
    for node, daemon, path in dict.fromkeys((entry.node, entry.daemon, entry.socket) for entry in wanted):
        own = [entry for entry in wanted if (entry.node, entry.daemon, entry.socket) == (node, daemon, path)]
        try:
            place = runtime.path(node, path)
            if daemon == "frr":
                by_peer = control.frr_sessions(place)
                answers = {entry: by_peer.get((entry.vrf, entry.peer)) for entry in own}
            else:
                by_name = control.bird_sessions(place)
                answers = {entry: by_name.get(entry.protocol) for entry in own}
        except (control.NoAnswerError, NoSuchNodeError) as error:
            answers = {entry: control.SessionState("Down", f"{daemon} does not answer: {error}") for entry in own}
        for entry, state in answers.items():
            found[entry] = state or control.SessionState("Absent", f"{daemon} does not know this neighbour")
    return found


def await_sessions(runtime: Runtime, wanted: Sequence[BgpSession], deadline: Deadline, observer: Observer) -> list[str]:
    """Wait until every session is established; returns what is missing at the deadline, with each one's state."""
    pending = list(wanted)
    missing: list[str] = []

    def established() -> bool:
        states = sessions(runtime, pending)
        pending[:] = [entry for entry in pending if not states[entry].established]
        missing[:] = [describe_session(entry, states[entry]) for entry in pending]
        observer(Awaited("BGP sessions", tuple(missing), len(wanted)))
        return not pending

    until(established, deadline)
    return missing if pending else []


def describe_session(session: BgpSession, state: control.SessionState) -> str:
    where = f" in VRF {session.vrf}" if session.vrf else ""
    detail = f", last error: {state.detail}" if state.detail else ""
    return f"{session.node}: BGP to {session.peer_name} ({session.peer}){where}: {state.state}{detail}"


def await_ready(runtime: Runtime, plan: Plan, deadline: Deadline, observer: Observer) -> None:
    """Wait for routes and sessions.

    Raises:
        NotReadyError: naming every route and session that is missing.
    """
    late = await_routes(runtime, plan.routes, deadline, observer)
    missing = await_sessions(runtime, plan.sessions, deadline, observer)
    if late or missing:
        raise NotReadyError(deadline.elapsed, [*missing, *(describe_route(route) for route in late)])
