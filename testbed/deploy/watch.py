"""The embedded cluster's controllers: when a node ends, the others do what Kubernetes would have them do.

The node controller takes a node that is not heard of for not ready, and the pods on it with it
(pkg/controller/nodelifecycle): their addresses leave the EndpointSlices, and so kube-proxy's rules; egress services
move. There it takes the grace period of 40 or 50 seconds; here the end of a node is seen at once (pidfd_open(2)).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from testbed.deploy import apply
from testbed.errors import InputError, NoSuchLabError, NoSuchNodeError, Problem, TestbedError
from testbed.plan import Plan
from testbed.runtime.base import Runtime
from testbed.wait import Readable, readable

LOOK = 1.0  # seconds after which it is looked whether `testbed up` has changed the lab
TIMEOUT = 60.0  # seconds for what programs must be started anew


@dataclass(frozen=True)
class Reaction:
    """What came of nodes that have ended.

    Args:
        ended: their names. before, after: the lab's Plans. seconds: from when it was seen to when all was applied.
        problem: why nothing was applied; empty: it was.
    """

    ended: tuple[str, ...]
    before: Plan
    after: Plan
    seconds: float
    problem: str = ""


def cluster_nodes(plan: Plan) -> tuple[str, ...]:
    """The nodes of a lab's cluster."""
    return tuple(node.name for node in plan.nodes if node.kind == "kubernetes")


class Watch:
    """Waits for cluster nodes that end, and reacts.

    Args:
        directory: where the lab keeps its Plan.
        compiled: names of nodes that are not ready → the Plan that the lab's files give.
        alone: held while the lab is changed.

    Raises:
        NoSuchLabError: it does not run, or not whole. InputError: what runs is not what its files say.
    """

    def __init__(
        self,
        runtime: Runtime,
        directory: Path,
        compiled: Callable[[Collection[str]], Plan],
        alone: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._runtime, self._directory, self._compiled, self._alone = runtime, directory, compiled, alone
        self._stamp = self._written()
        if (plan := apply.stored_plan(directory)) is None:
            raise NoSuchLabError("the lab is only half there: `testbed up` makes it anew")
        self._plan = self._checked(plan)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The cluster's nodes that the lab has and that are ready."""
        return tuple(name for name in cluster_nodes(self._plan) if name not in self._plan.not_ready)

    def reactions(self, stop: Readable | None = None) -> Iterator[Reaction]:
        """One for each time that nodes end, until the lab is gone.

        Args:
            stop: becomes readable when the watch is to end; None: never.

        Raises:
            InputError: `testbed up` has changed the lab to what its files do not say any more.
        """
        failed: frozenset[str] = frozenset()  # they have ended, and nothing could be done about it
        with contextlib.suppress(NoSuchLabError):
            while True:
                self._refresh()
                failed -= self._runtime.state().keys()
                waiting = [name for name in self.nodes if name not in failed]
                if (ended := self._ended(waiting, LOOK, stop)) is None:
                    return
                if not ended:
                    continue
                with self._alone():
                    self._refresh()
                    reaction = self._react(ended)
                if reaction:
                    failed |= set(reaction.ended if reaction.problem else ())
                    yield reaction

    def _refresh(self) -> None:
        """Read what `testbed up` has stored since."""
        stamp = self._written()
        if stamp != self._stamp and (plan := apply.stored_plan(self._directory)):
            self._stamp, self._plan = stamp, self._checked(plan)

    def _written(self) -> int:
        """When the lab's Plan was stored. Raises NoSuchLabError when there is none."""
        try:
            return (self._directory / apply.PLAN).stat().st_mtime_ns
        except OSError:
            raise NoSuchLabError("the lab is not running") from None

    def _checked(self, plan: Plan) -> Plan:
        if self._compiled(plan.not_ready) != plan:
            raise InputError([Problem("what runs is not what the lab's files say", hint="`testbed up` applies them")])
        return plan

    def _ended(self, nodes: Collection[str], seconds: float, stop: Readable | None = None) -> tuple[str, ...] | None:
        """Those that end within so many seconds, or have ended; None: the watch is to end."""
        with contextlib.ExitStack() as opened:
            holders: dict[int, str] = {}
            gone = []
            for name in nodes:
                try:
                    holder = self._runtime.holder(name)
                except NoSuchNodeError:
                    gone.append(name)
                    continue
                opened.callback(os.close, holder)
                holders[holder] = name
            found = readable([*holders, *([stop] if stop else [])], 0 if gone else seconds)
            if stop in found:
                return None
            return (*gone, *(name for holder, name in holders.items() if holder in found))

    def _react(self, candidates: Collection[str]) -> Reaction | None:
        """Apply what follows from their end; None: `testbed up` has made them anew meanwhile."""
        start, before = time.monotonic(), self._plan
        ended = self._ended([name for name in candidates if name in self.nodes], 0)
        if not ended:
            return None
        try:
            after = self._compiled((*before.not_ready, *ended))
            apply.react(after, self._runtime, self._directory, timeout=TIMEOUT)
        except NoSuchLabError:
            raise
        except TestbedError as error:
            return Reaction(ended, before, before, time.monotonic() - start, str(error))
        self._stamp, self._plan = self._written(), after
        return Reaction(ended, before, after, time.monotonic() - start)
