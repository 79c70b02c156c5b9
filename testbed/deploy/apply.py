"""Makes a Plan real: brings a lab up, applies the difference to one that runs, restores what was broken."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

from testbed.deploy import commands, frr_reload, rulesets
from testbed.deploy import secrets as lab_secrets
from testbed.deploy.readiness import Starter, await_ready
from testbed.errors import DeployError, NoSuchLabError, NotReadyError
from testbed.events import Observer, Step, Told, ignore
from testbed.plan import Node, Plan, Process
from testbed.plan.diff import PlanDiff, diff
from testbed.plan.store import from_json, to_json
from testbed.runtime.base import ClusterRuntime, NodeState, Runtime
from testbed.wait import Deadline

if TYPE_CHECKING:
    from testbed.deploy.kind import Prepared

PLAN, UNFINISHED = "plan.json", "plan.unfinished"


def stored_plan(directory: Path) -> Plan | None:
    """The Plan a running lab was made from; None when there is none, or when making it real did not end."""
    if (directory / UNFINISHED).exists():
        return None
    try:
        return from_json((directory / PLAN).read_text())
    except (OSError, ValueError):
        return None


def up(
    plan: Plan, runtime: Runtime, directory: Path, *, timeout: float, observer: Observer, keep: bool = False
) -> PlanDiff:
    """Make the Plan real and wait until it is ready.

    Args:
        directory: where the lab keeps its Plan and secrets (mode 0700).
        timeout: seconds until everything must be ready.
        keep: leave a lab that failed to start as it is, to look at.

    Returns:
        What was applied. A lab that was not there has every node added.

    Raises:
        DeployError, CommandError, NotReadyError: a new lab was taken down again (unless `keep`); one that was running
            before stays, and the next `up` makes it anew.
    """
    stored = stored_plan(directory) if runtime.exists() else None
    old = stored.present() if stored else None
    prepared = _prepared(old, plan)
    if old is None:
        runtime.destroy()
    change = diff(old or Plan(plan.name), plan)
    limit = Deadline(timeout + (plan.cluster.timeout if plan.cluster else 0.0))
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _unfinished(directory, plan):
            _Apply(plan, old, change, runtime, directory, limit, observer, prepared).run()
    except BaseException:
        if old is None and not keep:
            with contextlib.suppress(DeployError):
                runtime.destroy()
        raise
    return change


def react(plan: Plan, runtime: Runtime, directory: Path, *, timeout: float) -> None:
    """Apply to a running lab what Kubernetes' controllers make of a node's end.

    Nothing that is gone is made anew, of whatever kind, and nothing is waited for but programs that are started.

    Args:
        plan: that of the lab, with the nodes that are not ready.
        directory: where the lab keeps its Plan. timeout: seconds.

    Raises:
        NoSuchLabError: the lab does not run, or not whole.
        NoSuchNodeError, DeployError, CommandError: the next `up` makes the lab anew.
    """
    old = stored_plan(directory) if runtime.exists() else None
    if old is None:
        raise NoSuchLabError(f"lab {plan.name} is not running, or only half there")
    states = runtime.state()
    gone = [*plan.not_ready, *(node.name for node in plan.nodes if node.name not in states)]
    there, before = plan.without(gone), old.without(gone)
    change = diff(before, there)
    with _unfinished(directory, plan):
        _Apply(there, before, change, runtime, directory, Deadline(timeout), ignore, None).react(states)


@contextlib.contextmanager
def _unfinished(directory: Path, plan: Plan) -> Iterator[None]:
    """The lab has no Plan until the block has made this one real."""
    (directory / UNFINISHED).write_text("")
    yield
    (directory / PLAN).touch(mode=0o600)  # it holds passwords of BGP sessions
    (directory / PLAN).write_text(to_json(plan))
    (directory / UNFINISHED).unlink()


def _prepared(old: Plan | None, plan: Plan) -> Prepared | None:
    """What is to be applied to a cluster of kind's; None where there is nothing new."""
    if plan.cluster is None and (old is None or old.cluster is None):
        return None
    from testbed.deploy import kind  # few labs need it

    if old is not None:
        kind.refuse_change(old, plan)
    return kind.prepare(plan) if old is None or old.cluster != plan.cluster else None


@dataclasses.dataclass
class _Apply:
    plan: Plan
    old: Plan | None
    change: PlanDiff
    runtime: Runtime
    directory: Path
    deadline: Deadline
    observer: Observer
    prepared: Prepared | None  # what is to be applied to a cluster of kind's

    def run(self) -> None:
        with self._step("secrets"):
            self.contents = lab_secrets.contents(self.plan.nodes, lab_secrets.make(self.plan.secrets, self.directory))
        with self._step("nodes"):
            self.runtime.open()
            before = self.runtime.state()
            self._remove(before)
            self.runtime.remove(self._to_be_made_anew(before))
            there = self.runtime.state()
            missing = [node for node in self.plan.nodes if node.name not in there]
            made_by_kind = self.plan.cluster.names if self.plan.cluster else frozenset()
            self.runtime.create([node for node in missing if node.name not in made_by_kind], self.contents, self.plan)
        if self.plan.cluster:
            with self._step("cluster"):
                self._make_cluster()
        self.new = {node.name for node in missing}
        changed = {entry.new.name: entry.old for entry in self.change.changed if entry.new.name not in self.new}
        reloads = self._rewrite(changed)
        due = self._due()
        starter = Starter(self.runtime, due, self.observer)
        with self._step("links"):
            self._change_network(changed)
        # Routing daemons take longest to get going, most of it by waiting: they start first, and all else meanwhile.
        # But not before their links and addresses: FRR's zebra (8.4) forgets an address that it hears of, while it
        # starts, before it has heard of the interface (zebra_if_addr_update_ctx).
        # First of all come those that wait longest: FRR tries its first connection a second after its start in the
        # default instance (BGP_INIT_START_TIMER), and at once in a VRF.
        routing = {session.node for session in self.plan.sessions}
        first = {session.node for session in self.plan.sessions if session.daemon == "frr" and session.vrf is None}
        with self._step("rulesets"), ThreadPoolExecutor(1) as beside:
            starter.start(self.deadline, first)
            loading = beside.submit(self._load_rulesets, changed)
            starter.start(self.deadline, routing)
            loading.result()
        with self._step("processes"):
            self._reload_all(reloads)
            starter.start(self.deadline)
        if self.prepared:
            with self._step("objects"):
                self._install(self.prepared)
        if any(node.commands and node.name in self.new for node in self.plan.nodes):
            with self._step("commands"):
                starter.finish(self.deadline)
                commands.run(self.runtime, [node for node in self.plan.nodes if node.name in self.new], self.observer)
        with self._step("convergence"):
            disturbed = self.old is not None and bool(missing or due or self.change.reaches_routing)
            await_ready(self.runtime, self.plan, self.deadline, self.observer, disturbed=disturbed)
            starter.finish(self.deadline)
            self._own_images_run()

    def react(self, before: Mapping[str, NodeState]) -> None:
        """Change what runs, and start what has to be started anew for that; what had ended before stays so."""
        self.contents = lab_secrets.contents(self.plan.nodes, lab_secrets.make(self.plan.secrets, self.directory))
        self.new = set[str]()
        changed = {entry.new.name: entry.old for entry in self.change.changed}
        reloads = self._rewrite(changed)
        due = [(node, process) for node, process in self._due() if _runs(before[node], process)]
        self._change_network(changed)
        self._load_rulesets(changed)
        self._reload_all(reloads)
        starter = Starter(self.runtime, due, self.observer)
        starter.start(self.deadline)
        starter.finish(self.deadline)

    def _change_network(self, changed: Mapping[str, Node]) -> None:
        self._load_first(changed)
        self._retract(changed)
        for node in self.plan.nodes:
            if node.name in changed and changed[node.name].vrf_namespaces != node.vrf_namespaces:
                self.runtime.instances(node)
        fresh = len(self.new) == len(self.plan.nodes) and not self.plan.cluster  # kind's nodes have a network
        self.runtime.program(self.plan.nodes, self.plan.links, fresh=fresh)

    def _own_images_run(self) -> None:
        """Raise NotReadyError when a container of a user's own image has ended: its programs are nobody else's care."""
        states = self.runtime.state() if any(node.image for node in self.plan.nodes) else {}
        gone = [node.name for node in self.plan.nodes if node.image and node.name not in states]
        if gone:
            missing = [f"{name}: {self.runtime.absence(name)}" for name in gone]
            raise NotReadyError(self.deadline.elapsed, missing)

    def _make_cluster(self) -> None:
        from testbed.deploy import kind

        kind.make(self.plan, cast(ClusterRuntime, self.runtime), self.deadline)

    def _install(self, prepared: Prepared) -> None:
        from testbed.deploy import kind

        config = cast(ClusterRuntime, self.runtime).kubeconfig
        kind.install(self.plan, self.old, prepared, config, self.deadline, self.observer)

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.observer(Step(name))
        start = time.monotonic()
        yield
        self.observer(Step(name, time.monotonic() - start))

    def _remove(self, running: Mapping[str, NodeState]) -> None:
        """End what is no longer wanted, and what must be made anew; the pods of such a node go with it."""
        doomed = [node.name for node in self.change.removed]
        doomed += [entry.new.name for entry in self.change.changed if entry.recreated]
        self.runtime.remove([name for name in doomed if name in running])

    def _to_be_made_anew(self, before: Mapping[str, NodeState]) -> list[str]:
        """Nodes that run, and whose commands may have set up a link that is lost: commands are for a new node."""
        found = commands.disturbed(self.plan, self.old, self.change, self.runtime, before)
        for node in found:
            self.observer(Told(f"{node} is made anew: a link that its commands may have set up is new"))
        return found

    def _retract(self, changed: Mapping[str, Node]) -> None:
        """Take away what is no longer wanted of nodes that stay; of a link that moves, both ends go."""
        moved = {(end.node, end.interface) for link in self.change.links_removed for end in (link.a, link.b)}
        wanted = {
            node.name: dataclasses.replace(
                node, interfaces=tuple(entry for entry in node.interfaces if (node.name, entry.name) not in moved)
            )
            for node in self.plan.nodes
        }
        self.runtime.retract(list(changed.values()), wanted)

    # --- netfilter ----------------------------------------------------------------------------------------------------

    def _load_rulesets(self, changed: Mapping[str, Node]) -> None:
        """Load the rulesets of nodes that are new, or whose rulesets changed; nodes side by side."""
        due = [
            node
            for node in self.plan.nodes
            if node.name in self.new or (node.name in changed and changed[node.name].rulesets != node.rulesets)
        ]
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda node: rulesets.load(self.runtime, node, changed.get(node.name)), due):
                pass

    def _load_first(self, changed: Mapping[str, Node]) -> None:
        """Load what must be there, on every node that stays, before routes and rules of any change."""
        due = [
            (node.name, entry)
            for node in self.plan.nodes
            if node.name in changed
            for entry in node.rulesets
            if entry.before_routes and entry not in changed[node.name].rulesets
        ]
        for name, entry in due:
            self.runtime.run(name, entry.vrf, rulesets.LOADERS[entry.tool], entry.text)

    # --- files and programs -----------------------------------------------------------------------------------------

    def _rewrite(self, changed: Mapping[str, Node]) -> list[tuple[str, Process]]:
        """Write changed files and end unwanted programs; returns the running programs that must take files over."""
        states = self.runtime.state() if changed else {}
        reloads: list[tuple[str, Process]] = []
        for node in self.plan.nodes:
            old = changed.get(node.name)
            if old is None:
                continue
            self._stop_unwanted(old, node, states)
            if old.files == node.files and old.directories == node.directories:
                continue
            gone = {file.path for file in old.files} - {file.path for file in node.files}
            self.runtime.write(node, self.contents, sorted(gone))
            before = {file.path: file for file in old.files}
            fresh = {file.path for file in node.files if before.get(file.path) != file} | gone
            for process in node.processes:
                state = states[node.name].processes.get(process.name)
                if (
                    fresh.intersection(process.files)
                    and state is not None
                    and state.running
                    and process in old.processes
                ):
                    if process.reload == "restart":
                        self.runtime.stop(node.name, process.name)
                    else:
                        reloads.append((node.name, process))
        return reloads

    def _stop_unwanted(self, old: Node, node: Node, states: Mapping[str, NodeState]) -> None:
        """End programs that are gone or are run in another way."""
        for process in old.processes:
            if process not in node.processes and process.name in states[node.name].processes:
                self.runtime.stop(node.name, process.name)

    def _reload_all(self, reloads: Sequence[tuple[str, Process]]) -> None:
        """Nodes side by side, the programs of a node one after the other."""
        nodes = dict.fromkeys(node for node, _ in reloads)

        def reload(node: str) -> None:
            for process in (process for name, process in reloads if name == node):
                self._reload(node, process)

        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(reload, nodes):
                pass

    def _reload(self, node: str, process: Process) -> None:
        """Have a running program take over its changed files."""
        if process.reload == "hup":
            self.runtime.signal(node, process.name, signal.SIGHUP)
        elif process.reload == "bird":
            self.runtime.run(node, None, process.reload_command)
        else:
            frr_reload.reload(self.runtime, node, process)

    def _due(self) -> list[tuple[str, Process]]:
        """Every program that should run and does not."""
        states = self.runtime.state()
        due: list[tuple[str, Process]] = []
        for node in self.plan.nodes:
            for process in node.processes:
                state = states[node.name].processes.get(process.name)
                if state is None or not state.running:
                    due.append((node.name, process))
        return due


def _runs(node: NodeState, process: Process) -> bool:
    state = node.processes.get(process.name)
    return state is not None and state.running


def restored(change: PlanDiff, before: Mapping[str, NodeState], plan: Plan) -> Sequence[str]:
    """Nodes and programs that should have run and did not, as `up` found them; for its report."""
    found = []
    added = {node.name for node in change.added}
    for node in plan.nodes:
        if node.name in added:
            continue
        if node.name not in before:
            found.append(node.name)
            continue
        for process in node.processes:
            state = before[node.name].processes.get(process.name)
            if state is not None and not state.running:
                found.append(f"{node.name}: {process.name}")
    return found
