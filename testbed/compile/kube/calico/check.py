"""What is wrong or not supported in the Calico resources of a cluster: all of it at once, before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import combinations

from testbed.compile.kube.calico import selector
from testbed.compile.kube.calico.bgp import FAMILIES, BgpCluster, nodes_with_address, selected
from testbed.errors import Position, Problem
from testbed.model.calico import BGPConfiguration, BGPPeer, IPPool, Password, ServiceRange

# What a BGPConfiguration named node.NAME may set; Calico ignores the rest there.
_FIELDS_OF_NODE = frozenset({"listen_port", "prefix_advertisements", "communities", "log_severity_screen"})
_NOT_IN_A_STRING = frozenset('"\\\n\r')  # BIRD has no escapes in strings


def problems(cluster: BgpCluster) -> tuple[Problem, ...]:
    """All problems of the pools, configurations, peers and nodes, each at the place where it was written."""
    return (
        *pool_problems(cluster.pools),
        *(found for configuration in cluster.configurations for found in _configuration(cluster, configuration)),
        *(found for peer in cluster.peers for found in _peer(cluster, peer)),
        *_nodes(cluster),
    )


def pool_problems(pools: Sequence[IPPool]) -> list[Problem]:
    """Encapsulation, which is not supported, and pools that overlap, which Calico refuses."""
    found: list[Problem] = []
    for pool in pools:
        for field, mode in (("vxlanMode", pool.spec.vxlan_mode), ("ipipMode", pool.spec.ipip_mode)):
            if mode != "Never":
                message = f"IPPool {pool.name}: {field} {mode} is not supported: pods are routed without encapsulation"
                found.append(Problem(message, pool.origin.at("spec", field), f"set {field}: Never"))
    for one, other in combinations(pools, 2):
        # Prefixes overlap when one holds the other's first address (and never across families).
        if one.spec.network.network_address in other.spec.network or other.spec.network[0] in one.spec.network:
            message = f"IPPool {other.name}: {other.spec.cidr} overlaps {one.spec.cidr} of IPPool {one.name}"
            found.append(Problem(message, other.origin.at("spec", "cidr")))
    return found


def _configuration(cluster: BgpCluster, configuration: BGPConfiguration) -> Iterator[Problem]:
    what, origin = f"BGPConfiguration {configuration.name}", configuration.origin
    spec = configuration.spec
    yield from _configuration_name(cluster, configuration)
    if spec.program_cluster_routes in ("Disabled", "EnabledIPIPOnly"):
        message = (
            f"{what}: programClusterRoutes {spec.program_cluster_routes} is not supported: only BIRD programs routes"
        )
        yield Problem(message, origin.at("spec", "programClusterRoutes"), "leave it out")
    yield from _single_cluster_ips(configuration, spec.service_cluster_ips)
    yield from _password(cluster, what, spec.node_mesh_password, origin.at("spec", "nodeMeshPassword"))
    defined = {community.name for community in spec.communities}
    for index, advertisement in enumerate(spec.prefix_advertisements):
        for name in advertisement.communities:
            if ":" not in name and name not in defined:
                place = origin.at("spec", "prefixAdvertisements", index, "communities")
                yield Problem(f"{what}: prefixAdvertisements: there is no community named {name}", place)


def _configuration_name(cluster: BgpCluster, configuration: BGPConfiguration) -> Iterator[Problem]:
    name, origin = configuration.name, configuration.origin
    if name == "default":
        return
    node = name.removeprefix("node.")
    if name == node or node not in {found.name for found in cluster.nodes}:
        hint = "the names are default, and node.NAME for a node of the cluster"
        yield Problem(f"BGPConfiguration {name}: Calico does not read a configuration of this name",
                      origin.at("metadata", "name"), hint)  # fmt: skip
    fields = type(configuration.spec).model_fields
    for field in sorted(configuration.spec.model_fields_set - _FIELDS_OF_NODE):
        alias = fields[field].alias or field
        message = f"BGPConfiguration {name}: {alias} holds for all nodes and is not read here"
        yield Problem(message, origin.at("spec", alias), "set it in the BGPConfiguration named default")


def _single_cluster_ips(configuration: BGPConfiguration, ranges: Iterable[ServiceRange]) -> Iterator[Problem]:
    for index, found in enumerate(ranges):
        if found.cidr and found.cidr.endswith(("/32", "/128")):
            message = f"BGPConfiguration {configuration.name}: serviceClusterIPs {found.cidr} is not supported: "
            message += "a range of cluster addresses must hold more than one"
            yield Problem(message, configuration.origin.at("spec", "serviceClusterIPs", index, "cidr"))


def _peer(cluster: BgpCluster, peer: BGPPeer) -> list[Problem]:
    what, origin, spec = f"BGPPeer {peer.name}", peer.origin, peer.spec
    found = list(_selectors(peer))
    if spec.node and spec.node not in {node.name for node in cluster.nodes}:
        found.append(Problem(f"{what}: there is no node named {spec.node}", origin.at("spec", "node")))
    known = {bgp_filter.name for bgp_filter in cluster.filters}
    found += [
        Problem(f"{what}: there is no BGPFilter named {name}", origin.at("spec", "filters", index))
        for index, name in enumerate(spec.filters)
        if name not in known
    ]
    found += _password(cluster, what, spec.password, origin.at("spec", "password"))
    if spec.peer_ip and spec.as_number is None and not nodes_with_address(cluster, peer):
        message = f"{what}: asNumber is missing: {spec.address} is not the address of a node"
        found.append(Problem(message, origin.at("spec", "peerIP")))
    return found or list(_family(cluster, peer))


def _selectors(peer: BGPPeer) -> Iterator[Problem]:
    for field, text in (("nodeSelector", peer.spec.node_selector), ("peerSelector", peer.spec.peer_selector)):
        try:
            selector.parse(text)
        except ValueError as error:
            yield Problem(f"BGPPeer {peer.name}: {field}: {error}", peer.origin.at("spec", field))


def _family(cluster: BgpCluster, peer: BGPPeer) -> Iterator[Problem]:
    """A peer whose family none of its nodes has would silently have no session at all."""
    if not peer.spec.peer_ip:
        return
    version = ip_address(peer.spec.address).version
    family = next(family for family in FAMILIES if family == version)
    nodes = selected(cluster.nodes, peer)
    if nodes and not any(node.address(family) for node in nodes):
        names = ", ".join(node.name for node in nodes)
        message = f"BGPPeer {peer.name}: no node it is for has an IPv{family} address ({names})"
        yield Problem(message, peer.origin.at("spec", "peerIP"))


def _password(
    cluster: BgpCluster, what: str, password: Password | None, position: Position | None
) -> Iterator[Problem]:
    """Calico would speak without the password; the session would never come up, which is of no use in a lab."""
    if password is None:
        return
    reference = password.secret_key_ref
    text = cluster.passwords.get((reference.name, reference.key))
    if text is None:
        yield Problem(f"{what}: there is no Secret {reference.name} with a key {reference.key}", position)
    elif _NOT_IN_A_STRING & set(text):
        yield Problem(f"{what}: BIRD cannot hold a password with quotes, backslashes or line ends", position)


def _nodes(cluster: BgpCluster) -> Iterator[Problem]:
    for node in cluster.nodes:
        if node.ipv6 and not node.ipv4 and not cluster.router_id:
            hint = "give the node an IPv4 address, or the cluster the router id hash"
            yield Problem(f"node {node.name}: it has no IPv4 address to be its BGP router id", None, hint)
