"""How many next hops a route certainly has, beside a BGP that is run out with ties broken at random."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.compile.propagation import Key, Session, Speaker, propagate

P = "10.0.0.0/24"
NextHop = tuple[str, str]  # node, link


def key(name: str, daemon: str = "frr") -> Key:
    return (name, None, daemon)


def speaker(name: str, asn: int, *, origin: bool = False, **options: object) -> Speaker:
    return Speaker(key(name), asn, frozenset({P} if origin else ()), **options)  # type: ignore[arg-type]


def sessions(text: str) -> list[Session]:
    """Of "a-b a-c@lan": each on a link of its own where none is named; "@" alone: on none."""
    found = []
    for word in text.split():
        pair, at, link = word.partition("@")
        a, b = pair.split("-")
        found.append(Session(key(a), key(b), 4, link if at else pair))
    return found


LEAF = speaker("l1", 1, origin=True)
SPINES = [speaker("s1", 9), speaker("s2", 9)]
CASES: dict[str, tuple[list[Speaker], str, dict[str, int]]] = {
    "by two spines of one AS": ([LEAF, *SPINES, speaker("l2", 2)], "l1-s1 l1-s2 s1-l2 s2-l2", {"l2": 2, "s1": 1}),
    "a longer path is none": ([LEAF, *SPINES, speaker("l2", 2)], "l1-s1 l1-s2 s1-l2 s2-l2 l1-l2", {"l2": 1}),
    "two links to one neighbour": ([LEAF, speaker("l2", 2)], "l1-l2@x l1-l2@y", {"l2": 2}),
    "two nodes on one link": (
        [LEAF, speaker("l1b", 1, origin=True), speaker("r", 2)],
        "l1-r@lan l1b-r@lan",
        {"r": 2},
    ),
    "two who pass on the next hop of a third, all on one link": (
        [LEAF, speaker("x", 2), speaker("y", 3), speaker("r", 4)],
        "l1-x@lan l1-y@lan x-r@lan y-r@lan",
        {"r": 1},
    ),
    "two who have it from elsewhere": (
        [LEAF, speaker("x", 2), speaker("y", 3), speaker("r", 4)],
        "l1-x l1-y x-r@lan y-r@lan",
        {"r": 2},
    ),
    "by iBGP": ([LEAF, speaker("x", 2), speaker("y", 2), speaker("r", 2)], "l1-x l1-y x-r y-r", {"r": 1}),
    "of one who has it by iBGP": (
        [LEAF, speaker("x", 2), speaker("x2", 2), speaker("y", 3), speaker("y2", 3), speaker("r", 4)],
        "l1-x x-x2 l1-y y-y2 x2-r y2-r",
        {"r": 1},
    ),
    "of one who has it by eBGP of one who has it by iBGP": (
        [
            *(LEAF, speaker("x", 2), speaker("x2", 2), speaker("x3", 3)),
            *(speaker("y", 4), speaker("y2", 4), speaker("y3", 5), speaker("r", 6)),
        ],
        "l1-x x-x2 x2-x3 l1-y y-y2 y2-y3 x3-r y3-r",
        {"r": 1},
    ),
    "its own AS may stand in the path": (
        # m has the prefix by a and by b (AS 6): with b's path, r (AS 6) does not take it.
        [LEAF, speaker("a", 5), speaker("b", 6), speaker("c", 7), speaker("m", 8), speaker("n", 8), speaker("r", 6)],
        "l1-a l1-b l1-c a-m b-m c-n m-r n-r",
        {"r": 1},
    ),
    "not all neighbours are told alike": (
        [
            speaker("l1", 1, origin=True, uneven=frozenset({P})),
            speaker("l2", 2, origin=True),
            speaker("r", 3),
        ],
        "l1-r l2-r",
        {"r": 1},
    ),
    "further apart than a link": ([LEAF, speaker("l2", 2, origin=True), speaker("r", 3)], "l1-r@ l2-r@", {"r": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    speakers, text, expected = CASES[name]
    learned = propagate(speakers, sessions(text))
    assert {who: learned[key(who)][P] for who in expected} == expected


def test_daemons_differ_in_the_origin_that_they_state() -> None:
    for daemons, count in ((("bird", "bird"), 2), (("bird", "metallb"), 1)):
        names = [key(name, daemon) for name, daemon in zip(("n1", "n2"), daemons, strict=True)]
        speakers = [*(Speaker(name, 1, frozenset({P})) for name in names), Speaker(key("r"), 2)]
        links = [Session(name, key("r"), 4, "lan") for name in names]
        assert propagate(speakers, links)[key("r")] == {P: count}


def test_two_daemons_of_a_node_have_one_address() -> None:
    names = [("n1", None, "bird"), ("n1", "red", "bird")]
    speakers = [*(Speaker(name, 1, frozenset({P})) for name in names), Speaker(key("r"), 2)]
    assert propagate(speakers, [Session(name, key("r"), 4, "lan") for name in names])[key("r")] == {P: 1}


# --- BGP, run out -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """A path as it was told: whether by iBGP, and the tie-breaker of the one who listens."""

    path: tuple[int, ...]
    internal: bool
    next_hop: NextHop
    link: str
    preference: float

    @property
    def rank(self) -> tuple[int, bool]:
        return len(self.path), self.internal


@dataclass
class Network:
    """Speakers of one prefix, that tell each other what changes until nothing does.

    Args:
        lost: (listener, sender) whose iBGP routes have a next hop out of reach.
    """

    speakers: Sequence[Speaker]
    sessions: Sequence[Session]
    preferences: Mapping[tuple[int, str], float]  # by session and listener
    lost: frozenset[tuple[str, str]]
    heard: dict[str, dict[int, Heard]] = field(default_factory=dict)

    def run(self, order: random.Random) -> dict[str, set[NextHop]]:
        """Who learns the prefix, and by which next hops."""
        named = {entry.key[0]: entry for entry in self.speakers}
        self.heard = {name: {} for name in named}
        ends = [(number, *pair) for number in range(len(self.sessions)) for pair in self._pairs(number)]
        changed = True
        while changed:
            order.shuffle(ends)
            changed = any(self._tell(number, named[a], named[b]) for number, a, b in ends)
        return {name: self._used(name) for name, entry in named.items() if not entry.originates}

    def _pairs(self, number: int) -> list[tuple[str, str]]:
        a, b = self.sessions[number].a[0], self.sessions[number].b[0]
        return [(a, b), (b, a)]

    def _best(self, name: str) -> Heard | None:
        return min(self.heard[name].values(), key=lambda entry: (entry.rank, entry.preference), default=None)

    def _used(self, name: str) -> set[NextHop]:
        best = self._best(name)
        return {entry.next_hop for entry in self.heard[name].values() if best and entry.rank == best.rank}

    def _tell(self, number: int, sender: Speaker, listener: Speaker) -> bool:
        """Tell of the sender's best path, or that it has none; whether that is new."""
        known = self.heard[listener.key[0]]
        before = known.pop(number, None)
        if told := self._told(number, sender, listener):
            known[number] = told
        return before != told

    def _told(self, number: int, sender: Speaker, listener: Speaker) -> Heard | None:
        names, link = (listener.key[0], sender.key[0]), self.sessions[number].link
        internal = sender.asn == listener.asn
        best = self._best(names[1])
        path, next_hop = (), (names[1], link)
        if not sender.originates:
            if best is None or not sender.transit or (internal and best.internal):
                return None
            path = best.path
            if best.link == link:
                next_hop = best.next_hop
        path = path if internal else (sender.asn, *path)
        refused = not listener.receives or listener.asn in path or (internal and names in self.lost)
        return None if refused else Heard(path, internal, next_hop, link, self.preferences[number, names[0]])


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Speaker], list[Session]]:
    """Few ASes, so that some have several routers; few links, so that some are shared."""
    size = draw(st.integers(3, 9))
    speakers = [
        speaker(
            f"r{index}",
            draw(st.integers(1, 6)),
            origin=index < draw(st.integers(1, 2)),
            transit=draw(st.sampled_from((True, True, True, False))),
        )
        for index in range(size)
    ]
    pairs = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda pair: pair[0] < pair[1])
    chosen = draw(st.lists(pairs, min_size=size, max_size=3 * size, unique=True))
    names = [draw(st.sampled_from((f"l{number}", f"l{number}", "lan"))) for number in range(len(chosen))]
    return speakers, [Session(key(f"r{a}"), key(f"r{b}"), 4, link) for (a, b), link in zip(chosen, names, strict=True)]


@given(networks(), st.integers(0, 1 << 32))
def test_there_are_never_fewer(network: tuple[list[Speaker], list[Session]], seed: int) -> None:
    speakers, between = network
    chance = random.Random(seed)
    preferences = {(number, end[0]): chance.random() for number, one in enumerate(between) for end in (one.a, one.b)}
    names = [entry.key[0] for entry in speakers]
    lost = frozenset((a, b) for a in names for b in names if chance.random() < chance.choice((0, 0.5)))
    used = Network(speakers, between, preferences, lost).run(chance)
    for who, found in propagate(speakers, between).items():
        if found.get(P, 1) > 1:
            assert len(used[who[0]]) >= found[P], (who, used[who[0]])
