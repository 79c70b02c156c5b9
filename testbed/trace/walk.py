"""Captures made into a walk: the hops of one flow, there and back, with what each hop did to the packet. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

from testbed.bpf import IPPROTO_TCP
from testbed.trace.claims import Claims, PathClaims
from testbed.trace.journeys import Direction, Journey, Question, Sighting, Solicitation, journeys, solicitations
from testbed.trace.map import Map, Port, place_name
from testbed.trace.packet import RST, SYN, Ends, Frame, Packet, words


@dataclass(frozen=True, slots=True)
class Hop:
    """One packet in one namespace.

    Args:
        arrived, left: addresses and ports as it came in and went out; None: it began or ended here.
        interface_in, interface_out: empty where it began or ended. through: other interfaces it was seen on here.
        network_in, network_out: the VRF that those interfaces lead into; empty: none.
        ttl_in, ttl_out: 0 where it began or ended.
        tunnels_in, tunnels_out: the headers around it, from the outside in.
        time: nanoseconds since the epoch, when it was first seen here. since: nanoseconds since the hop before.
        length: of the IP packet in bytes. fragments_in, fragments_out: in how many pieces.
        changes: what was done to it here: dnat, snat, encapsulated, decapsulated, fragmented, reassembled, bridged.
        carrier: the outermost packet around it as it came in, where it went out in the same; None: in none, or another.
        asked: at the origin, who was asked, when the packet was translated before it could be seen; else empty.
    """

    node: str
    vrf: str | None
    interface_in: str
    interface_out: str
    arrived: Ends | None
    left: Ends | None
    ttl_in: int
    ttl_out: int
    time: int
    since: int = 0
    through: tuple[str, ...] = ()
    network_in: str = ""
    network_out: str = ""
    tunnels_in: tuple[str, ...] = ()
    tunnels_out: tuple[str, ...] = ()
    carrier: Packet | None = None
    length: int = 0
    fragments_in: int = 1
    fragments_out: int = 1
    changes: tuple[str, ...] = ()
    asked: str = ""

    @property
    def place(self) -> tuple[str, str | None]:
        return self.node, self.vrf

    @property
    def ends(self) -> Ends:
        """Addresses and ports as it went out, or, at the end, as it came in."""
        found = self.left or self.arrived
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """The hop in words: "leaf1 (VRF sbi)"."""
        return place_name(self.node, self.vrf)


@dataclass(frozen=True)
class Path(PathClaims):
    """The way of one packet.

    Args:
        words: what packet it is. copies: how many times it was sent, all told.
        delivered: whether it reached one who has its destination address, or who answered it.
        ignored: nodes that got its frame after the last hop, addressed to another station.
    """

    direction: Direction
    words: str
    hops: tuple[Hop, ...]
    delivered: bool
    packet: Packet
    about: Direction | None = None
    copies: int = 1
    ignored: tuple[str, ...] = ()

    @property
    def first(self) -> Hop:
        return self.hops[0]

    @property
    def last(self) -> Hop:
        return self.hops[-1]


@dataclass(frozen=True)
class Walk(Claims):
    """A flow's way there and back.

    Args:
        paths: every packet's, in the order in which they set out.
        solicitations: what was asked of neighbours meanwhile.
        dropped: namespaces that lost captured packets, with how many; then the walk may have gaps.
    """

    question: Question
    paths: tuple[Path, ...]
    solicitations: tuple[Solicitation, ...] = ()
    dropped: Mapping[tuple[str, str | None], int] = field(default_factory=dict)

    @cached_property
    def forward(self) -> Path | None:
        """The first packet: of all its copies the one that got furthest. None: none was seen at all."""
        return self._furthest("request")

    @cached_property
    def back(self) -> Path | None:
        """The first packet of the answer, likewise; None: there was none."""
        return self._furthest("reply")

    @property
    def errors(self) -> tuple[Path, ...]:
        """ICMP errors about the flow's packets."""
        return tuple(path for path in self.paths if path.direction == "error")

    @cached_property
    def lost(self) -> Path | None:
        """The first packet that got lost for good: no copy of it arrived."""
        arrived = {_likeness(path) for path in self.paths if path.delivered}
        for path in self.paths:
            if path.direction != "error" and not path.delivered and _likeness(path) not in arrived:
                return max((other for other in self.paths if _likeness(other) == _likeness(path)), key=_progress)
        return None

    def _furthest(self, direction: Direction) -> Path | None:
        own = [path for path in self.paths if path.direction == direction]
        alike = [path for path in own if _likeness(path) == _likeness(own[0])]
        return max(alike, key=_progress, default=None)


def _likeness(path: Path) -> tuple[object, ...]:
    """What two copies of a packet have in common, though their IP ids differ."""
    packet = path.packet
    return path.direction, packet.seq, packet.flags & (SYN | RST), packet.payload_length, packet.payload, packet.kind


def _progress(path: Path) -> tuple[bool, int, int]:
    return path.delivered, len(path.hops), -path.first.time


def walk(
    frames: Sequence[Frame],
    question: Question,
    lab: Map,
    dropped: Mapping[tuple[str, str | None], int] | None = None,
) -> Walk:
    """The walk of one flow through all captured frames, which must be in the order of time."""
    found = journeys(frames, question)
    answering = {journey.sightings[0].frame.node for journey in found if journey.direction == "reply"}
    paths = [_path(journey, question, lab, answering) for journey in found]
    counts: dict[tuple[object, ...], int] = {}
    for path in paths:
        counts[_likeness(path)] = counts.get(_likeness(path), 0) + 1
    counted = tuple(replace(path, copies=counts[_likeness(path)]) for path in paths)
    return Walk(question, counted, solicitations(frames), dropped or {})


def _path(journey: Journey, question: Question, lab: Map, answering: set[str]) -> Path:
    visits = _visits(journey.sightings)
    hops: list[Hop] = []
    for index, visit in enumerate(visits):
        after = visits[index + 1][0].frame if index + 1 < len(visits) else None
        hop = _hop(visit, journey, lab, (after.node, after.interface) if after else None)
        since = hop.time - hops[-1].time if hops else 0
        hops.append(replace(hop, since=since))
    if journey.direction == "request":
        hops[0] = _origin(hops[0], question)
    last = hops[-1]
    here = not last.interface_out
    own = lab.addresses.get(last.place, frozenset())
    replied = journey.direction == "request" and last.node in answering
    home = journey.direction != "reply" or last.node == question.source
    delivered = here and home and (last.ends.destination in own or replied)
    end = visits[-1][-1].frame.time
    later = [entry.frame for entry in journey.sightings if entry.frame.time > end and entry.frame.way == "other"]
    return Path(
        journey.direction,
        words(journey.packet),
        tuple(hops),
        delivered,
        journey.packet,
        journey.about,
        ignored=tuple(dict.fromkeys(frame.node for frame in later)),
    )


def _visits(sightings: Sequence[Sighting]) -> list[list[Sighting]]:
    """The sightings of each namespace that did something with the packet, in order.

    A frame for another station that nothing came of was flooded by a bridge and ignored.
    """
    groups = [list(group) for _, group in groupby(sightings, lambda entry: (entry.frame.node, entry.frame.vrf))]
    kept = [group for group in groups if any(entry.frame.way != "other" for entry in group)]
    merged: list[list[Sighting]] = []
    for group in kept:  # what was left out may have stood between two parts of one visit
        before = merged[-1][-1].frame if merged else None
        if before and (before.node, before.vrf) == (group[0].frame.node, group[0].frame.vrf):
            merged[-1] += group
        else:
            merged.append(group)
    return merged


def _hop(visit: Sequence[Sighting], journey: Journey, lab: Map, after: Port | None) -> Hop:
    """One visit as a hop; `after` is where the packet was seen next."""
    inward = next((entry for entry in visit if entry.frame.way != "out"), None)
    if inward is not None and visit[0].frame.way == "out" and visit[0].frame.interface != "lo":
        inward = None  # what the origin sends does not come in; a reply that is seen here again is another visit
    outs = [entry for entry in visit if entry.frame.way == "out"]
    node = visit[0].frame.node
    leading = [entry for entry in outs if after and lab.peers.get((node, entry.frame.interface)) == after]
    outward = (leading or outs)[-1] if outs else None
    if outward is not None and outward.frame.interface == "lo":
        outward = None
    frame = visit[0].frame
    named = {entry.frame.interface for entry in (inward, outward) if entry}
    through = tuple(dict.fromkeys(e.frame.interface for e in visit if e.frame.interface not in named))
    carriers = [entry.packet.carrier for entry in (inward, outward) if entry]
    carried = all(carriers) and len({carrier.ends for carrier in carriers if carrier}) == 1
    hop = Hop(
        node,
        frame.vrf,
        inward.frame.interface if inward else "",
        outward.frame.interface if outward else "",
        inward.packet.ends if inward else None,
        outward.packet.ends if outward else (None if inward else visit[0].packet.ends),
        inward.packet.ttl if inward else 0,
        outward.packet.ttl if outward else 0,
        frame.time,
        through=through,
        network_in=lab.network(node, frame.vrf, inward.frame.interface) if inward else "",
        network_out=lab.network(node, frame.vrf, outward.frame.interface) if outward else "",
        tunnels_in=inward.packet.tunnels if inward else (),
        tunnels_out=outward.packet.tunnels if outward else (),
        carrier=carriers[0] if carried else None,
        length=visit[0].packet.length,
        fragments_in=_pieces(journey, inward),
        fragments_out=_pieces(journey, outward),
    )
    lasting = [entry.packet.carrier if carried else entry.packet for entry in (inward, outward) if entry]
    return replace(hop, changes=_changes(hop, bridged=len({packet.ttl for packet in lasting if packet}) == 1))


def _pieces(journey: Journey, sighting: Sighting | None) -> int:
    if sighting is None:
        return 1
    at = sighting.frame
    same = [
        entry
        for entry in journey.fragments
        if (entry.frame.node, entry.frame.vrf, entry.frame.interface, entry.frame.way)
        == (at.node, at.vrf, at.interface, at.way)
    ]
    return 1 + len(same)


def _changes(hop: Hop, *, bridged: bool) -> tuple[str, ...]:
    """What a namespace did to a packet that came in and went out; `bridged`: the TTL it was routed by stayed."""
    if hop.arrived is None or hop.left is None:
        taken_out = hop.tunnels_in and hop.through  # it was seen on the tunnel's own interface, too
        return ("encapsulated",) if hop.tunnels_out else ("decapsulated",) if taken_out else ()
    came, went = hop.arrived, hop.left
    made = {
        "dnat": (came.destination, came.destination_port) != (went.destination, went.destination_port),
        "snat": (came.source, came.source_port) != (went.source, went.source_port),
        "decapsulated": bool(set(hop.tunnels_in) - set(hop.tunnels_out)),
        "encapsulated": bool(set(hop.tunnels_out) - set(hop.tunnels_in)),
        "fragmented": hop.fragments_out > hop.fragments_in,
        "reassembled": hop.fragments_out < hop.fragments_in,
        "bridged": bridged,
    }
    return tuple(name for name, true in made.items() if true)


def _origin(hop: Hop, question: Question) -> Hop:
    """The first hop; where it was translated on its way out, what was asked is known from the question."""
    if hop.arrived is not None or hop.node != question.source:
        return hop
    port = hop.ends.destination_port
    if (hop.ends.destination, port) == (question.address, question.port or port):
        return hop
    asked = f"{question.address}:{question.port}"
    return replace(hop, changes=("dnat", *hop.changes), asked=asked)


def is_reset(path: Path) -> bool:
    """Whether a packet is a TCP reset."""
    return path.packet.protocol == IPPROTO_TCP and bool(path.packet.flags & RST)
