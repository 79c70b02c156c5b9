"""Has a running FRR daemon take over its changed configuration, in a fraction of the time that FRR's own tool takes.

What differs is found by that tool, frr-reload.py --test. With --reload it would then start a vtysh (25 ms of a
processor) for every line that it deletes, and one more for each word that it takes off a line that is refused; of a
neighbour that is gone, all lines but the first are. Here the lines go to the daemon over one connection, in the same
order. When it then shows just what they say, that is all. Else the tool is asked again for what differs, as it asks
itself; and it does the whole of it where the daemon refuses what is still wanted.

Source: FRR, tools/frr-reload.py (its two passes, and what is done in which).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.deploy import control
from testbed.deploy.control import Entry
from testbed.plan import Process
from testbed.runtime.base import Runtime

TOOL = "/usr/lib/frr/frr-reload.py"
DELETE, ADD = "Lines To Delete", "Lines To Add"
OF_VTYSH: Entry = ("service integrated-vtysh-config",)  # its own setting, which it shows among every daemon's


@dataclass(frozen=True, slots=True)
class Difference:
    """What is to be entered to make a daemon's configuration that of its file; deletions come first."""

    deletions: tuple[Entry, ...] = ()
    additions: tuple[Entry, ...] = ()


def parsed(text: str) -> Difference:
    """What frr-reload.py --test has printed.

    A line for each context of an entry and one for the entry, each indented by a blank more than the one before.
    """
    found: dict[str, list[Entry]] = {DELETE: [], ADD: []}
    title = ""
    for line in text.splitlines():
        if line in found:
            title = line
        elif title and line.startswith(" "):
            found[title][-1] += (line.strip(),)
        elif title and line.strip("="):
            found[title].append((line.strip(),))
    return Difference(*(tuple(entry for entry in found[title] if entry != OF_VTYSH) for title in (DELETE, ADD)))


def shown(text: str) -> frozenset[Entry]:
    """The entries of a running configuration as a daemon prints it; a context is an entry, too."""
    found: set[Entry] = set()
    inside: Entry = ()
    for line in text.splitlines():
        depth, words = len(line) - len(line.lstrip()), line.strip()
        if words and not words.startswith(("!", "exit", "end")):
            inside = (*inside[:depth], words)
            found.add(inside)
    return frozenset(found)


def foreseen(before: frozenset[Entry], difference: Difference) -> frozenset[Entry]:
    """What a daemon shows after a difference was entered, if that had no effect but what its lines say."""
    gone = {_opposite(entry) for entry in difference.deletions}
    left = {entry for entry in before if not any(entry[:depth] in gone for depth in range(1, len(entry) + 1))}
    for entry in difference.additions:
        if _opposite(entry) in left:
            left.remove(_opposite(entry))
        else:
            left.add(entry)
    return frozenset(left)


def _opposite(entry: Entry) -> Entry:
    """What an entry that starts with "no" takes away, and what takes away any other."""
    line = entry[-1]
    return (*entry[:-1], line.removeprefix("no ") if line.startswith("no ") else f"no {line}")


def reload(runtime: Runtime, node: str, process: Process) -> None:
    """Have an FRR daemon of a node take over its file, the first of the process's.

    Raises:
        CommandError: it does not take it.
    """
    try:
        taken = _entered(runtime, node, process)
    except control.NoAnswerError:
        taken = False
    if not taken:
        by_tool(runtime, node, process)


def by_tool(runtime: Runtime, node: str, process: Process) -> None:
    """As `reload`, by FRR's own tool alone."""
    _tool(runtime, node, process, "--reload")


def difference(runtime: Runtime, node: str, process: Process) -> Difference:
    """What a running FRR daemon of a node lacks of its file, and has beside it.

    Raises:
        CommandError: the tool does not understand the file, or the daemon does not answer.
    """
    return parsed(_tool(runtime, node, process, "--test"))


def _entered(runtime: Runtime, node: str, process: Process) -> bool:
    """Enter what differs; whether the daemon took all that it should."""
    socket = runtime.path(node, process.ready.path)
    before = _running(socket)
    first = difference(runtime, node, process)
    refused = set(control.frr_configure(socket, (*first.deletions, *first.additions)))
    if _running(socket) == foreseen(before, first):
        return True
    left = difference(runtime, node, process)
    if refused.intersection(left.deletions):
        return False
    # A deletion took other lines with it ("no neighbor A remote-as N" all of A's), which are added again; then what was
    # added at first, for it may have to win. What the daemon takes and does not show differs still: so did it before.
    again = (*left.additions, *(entry for entry in first.additions if not entry[0].startswith("no ")))
    return not left.additions or not control.frr_configure(socket, again)


def _running(socket: Path) -> frozenset[Entry]:
    return shown(control.frr(socket, "show running-config"))


def _tool(runtime: Runtime, node: str, process: Process, mode: str) -> str:
    argv = ("/usr/bin/python3", TOOL, mode, "--daemon", process.name, "--confdir", "/etc/frr", process.files[0])
    return runtime.run(node, process.vrf, argv)
