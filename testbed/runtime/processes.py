"""The machine's processes: found by their command lines, ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from testbed.wait import Deadline, readable


def running() -> Iterator[tuple[int, list[str]]]:
    """(pid, argv) of every process that has a command line."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), os.fsdecode(Path(entry.path, "cmdline").read_bytes()).split("\0")


def end(pid: int, deadline: Deadline) -> bool:
    """Kill a process and wait until it has ended, and all of the pid namespace it is pid 1 of; whether it has in time.

    Only its pidfd tells (pidfd_open(2)): a process loses its command line before the kernel ends what is below it.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(readable([descriptor], deadline.left))
    finally:
        os.close(descriptor)
