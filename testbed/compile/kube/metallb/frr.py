"""FRR's configuration on each node, as MetalLB's speaker in FRR mode writes it, and the sessions it opens.

Template: configs/frr/metallb.conf.j2. Names of route-maps and prefix-lists are MetalLB's. Its `log` and `debug` lines
are left to the caller. MetalLB starts bgpd with `-p 0`: the node opens every session, it listens for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from testbed.compile.kube.metallb.announce import Announcements, Route
from testbed.compile.kube.metallb.config import Config
from testbed.compile.kube.metallb.peers import Peer
from testbed.compile.kube.metallb.pools import Network
from testbed.model.kube import Node
from testbed.render import environment

TEMPLATE = "frr/metallb.conf.j2"
_KEYWORDS = {4: "ip", 6: "ipv6"}


@dataclass(frozen=True, slots=True)
class MetalLBSession:
    """A session that a node opens, seen by who must configure the other end.

    Args:
        peer: the name of the BGPPeer.
        address, interface: the other end; an interface of the node where the session is unnumbered.
        peer_asn: the other end's AS number, or "internal" or "external" where the node learns it.
        my_asn: the AS number the node shows.
        vrf: the node's VRF; empty for the default one.
        source_address: the node's end of the session; empty where its routing decides.
        hold, keepalive, connect: seconds the node proposes; None for FRR's default.
        port: the TCP port the node connects to.
        families: the IP versions of the prefixes it announces over the session.
        bfd: the name of the BFDProfile; empty for none.
    """

    node: str
    peer: str
    address: str
    interface: str
    peer_asn: int | str
    my_asn: int
    vrf: str = ""
    source_address: str = ""
    password: str = field(default="", repr=False)
    hold: int | None = None
    keepalive: int | None = None
    connect: int | None = None
    multihop: bool = False
    port: int = 179
    families: tuple[int, ...] = (4,)
    bfd: str = ""
    graceful_restart: bool = False


def sessions(node: Node, config: Config) -> tuple[MetalLBSession, ...]:
    """The sessions that the node opens, sorted by the peers' names."""
    return tuple(_session(node, peer) for peer in config.peers if peer.selects(node))


def frr(node: Node, config: Config, announcements: Announcements, extras: str = "") -> str:
    """The text of the node's frr.conf.

    Args:
        announcements: the decisions of `metallb_announce.announce`.
        extras: text that is put at the end (in MetalLB: the ConfigMap `bgpextras`).
    """
    routes = announcements.routes.get(node.name, {})
    neighbors = [_Neighbor(peer, routes.get(peer.name, ())) for peer in config.peers if peer.selects(node)]
    template = environment().get_template(TEMPLATE)
    return template.render(
        node=node.name, neighbors=neighbors, routers=_routers(neighbors), profiles=config.bfd, extras=extras
    )


@dataclass(frozen=True, slots=True)
class _Clause:
    """One clause of a route-map, with the prefix-list it asks; without `action` it lets the prefixes pass."""

    sequence: int
    family: int
    prefix_list: str
    prefixes: tuple[Network, ...]
    action: str = ""

    @property
    def keyword(self) -> str:
        return _KEYWORDS[self.family]


@dataclass(frozen=True, slots=True)
class _Neighbor:
    """A peer as the template shows it."""

    peer: Peer
    routes: tuple[Route, ...]

    @property
    def clauses(self) -> tuple[_Clause, ...]:
        """The outgoing route-map: set attributes and go on, then pass what is announced, and nothing else."""
        numbered = enumerate((*self._attributes(), *self._allowed()), start=1)
        return tuple(_Clause(sequence, *rest) for sequence, rest in numbered)

    @property
    def disable_connected_check(self) -> bool:
        """Whether FRR must not ask that the peer is on a subnet of the node: MetalLB says so for IPv6 eBGP."""
        direct = not self.peer.internal and not self.peer.multihop and not self.peer.dual_stack
        return direct and ":" in self.peer.address

    @property
    def keywords(self) -> tuple[str, ...]:
        """The address families of the session, in FRR's words."""
        return tuple(f"ipv{family}" for family in self.peer.families)

    def _attributes(self) -> Iterator[tuple[int, str, tuple[Network, ...], str]]:
        for preference in sorted({route.local_pref for route in self.routes if route.local_pref}):
            having = [route for route in self.routes if route.local_pref == preference]
            action = f"local-preference {preference}"
            yield from self._setting(having, f"{preference}", "localpref", action)
        for community in sorted({text for route in self.routes for text in route.communities}):
            having = [route for route in self.routes if community in route.communities]
            large = community.startswith("large:")
            action = f"{'large-' if large else ''}community {community.removeprefix('large:')} additive"
            yield from self._setting(having, community, "community", action)

    def _setting(
        self, routes: Sequence[Route], value: str, what: str, action: str
    ) -> Iterator[tuple[int, str, tuple[Network, ...], str]]:
        for family in (4, 6):
            if prefixes := _prefixes(routes, family):
                name = f"{self.peer.key}-{value}-{_KEYWORDS[family]}-{what}-prefixes"
                yield family, name, prefixes, action

    def _allowed(self) -> Iterator[tuple[int, str, tuple[Network, ...], str]]:
        for family in (4, 6):
            yield family, f"{self.peer.key}-allowed-ipv{family}", _prefixes(self.routes, family), ""


@dataclass(frozen=True, slots=True)
class _Router:
    """A `router bgp` block: the neighbours of one VRF."""

    neighbors: tuple[_Neighbor, ...]

    @property
    def first(self) -> Peer:
        """Any of its peers: they agree on AS number, VRF and router id (`metallb_peers.conflicts`)."""
        return self.neighbors[0].peer

    def networks(self, family: int) -> tuple[Network, ...]:
        """The prefixes of one IP version that it originates."""
        return _prefixes((route for neighbor in self.neighbors for route in neighbor.routes), family)


def _routers(neighbors: Sequence[_Neighbor]) -> list[_Router]:
    vrfs = sorted({neighbor.peer.vrf for neighbor in neighbors})
    return [_Router(tuple(neighbor for neighbor in neighbors if neighbor.peer.vrf == vrf)) for vrf in vrfs]


def _prefixes(routes: Iterable[Route], family: int) -> tuple[Network, ...]:
    found = {route.prefix for route in routes if route.prefix.version == family}
    return tuple(sorted(found, key=lambda prefix: (int(prefix.network_address), prefix.prefixlen)))


def _session(node: Node, peer: Peer) -> MetalLBSession:
    return MetalLBSession(
        node=node.name,
        peer=peer.name,
        address=peer.address,
        interface=peer.interface,
        peer_asn=int(peer.remote_as) if peer.remote_as.isdigit() else peer.remote_as,
        my_asn=peer.local_asn or peer.my_asn,
        vrf=peer.vrf,
        source_address=peer.source_address,
        password=peer.password,
        hold=peer.hold,
        keepalive=peer.keepalive,
        connect=peer.connect,
        multihop=peer.multihop,
        port=peer.port,
        families=peer.families,
        bfd=peer.bfd,
        graceful_restart=peer.graceful_restart,
    )
