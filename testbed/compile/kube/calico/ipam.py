"""Calico's address management: which node owns which block of a pool, and which pod has which address.

The rules are those of upstream libcalico-go/lib/ipam with its default configuration (no strict affinity): a pod's
address comes from a block that its node owns in an allowed pool, else from the first free block the node finds (see
calico_random), else, when a pool is exhausted, from a block of another node. The time of day plays no part: what
upstream does after a minute (taking over an empty block) is not done.

Requests are answered in order, so a pod that is added last never changes the address of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal, NoReturn

from testbed.compile.kube.calico import selector
from testbed.compile.kube.calico.random import block_indices
from testbed.errors import InputError, Position, Problem
from testbed.model.calico import IPPool
from testbed.model.kube import Metadata

Family = Literal[4, 6]
IPAddress = IPv4Address | IPv6Address

_PREFIX = "cni.projectcalico.org/"
_WRITTEN_BY_CALICO = frozenset({"podIP", "podIPs", "containerID"})
_LENGTH = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class Request:
    """A pod that wants addresses.

    Args:
        pod: namespace/name.
        node: the host it runs on.
        families: one address of each is given, in this order.
        node_labels, namespace_labels: what pools' nodeSelector and namespaceSelector see.
        ipv4_pools, ipv6_pools: names or prefixes of the only pools to use, in order; empty for all that select the pod.
        addresses: exactly these addresses are given, none is chosen.
        position: where the pod was written, for errors.
    """

    pod: str
    node: str
    families: tuple[Family, ...] = (4,)
    node_labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    position: Position | None = None

    def named_pools(self, family: Family) -> tuple[str, ...]:
        return self.ipv4_pools if family == 4 else self.ipv6_pools


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who has what.

    Args:
        addresses: pod (namespace/name) → its addresses without prefix length, in the order of its families.
        blocks: node → prefixes of the blocks it owns, sorted by address, IPv4 first; a node without any is absent.
    """

    addresses: Mapping[str, tuple[str, ...]]
    blocks: Mapping[str, tuple[str, ...]]


def request(
    pod: Metadata,
    namespace: Metadata,
    node: Metadata,
    families: tuple[Family, ...],
    position: Position | None = None,
) -> Request:
    """The request of a pod, with what its annotations and its namespace's say (the pod's come first).

    Read are cni.projectcalico.org/ipv4pools, ipv6pools (lists in JSON) and, on a pod, ipAddrs; podIP, podIPs and
    containerID are what Calico itself writes. Raises InputError for any other annotation of that prefix, and for one
    that cannot be read.
    """
    key = f"{pod.namespace or 'default'}/{pod.name}"
    problems: list[Problem] = []
    chosen = {
        **_annotations(f"namespace {namespace.name}", namespace, ("ipv4pools", "ipv6pools"), position, problems),
        **_annotations(f"pod {key}", pod, ("ipv4pools", "ipv6pools", "ipAddrs"), position, problems),
    }
    if problems:
        raise InputError(problems)
    return Request(
        pod=key,
        node=node.name,
        families=families,
        node_labels=node.labels,
        namespace_labels=namespace.labels,
        ipv4_pools=chosen.get("ipv4pools", ()),
        ipv6_pools=chosen.get("ipv6pools", ()),
        addresses=chosen.get("ipAddrs", ()),
        position=position,
    )


def assign(pools: Sequence[IPPool], requests: Iterable[Request]) -> Assignment:
    """The addresses of all pods and the blocks of all nodes.

    Raises InputError with a problem for every request that cannot be met, and for every selector that cannot be read.
    """
    ipam = Ipam(pools)
    problems: list[Problem] = []
    addresses: dict[str, tuple[str, ...]] = {}
    for wanted in requests:
        try:
            addresses[wanted.pod] = ipam.assign(wanted)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return Assignment(addresses, ipam.blocks())


@dataclass(slots=True)
class _Block:
    """`free` is a queue: addresses are taken from its front, and go back to its end."""

    network: Any  # IPv4Network | IPv6Network: indexed alike, of which mypy cannot be told
    owner: str
    free: list[int]

    @property
    def name(self) -> str:
        """As in the name of its resource, which is what blocks are listed by."""
        return str(self.network).translate(str.maketrans(".:/", "---"))

    def take(self) -> IPAddress | None:
        return self._address(self.free.pop(0)) if self.free else None

    def take_exactly(self, address: IPAddress) -> bool:
        ordinal = int(address) - int(self.network.network_address)
        if ordinal not in self.free:
            return False
        self.free.remove(ordinal)
        return True

    def give_back(self, address: IPAddress) -> None:
        self.free.append(int(address) - int(self.network.network_address))

    def _address(self, ordinal: int) -> IPAddress:
        found: IPAddress = self.network[ordinal]
        return found


class Ipam:
    """The state of a cluster's pools while requests are answered one after the other.

    Args:
        pools: all IPPools of the cluster, in any order: they are used in the order of their names.
    """

    def __init__(self, pools: Sequence[IPPool]) -> None:
        self._pools = sorted(pools, key=lambda pool: pool.name)
        self._blocks: dict[str, _Block] = {}
        self._taken: dict[str, list[IPAddress]] = {}
        if problems := [problem for pool in self._pools for problem in _selector_problems(pool)]:
            raise InputError(problems)

    def assign(self, request: Request) -> tuple[str, ...]:
        """Takes the addresses that the request asks for; a pod that has some already keeps them.

        Raises InputError, and takes nothing, when it cannot.
        """
        if request.pod in self._taken:
            return tuple(str(address) for address in self._taken[request.pod])
        taken: list[IPAddress] = []
        try:
            if request.addresses:
                taken += self._take_requested(request)
            else:
                for family in request.families:
                    taken.append(self._take_any(request, family))
        except InputError:
            self._return(taken)
            raise
        self._taken[request.pod] = taken
        return tuple(str(address) for address in taken)

    def release(self, pod: str) -> None:
        """Returns the addresses of `pod` (namespace/name); the blocks stay with their nodes."""
        self._return(self._taken.pop(pod, []))

    def blocks(self) -> dict[str, tuple[str, ...]]:
        """Node → the prefixes of its blocks, by address, IPv4 first."""
        owned: dict[str, list[Any]] = {}
        for block in self._blocks.values():
            owned.setdefault(block.owner, []).append(block.network)
        order = sorted(owned.items())
        return {
            node: tuple(str(network) for network in sorted(networks, key=lambda network: (network.version, network)))
            for node, networks in order
        }

    def free(self, block: str) -> tuple[int, ...]:
        """The ordinals of the addresses of `block` (a prefix) that are free, in the order they will be given out."""
        return tuple(self._blocks[block].free)

    def _take_any(self, request: Request, family: Family) -> IPAddress:
        pools = self._allowed_pools(request, family)
        return (
            self._from_own_block(request.node, pools)
            or self._from_new_block(request.node, pools)
            or self._borrowed(request.node, pools)
            or _fail(request, f"no address is left in the pools {', '.join(pool.spec.cidr for pool in pools)}")
        )

    def _allowed_pools(self, request: Request, family: Family) -> list[IPPool]:
        enabled = [pool for pool in self._pools if not pool.spec.disabled and pool.spec.network.version == family]
        if named := request.named_pools(family):
            return [_named_pool(enabled, name, request) for name in named]
        usable = [pool for pool in enabled if _is_automatic(pool)]
        allowed = [pool for pool in usable if _selects(pool, request)]
        if not usable:
            _fail(request, f"there is no enabled IPPool for IPv{family} addresses of pods")
        if not allowed:
            _fail(request, f"no IPv{family} IPPool selects node {request.node} and the pod's namespace")
        return allowed

    def _from_own_block(self, node: str, pools: Sequence[IPPool]) -> IPAddress | None:
        own = [block for block in self._blocks.values() if block.owner == node and _is_within(block, pools)]
        for block in sorted(own, key=lambda block: block.name):
            if address := block.take():
                return address
        return None

    def _from_new_block(self, node: str, pools: Sequence[IPPool]) -> IPAddress | None:
        for pool in pools:
            for prefix in _block_prefixes(pool, node):
                if prefix not in self._blocks:
                    return self._claim(prefix, node).take()
        return None

    def _borrowed(self, node: str, pools: Sequence[IPPool]) -> IPAddress | None:
        for pool in pools:
            for prefix in _block_prefixes(pool, node):
                if (block := self._blocks.get(prefix)) and (address := block.take()):
                    return address
        return None

    def _take_requested(self, request: Request) -> list[IPAddress]:
        wanted = [_parsed_address(text, request) for text in request.addresses]
        if len({address.version for address in wanted}) != len(wanted):
            _fail(request, f"ipAddrs {', '.join(request.addresses)}: at most one address of each family")
        blocks = [self._block_of(address, request) for address in wanted]
        for block, address in zip(blocks, wanted, strict=True):
            if int(address) - int(block.network.network_address) not in block.free:
                _fail(request, f"the requested address {address} is already assigned")
        for block, address in zip(blocks, wanted, strict=True):
            block.take_exactly(address)
        return wanted

    def _block_of(self, address: IPAddress, request: Request) -> _Block:
        """The block of a requested address; a free one becomes the node's."""
        for pool in self._pools:
            if not pool.spec.disabled and address in pool.spec.network:
                size = pool.spec.effective_block_size
                prefix = str(ip_network(f"{address}/{size}", strict=False))
                return self._blocks.get(prefix) or self._claim(prefix, request.node)
        return _fail(request, f"the requested address {address} is in no enabled IPPool")

    def _claim(self, prefix: str, node: str) -> _Block:
        network = ip_network(prefix)
        block = _Block(network, node, list(range(network.num_addresses)))
        self._blocks[prefix] = block
        return block

    def _return(self, addresses: Iterable[IPAddress]) -> None:
        for address in addresses:
            next(block for block in self._blocks.values() if address in block.network).give_back(address)


def _block_prefixes(pool: IPPool, node: str) -> Iterable[str]:
    """The prefixes of all blocks of `pool`, in the order in which `node` tries them.

    For blocks of a single address upstream starts at a place that depends on the time; here, too, on the node's name.
    """
    size = pool.spec.effective_block_size
    base = int(pool.spec.network.network_address)
    width = _LENGTH[pool.spec.network.version] - size
    kind = IPv4Address if pool.spec.network.version == 4 else IPv6Address
    for index in block_indices(node, 1 << (size - pool.spec.network.prefixlen)):
        yield f"{kind(base + (index << width))}/{size}"


def _is_automatic(pool: IPPool) -> bool:
    return "Workload" in pool.spec.allowed_uses and pool.spec.assignment_mode == "Automatic"


def _selects(pool: IPPool, request: Request) -> bool:
    return selector.matches(pool.spec.node_selector, request.node_labels) and selector.matches(
        pool.spec.namespace_selector, request.namespace_labels
    )


def _is_within(block: _Block, pools: Sequence[IPPool]) -> bool:
    return any(block.network.network_address in pool.spec.network for pool in pools)


def _named_pool(enabled: Sequence[IPPool], name: str, request: Request) -> IPPool:
    """A pool that is asked for by name or prefix is used whatever it selects."""
    for pool in enabled:
        if name in (pool.name, pool.spec.cidr):
            return pool
    return _fail(request, f"the requested IPPool {name} does not exist, is disabled or is of the other family")


def _selector_problems(pool: IPPool) -> Iterable[Problem]:
    fields = {"nodeSelector": pool.spec.node_selector, "namespaceSelector": pool.spec.namespace_selector}
    for name, text in fields.items():
        try:
            selector.parse(text)
        except ValueError as error:
            yield Problem(f"IPPool {pool.name}: {name}: {error}", pool.origin.at("spec", name))


def _parsed_address(text: str, request: Request) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        return _fail(request, f"the requested address {text!r} is not an IP address")


def _fail(request: Request, message: str) -> NoReturn:
    raise InputError([Problem(f"pod {request.pod}: {message}", request.position)])


def _annotations(
    owner: str, metadata: Metadata, known: Sequence[str], position: Position | None, problems: list[Problem]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, text in metadata.annotations.items():
        name = key.removeprefix(_PREFIX)
        if name == key or name in _WRITTEN_BY_CALICO:
            continue
        if name not in known:
            problems.append(Problem(f"{owner}: annotation {key} is not supported", position))
        elif (values := _json_list(text)) is None:
            problems.append(Problem(f"{owner}: annotation {key}: {text!r} is not a JSON list of strings", position))
        else:
            found[name] = values
    return found


def _json_list(text: str) -> tuple[str, ...] | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return tuple(values) if is_list else None
