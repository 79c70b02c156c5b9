"""The one place that waits. A wait is for events: descriptors that become readable; where the kernel offers none
(a socket that starts to listen in another namespace, a daemon's session), the condition is asked again after a short
pause that grows."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from testbed.patience import stretched

FIRST_PAUSE = 0.01
LAST_PAUSE = 0.1


class Readable(Protocol):
    def fileno(self) -> int: ...


class Deadline:
    """A point in time `seconds` from now, or later where the machine needs patience (testbed/patience.py).

    Args:
        exact: not a limit, but a time that is meant: nothing is added to it.
    """

    def __init__(self, seconds: float, *, exact: bool = False) -> None:
        self.seconds = seconds if exact else stretched(seconds)
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it was set."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def passed(self) -> bool:
        return self.left == 0.0


def until(done: Callable[[], bool], deadline: Deadline, wake: Iterable[Readable] = ()) -> bool:
    """Ask `done` until it is true or the deadline has passed; returns its last answer.

    Args:
        done: the condition; must be cheap.
        deadline: when to give up.
        wake: descriptors whose readability is a reason to ask at once. `done` must read them.
    """
    pause = FIRST_PAUSE
    watched = list(wake)
    while not done():
        if deadline.passed:
            return False
        woken = readable(watched, min(pause, deadline.left))
        pause = FIRST_PAUSE if woken else min(pause * 1.5, LAST_PAUSE)
    return True


def readable(descriptors: Iterable[Readable | int], seconds: float) -> list[Readable | int]:
    """Those of the descriptors that are readable, waiting up to `seconds` for the first."""
    poll = select.poll()  # unlike select(2), it takes descriptors above 1023
    watched = {entry if isinstance(entry, int) else entry.fileno(): entry for entry in descriptors}
    for number in watched:
        poll.register(number, select.POLLIN)
    return [watched[number] for number, _ in poll.poll(seconds * 1000)]
