"""What is read from the machine: processes and their memory, the host's own network and sysctls."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import select
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from testbed.wait import Deadline

KIB = 1024


def description() -> str:
    """The machine in one line."""
    load = ", ".join(f"{entry:.1f}" for entry in os.getloadavg())
    return f"{platform.system()} {platform.release()}, {os.cpu_count()} processors, load {load}"


# --- processes --------------------------------------------------------------------------------------------------------


def children(pid: int) -> Iterator[int]:
    """The children of all threads of a process (proc(5))."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield from (int(child) for child in (thread / "children").read_text().split())


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    found = [root]
    for pid in found:  # grows while it is walked
        found += children(pid)
    return found


def command_line(pid: int) -> list[str]:
    """The program of a process and its arguments; empty texts when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return [""]


def memory(pids: Iterable[int]) -> float:
    """The proportional set size (a shared page counts once) of processes together, in MB of 10**6 bytes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total * KIB / 1e6


class Ending:
    """Watches processes end."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._left: list[int] = []
        for pid in pids:
            with contextlib.suppress(OSError):
                self._left.append(os.pidfd_open(pid))

    def wait(self, seconds: float) -> bool:
        """Whether all of them have ended within so long. A pidfd becomes readable then (pidfd_open(2))."""
        deadline = Deadline(seconds)
        while self._left:
            poll = select.poll()
            poll.register(self._left[-1], select.POLLIN)
            if not poll.poll(deadline.left * 1000):
                return False
            os.close(self._left.pop())
        return True


# --- the host ---------------------------------------------------------------------------------------------------------


# What the host's network is made of, and what of it ticks by itself.
HOST = ("link", "address", "route show table all", "-6 route show table all", "rule", "-6 rule")
TICKING = re.compile(r" (valid_lft|preferred_lft|expires) \w+")


def host_network() -> dict[str, set[str]]:
    """The host's interfaces, addresses, routes and rules, as lines that can be compared."""
    found = {}
    for what in HOST:
        done = subprocess.run(("ip", "-o", *what.split()), capture_output=True, text=True, check=True)
        found[what] = {TICKING.sub("", line) for line in done.stdout.splitlines()}
    return found


def network_changes(before: dict[str, set[str]]) -> list[str]:
    """What of the host's network is not as it was, as lines."""
    after = host_network()
    lines = [f"+ {line}" for what in HOST for line in sorted(after[what] - before[what])]
    return lines + [f"- {line}" for what in HOST for line in sorted(before[what] - after[what])]


def sysctl_path(key: str) -> Path:
    return Path("/proc/sys", *key.split("."))


@contextlib.contextmanager
def sysctls_restored(keys: Iterable[str]) -> Iterator[list[str]]:
    """Put sysctls of the host back as they were, whatever happens in the block.

    Yields a list that holds, after the block, what had been changed: "KEY: OLD -> NEW".
    """
    before = {key: sysctl_path(key).read_text() for key in keys if sysctl_path(key).exists()}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for key, value in before.items():
            now = sysctl_path(key).read_text()
            if now != value:
                changed.append(f"{key}: {' '.join(value.split())} -> {' '.join(now.split())}")
                sysctl_path(key).write_text(value)
