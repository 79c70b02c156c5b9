"""Address pools: their addresses in order, whom they serve, and what MetalLB refuses in them.

Behaviour after MetalLB's documentation and recordings of the program; addresses are `ipaddress` objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)

from testbed.compile.kube.metallb.common import duplicate_values, problem, selector_problems
from testbed.errors import Problem
from testbed.model.kube import Namespace, Service
from testbed.model.metallb import IPAddressPool, LabelSelector, ServiceAllocation

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNCOUNTABLE_BITS = 62  # MetalLB counts a network with this many host bits or more as the largest int64
LARGEST_COUNT = 2**63 - 1
_NAME_LABEL = "kubernetes.io/metadata.name"  # the API server puts it on every Namespace


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of a pool's `addresses` and the networks it stands for (none for a range between families)."""

    text: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as MetalLB works with it. `pinned` is None when it serves everybody."""

    name: str
    blocks: tuple[Block, ...]
    auto_assign: bool = True
    avoid_buggy: bool = False
    pinned: ServiceAllocation | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        return tuple(network for block in self.blocks for network in block.networks)

    def has_family(self, family: int) -> bool:
        """Whether any of its networks is of the IP version `family` (4 or 6)."""
        return any(network.version == family for network in self.networks)

    def __contains__(self, address: Address) -> bool:
        return not self._avoids(address) and any(address in network for network in self.networks)

    def addresses(self, family: int) -> Iterator[Address]:
        """Its usable addresses of one IP version, in the order in which they are handed out."""
        for network in self.networks:
            if network.version == family:
                yield from (address for address in network if not self._avoids(address))

    def size(self, family: int) -> int:
        """How many usable addresses of one IP version it has, as MetalLB counts them."""
        count = sum(self._usable(network) for network in self.networks if network.version == family)
        return min(count, LARGEST_COUNT)

    def namespaces(self, namespaces: Sequence[Namespace]) -> frozenset[str]:
        """The names of the namespaces it is pinned to, of which selectors find those given."""
        if self.pinned is None:
            return frozenset()
        found = {ns.name for ns in namespaces if _selects(self.pinned.namespace_selectors, ns)}
        return frozenset(self.pinned.namespaces) | found

    def compatible(self, service: Service, namespaces: frozenset[str]) -> bool:
        """Whether its pinning allows the service, given the namespaces it is pinned to."""
        if self.pinned is None:
            return True
        if namespaces and service.namespace not in namespaces:
            return False
        selectors = self.pinned.service_selectors
        return not selectors or any(selector.matches(service.metadata.labels) for selector in selectors)

    def attracts(self, service: Service, namespaces: frozenset[str]) -> bool:
        """Whether it is pinned so that the service goes to it without asking.

        A pool without any namespace or selector in its `serviceAllocation` is pinned to every service.
        """
        if self.pinned is None or not self.auto_assign or not self.compatible(service, namespaces):
            return False
        unrestricted = not self.pinned.namespaces and not self.pinned.namespace_selectors
        return service.namespace in namespaces or bool(self.pinned.service_selectors) or unrestricted

    def _avoids(self, address: Address) -> bool:
        return self.avoid_buggy and confuses_buggy_devices(address)

    def _usable(self, network: Network) -> int:
        host_bits = network.max_prefixlen - network.prefixlen
        if host_bits >= UNCOUNTABLE_BITS:
            return LARGEST_COUNT
        buggy = _buggy_addresses(network) if self.avoid_buggy else 0
        return int(network.num_addresses) - buggy


def confuses_buggy_devices(address: Address) -> bool:
    """Whether `avoidBuggyIPs` keeps clear of the address: IPv4 that ends in .0 or .255."""
    return address.version == 4 and int(address) & 0xFF in (0, 0xFF)


def parse_block(text: str) -> tuple[Network, ...]:
    """The networks of one `addresses` entry: "192.0.2.0/24" or "192.0.2.10-192.0.2.20", a range in the fewest networks.

    A range whose ends are of different families is accepted and empty, as in MetalLB. Raises ValueError otherwise.
    """
    if "-" not in text:
        return (_network(text),)
    first, last = (part.strip() for part in text.split("-", 1))
    start, end = _range_end(text, "start", first), _range_end(text, "end", last)
    if _sixteen_bytes(start) > _sixteen_bytes(end):
        raise ValueError(f'invalid IP range "{text}": start IP "{start}" is after the end IP "{end}"')
    if isinstance(start, IPv4Address) and isinstance(end, IPv4Address):
        return tuple(summarize_address_range(start, end))
    if isinstance(start, IPv6Address) and isinstance(end, IPv6Address):
        return tuple(summarize_address_range(start, end))
    return ()


def parse_address(text: str) -> Address | None:
    """The address, or None where the text is none (nor one that Go's net.ParseIP takes: no zone)."""
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def read_pool(resource: IPAddressPool) -> Pool:
    """The pool of a resource; entries that do not parse are empty (`pool_problems` names them)."""
    spec = resource.spec
    blocks = tuple(Block(text, _networks_or_none(text)) for text in spec.addresses)
    return Pool(resource.name, blocks, spec.auto_assign, spec.avoid_buggy_ips, spec.service_allocation)


def pool_problems(resource: IPAddressPool) -> Iterator[Problem]:
    """What is wrong with one pool by itself."""
    if not resource.spec.addresses:
        yield problem(resource, ("spec", "addresses"), "pool has no prefixes defined")
    for index, text in enumerate(resource.spec.addresses):
        try:
            parse_block(text)
        except ValueError as error:
            yield problem(resource, ("spec", "addresses", index), str(error))
    if resource.spec.service_allocation is not None:
        yield from _pinning_problems(resource, resource.spec.service_allocation)


def overlaps(resources: Sequence[IPAddressPool]) -> Iterator[Problem]:
    """A problem for each network that shares addresses with another, in the same pool or in two."""
    placed = [
        (network, resource, index)
        for resource in resources
        for index, block in enumerate(read_pool(resource).blocks)
        for network in block.networks
    ]
    for (network, resource, index), (other, _, _) in _overlapping(placed):
        message = f'CIDR "{network}" in pool "{resource.name}" overlaps with already defined CIDR "{other}"'
        yield problem(resource, ("spec", "addresses", index), message)


_Placed = tuple[Network, IPAddressPool, int]


def _overlapping(placed: Sequence[_Placed]) -> Iterator[tuple[_Placed, _Placed]]:
    """Pairs (later in the file, earlier in the file) of networks that overlap.

    CIDR networks overlap only by containment, so it is enough to compare each with the last that reaches furthest.
    """
    order = {id(entry): position for position, entry in enumerate(placed)}
    furthest: _Placed | None = None
    for entry in sorted(
        placed, key=lambda entry: (entry[0].version, int(entry[0].network_address), entry[0].prefixlen)
    ):
        if furthest is not None and _within(entry[0], furthest[0]):
            later, earlier = (entry, furthest) if order[id(entry)] > order[id(furthest)] else (furthest, entry)
            yield later, earlier
        else:
            furthest = entry


def _within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.network_address in other


def _pinning_problems(resource: IPAddressPool, pinned: ServiceAllocation) -> Iterator[Problem]:
    path = ("spec", "serviceAllocation")
    yield from duplicate_values(resource, (*path, "namespaces"), pinned.namespaces, "namespaces")
    yield from selector_problems(resource, (*path, "namespaceSelectors"), pinned.namespace_selectors)
    yield from selector_problems(resource, (*path, "serviceSelectors"), pinned.service_selectors)


def _selects(selectors: Sequence[LabelSelector], namespace: Namespace) -> bool:
    labels = {_NAME_LABEL: namespace.name} | namespace.metadata.labels
    return any(selector.matches(labels) for selector in selectors)


def _networks_or_none(text: str) -> tuple[Network, ...]:
    try:
        return parse_block(text)
    except ValueError:
        return ()


def _network(text: str) -> Network:
    """A network with the length of its prefix: neither an address alone nor a dotted netmask will do."""
    has_length = re.search(r"/[0-9]+\Z", text) and "%" not in text
    try:
        return ip_network(text if has_length else "", strict=False)
    except ValueError:
        raise ValueError(f'invalid CIDR "{text}"') from None


def _range_end(text: str, which: str, written: str) -> Address:
    address = parse_address(written)
    if address is None:
        raise ValueError(f'invalid IP range "{text}": invalid {which} IP "{written}"')
    return address


def _sixteen_bytes(address: Address) -> int:
    """The address as Go compares it: IPv4 in its IPv6-mapped form."""
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def _buggy_addresses(network: Network) -> int:
    """How many addresses of the network end in .0 or .255."""
    if network.version == 6:
        return 0
    if network.prefixlen <= 24:
        return 2 << (24 - network.prefixlen)
    ends = {network.network_address, network.broadcast_address}
    return sum(confuses_buggy_devices(address) for address in ends)
