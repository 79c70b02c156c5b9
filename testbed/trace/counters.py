"""What the kernel counts while a flow is asked: in the protocols of a namespace, and in its queueing disciplines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, TypeVar

from testbed import run
from testbed.errors import TestbedError
from testbed.runtime.base import Runtime
from testbed.trace.map import Place

Key = TypeVar("Key")
Drops = Mapping[tuple[str, str], int]
"""(Interface, queueing discipline) → how many packets it dropped so far."""


def counters(runtime: Runtime, places: Iterable[Place]) -> Mapping[Place, Mapping[str, int]]:
    """What each namespace has counted so far: "IpExt.InNoRoutes", "Udp6NoPorts".

    Sources: net/ipv4/proc.c and net/ipv6/proc.c of Linux.
    """
    found = {}
    for place in places:
        try:
            with run.network_namespace(runtime.network(*place)):
                texts = [File("/proc/thread-self/net", name).read_text() for name in ("snmp", "netstat")]
                six = File("/proc/thread-self/net/snmp6")
                found[place] = _tables("".join(texts)) | (_lines(six.read_text()) if six.exists() else {})
        except (OSError, TestbedError):
            continue
    return found


def _tables(text: str) -> dict[str, int]:
    lines = text.splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, _, rest = names.partition(": ")
        for name, value in zip(rest.split(), values.partition(": ")[2].split(), strict=False):
            found[f"{group}.{name}"] = int(value)
    return found


def _lines(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def queue_drops(listed: Sequence[Mapping[str, Any]]) -> Drops:
    """The drops in what `tc -s -j qdisc` lists, `dev` and `kind` of each added up."""
    found: dict[tuple[str, str], int] = {}
    for queue in listed:
        if "dev" in queue:
            key = (str(queue["dev"]), str(queue.get("kind", "")))
            found[key] = found.get(key, 0) + int(queue.get("drops", 0))
    return found


def more_drops(before: Drops, after: Drops) -> tuple[tuple[str, str, int], ...]:
    """(Interface, queueing discipline, number) of the drops that came in between."""
    return tuple((*key, more) for key, more in risen(before, after).items())


def risen(before: Mapping[Key, int], after: Mapping[Key, int]) -> dict[Key, int]:
    """By how much counters are higher than before; the others are left out."""
    return {key: value - before.get(key, 0) for key, value in after.items() if value > before.get(key, 0)}
