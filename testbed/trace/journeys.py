"""Captured frames, sorted: which belong to the flow, which way they go, and which are sightings of one packet. Pure.

A packet is known again in every namespace by what routers and address translation leave alone: IP id, TCP sequence and
acknowledgement number, flags, length, and the beginning of what it carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.bpf import IPPROTO_TCP, IPPROTO_UDP
from testbed.plan import Protocol
from testbed.trace.forms import WINDOW
from testbed.trace.packet import ACK, ECHO, SYN, Ends, Frame, Neighbour, Packet, decode

Direction = Literal["request", "reply", "error"]


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, as the walk needs to know it.

    Args:
        mark: what the first packet carries: a TCP sequence number, or the first bytes of a datagram's data.
        source: the node or pod that asked. address, port: what it asked.
    """

    protocol: Protocol
    mark: int
    source: str
    address: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet of the flow in one frame."""

    frame: Frame
    packet: Packet


@dataclass(frozen=True, slots=True)
class Journey:
    """All sightings of one packet, in the order of time.

    Args:
        about: of an ICMP error, the direction of the packet that it is about.
        fragments: sightings of its later fragments.
    """

    direction: Direction
    sightings: tuple[Sighting, ...]
    about: Direction | None = None
    fragments: tuple[Sighting, ...] = ()

    @property
    def packet(self) -> Packet:
        """The packet as it was first seen."""
        return self.sightings[0].packet


@dataclass(frozen=True, slots=True)
class Solicitation:
    """A question of ARP or neighbour discovery as it left a namespace, and whether an answer came in there."""

    node: str
    vrf: str | None
    interface: str
    target: str
    asked: int
    answered: bool


def journeys(frames: Iterable[Frame], question: Question) -> tuple[Journey, ...]:
    """The packets of a flow, in the order in which they set out; frames of anything else are left out."""
    seen = [Sighting(frame, packet) for frame in frames if isinstance(packet := decode(frame), Packet)]
    sorter = _Sorter(question, seen)
    groups: dict[tuple[object, ...], list[list[Sighting]]] = {}
    about: dict[tuple[object, ...], tuple[Direction, Direction | None]] = {}
    for sighting in seen:
        direction, subject = sorter.sort(sighting.packet)
        if direction is None:
            continue
        key = (direction, *_identity(sighting.packet))
        about[key] = (direction, subject)
        _add(groups.setdefault(key, []), sighting)
    later = [sighting for sighting in seen if sighting.packet.offset]
    found = [
        Journey(about[key][0], tuple(group), about[key][1], tuple(_fragments_of(group, later)))
        for key, copies in groups.items()
        for group in copies
    ]
    return tuple(sorted(found, key=lambda journey: journey.sightings[0].frame.time))


def _add(copies: list[list[Sighting]], sighting: Sighting) -> None:
    """Add a sighting to the latest copy of its packet; one that was seen just there already begins another copy.

    A packet sent again can look just the same. One that goes round in a loop has a smaller TTL each time.
    """
    if copies and not any(_same_place(sighting, other) for other in copies[-1]):
        copies[-1].append(sighting)
    else:
        copies.append([sighting])


def _same_place(one: Sighting, other: Sighting) -> bool:
    return _place(one) == _place(other)


def _place(sighting: Sighting) -> tuple[object, ...]:
    frame, packet = sighting.frame, sighting.packet
    return frame.node, frame.vrf, frame.interface, frame.way, packet.ttl, packet.tunnels


def _identity(packet: Packet) -> tuple[object, ...]:
    quoted = _identity(packet.quoted) if packet.quoted else ()
    common = (packet.version, packet.protocol, packet.ident)
    if packet.is_error:  # what it quotes is translated with it
        return (*common, packet.kind, packet.code, quoted[:3])
    length = packet.payload_length if packet.protocol in (IPPROTO_TCP, IPPROTO_UDP) else 0  # fragments are shorter
    return (*common, packet.seq, packet.ack, packet.flags, packet.kind, length, packet.payload)


def _fragments_of(group: Sequence[Sighting], later: Sequence[Sighting]) -> Iterator[Sighting]:
    """Later fragments have no ports: they are known by addresses and IP id, which are their first one's."""
    first = {(entry.frame.node, entry.frame.vrf, *_datagram(entry.packet)) for entry in group if entry.packet.more}
    for sighting in later if first else ():
        if (sighting.frame.node, sighting.frame.vrf, *_datagram(sighting.packet)) in first:
            yield sighting


def _datagram(packet: Packet) -> tuple[object, ...]:
    return packet.ends.source, packet.ends.destination, packet.protocol, packet.ident


def _sockets(ends: Ends) -> tuple[tuple[str, int], tuple[str, int]]:
    return (ends.source, ends.source_port), (ends.destination, ends.destination_port)


class _Sorter:
    """Tells the flow's packets from others, and their direction."""

    def __init__(self, question: Question, seen: Sequence[Sighting]) -> None:
        self.question = question
        self.word = question.mark.to_bytes(4, "big")
        self.asked: set[Ends] = set()
        self.asked = {entry.packet.ends for entry in seen if self._begins(entry.packet)}
        self.sockets = {socket for ends in self.asked for socket in _sockets(ends)}

    def sort(self, packet: Packet) -> tuple[Direction | None, Direction | None]:
        """(direction, of an error: the direction of its subject); None: it belongs to something else."""
        if packet.is_error:
            subject = self._plain(packet.quoted) if packet.quoted else None
            return ("error", subject) if subject else (None, None)
        return self._plain(packet), None

    def _begins(self, packet: Packet) -> bool:
        """Whether it is a first packet of the flow, by its mark alone."""
        if packet.protocol == IPPROTO_TCP:
            return packet.seq == self.question.mark and packet.flags & (SYN | ACK) == SYN
        return self._plain(packet) == "request"

    def _plain(self, packet: Packet) -> Direction | None:
        if packet.offset:
            return None
        match self.question.protocol:
            case "icmp":
                return self._echo(packet)
            case "udp" | "dns":
                return self._datagram(packet) if packet.protocol == IPPROTO_UDP else None
            case _:
                return self._segment(packet) if packet.protocol == IPPROTO_TCP else None

    def _segment(self, packet: Packet) -> Direction | None:
        """By its numbers; where both fit (the server may have begun with a number close by), by its ends.

        Another connection's numbers fit now and then (WINDOW), but it has neither the address and port of the client
        nor those of the server, as they were at any place; the flow's own packets have one of the two also where an
        answer was not translated back.
        """
        if self.sockets and self.sockets.isdisjoint(_sockets(packet.ends)):  # none: the first packet was not seen
            return None
        there = (packet.seq - self.question.mark) % (1 << 32) <= WINDOW
        back = bool(packet.flags & ACK) and (packet.ack - self.question.mark) % (1 << 32) <= WINDOW
        if there and back:
            return "reply" if packet.ends.reverse in self.asked and packet.ends not in self.asked else "request"
        return "request" if there else "reply" if back else None

    def _echo(self, packet: Packet) -> Direction | None:
        if (packet.protocol, packet.kind) not in ECHO or not packet.payload.startswith(self.word):
            return None
        return "request" if packet.kind in (8, 128) else "reply"

    def _datagram(self, packet: Packet) -> Direction | None:
        word = self.word if self.question.protocol == "udp" else self.word[:2]
        asks = self.question.protocol == "udp" or not packet.payload[2:3] >= b"\x80"
        if packet.payload.startswith(word) and asks and packet.ends.reverse not in self.asked:
            return "request"
        return "reply" if packet.ends.reverse in self.asked else None


def solicitations(frames: Sequence[Frame]) -> tuple[Solicitation, ...]:
    """What was asked of the neighbours, one entry for each target at each interface."""
    heard = [(frame, found) for frame in frames if isinstance(found := decode(frame), Neighbour)]
    answers = {(frame.node, frame.vrf, found.sender) for frame, found in heard if frame.way != "out"}
    asked: dict[tuple[str, str | None, str, str], int] = {}
    for frame, found in heard:
        if found.request and frame.way == "out":
            key = (frame.node, frame.vrf, frame.interface, found.target)
            asked[key] = asked.get(key, 0) + 1
    return tuple(
        Solicitation(*key, times, answered=(key[0], key[1], key[3]) in answers) for key, times in asked.items()
    )
