"""Who learns what by BGP."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.compile.propagation import Key, Session, Speaker, propagate

P, Q, SIX = "10.0.0.0/24", "10.9.0.0/24", "fd00::/64"


def key(name: str) -> Key:
    return (name, None, "frr")


@dataclass(frozen=True)
class Case:
    """Speakers as name → (AS, options), sessions as pairs of names; what each speaker learns."""

    speakers: dict[str, tuple[int, dict[str, object]]]
    sessions: str
    learned: dict[str, set[str]]


def origin(*prefixes: str, **options: object) -> dict[str, object]:
    return {"originates": frozenset(prefixes), **options}


CASES = {
    "a line": Case(
        {"a": (1, origin(P)), "b": (2, {}), "c": (3, origin(Q))}, "a-b b-c", {"a": {Q}, "b": {P, Q}, "c": {P}}
    ),
    "nobody to talk to": Case({"a": (1, origin(P)), "b": (2, origin(Q))}, "", {}),
    "what one has of its own is not learned": Case({"a": (1, origin(P)), "b": (2, origin(P))}, "a-b", {}),
    "leaf and spine, spines of one AS": Case(
        {"s1": (9, origin(Q)), "s2": (9, {}), "l1": (1, origin(P)), "l2": (2, {})},
        "s1-l1 s2-l1 s1-l2 s2-l2",
        # s2 does not take Q: its own AS is in the path that the leaves give it.
        {"s1": {P}, "s2": {P}, "l1": {Q}, "l2": {P, Q}},
    ),
    "leaves of one AS do not see each other": Case(
        {"s1": (9, {}), "l1": (1, origin(P)), "l2": (1, {})}, "s1-l1 s1-l2", {"s1": {P}}
    ),
    "unless they allow their own AS once": Case(
        {"s1": (9, {}), "l1": (1, origin(P)), "l2": (1, {"allow_own_as": 1})},
        "s1-l1 s1-l2",
        {"s1": {P}, "l2": {P}},
    ),
    "once is not twice": Case(
        {"a": (1, origin(P)), "b": (2, {}), "c": (1, {"allow_own_as": 1}), "d": (3, {}), "e": (1, {"allow_own_as": 1})},
        "a-b b-c c-d d-e",
        {"b": {P}, "c": {P}, "d": {P}},
    ),
    "no transit: only what is its own": Case(
        {"a": (1, origin(P)), "b": (2, origin(Q, transit=False)), "c": (3, {})},
        "a-b b-c",
        {"a": {Q}, "b": {P}, "c": {Q}},
    ),
    "one that takes nothing in": Case(
        {"a": (1, origin(P)), "b": (2, origin(Q, receives=False)), "c": (3, {})},
        "a-b b-c",
        {"a": {Q}, "c": {Q}},
    ),
    "what iBGP brought is not passed on by iBGP": Case(
        {"a": (1, origin(P)), "b": (1, {}), "c": (1, {})}, "a-b b-c", {"b": {P}}
    ),
    "but by eBGP": Case({"a": (1, origin(P)), "b": (1, {}), "c": (2, {})}, "a-b b-c", {"b": {P}, "c": {P}}),
    "and what eBGP brought by iBGP": Case(
        {"a": (2, origin(P)), "b": (1, {}), "c": (1, {}), "d": (1, {})}, "a-b b-c c-d", {"b": {P}, "c": {P}}
    ),
    "iBGP adds no AS to the path": Case(
        # e would not take P with its AS 5 in the path; the way by iBGP is shorter, though it has as many hops.
        {"a": (1, origin(P)), "i": (1, {}), "x": (5, {}), "m": (6, {}), "e": (5, {})},
        "a-x x-m a-i i-m m-e",
        {"x": {P}, "i": {P}, "m": {P}, "e": {P}},
    ),
    "the shorter path is the one that is passed on": Case(
        # m prefers the way by x (AS 5), and tells e (AS 5) of no other.
        {"a": (1, origin(P)), "x": (5, {}), "y": (7, {}), "z": (8, {}), "m": (6, {}), "e": (5, {})},
        "a-x x-m a-y y-z z-m m-e",
        {"x": {P}, "y": {P}, "z": {P}, "m": {P}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = CASES[name]
    speakers = [Speaker(key(who), asn, **options) for who, (asn, options) in case.speakers.items()]  # type: ignore[arg-type]
    pairs = [pair.split("-") for pair in case.sessions.split()]
    learned = propagate(speakers, [Session(key(a), key(b), 4) for a, b in pairs])
    assert {who: set(found) for who, found in learned.items()} == {
        key(who): case.learned.get(who, set()) for who in case.speakers
    }


def test_families_go_by_sessions_of_their_own() -> None:
    speakers = [
        Speaker(key("a"), 1, frozenset({P, SIX})),
        Speaker(key("b"), 2),
        Speaker(key("c"), 3),
        Speaker(key("d"), 4),
    ]
    sessions = [Session(key("a"), key("b"), 4), Session(key("a"), key("c"), 6), Session(key("b"), key("d"), 6)]
    assert propagate(speakers, sessions) == {
        key("a"): {},
        key("b"): {P: 1},
        key("c"): {SIX: 1},
        key("d"): {},
    }


def test_a_node_speaks_in_each_vrf_by_itself() -> None:
    red, blue = ("r1", "red", "frr"), ("r1", "blue", "frr")
    speakers = [Speaker(key("a"), 1, frozenset({P})), Speaker(red, 2), Speaker(blue, 2)]
    learned = propagate(speakers, [Session(key("a"), red, 4)])
    assert learned[red] == {P: 1}
    assert learned[blue] == {}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A connected graph: a random tree, and edges beside."""
    size = draw(st.integers(2, 12))
    tree = [(draw(st.integers(0, index - 1)), index) for index in range(1, size)]
    others = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=12))
    return size, tree + [(a, b) for a, b in others if a != b]


@settings(deadline=None)
@given(graphs())
def test_in_a_connected_graph_of_distinct_ases_all_learn_everything(
    graph: tuple[int, list[tuple[int, int]]],
) -> None:
    size, edges = graph
    speakers = [Speaker(key(f"r{index}"), 65000 + index, frozenset({f"10.{index}.0.0/16"})) for index in range(size)]
    sessions = [Session(key(f"r{a}"), key(f"r{b}"), 4) for a, b in edges]
    everything = {f"10.{index}.0.0/16" for index in range(size)}
    learned = propagate(speakers, sessions)
    assert {who: found.keys() | speakers[index].originates for index, (who, found) in enumerate(learned.items())} == {
        speaker.key: everything for speaker in speakers
    }
    assert propagate(speakers[::-1], sessions[::-1]) == learned  # whatever the order they are given in
