"""Which prefix BGP brings to which speaker: a path-vector run on paper, so that readiness knows what to wait for.

Only reachability is decided here, not which of several paths a router prefers (RFC 4271, section 9.1: shorter AS paths
first; ties do not change reachability as long as the paths name the same ASes, and are broken by name).
"""

from __future__ import annotations

from collections import deque
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


def _reached(prefix: str, speakers: Mapping[Key, Speaker], neighbours: Mapping[tuple[Key, int], list[Key]]) -> set[Key]:
    """The speakers that learn a prefix: each passes on its first, shortest, path."""
    family = 6 if ":" in prefix else 4
    paths: dict[Key, tuple[int, ...]] = {key: () for key, speaker in speakers.items() if prefix in speaker.originates}
    origins = set(paths)
    internally: set[Key] = set()  # learned by iBGP, which is not passed on by iBGP (RFC 4271, section 9.2)
    queue = deque(sorted(paths, key=str))
    while queue:
        key = queue.popleft()
        sender = speakers[key]
        if key not in origins and not sender.transit:
            continue
        for other in neighbours.get((key, family), ()):
            receiver = speakers[other]
            internal = receiver.asn == sender.asn
            path = paths[key] if internal else (sender.asn, *paths[key])
            if internal and key in internally:
                continue
            if other in paths or not receiver.receives or path.count(receiver.asn) > receiver.allow_own_as:
                continue
            paths[other] = path
            if internal:
                internally.add(other)
            queue.append(other)
    return set(paths) - origins

