"""Where images are built: one build at a time on this machine, in a folder that does not outlive it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from testbed.errors import DeployError
from testbed.runtime import lock

PLACE, PREFIX = Path("/var/tmp"), "testbed-image-"  # noqa: S108 - on a disk; the folder in it is for root alone
LOCK = "image"
LAST = 1800.0  # seconds a build may take


def alone(waiting: Callable[[], None]) -> AbstractContextManager[int]:
    """Hold the lock for the length of the block; `waiting` is called as long as another build has it.

    Raises:
        DeployError: the other build does not end.
    """
    return lock.held(LOCK, LAST, "another build of the image does not end", waiting)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for the length of the block. To be used under the lock."""
    _remove()
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=PLACE) as name:
        yield Path(name)


def sweep() -> None:
    """Remove what a build left that was killed."""
    if any(PLACE.glob(f"{PREFIX}*")):
        with contextlib.suppress(DeployError), lock.held(LOCK, 0, "a build is at work"):
            _remove()


def _remove() -> None:
    for left in PLACE.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
