"""Progress as data: what a long operation tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the work has begun ("links"), or, with `seconds`, has ended after so long."""

    name: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """What the lab is still waiting for, in the user's words; `total` is how many there were."""

    what: str
    missing: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Told:
    """Something that went another way than the lab's author may expect, in the user's words; the work goes on."""

    text: str


Event = Step | Awaited | Told
Observer = Callable[[Event], None]


def ignore(_: Event) -> None:
    """The observer that does not look."""
