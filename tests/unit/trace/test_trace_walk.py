"""Walks of recorded frames (labs/edge) against golden texts, and of frames made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_frames import ACK, ICMP, SYN, TCP, UDP, arp, frame, icmp, ipv4, recorded, tcp, udp, vxlan

from testbed.trace.journeys import Question
from testbed.trace.map import Map
from testbed.trace.packet import Frame
from testbed.trace.walk import Hop, Walk, walk

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "walks"
MARK = 1000


# --- recorded ---------------------------------------------------------------------------------------------------------


def edge() -> Map:
    stored = json.loads((GOLDEN / "map.json").read_text())
    return Map(
        {(a, b): (c, d) for a, b, c, d in stored["peers"]},
        {(a, b): c for a, b, c in stored["vrfs"]},
        {(a, b): frozenset(c) for a, b, c in stored["addresses"]},
        {(a, b): c for a, b, c in stored["bridges"]},
        frozenset(stored["forwarders"]),
    )


def described(found: Walk) -> str:
    lines = []
    for path in (found.forward, found.back, *found.errors):
        if path is None:
            continue
        lines.append(f"{path.direction}: {path.words}{'' if path.delivered else ', lost'}")
        lines += [f"  {row(hop)}" for hop in path.hops]
    return "\n".join([*lines, f"packets: {len(found.paths)}", ""])


def row(hop: Hop) -> str:
    way = f"{hop.interface_in or '-'} > {hop.interface_out or '-'}"
    networks = f"{hop.network_in or '-'} > {hop.network_out or '-'}"
    through = f" through {', '.join(hop.through)}" if hop.through else ""
    changes = f" [{', '.join(hop.changes)}]" if hop.changes else ""
    return f"{hop.name}: {way}{through} ({networks}) {hop.arrived or '-'} | {hop.left or '-'}{changes} +{hop.since}"


NAMES = sorted(path.stem for path in GOLDEN.glob("*.frames"))


@pytest.mark.parametrize("name", NAMES)
def test_recorded_walks(name, golden):
    question = Question(**json.loads((GOLDEN / f"{name}.json").read_text()))
    found = walk(recorded(GOLDEN / f"{name}.frames"), question, edge())
    golden(GOLDEN / f"{name}.walk", described(found))


def test_there_are_recordings():
    assert len(NAMES) >= 7


# --- made by hand -----------------------------------------------------------------------------------------------------


def question(protocol: str = "tcp", port: int = 80, address: str = "9.9.9.9") -> Question:
    return Question(protocol, MARK, "n0", address, port)


def chain(
    size: int,
    translations: dict[int, tuple[str, str]],
    start: int = 0,
    ident: int = 5,
    *,
    reply: bool = False,
    tunnel: tuple[int, int] | None = None,
) -> list[Frame]:
    """The frames of one packet that goes through `size` nodes in a row.

    Args:
        translations: node → (source, destination) that it writes. tunnel: the nodes between which it is in VXLAN.
    """
    source, destination = ("8.8.8.8", "9.9.9.9") if not reply else ("9.9.9.9", "8.8.8.8")
    numbers = (77, MARK + 1, SYN | ACK) if reply else (MARK, 0, SYN)
    ports = (80, 4000) if reply else (4000, 80)
    nodes = list(range(size))[:: -1 if reply else 1]
    left, right = ("r", "l") if reply else ("l", "r")

    def data(source: str, destination: str, ttl: int, outer: int) -> bytes:
        inner = ipv4(source, destination, TCP, tcp(*ports, *numbers), ttl=ttl, ident=ident)
        return ipv4("1.1.1.1", "2.2.2.2", UDP, udp(5, 14789, vxlan(7, inner)), ttl=outer) if outer else inner

    frames, time, ttl, outer = [], start, 64, 0
    for place, node in enumerate(nodes):
        if place:
            frames.append(frame(time, f"n{node}", left, "in", data(source, destination, ttl, outer)))
        if tunnel and node == tunnel[1]:
            outer = 0
            frames.append(frame(time, f"n{node}", "vxlan", "in", data(source, destination, ttl, outer)))
        ttl, outer = (ttl, outer - 1) if outer else (ttl - (place > 0), 0)
        source, destination = translations.get(node, (source, destination))
        if place < size - 1:
            if tunnel and node == tunnel[0]:
                frames.append(frame(time + 1, f"n{node}", "vxlan", "out", data(source, destination, ttl, outer)))
                outer = 64
            frames.append(frame(time + 2, f"n{node}", right, "out", data(source, destination, ttl, outer)))
        time += 10
    return frames


def line(size: int, last: str = "9.9.9.9") -> Map:
    peers = {}
    for node in range(size - 1):
        one, other = (f"n{node}", "r"), (f"n{node + 1}", "l")
        peers |= {one: other, other: one}
    return Map(peers, addresses={(f"n{size - 1}", None): frozenset({last}), ("n0", None): frozenset({"8.8.8.8"})})


ADDRESSES = st.sampled_from(["1.2.3.4", "5.6.7.8", "192.168.1.1", "172.16.0.9"])


@given(
    size=st.integers(2, 20),
    data=st.data(),
)
def test_any_chain_with_any_translations(size, data):
    """The walk has every node once, in order, with the addresses as they were, and says who changed them."""
    nodes = st.integers(1, max(1, size - 2))
    translations = data.draw(st.dictionaries(nodes, st.tuples(ADDRESSES, ADDRESSES), max_size=4)) if size > 2 else {}
    last = translations[max(translations)][1] if translations else "9.9.9.9"
    found = walk(chain(size, translations), question(), line(size, last))
    path = found.forward
    assert path is not None
    assert [hop.node for hop in path.hops] == [f"n{node}" for node in range(size)]
    assert path.delivered
    addresses = ("8.8.8.8", "9.9.9.9")
    for node, hop in enumerate(path.hops[:-1]):
        before, addresses = addresses, translations.get(node, addresses)
        assert (hop.ends.source, hop.ends.destination) == addresses
        assert ("snat" in hop.changes) == (node > 0 and before[0] != addresses[0])
        assert ("dnat" in hop.changes) == (node > 0 and before[1] != addresses[1])
    assert [hop.ttl_in for hop in path.hops[1:]] == [64 - step for step in range(size - 1)]


@given(size=st.integers(3, 12), copies=st.integers(1, 4), reached=st.integers(1, 12))
def test_retransmissions_are_copies_of_one_packet(size, copies, reached):
    """Copies that got lost on the way, then one that arrived."""
    cut = min(2 * reached, 2 * size - 3)
    frames = [entry for copy in range(copies) for entry in chain(size, {}, copy * 1000, ident=copy)[:cut]]
    frames += chain(size, {}, copies * 1000, ident=99)
    found = walk(frames, question(), line(size))
    assert found.forward is not None
    assert found.forward.delivered
    assert found.forward.copies == copies + 1
    assert found.lost is None


@given(size=st.integers(3, 12), ident=st.integers(0, 1))
def test_there_and_back(size, ident):
    """An answer with IP id 0, as Linux sends it, and twice."""
    frames = [
        *chain(size, {}),
        *chain(size, {}, 1000, ident=0, reply=True),
        *chain(size, {}, 2000, ident=0, reply=True),
    ]
    found = walk(frames, question(), line(size))
    assert found.back is not None
    assert [hop.node for hop in found.back.hops] == [f"n{node}" for node in reversed(range(size))]
    assert found.back.delivered
    assert found.back.copies == 2


def test_tunnel():
    path = walk(chain(5, {}, tunnel=(1, 3)), question(), line(5)).forward
    assert path is not None
    assert [hop.changes for hop in path.hops] == [(), ("encapsulated",), (), ("decapsulated",), ()]
    assert (path.hops[1].through, path.hops[3].through) == (("vxlan",), ("vxlan",))
    assert path.hops[2].tunnels_in == ("vxlan 7 1.1.1.1 → 2.2.2.2",)
    assert path.hops[2].ends == path.hops[0].ends
    carriers = [str(hop.carrier.ends) if hop.carrier else "" for hop in path.hops]
    assert carriers == ["", "", "1.1.1.1:5 → 2.2.2.2:14789", "", ""]  # by which it is routed


def test_flooded_frames_are_no_visits():
    """A bridge that does not know the station yet sends a frame to all; who it is not for ignores it."""
    frames = chain(3, {})
    flood = frame(13, "n9", "eth0", "other", frames[2].data)
    found = walk(sorted([*frames, flood], key=lambda entry: entry.time), question(), line(3))
    assert found.forward is not None
    assert [hop.node for hop in found.forward.hops] == ["n0", "n1", "n2"]


def test_bridged():
    frames = [
        frame(0, "n0", "r", "out", chain(2, {})[0].data),
        frame(1, "n1", "l", "other", chain(2, {})[0].data),
        frame(2, "n1", "r", "out", chain(2, {})[0].data),
        frame(3, "n2", "l", "in", chain(2, {})[0].data),
    ]
    found = walk(frames, question(), line(3))
    assert found.forward is not None
    assert found.forward.hops[1].changes == ("bridged",)
    assert found.forward.delivered


def test_loop():
    """A packet that goes round comes by the same place with a smaller TTL."""
    ring: list[Frame] = [frame(0, "n0", "r", "out", segment(64))]
    for turn in range(5):
        ring += [
            frame(10 * turn + 1, "n1", "l", "in", segment(64 - 2 * turn)),
            frame(10 * turn + 2, "n1", "r", "out", segment(63 - 2 * turn)),
            frame(10 * turn + 3, "n2", "l", "in", segment(63 - 2 * turn)),
            frame(10 * turn + 4, "n2", "r", "out", segment(62 - 2 * turn)),
        ]
    path = walk(ring, question(), Map()).forward
    assert path is not None
    assert len(path.hops) == 11
    assert path.copies == 1


def segment(ttl: int) -> bytes:
    return ipv4("8.8.8.8", "9.9.9.9", TCP, tcp(4000, 80, MARK, 0, SYN), ttl=ttl)


def test_fragments():
    """One datagram that comes in whole and goes out in three pieces."""
    mark = MARK.to_bytes(4, "big")
    whole = ipv4("8.8.8.8", "9.9.9.9", UDP, udp(4000, 53, mark + b"x" * 100), ttl=64)
    first = ipv4("8.8.8.8", "9.9.9.9", UDP, udp(4000, 53, mark + b"x" * 100)[:48], ttl=63, fragment=0x2000)
    later = [ipv4("8.8.8.8", "9.9.9.9", UDP, b"x" * 32, ttl=63, fragment=0x2000 | at) for at in (6, 10)]
    frames = [frame(0, "n0", "r", "out", whole), frame(1, "n1", "l", "in", whole)]
    frames += [frame(2 + step, "n1", "r", "out", piece) for step, piece in enumerate((first, *later))]
    found = walk(frames, question("udp", 53), line(3))
    hops = [hop for path in found.paths for hop in path.hops if hop.node == "n1"]
    assert any("fragmented" in hop.changes and hop.fragments_out == 3 for hop in hops), hops


def test_error_belongs_to_what_it_quotes():
    lost = chain(3, {})[:3]
    error = ipv4("10.0.0.1", "8.8.8.8", ICMP, icmp(3, 1, 0, lost[2].data[:28]))
    frames = [*lost[:2], frame(20, "n1", "l", "out", error), frame(21, "n0", "r", "in", error)]
    other = ipv4("10.0.0.1", "8.8.8.8", ICMP, icmp(3, 1, 0, ipv4("8.8.8.8", "9.9.9.9", TCP, tcp(1, 2, 2**31, 0, SYN))))
    found = walk([*frames, frame(22, "n1", "l", "out", other)], question(), line(3))
    assert len(found.errors) == 1
    assert found.errors[0].about == "request"
    assert [hop.node for hop in found.errors[0].hops] == ["n1", "n0"]
    assert found.lost is found.forward


def test_unanswered_solicitations():
    frames = [
        frame(0, "n1", "r", "out", arp(1, "10.0.0.1", "10.0.0.2")),
        frame(1, "n1", "r", "out", arp(1, "10.0.0.1", "10.0.0.2")),
        frame(2, "n1", "l", "out", arp(1, "10.0.1.1", "10.0.1.2")),
        frame(3, "n1", "l", "in", arp(2, "10.0.1.2", "10.0.1.1")),
    ]
    asked = {(entry.target, entry.asked, entry.answered) for entry in walk(frames, question(), Map()).solicitations}
    assert asked == {("10.0.0.2", 2, False), ("10.0.1.2", 1, True)}


def test_what_was_asked_is_known_where_the_origin_translated_it():
    path = walk(chain(2, {0: ("8.8.8.8", "192.168.1.1")}), question(), line(2, "192.168.1.1")).forward
    assert path is not None
    assert (path.first.asked, path.first.changes) == ("9.9.9.9:80", ("dnat",))


def test_an_answer_with_numbers_close_to_the_question():
    """The server's first number may fall into the window of the client's: ends decide."""
    close = ipv4("9.9.9.9", "8.8.8.8", TCP, tcp(80, 4000, MARK + 9, MARK + 1, SYN | ACK), ident=0)
    frames = [*chain(2, {}), frame(100, "n1", "l", "out", close), frame(101, "n0", "r", "in", close)]
    found = walk(frames, question(), line(2))
    assert found.back is not None
    assert found.back.words == "TCP SYN-ACK"


def test_another_connection_with_numbers_close_to_the_flows():
    """Of 30 BGP sessions one has such numbers once in 70 traces."""
    stranger = [
        frame(15, "n1", "br0", "in", ipv4("5.5.5.5", "6.6.6.6", TCP, tcp(179, 5000, 3, MARK + 9, ACK), ident=8)),
        frame(16, "n1", "br0", "out", ipv4("6.6.6.6", "5.5.5.5", TCP, tcp(5000, 179, MARK + 9, 3, ACK), ident=9)),
    ]
    found = walk([*chain(3, {}), *stranger], question(), line(3))
    assert len(found.paths) == 1
    assert found.back is None


def test_an_answer_that_was_not_translated_back():
    frames = [*chain(3, {1: ("8.8.8.8", "7.7.7.7")}), *chain(3, {2: ("3.3.3.3", "8.8.8.8")}, 100, 6, reply=True)]
    found = walk(frames, question(), line(3, "7.7.7.7"))
    assert found.back is not None
    assert found.back.hops[0].ends.source == "3.3.3.3"


@given(st.lists(st.sampled_from(chain(6, {}) + chain(6, {}, 1000, ident=0, reply=True)), max_size=40))
def test_captures_with_gaps_never_fail(frames: Sequence[Frame]):
    """Packets that no capture has are missing from the walk; it is made all the same."""
    found = walk(sorted(frames, key=lambda entry: entry.time), question(), line(6))
    for path in found.paths:
        assert path.hops
