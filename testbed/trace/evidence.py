"""What was found out about a walk besides its packets, as plain data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.trace.routing import Decision


@dataclass(frozen=True, slots=True)
class HopFacts:
    """What the live lab says of one hop.

    Args:
        route: the decision that sent the packet on; None: there was none to make (bridged).
        connection: the entry of connection tracking. rewrites: a sentence for each address that was rewritten.
        too_late: rules that name the source that it was given here, after it had been routed by another.
    """

    route: Decision | None = None
    connection: str = ""
    rewrites: tuple[str, ...] = ()
    too_late: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NextHop:
    """Whom a packet is to be handed to, and what the place knows of them.

    Args:
        address, interface: of the next hop, and towards it. owner: who should have the address; empty: nobody.
        states: of the entry in the table of neighbours (ip-neighbour(8)), before and after the flow was asked again.
        noted: the link-layer address in it. real: those that the owner really has on the segment.
        holder: who has the noted one; empty: nobody on the segment.
        dropped: (chain, rule) by which the owner dropped the question who has the address; None: none did.
    """

    address: str
    interface: str
    owner: str = ""
    states: tuple[str, ...] = ()
    noted: str = ""
    real: frozenset[str] = frozenset()
    holder: str = ""
    dropped: tuple[str, str] | None = None

    @property
    def unanswered(self) -> bool:
        """Whether the kernel asked for its link-layer address and waits for it, or has given up."""
        return any(state in ("FAILED", "INCOMPLETE") for state in self.states)


@dataclass(frozen=True, slots=True)
class Scene:
    """The place where a packet was last seen, looked at closely.

    Args:
        node, vrf: the place. route: what the kernel says about the packet there.
        destination: of the packet when it is routed there, as far as is known.
        best: the type and text of the most specific route that holds its destination; empty: none does.
        denied: (chain, rule) that dropped it when it was asked again; None: no rule did. marks: that it had then.
        counted: names of the kernel's counters that rose, with by how much.
        unresolved: next hops whose link-layer address nobody told.
        links: interface → (MTU, whether it is up), here. peer_links: interface here → the same of its other end.
        settings: sysctls that matter.
        listening: whether the place has a socket for the packet; None: not known.
        listeners: the other addresses at which sockets wait at the packet's port.
        next_hop: whom the packet is to be handed to; None: nobody, or not known.
        handed: likewise, whom the hop before handed it to.
        discarded: (interface, queueing discipline, number) of what such dropped when the flow was asked again.
        tunnel: what is wrong with the end of the tunnel that the packet came in; empty: nothing, or it came in none.
    """

    node: str
    vrf: str | None
    route: Decision | None = None
    destination: str = ""
    best: str = ""
    best_kind: str = ""
    denied: tuple[str, str] | None = None
    marks: tuple[int, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()
    links: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    peer_links: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    listening: bool | None = None
    listeners: tuple[str, ...] = ()
    next_hop: NextHop | None = None
    handed: NextHop | None = None
    discarded: tuple[tuple[str, str, int], ...] = ()
    tunnel: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a flow failed.

    Args:
        kind: one word, such as no-route, wrong-vrf, rp-filter, policy, reject, no-listener, unresolved, mtu.
        node, vrf: where. sentence: the verdict in one sentence. evidence: lines that support it.
    """

    kind: str
    node: str
    vrf: str | None
    sentence: str
    evidence: tuple[str, ...] = ()
