"""MetalLB's configuration as a whole: all resources read and checked together.

`validate` says what the real program would refuse (and the few things that only FRR would), `read` gives the
configuration. As in the program, one mistake refuses the whole configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from testbed.compile.kube.metallb.advertisements import (
    BgpAdvertisement,
    Layer2Advertisement,
    aggregation_problems,
    aliases,
    bgp_problems,
    community_problems,
    l2_problems,
    preference_problems,
    read_bgp,
    read_l2,
)
from testbed.compile.kube.metallb.common import problem
from testbed.compile.kube.metallb.peers import Peer, conflicts, peer_problems, read_peer
from testbed.compile.kube.metallb.pools import Address, Pool, overlaps, pool_problems, read_pool
from testbed.errors import InputError, Problem
from testbed.model.kube import KubeObject, Node
from testbed.model.metallb import (
    KINDS,
    BFDProfile,
    BGPAdvertisement,
    BGPPeer,
    Community,
    IPAddressPool,
    L2Advertisement,
)
from testbed.model.workloads import Secret

NAMESPACE = "metallb-system"

K = TypeVar("K", bound=KubeObject)


@dataclass(frozen=True, slots=True)
class Config:
    """What MetalLB works with; everything is sorted by name."""

    pools: tuple[Pool, ...] = ()
    peers: tuple[Peer, ...] = ()
    bgp: tuple[BgpAdvertisement, ...] = ()
    l2: tuple[Layer2Advertisement, ...] = ()
    bfd: tuple[BFDProfile, ...] = ()

    def pool(self, name: str) -> Pool | None:
        """The pool of that name."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def pool_of(self, addresses: Sequence[Address]) -> Pool | None:
        """The pool that holds all of the addresses; None where there is none (or no address)."""
        holders = (pool for pool in self.pools if all(address in pool for address in addresses))
        return next(holders, None) if addresses else None


@dataclass(frozen=True, slots=True)
class _Resources:
    """MetalLB's own resources among many, sorted by name, without those of other namespaces."""

    pools: tuple[IPAddressPool, ...]
    peers: tuple[BGPPeer, ...]
    bgp: tuple[BGPAdvertisement, ...]
    l2: tuple[L2Advertisement, ...]
    bfd: tuple[BFDProfile, ...]
    communities: tuple[Community, ...]
    secrets: dict[str, Secret]
    nodes: tuple[Node, ...]
    elsewhere: tuple[KubeObject, ...] = field(default=())


def validate(objects: Iterable[KubeObject], namespace: str = NAMESPACE) -> list[Problem]:
    """What is wrong with MetalLB's resources among the objects.

    Args:
        objects: of any kind; the Nodes among them decide which peers and advertisements meet.
        namespace: the one MetalLB runs in. It reads its resources there only.
    """
    objects = tuple(objects)
    resources = _resources(objects, namespace)
    found = [problem(one, (), _elsewhere(one, namespace)) for one in resources.elsewhere]
    found += _twice(objects)
    found += _one_by_one(resources)
    return found or list(_together(resources))


def read(objects: Iterable[KubeObject], namespace: str = NAMESPACE) -> Config:
    """The configuration that the objects make. Raises InputError with every problem that `validate` finds."""
    objects = tuple(objects)
    if problems := validate(objects, namespace):
        raise InputError(problems)
    resources = _resources(objects, namespace)
    names = aliases(resources.communities)
    return Config(
        pools=tuple(read_pool(pool) for pool in resources.pools),
        peers=tuple(read_peer(peer, resources.secrets) for peer in resources.peers),
        bgp=tuple(read_bgp(one, resources.pools, names) for one in resources.bgp),
        l2=tuple(read_l2(one, resources.pools) for one in resources.l2),
        bfd=resources.bfd,
    )


def _resources(objects: Sequence[KubeObject], namespace: str) -> _Resources:
    here = [one for one in objects if isinstance(one, KINDS) and one.namespace == namespace]
    elsewhere = (one for one in objects if isinstance(one, KINDS) and one.namespace != namespace)
    return _Resources(
        pools=_of(here, IPAddressPool),
        peers=_of(here, BGPPeer),
        bgp=_of(here, BGPAdvertisement),
        l2=_of(here, L2Advertisement),
        bfd=_of(here, BFDProfile),
        communities=_of(here, Community),
        secrets={secret.name: secret for secret in _of(objects, Secret) if secret.namespace == namespace},
        nodes=_of(objects, Node),
        elsewhere=tuple(elsewhere),
    )


def _of(objects: Iterable[KubeObject], kind: type[K]) -> tuple[K, ...]:
    return tuple(sorted((one for one in objects if isinstance(one, kind)), key=lambda one: one.name))


def _elsewhere(resource: KubeObject, namespace: str) -> str:
    return f'is in namespace "{resource.namespace}", where MetalLB does not look: it reads "{namespace}" only'


def _twice(objects: Sequence[KubeObject]) -> Iterator[Problem]:
    ours = [one for one in objects if isinstance(one, KINDS)]
    count = Counter((one.kind, one.key) for one in ours)
    seen: set[tuple[str, str]] = set()
    for one in ours:
        name = (one.kind, one.key)
        if count[name] > 1 and name in seen:
            yield problem(one, ("metadata", "name"), f'duplicate definition of {one.kind} "{one.name}"')
        seen.add(name)


def _one_by_one(resources: _Resources) -> Iterator[Problem]:
    names = aliases(resources.communities)
    profiles = [profile.name for profile in resources.bfd]
    for pool in resources.pools:
        yield from pool_problems(pool)
    yield from overlaps(resources.pools)
    for peer in resources.peers:
        yield from peer_problems(peer, resources.secrets, profiles)
    yield from community_problems(resources.communities)
    for l2 in resources.l2:
        yield from l2_problems(l2)
    for bgp in resources.bgp:
        yield from bgp_problems(bgp, names)


def _together(resources: _Resources) -> Iterator[Problem]:
    """What is wrong between resources that are well by themselves."""
    names = aliases(resources.communities)
    pools = [read_pool(pool) for pool in resources.pools]
    peers = [(peer, read_peer(peer, resources.secrets)) for peer in resources.peers]
    advertisements = [(one, read_bgp(one, resources.pools, names)) for one in resources.bgp]
    yield from conflicts(peers, resources.nodes)
    for resource, advertisement in advertisements:
        its_pools = [pool for pool in pools if pool.name in advertisement.scope.pools]
        yield from aggregation_problems(resource, its_pools)
        yield from _echo_problems(resource, its_pools, [peer for _, peer in peers], resources.bfd)
    yield from preference_problems(advertisements, pools, resources.nodes)


def _echo_problems(
    resource: BGPAdvertisement, pools: Sequence[Pool], peers: Sequence[Peer], profiles: Sequence[BFDProfile]
) -> Iterator[Problem]:
    """BFD's echo mode does not exist for IPv6 (FRR: bfdd), so MetalLB wants no IPv6 pool told to such a peer."""
    echoing = {profile.name for profile in profiles if profile.spec.echo_mode}
    told = [peer for peer in peers if not resource.spec.peers or peer.name in resource.spec.peers]
    for pool in (pool for pool in pools if pool.has_family(6)):
        for peer in (peer for peer in told if peer.bfd in echoing):
            message = f"pool {pool.name} has bgpadvertisement {resource.name} which references peer {peer.name}"
            yield problem(resource, ("spec",), f"{message} which has bfd echo enabled, which is not possible")
