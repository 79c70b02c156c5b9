"""Advertisements: which pools, nodes, services and peers they concern, and what MetalLB refuses in them.

Behaviour after MetalLB's documentation and recordings of the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.compile.kube.metallb.common import (
    duplicate_values,
    expression_problems,
    problem,
    selected,
    selector_problems,
)
from testbed.compile.kube.metallb.pools import Pool
from testbed.errors import Problem
from testbed.model.kube import Node, Service
from testbed.model.metallb import (
    BGPAdvertisement,
    Community,
    IPAddressPool,
    L2Advertisement,
    LabelSelector,
    PreferredNodeSelector,
)

HOST_LENGTH = {4: 32, 6: 128}
_LARGEST_IN_SECTION = {2: 0xFFFF, 4: 0xFFFFFFFF}  # by the number of sections: RFC 1997, RFC 8092


@dataclass(frozen=True, slots=True)
class Scope:
    """What an advertisement concerns: pools by name, nodes and services by selector (none selects all)."""

    pools: frozenset[str]
    nodes: tuple[LabelSelector, ...] = ()
    services: tuple[LabelSelector, ...] = ()

    def has_node(self, node: Node) -> bool:
        return selected(self.nodes, node.metadata.labels)

    def covers(self, pool: str, service: Service, node: Node) -> bool:
        """Whether the service, with addresses of the pool, is to be announced by the node."""
        return pool in self.pools and selected(self.services, service.metadata.labels) and self.has_node(node)


@dataclass(frozen=True, slots=True)
class BgpAdvertisement:
    """How addresses of some pools are told to BGP peers.

    Args:
        lengths: IP version → length of the prefix that is announced for an address.
        local_pref: LOCAL_PREF; 0 for none.
        communities: in MetalLB's form ("64512:1", "large:1:2:3"), sorted as text, none twice.
        peers: names of BGPPeers; none means all.
    """

    name: str
    scope: Scope
    lengths: Mapping[int, int]
    local_pref: int = 0
    communities: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layer2Advertisement:
    """How addresses of some pools are answered for (ARP, NDP).

    Args:
        interfaces: where; none means everywhere.
        preferred: the nodes that should rather do it than others.
    """

    name: str
    scope: Scope
    interfaces: tuple[str, ...] = ()
    preferred: tuple[PreferredNodeSelector, ...] = ()

    def weight(self, node: Node) -> int:
        """How much the advertisement prefers the node."""
        return sum(wish.weight for wish in self.preferred if wish.preference.matches(node.metadata.labels))


def read_community(text: str) -> str:
    """The community in its plain form. Raises ValueError when the text is none (and might be an alias)."""
    sections = text.split(":")
    if len(sections) not in _LARGEST_IN_SECTION:
        raise ValueError(f"invalid community format: {text}")
    largest = _LARGEST_IN_SECTION[len(sections)]
    marker, numbers = (["large"], sections[1:]) if len(sections) == 4 else ([], sections)
    if len(sections) == 4 and sections[0] != "large":
        form = "large:<uint32>:<uint32>:<uint32>"
        message = f"invalid marker for large community, expected community to be of format {form}"
        raise ValueError(f'{message} but got "{text}" instead')
    for number in numbers:
        if not (number.isascii() and number.isdigit() and int(number) <= largest):
            raise ValueError(f'invalid section "{number}" of community "{text}": not a number from 0 to {largest}')
    return ":".join([*marker, *(str(int(number)) for number in numbers)])


def aliases(resources: Sequence[Community]) -> dict[str, str]:
    """Name → community, of the aliases that `community_problems` finds nothing wrong with."""
    found: dict[str, str] = {}
    for alias in (alias for resource in resources for alias in resource.spec.communities):
        try:
            found.setdefault(alias.name, read_community(alias.value))
        except ValueError:
            continue
    return found


def community_problems(resources: Sequence[Community]) -> Iterator[Problem]:
    """What is wrong with the aliases."""
    names: set[str] = set()
    for resource in resources:
        for index, alias in enumerate(resource.spec.communities):
            path = ("spec", "communities", index)
            try:
                read_community(alias.value)
            except ValueError as error:
                yield problem(resource, (*path, "value"), f'parsing community "{alias.name}": {error}')
            if alias.name in names:
                yield problem(resource, (*path, "name"), f'duplicate definition of community "{alias.name}"')
            names.add(alias.name)


def read_bgp(resource: BGPAdvertisement, pools: Sequence[IPAddressPool], names: Mapping[str, str]) -> BgpAdvertisement:
    """The advertisement of a resource that `bgp_problems` finds nothing wrong with; `names`: the aliases."""
    spec = resource.spec
    return BgpAdvertisement(
        name=resource.name,
        scope=_scope(resource, pools),
        lengths={4: spec.aggregation_length, 6: spec.aggregation_length_v6},
        local_pref=spec.local_pref,
        communities=tuple(sorted({names.get(text) or read_community(text) for text in spec.communities})),
        peers=spec.peers,
    )


def read_l2(resource: L2Advertisement, pools: Sequence[IPAddressPool]) -> Layer2Advertisement:
    """The advertisement of a resource that `l2_problems` finds nothing wrong with."""
    scope = _scope(resource, pools)
    return Layer2Advertisement(resource.name, scope, resource.spec.interfaces, resource.spec.preferred_node_selectors)


def l2_problems(resource: L2Advertisement) -> Iterator[Problem]:
    """What is wrong with an L2Advertisement."""
    yield from _selection_problems(resource)
    for index, wish in enumerate(resource.spec.preferred_node_selectors):
        path = ("spec", "preferredNodeSelectors", index, "preference")
        yield from expression_problems(resource, path, wish.preference)


def bgp_problems(resource: BGPAdvertisement, names: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with a BGPAdvertisement by itself; `names`: the community aliases."""
    spec = resource.spec
    yield from _selection_problems(resource)
    yield from duplicate_values(resource, ("spec", "peers"), spec.peers, "peers")
    yield from duplicate_values(resource, ("spec", "communities"), spec.communities, "community")
    for index, text in enumerate(spec.communities):
        if text not in names and (reason := _no_community(text)):
            hint = "" if ":" in text else "no Community has an alias of this name"
            yield problem(resource, ("spec", "communities", index), reason, hint)
    yield from _length_problems(resource)


def aggregation_problems(resource: BGPAdvertisement, pools: Sequence[Pool]) -> Iterator[Problem]:
    """A problem for each entry of its pools of which no network fits into the prefix that would be announced."""
    lengths = {4: resource.spec.aggregation_length, 6: resource.spec.aggregation_length_v6}
    fields = {4: "aggregationLength", 6: "aggregationLengthV6"}
    for block in (block for pool in pools for block in pool.blocks if block.networks):
        family = block.networks[0].version
        widest = min(network.prefixlen for network in block.networks)
        if lengths[family] < widest:
            why = f"prefix {widest} in this pool is more specific than the aggregation length for addresses"
            message = f"invalid aggregation length {lengths[family]}: {why} {block.text}"
            yield problem(resource, ("spec", fields[family]), message)


def preference_problems(
    resources: Sequence[tuple[BGPAdvertisement, BgpAdvertisement]], pools: Sequence[Pool], nodes: Sequence[Node]
) -> Iterator[Problem]:
    """A problem for each advertisement that gives another local preference to what an earlier one announces too.

    Advertisements with service selectors are left out: whether they meet depends on the services.
    """
    general = [(resource, advertisement) for resource, advertisement in resources if not advertisement.scope.services]
    for index, (resource, advertisement) in enumerate(general):
        for _, other in general[:index]:
            shared = [pool for pool in pools if pool.name in advertisement.scope.pools & other.scope.pools]
            together = any(advertisement.scope.has_node(node) and other.scope.has_node(node) for node in nodes)
            if together and any(preferences_clash(advertisement, other, pool) for pool in shared):
                message = f"local preference {other.local_pref} was already set for the same type of BGP update"
                where = f'by "{other.name}"; check advertisements with common pools and aggregation lengths'
                text = f"invalid local preference {advertisement.local_pref}: {message} {where}"
                yield problem(resource, ("spec", "localPref"), text)
                break


def preferences_clash(one: BgpAdvertisement, other: BgpAdvertisement, pool: Pool) -> bool:
    """Whether both give the same prefix of the pool, told to the same peer, different local preferences."""
    if one.local_pref == other.local_pref:
        return False
    if one.peers and other.peers and not set(one.peers) & set(other.peers):
        return False
    return any(one.lengths[family] == other.lengths[family] for family in (4, 6) if pool.has_family(family))


def _scope(resource: BGPAdvertisement | L2Advertisement, pools: Sequence[IPAddressPool]) -> Scope:
    spec = resource.spec
    names = {pool.name for pool in pools}
    if spec.ip_address_pools or spec.ip_address_pool_selectors:
        matching = (pool for pool in pools for selector in spec.ip_address_pool_selectors if _matches(selector, pool))
        names = names & set(spec.ip_address_pools) | {pool.name for pool in matching}
    return Scope(frozenset(names), spec.node_selectors, spec.service_selectors)


def _matches(selector: LabelSelector, pool: IPAddressPool) -> bool:
    return selector.matches(pool.metadata.labels)


def _selection_problems(resource: BGPAdvertisement | L2Advertisement) -> Iterator[Problem]:
    spec = resource.spec
    yield from duplicate_values(resource, ("spec", "ipAddressPools"), spec.ip_address_pools, "ipAddressPools")
    path = ("spec", "ipAddressPoolSelectors")
    yield from selector_problems(resource, path, spec.ip_address_pool_selectors)
    yield from selector_problems(resource, ("spec", "nodeSelectors"), spec.node_selectors)
    yield from selector_problems(resource, ("spec", "serviceSelectors"), spec.service_selectors)


def _length_problems(resource: BGPAdvertisement) -> Iterator[Problem]:
    spec = resource.spec
    fields = (("aggregationLength", spec.aggregation_length, 4), ("aggregationLengthV6", spec.aggregation_length_v6, 6))
    for name, length, family in fields:
        if not 1 <= length <= HOST_LENGTH[family]:
            yield problem(resource, ("spec", name), f"invalid aggregation length {length} for IPv{family}")
        elif spec.service_selectors and length != HOST_LENGTH[family]:
            message = f"serviceSelectors and {name} are mutually exclusive"
            yield problem(resource, ("spec", name), f"{message}, except for the default, {HOST_LENGTH[family]}")


def _no_community(text: str) -> str:
    """Why the text is no community; empty when it is one."""
    try:
        read_community(text)
    except ValueError as error:
        return f'invalid community "{text}" in BGP advertisement: {error}'
    return ""
