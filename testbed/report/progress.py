"""What a long operation is doing, folded from its events into a few lines. Pure: who shows them knows the time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed.events import Awaited, Event, Step, Told
from testbed.report.words import cut, duration

SHOWN = 3
"""How many awaited things a line names."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps that ended, the step that goes on (empty: none), and what it awaits."""

    done: tuple[Step, ...] = ()
    current: str = ""
    awaited: tuple[Awaited, ...] = ()


def after(progress: Progress, event: Event) -> Progress:
    """The progress once an event has come."""
    if isinstance(event, Told):
        return progress
    if isinstance(event, Awaited):
        others = tuple(entry for entry in progress.awaited if entry.what != event.what)
        return replace(progress, awaited=(*others, event))
    if event.seconds is None:
        return replace(progress, current=event.name, awaited=())
    return Progress((*progress.done, event))


def past(progress: Progress) -> str:
    """The steps that ended, with how long each took."""
    return " · ".join(ended(step) for step in progress.done)


def ended(step: Step) -> str:
    return f"{step.name} {duration(step.seconds or 0.0)}"


def present(progress: Progress) -> str:
    """The step that goes on, with the counts of what it awaits: "convergence: BGP sessions 12 of 44"."""
    counts = [f"{entry.what} {entry.total - len(entry.missing)} of {entry.total}" for entry in progress.awaited]
    return progress.current + (f": {', '.join(counts)}" if counts else "")


def missing(progress: Progress, width: int) -> str:
    """Some of what is awaited, by name, and how much more there is; empty when there is nothing."""
    names = [name for entry in progress.awaited for name in entry.missing]
    if not names:
        return ""
    for shown in range(min(SHOWN, len(names)), 0, -1):  # the most that fit
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        line = f"awaiting {'; '.join(names[:shown])}{more}"
        if len(line) <= width:
            return line
    return cut(line, width)


def lines(progress: Progress, width: int) -> list[str]:
    """The whole as up to three lines of at most `width` characters."""
    found = (past(progress), present(progress), missing(progress, width))
    return [cut(line, width) for line in found if line]
