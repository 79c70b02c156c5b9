"""Which prefix BGP brings to which speaker: a path-vector run on paper, so that readiness knows what to wait for.

Only reachability is decided here, not which of several equal paths a router prefers (RFC 4271, section 9.1): ties are
broken by name, which changes nothing as long as equal paths name the same ASes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Key = tuple[str, str | None, str]  # node, VRF, daemon


@dataclass(frozen=True)
class Speaker:
    """A BGP speaker.

    Args:
        originates: prefixes it advertises of its own.
        transit: whether it passes on what it learned. receives: whether it takes anything in.
        allow_own_as: how often its own AS may stand in a path it accepts.
    """

    key: Key
    asn: int
    originates: frozenset[str] = frozenset()
    transit: bool = True
    receives: bool = True
    allow_own_as: int = 0


@dataclass(frozen=True)
class Session:
    """A session between two speakers that carries the prefixes of one family (4 or 6)."""

    a: Key
    b: Key
    family: int


def propagate(speakers: Sequence[Speaker], sessions: Iterable[Session]) -> dict[Key, frozenset[str]]:
    """The prefixes each speaker learns from others (not those it originates itself)."""
    ordered = sorted(speakers, key=lambda speaker: str(speaker.key))
    number = {speaker.key: index for index, speaker in enumerate(ordered)}
    neighbours: dict[int, list[list[int]]] = {family: [[] for _ in ordered] for family in (4, 6)}
    for session in sessions:
        neighbours[session.family][number[session.a]].append(number[session.b])
        neighbours[session.family][number[session.b]].append(number[session.a])
    learned: list[set[str]] = [set() for _ in ordered]
    for (family, origins), prefixes in _groups(ordered).items():
        for index in _reached(origins, ordered, neighbours[family]):
            learned[index] |= prefixes
    return {speaker.key: frozenset(learned[number[speaker.key]]) for speaker in speakers}


def _groups(speakers: Sequence[Speaker]) -> dict[tuple[int, tuple[int, ...]], set[str]]:
    """(family, numbers of the speakers that originate them) → prefixes; what has the same origins goes the same way."""
    origins: dict[str, list[int]] = {}
    for index, speaker in enumerate(speakers):
        for prefix in speaker.originates:
            origins.setdefault(prefix, []).append(index)
    found: dict[tuple[int, tuple[int, ...]], set[str]] = {}
    for prefix, indexes in origins.items():
        found.setdefault((6 if ":" in prefix else 4, tuple(indexes)), set()).add(prefix)
    return found


# A route as a speaker has it: (length of its AS path, whether iBGP brought it, the AS path). The lesser is the better
# (RFC 4271, section 9.1.2.2: shorter AS paths first, then external over internal).
_Route = tuple[int, bool, tuple[int, ...]]


def _reached(origins: Sequence[int], speakers: Sequence[Speaker], neighbours: Sequence[Sequence[int]]) -> set[int]:
    """The speakers that learn a prefix. Each takes the best route it is told of, and passes on that one alone.

    Routes are handed out from the best on, so the first that a speaker accepts is its best.
    """
    done: set[int] = set()
    waiting: list[tuple[_Route, int]] = [((0, False, ()), index) for index in origins]
    while waiting:
        route, index = heapq.heappop(waiting)
        if index in done:
            continue
        done.add(index)
        sender = speakers[index]
        for other in neighbours[index] if sender.transit or index in origins else ():
            if other not in done and (told := _told(route, sender, speakers[other])):
                heapq.heappush(waiting, (told, other))
    return done.difference(origins)


def _told(route: _Route, sender: Speaker, receiver: Speaker) -> _Route | None:
    """The route as the receiver gets it; None when it is not told of it, or does not take it."""
    length, by_ibgp, path = route
    internal = receiver.asn == sender.asn
    if internal and by_ibgp:
        return None  # what iBGP brought is not passed on by iBGP (RFC 4271, section 9.2)
    if not internal:
        length, path = length + 1, (sender.asn, *path)
    if not receiver.receives or path.count(receiver.asn) > receiver.allow_own_as:
        return None
    return length, internal, path
