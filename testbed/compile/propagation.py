"""Which prefix BGP brings to which speaker: a path-vector run on paper, so that readiness knows what to wait for.

Only reachability is decided here, not which of several equal paths a router prefers (RFC 4271, section 9.1): ties are
broken by name, which changes nothing as long as equal paths name the same ASes. How many of them there are is told as
far as it is certain: a speaker may have more.
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
        originates: prefixes it advertises of its own. uneven: those that not all of its neighbours get in the same way.
        transit: whether it passes on what it learned. receives: whether it takes anything in.
        allow_own_as: how often its own AS may stand in a path it accepts.
    """

    key: Key
    asn: int
    originates: frozenset[str] = frozenset()
    transit: bool = True
    receives: bool = True
    allow_own_as: int = 0
    uneven: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Session:
    """A session between two speakers that carries the prefixes of one family (4 or 6).

    Args:
        link: the subnet in which both ends speak from their own addresses; empty where they are further apart.
    """

    a: Key
    b: Key
    family: int
    link: str = ""


def propagate(speakers: Sequence[Speaker], sessions: Iterable[Session]) -> dict[Key, dict[str, int]]:
    """The prefixes each speaker learns from others (not those it originates itself).

    Returns:
        For each, the least number of neighbours' addresses to which it has equal paths by eBGP: a router that shares
        traffic among equal paths (RFC 4271, section 9.1.2.2, as far as rule c) has as many next hops. 1 where another
        way brings it.
    """
    ordered = sorted(speakers, key=lambda speaker: str(speaker.key))
    number = {speaker.key: index for index, speaker in enumerate(ordered)}
    neighbours: dict[int, _Neighbours] = {family: [[] for _ in ordered] for family in (4, 6)}
    for session in sessions:
        neighbours[session.family][number[session.a]].append((number[session.b], session.link))
        neighbours[session.family][number[session.b]].append((number[session.a], session.link))
    learned: list[dict[str, int]] = [{} for _ in ordered]
    for (family, even, origins), prefixes in _groups(ordered).items():
        for index, paths in _reached(origins, ordered, neighbours[family]).items():
            learned[index].update(dict.fromkeys(prefixes, paths if even else 1))
    return {speaker.key: learned[number[speaker.key]] for speaker in speakers}


def _groups(speakers: Sequence[Speaker]) -> dict[tuple[int, bool, tuple[int, ...]], set[str]]:
    """(family, evenness, numbers of the speakers that originate them) → prefixes.

    What has the same origins goes the same way; it is even where all of them tell every neighbour in one way.
    """
    origins: dict[str, list[int]] = {}
    for index, speaker in enumerate(speakers):
        for prefix in speaker.originates:
            origins.setdefault(prefix, []).append(index)
    found: dict[tuple[int, bool, tuple[int, ...]], set[str]] = {}
    for prefix, indexes in origins.items():
        even = not any(prefix in speakers[index].uneven for index in indexes)
        found.setdefault((6 if ":" in prefix else 4, even, tuple(indexes)), set()).add(prefix)
    return found


# A route as a speaker has it: (length of its AS path, whether iBGP brought it, the AS path). The lesser is the better
# (RFC 4271, section 9.1.2.2: shorter AS paths first, then external over internal).
_Route = tuple[int, bool, tuple[int, ...]]
_Neighbours = list[list[tuple[int, str]]]  # of each speaker: (number, link)


def _reached(origins: Sequence[int], speakers: Sequence[Speaker], neighbours: _Neighbours) -> dict[int, int]:
    """The speakers that learn a prefix, each with the least number of its next hops.

    A speaker takes the best route it is told of, and passes on that one alone. Routes are handed out from the best on:
    the first that a speaker accepts is its best, and all that are equal to it have been handed out by then.
    """
    done: dict[int, _Best] = {}
    heard: dict[int, list[_Heard]] = {}
    waiting: list[tuple[_Route, int]] = [((0, False, ()), index) for index in origins]
    while waiting:
        route, index = heapq.heappop(waiting)
        if index in done:
            continue
        sender = speakers[index]
        if index in origins:
            done[index] = _Best(daemons=frozenset((sender.key[2],)))
        else:
            done[index] = _best(sender, [entry for entry in heard[index] if entry[:2] == route[:2]], speakers, done)
        for other, link in neighbours[index] if sender.transit or index in origins else ():
            if other not in done and (told := _told(route, sender, speakers[other])):
                heapq.heappush(waiting, (told, other))
                heard.setdefault(other, []).append((*told[:2], index, link))
    return {index: max(1, best.next_hops) for index, best in done.items() if index not in origins}


_Heard = tuple[int, bool, int, str]  # length of the AS path, whether by iBGP, number of the sender, link


@dataclass(frozen=True, slots=True)
class _Best:
    """What is known of a speaker's best routes to a prefix.

    Args:
        certain: it has one of this length, however ties are broken. next_hops: those that are certain.
        links: by which it gets them, by eBGP. ases: that may stand in its path. daemons: that may have originated it.
    """

    certain: bool = True
    next_hops: int = 0
    links: frozenset[str] = frozenset()
    ases: frozenset[int] = frozenset()
    daemons: frozenset[str] = frozenset()


def _best(own: Speaker, equal: Sequence[_Heard], speakers: Sequence[Speaker], done: Mapping[int, _Best]) -> _Best:
    """What a speaker gets of the routes that are its best.

    Not certain are those that may have its own AS in their path; of next hops those of a sender who may pass on,
    unchanged, that of another on the same link (RFC 4271, section 5.1.3), and all where routes of several daemons
    compete: they differ in what is compared after the length of the AS path (ORIGIN).
    """
    ases = frozenset[int]().union(*(done[sender].ases for _, _, sender, _ in equal))
    daemons = frozenset[str]().union(*(done[sender].daemons for _, _, sender, _ in equal))
    if equal[0][1]:  # by iBGP, and so with a next hop that may be out of reach
        return _Best(certain=False, ases=ases, daemons=daemons)
    certain = [
        (sender, link) for _, _, sender, link in equal if done[sender].certain and own.asn not in done[sender].ases
    ]
    next_hops = {(speakers[sender].key[0], link) for sender, link in certain if link and link not in done[sender].links}
    return _Best(
        certain=bool(certain),
        next_hops=len(next_hops) if len(daemons) == 1 else 1,
        links=frozenset(link for _, _, _, link in equal),
        ases=ases.union(speakers[sender].asn for _, _, sender, _ in equal),
        daemons=daemons,
    )


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
