"""Who speaks BGP with whom in a Calico cluster: the sessions of a node, as confd derives them.

Source of the rules: upstream confd (backends/calico) and its recordings. Against upstream, a node of the mesh without
an AS number of its own has the global one for its peers too (upstream gives it the number of the node that asks).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Literal

from testbed.compile.kube.calico import selector
from testbed.errors import InputError, Problem
from testbed.model.calico import BGPConfiguration, BGPConfigurationSpec, BGPFilter, BGPPeer, IPPool, Password
from testbed.model.kube import EndpointSlice, Node, Service

Family = Literal[4, 6]
FAMILIES: tuple[Family, ...] = (4, 6)

_PREFIX = "projectcalico.org/"
_ANNOTATIONS = frozenset({"IPv4Address", "IPv6Address", "ASNumber", "RouteReflectorClusterID"})


@dataclass(frozen=True, slots=True)
class BgpNode:
    """What BGP knows of a node.

    Args:
        ipv4, ipv6: the addresses it speaks BGP from; empty where it has none of the family, and then runs no BIRD.
        as_number: its own, over the configuration's; None for that one.
        cluster_id: an IPv4 address, as text, makes it a route reflector.
    """

    name: str
    ipv4: str = ""
    ipv6: str = ""
    as_number: int | None = None
    cluster_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def address(self, family: Family) -> str:
        return self.ipv4 if family == 4 else self.ipv6


@dataclass(frozen=True, slots=True)
class BgpCluster:
    """All that the BIRD configuration of any node depends on.

    Args:
        blocks: node → the prefixes of its IPAM blocks (`ipam.Assignment.blocks`).
        services: with the load balancer's addresses in their status.
        slices: EndpointSlices of the services, found by the label kubernetes.io/service-name.
        passwords: (name of a Secret, key in it) → text.
        router_id: an IPv4 address for every node (of use in tests only), "hash" for one derived from the node's name,
            empty for the node's IPv4 address. It is the environment variable CALICO_ROUTER_ID of a real node.
    """

    nodes: tuple[BgpNode, ...]
    configurations: tuple[BGPConfiguration, ...] = ()
    peers: tuple[BGPPeer, ...] = ()
    filters: tuple[BGPFilter, ...] = ()
    pools: tuple[IPPool, ...] = ()
    blocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    passwords: Mapping[tuple[str, str], str] = field(default_factory=dict)
    router_id: str = ""

    def node(self, name: str) -> BgpNode:
        """The node of that name. Raises KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def defaults(self) -> BGPConfigurationSpec:
        """The spec of the BGPConfiguration `default`, or Calico's defaults where there is none."""
        return self.configuration("default") or BGPConfigurationSpec()

    def configuration(self, name: str) -> BGPConfigurationSpec | None:
        return next((found.spec for found in self.configurations if found.name == name), None)

    def for_node(self, node: str) -> BGPConfigurationSpec | None:
        """The spec of the BGPConfiguration that holds for one node alone; None where there is none."""
        return self.configuration(f"node.{node}")

    def listen_port(self, node: str) -> int | None:
        """The port a node listens on; None for BGP's own (179)."""
        own = self.for_node(node)
        return (own and own.listen_port) or self.defaults.listen_port

    def as_number(self, node: BgpNode) -> int:
        return node.as_number or self.defaults.as_number


@dataclass(frozen=True, slots=True)
class BirdSession:
    """One BGP protocol of a node's BIRD.

    Args:
        protocol: its name in BIRD.
        peer: the neighbour's address. peer_asn: its AS number. port: the one it is reached at; 0 for 179.
        local_asn: this end's AS number. local_as_given: whether the peer sets it apart from the node's own.
        source: the address this end speaks from; empty where the kernel chooses.
        ttl_security: hops the neighbour may be away, checked by GTSM (RFC 5082); 0 is off.
        password: of TCP MD5 (RFC 2385); None for none.
        passive: this end only listens.
        cluster_id: the neighbour is a client of this route reflector; empty where it is not.
        restart_time, keepalive_time: seconds; None for BIRD's defaults.
        allowed_local_as: how often this end's AS number may stand in the path of a route.
        next_hop: what is announced as next hop; "auto" is BIRD's default.
        filters: names of BGPFilters, in order.
        reachable_by: a gateway to reach the neighbour by; empty for none.
    """

    protocol: str
    peer: str
    peer_asn: int
    local_asn: int
    family: Family
    port: int = 0
    local_as_given: bool = False
    source: str = ""
    ttl_security: int = 0
    password: str | None = None
    passive: bool = False
    cluster_id: str = ""
    restart_time: int | None = None
    keepalive_time: int | None = None
    allowed_local_as: int = 0
    next_hop: Literal["auto", "self", "keep"] = "auto"
    filters: tuple[str, ...] = ()
    reachable_by: str = ""

    @property
    def internal(self) -> bool:
        """Whether both ends are of one AS."""
        return self.peer_asn == self.local_asn


def bgp_node(node: Node) -> BgpNode:
    """A node as its annotations describe it: projectcalico.org/IPv4Address, IPv6Address, ASNumber,
    RouteReflectorClusterID, which calico-node writes to (or reads from) every Node.

    Raises InputError for a value that cannot be read, and for other annotations of that prefix.
    """
    position = node.origin.at("metadata", "annotations")
    found = {
        key.removeprefix(_PREFIX): value for key, value in node.metadata.annotations.items() if key.startswith(_PREFIX)
    }
    if unknown := sorted(set(found) - _ANNOTATIONS):
        raise InputError(Problem(f"node {node.name}: annotation {_PREFIX}{name} is not supported", position)
                         for name in unknown)  # fmt: skip
    try:
        return BgpNode(
            name=node.name,
            ipv4=_plain_address(found.get("IPv4Address", ""), 4),
            ipv6=_plain_address(found.get("IPv6Address", ""), 6),
            as_number=int(found["ASNumber"]) if "ASNumber" in found else None,
            cluster_id=_plain_address(found.get("RouteReflectorClusterID", ""), 4),
            labels=node.metadata.labels,
        )
    except ValueError as error:
        raise InputError([Problem(f"node {node.name}: annotations {_PREFIX}…: {error}", position)]) from error


def sessions(cluster: BgpCluster, node: str) -> tuple[BirdSession, ...]:
    """The BGP sessions of a node: of the mesh and of all BGPPeers that select it, from either side.

    In the order of the protocols' names, IPv4 first. Raises KeyError when there is no such node, and ValueError for
    a selector that cannot be read (`check.problems` finds both first).
    """
    local = cluster.node(node)
    return tuple(
        session
        for family in FAMILIES
        if local.address(family)
        for session in sorted(
            [*_mesh(cluster, local, family), *_explicit(cluster, local, family)],
            key=lambda session: session.protocol,
        )
    )


def nodes_with_address(cluster: BgpCluster, peer: BGPPeer) -> tuple[BgpNode, ...]:
    """The nodes of the cluster that a BGPPeer means by `peerIP` (and its port and AS number)."""
    spec = peer.spec
    wanted = spec.as_number or cluster.defaults.as_number
    return tuple(
        node
        for node in cluster.nodes
        if spec.address in (node.ipv4, node.ipv6)
        and cluster.as_number(node) == wanted
        and (not spec.port or spec.port == (cluster.listen_port(node.name) or spec.port))
    )


def selected(nodes: Iterable[BgpNode], peer: BGPPeer) -> tuple[BgpNode, ...]:
    """The nodes for which a BGPPeer is written: `node`, `nodeSelector`, or all."""
    spec = peer.spec
    if spec.node:
        return tuple(node for node in nodes if node.name == spec.node)
    return tuple(node for node in nodes if selector.matches(spec.node_selector, node.labels))


def _mesh(cluster: BgpCluster, local: BgpNode, family: Family) -> Iterator[BirdSession]:
    """Every node with every other, route reflectors apart. The end with the lesser address, as text, listens."""
    defaults = cluster.defaults
    if not defaults.node_to_node_mesh_enabled or local.cluster_id:
        return
    for node in cluster.nodes:
        address = node.address(family)
        if not address or address == local.address(family) or node.cluster_id:
            continue
        yield BirdSession(
            protocol=_protocol("Mesh", address),
            peer=address,
            peer_asn=cluster.as_number(node),
            local_asn=cluster.as_number(local),
            family=family,
            port=cluster.listen_port(node.name) or 0,
            source=local.address(family),
            password=_password(cluster, defaults.node_mesh_password),
            passive=address > local.address(family),
            restart_time=_seconds(defaults.node_mesh_max_restart_time),
        )


@dataclass(frozen=True, slots=True)
class _Remote:
    """The far end of a BGPPeer: an address it names (`given`), or a node it selects."""

    address: str
    port: int
    as_number: int
    cluster_id: str = ""
    given: bool = False


def _explicit(cluster: BgpCluster, local: BgpNode, family: Family) -> Iterator[BirdSession]:
    """The sessions that BGPPeers ask for; of two to one address and port, the first that is found.

    Peers for all nodes come first, then those for some, then the far ends of all: a peer that is a node of the cluster
    gets its session too.
    """
    peers = sorted(cluster.peers, key=lambda peer: peer.name)
    found: dict[tuple[str, int], BirdSession] = {}
    for is_global in (True, False):
        for peer in peers:
            if is_global == _is_global(peer) and local in selected(cluster.nodes, peer):
                prefix = "Global" if is_global else "Node"
                _add(found, [_session(cluster, local, peer, far, prefix) for far in _remotes(cluster, peer, family)])
    for peer in peers:
        if peer.spec.reverse_peering == "Auto" and local in _far_nodes(cluster, peer, family):
            nodes = [node for node in selected(cluster.nodes, peer) if node.address(family)]
            ends = [_node_as_remote(cluster, node, family) for node in nodes]
            _add(found, [_session(cluster, local, peer, far, "Node") for far in ends])
    yield from (session for session in found.values() if session.peer != local.address(family))


def _add(found: dict[tuple[str, int], BirdSession], sessions: Iterable[BirdSession]) -> None:
    for session in sessions:
        found.setdefault((session.peer, session.port), session)


def _is_global(peer: BGPPeer) -> bool:
    return not peer.spec.node and not peer.spec.node_selector


def _remotes(cluster: BgpCluster, peer: BGPPeer, family: Family) -> list[_Remote]:
    spec = peer.spec
    if spec.peer_selector:
        return [_node_as_remote(cluster, node, family) for node in _far_nodes(cluster, peer, family)]
    if ip_address(spec.address).version != family:
        return []
    nodes = nodes_with_address(cluster, peer)
    port = spec.port or (cluster.listen_port(nodes[0].name) if nodes else None) or 0
    number = spec.as_number or (cluster.as_number(nodes[0]) if nodes else cluster.defaults.as_number)
    return [_Remote(spec.address, port, number, given=True)]


def _far_nodes(cluster: BgpCluster, peer: BGPPeer, family: Family) -> tuple[BgpNode, ...]:
    """The nodes at the far end: those that `peerSelector` selects, or that have the address `peerIP`."""
    spec = peer.spec
    if not spec.peer_selector:
        return nodes_with_address(cluster, peer) if ip_address(spec.address).version == family else ()
    return tuple(
        node for node in cluster.nodes if node.address(family) and selector.matches(spec.peer_selector, node.labels)
    )


def _node_as_remote(cluster: BgpCluster, node: BgpNode, family: Family) -> _Remote:
    port = cluster.listen_port(node.name) or 0
    return _Remote(node.address(family), port, cluster.as_number(node), node.cluster_id)


def _session(cluster: BgpCluster, local: BgpNode, peer: BGPPeer, far: _Remote, prefix: str) -> BirdSession:
    spec = peer.spec
    family: Family = 6 if ":" in far.address else 4
    address = local.address(family)
    local_as = spec.local_as_number if far.given else None
    local_asn = local_as or cluster.as_number(local)
    internal = far.as_number == local_asn
    is_client = internal and local.cluster_id and far.cluster_id != local.cluster_id
    is_node = far.address in {node.address(family) for node in cluster.nodes}
    return BirdSession(
        protocol=_protocol(prefix, far.address, far.port),
        peer=far.address,
        peer_asn=far.as_number,
        local_asn=local_asn,
        family=family,
        port=far.port,
        local_as_given=local_as is not None,
        source=address if spec.source_address == "UseNodeIP" else "",
        ttl_security=spec.ttl_security,
        password=_password(cluster, spec.password),
        passive=prefix == "Global" and far.given and is_node and far.address > address,
        cluster_id=local.cluster_id if is_client else "",
        restart_time=_seconds(spec.max_restart_time),
        keepalive_time=_seconds(spec.keepalive_time),
        allowed_local_as=spec.num_allowed_local_as_numbers if far.given else 0,
        next_hop=_next_hop(peer, internal) if far.given else "auto",
        filters=spec.filters,
        reachable_by=(spec.reachable_by or "") if far.given else "",
    )


def _next_hop(peer: BGPPeer, internal: bool) -> Literal["auto", "self", "keep"]:
    """keepOriginalNextHop is for peers of another AS only; nextHopMode for all."""
    if peer.spec.keep_original_next_hop and not internal:
        return "keep"
    if peer.spec.next_hop_mode == "Keep":
        return "keep"
    return "self" if peer.spec.next_hop_mode == "Self" else "auto"


def _protocol(prefix: str, address: str, port: int = 0) -> str:
    """The port of a mesh peer does not stand in the name."""
    name = address.replace(".", "_").replace(":", "_")
    return f"{prefix}_{name}" + (f"_port_{port}" if port else "")


def _password(cluster: BgpCluster, password: Password | None) -> str | None:
    if password is None:
        return None
    return cluster.passwords.get((password.secret_key_ref.name, password.secret_key_ref.key))


def _seconds(duration: float | None) -> int | None:
    return None if duration is None else round(duration)


def _plain_address(text: str, family: Family) -> str:
    if not text:
        return ""
    address = ip_interface(text).ip
    if address.version != family:
        raise ValueError(f"{text} is not an IPv{family} address")
    return str(address)
