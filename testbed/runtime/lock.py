"""Locks of this machine: abstract sockets (unix(7)), so there is no file, and a lock is gone with those who hold it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from testbed.errors import DeployError
from testbed.wait import Deadline, until


@contextlib.contextmanager
def held(name: str, seconds: float, refusal: str, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold a lock for the length of the block, and as long as a program runs that was given its descriptor.

    Args:
        seconds: to wait for it; 0: try once. refusal: what to say when somebody else has it all the time.
        waiting: called as long as somebody else has it.

    Raises:
        DeployError: with `refusal`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:

        def taken() -> bool:
            try:
                lock.bind(f"\0testbed/{name}")
            except OSError:
                waiting()
                return False
            return True

        if not until(taken, Deadline(seconds)):
            raise DeployError(refusal)
        yield lock.fileno()
