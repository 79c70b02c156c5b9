"""Waits until a lab is what its Plan says: processes ready, routes in the kernels' tables, BGP sessions established."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.deploy import control
from testbed.errors import CommandError, NoSuchNodeError, NotReadyError, UnsupportedError
from testbed.events import Awaited, Observer, Told
from testbed.plan import BgpSession, ExpectedRoute, Plan, Process
from testbed.runtime.base import NodeState, Runtime, Sockets
from testbed.runtime.monitor import RouteMonitor
from testbed.wait import Deadline, until

QUIET = 0.5  # seconds without a change after which a disturbed network has settled
TCP_LISTEN = "0A"  # include/net/tcp_states.h


class Starter:
    """Starts programs, each as soon as those it comes after are ready.

    Args:
        wanted: (node, program) in the order in which they are to be started.
    """

    def __init__(self, runtime: Runtime, wanted: Sequence[tuple[str, Process]], observer: Observer) -> None:
        self._runtime, self._observer = runtime, observer
        self._total = len(wanted)
        self._waiting = list(wanted)
        self._started: list[tuple[str, Process]] = []
        self._ready: set[tuple[str, str]] = set()
        named = {(node, process.name) for node, process in wanted}
        for node, state in runtime.state().items():
            self._ready |= {(node, name) for name, process in state.processes.items() if process.running}
        self._ready -= named

    def step(self, nodes: Container[str] | None = None) -> bool:
        """Start what can be started now; returns whether every program has been.

        Args:
            nodes: only programs of these.
        """
        waiting = [entry for entry in self._waiting if nodes is None or entry[0] in nodes]
        if waiting:
            self._look()
        due = [
            (node, process) for node, process in waiting if all((node, name) in self._ready for name in process.after)
        ]
        self._runtime.start(due)
        for entry in due:
            self._waiting.remove(entry)
        self._started += due
        return len(waiting) == len(due)

    def _look(self) -> None:
        """Note which of the started programs have become ready."""
        if not self._started:
            return
        states = self._runtime.state()
        ready = [entry for entry in self._started if process_ready(self._runtime, states, *entry)]
        self._configure([entry for entry in ready if entry[1].configure])
        for node, process in ready:
            self._started.remove((node, process))
            self._ready.add((node, process.name))
        if ended := [entry for entry in self._started if _ended(states, *entry)]:
            raise NotReadyError(0, [_process_state(self._runtime, states, *entry) for entry in ended])

    def _configure(self, ready: Sequence[tuple[str, Process]]) -> None:
        """Run the commands that give programs their configuration; nodes side by side."""

        def work(entry: tuple[str, Process]) -> None:
            try:
                self._runtime.run(entry[0], None, entry[1].configure)
            except (CommandError, UnsupportedError) as error:
                self._observer(Told(f"{entry[0]}: {error}"))

        if ready:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(work, ready))

    def start(self, deadline: Deadline, nodes: Container[str] | None = None) -> None:
        """Start all programs (of some nodes), waiting for those that others come after.

        Raises:
            NotReadyError: naming the programs that did not get so far, and how those that ended did.
        """
        self._await(lambda: self.step(nodes), deadline)

    def finish(self, deadline: Deadline) -> None:
        """Wait until every program is ready. Raises NotReadyError like `start`."""

        def done() -> bool:
            self.step()
            self._look()
            return not (self._started or self._waiting)

        self._await(done, deadline)

    def _await(self, done: Callable[[], bool], deadline: Deadline) -> None:
        def told() -> bool:
            answer = done()
            missing = tuple(f"{node}: {process.name}" for node, process in (*self._started, *self._waiting))
            self._observer(Awaited("processes", missing, self._total))
            return answer

        if not until(told, deadline):
            states = self._runtime.state()
            left = (*self._started, *self._waiting)
            raise NotReadyError(deadline.elapsed, [_process_state(self._runtime, states, *entry) for entry in left])


def process_ready(runtime: Runtime, states: dict[str, NodeState], node: str, process: Process) -> bool:
    """Whether a program runs and answers its ready check."""
    state = states[node].processes.get(process.name) if node in states else None
    if state is None or not state.running:
        return False
    check = process.ready
    if check.kind == "path":
        place = runtime.path(node, check.path)
        # Between bind(2) and listen(2) a socket is there and refuses: what is configured through it must accept.
        return place.exists() and (not process.configure or control.accepts(place))
    if check.kind == "listen":
        return _listens(runtime.proc(node, state.pid), check.port, "tcp")
    if check.kind == "listen-udp":
        return _listens(runtime.proc(node, state.pid), check.port, "udp")
    return True


def _listens(process: Path, port: int, protocol: str) -> bool:
    """Whether a socket of the process's network namespace listens on the port (proc(5), /proc/PID/net/tcp)."""
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (process / "net" / name).read_text().splitlines()[1:]
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
    log = log_end(runtime, node, process.name)
    return f"{node}: {process.name}: ended with status {state.status}; its log ends: {log}"


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


def await_routes(
    sockets: Sockets, routes: Sequence[ExpectedRoute], deadline: Deadline, observer: Observer, quiet: float = 0.0
) -> list[ExpectedRoute]:
    """Wait until every expected route is in its kernel table, with all its next hops; returns those that are not so at
    the deadline.

    Args:
        sockets: opens them in the nodes that the routes name.
        quiet: seconds in which none of the tables may have changed.
    """
    wanted: dict[tuple[str, str | None, int], list[ExpectedRoute]] = {}  # by table
    for route in routes:
        wanted.setdefault((route.node, route.vrf, route.table), []).append(route)
    monitors = {place: RouteMonitor(sockets, *place) for place in wanted}
    missing = dict(wanted)
    calm = Deadline(quiet)

    def arrived() -> bool:
        nonlocal calm
        for place, monitor in monitors.items():
            if monitor.read():
                there = monitor.prefixes
                missing[place] = [route for route in wanted[place] if there.get(route.prefix, 0) < route.next_hops]
                calm = Deadline(quiet)
        words = tuple(describe_route(route) for late in missing.values() for route in late)
        observer(Awaited("routes", words, len(routes)))
        return not words and calm.passed

    try:
        until(arrived, deadline, monitors.values())
    finally:
        for monitor in monitors.values():
            monitor.close()
    return [route for late in missing.values() for route in late]


def describe_route(route: ExpectedRoute) -> str:
    where = f" (VRF {route.vrf})" if route.vrf else ""
    hops = f" with {route.next_hops} next hops" if route.next_hops > 1 else ""
    return f"{route.node}{where}: route to {route.prefix}{hops}"


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


def await_ready(
    runtime: Runtime, plan: Plan, deadline: Deadline, observer: Observer, *, disturbed: bool = False
) -> None:
    """Wait for routes and sessions.

    Args:
        disturbed: something of a running lab was changed that its routers may hear of, so that what is there may be
            left from before: they are given time, and the routes count only once they have stopped changing.

    Raises:
        NotReadyError: naming every route and session that is missing.
    """
    if disturbed:
        await_sessions(runtime, plan.sessions, deadline, observer)
    late = await_routes(runtime, plan.routes, deadline, observer, QUIET if disturbed else 0.0)
    missing = await_sessions(runtime, plan.sessions, deadline, observer)
    if late or missing:
        raise NotReadyError(deadline.elapsed, [*missing, *(describe_route(route) for route in late)])
