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
from testbed.events import ignore
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
        known = (node.name for node in self._plan.nodes if node.kind == "kubernetes")
        return tuple(name for name in known if name not in self._plan.not_ready)

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
                if ended := self._ended(failed, stop):
                    with self._alone():
                        self._refresh()
                        reaction = self._react()
                    if reaction:
                        failed |= set(reaction.ended if reaction.problem else ())
                        yield reaction
                elif ended is None:
                    return

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

    def _ended(self, failed: Collection[str], stop: Readable | None) -> bool | None:
        """Whether a node ended within a second; None: the watch is to end."""
        with contextlib.ExitStack() as opened:
            holders = []
            for name in self.nodes:
                if name in failed:
                    continue
                try:
                    holders.append(self._runtime.holder(name))
                except NoSuchNodeError:
                    return True
                opened.callback(os.close, holders[-1])
            found = readable([*holders, *([stop] if stop else [])], LOOK)
            return None if stop in found else bool(found)

    def _react(self) -> Reaction | None:
        start, before = time.monotonic(), self._plan
        states = self._runtime.state()
        ended = tuple(name for name in self.nodes if name not in states)
        if not ended:
            return None  # `testbed up` has made it anew
        try:
            after = self._compiled((*before.not_ready, *ended))
            apply.react(after, self._runtime, self._directory, timeout=TIMEOUT, observer=ignore)
        except NoSuchLabError:
            raise
        except TestbedError as error:
            return Reaction(ended, before, before, time.monotonic() - start, str(error))
        self._stamp, self._plan = self._written(), after
        return Reaction(ended, before, after, time.monotonic() - start)
