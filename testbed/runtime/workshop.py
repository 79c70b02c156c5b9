"""Where images are built: one build at a time on this machine, in a folder that does not outlive it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.errors import DeployError
from testbed.wait import Deadline, until

PLACE, PREFIX = Path("/var/tmp"), "testbed-image-"  # noqa: S108 - on a disk; the folder in it is for root alone
LOCK = "\0testbed/image"  # an abstract socket (unix(7)), as for `up`: gone with its process
LAST = 1800.0  # seconds a build may take


@contextlib.contextmanager
def alone(waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock for the length of the block; `waiting` is called as long as another build has it.

    Raises:
        DeployError: the other build does not end.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:

        def locked() -> bool:
            if not _bound(lock):
                waiting()
                return False
            return True

        if not until(locked, Deadline(LAST)):
            raise DeployError("another build of the image does not end")
        yield


def _bound(lock: socket.socket) -> bool:
    try:
        lock.bind(LOCK)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for the length of the block. To be used under the lock."""
    _remove()
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=PLACE) as name:
        yield Path(name)


def sweep() -> None:
    """Remove what a build left that was killed."""
    if any(PLACE.glob(f"{PREFIX}*")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
            if _bound(lock):
                _remove()


def _remove() -> None:
    for left in PLACE.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
