"""Which prefix BGP brings to which speaker: a path-vector run on paper, so that readiness knows what to wait for.

Only reachability is decided here, not which of several equal paths a router prefers (RFC 4271, section 9.1): ties are
broken by name, which changes nothing as long as equal paths name the same ASes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
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

    def other(self, key: Key) -> Key:
        return self.b if key == self.a else self.a


def propagate(speakers: Sequence[Speaker], sessions: Iterable[Session]) -> dict[Key, frozenset[str]]:
    """The prefixes each speaker learns from others (not those it originates itself)."""
    by_key = {speaker.key: speaker for speaker in speakers}
    neighbours: dict[tuple[Key, int], list[Key]] = {}
    for session in sessions:
        for key in (session.a, session.b):
            neighbours.setdefault((key, session.family), []).append(session.other(key))
    learned: dict[Key, set[str]] = {speaker.key: set() for speaker in speakers}
    for prefix in sorted({prefix for speaker in speakers for prefix in speaker.originates}):
        for key in _reached(prefix, by_key, neighbours):
            learned[key].add(prefix)
    return {key: frozenset(prefixes) for key, prefixes in learned.items()}


@dataclass(frozen=True)
class _Route:
    """A prefix as a speaker has it: the ASes it came through, and whether iBGP brought it."""

    path: tuple[int, ...] = ()
    internal: bool = False

    @property
    def rank(self) -> tuple[int, bool]:
        """The lower the better (RFC 4271, section 9.1.2.2: shorter AS paths, then external over internal)."""
        return len(self.path), self.internal


def _reached(prefix: str, speakers: Mapping[Key, Speaker], neighbours: Mapping[tuple[Key, int], list[Key]]) -> set[Key]:
    """The speakers that learn a prefix. Each takes the best route it is told of, and passes on that one alone.

    Routes are handed out from the best on, so the first that a speaker accepts is its best.
    """
    family = 6 if ":" in prefix else 4
    origins = {key for key, speaker in speakers.items() if prefix in speaker.originates}
    best: dict[Key, _Route] = {}
    waiting = [(_Route().rank, str(key), key, _Route()) for key in origins]
    heapq.heapify(waiting)
    while waiting:
        _, _, key, route = heapq.heappop(waiting)
        if key in best:
            continue
        best[key] = route
        sender = speakers[key]
        for other in neighbours.get((key, family), ()) if key in origins or sender.transit else ():
            told = _told(route, sender, speakers[other])
            if told and other not in best:
                heapq.heappush(waiting, (told.rank, str(other), other, told))
    return best.keys() - origins


def _told(route: _Route, sender: Speaker, receiver: Speaker) -> _Route | None:
    """The route as the receiver gets it; None when it is not told of it, or does not take it."""
    internal = receiver.asn == sender.asn
    if internal and route.internal:
        return None  # what iBGP brought is not passed on by iBGP (RFC 4271, section 9.2)
    path = route.path if internal else (sender.asn, *route.path)
    if not receiver.receives or path.count(receiver.asn) > receiver.allow_own_as:
        return None
    return _Route(path, internal)
