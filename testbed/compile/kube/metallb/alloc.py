"""Which addresses the Services of type LoadBalancer get: the work of MetalLB's controller.

Behaviour after MetalLB's documentation and recordings of the program. Services are served in the order given; where
the program chooses at random among pools, the first by name is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.compile.kube.metallb.config import Config
from testbed.compile.kube.metallb.pools import Address, Pool
from testbed.compile.kube.metallb.services import (
    ADDRESSES,
    ALLOCATED_FROM,
    OLD_PREFIX,
    POOL,
    PREFIX,
    SHARING,
    RefusedError,
    annotation,
    concerns,
    families,
    fits_families,
    ingress_addresses,
    place_of,
    quoted,
    requested,
    still_wanted,
    wishes,
)
from testbed.errors import Problem
from testbed.model.kube import LoadBalancerIngress, LoadBalancerStatus, Namespace, Service, ServiceStatus


@dataclass(frozen=True, slots=True)
class Event:
    """What the controller would record at a Service, with its reasons and words."""

    service: str
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """A pool's addresses by IP version, as the status of an IPAddressPool shows them."""

    assigned4: int = 0
    assigned6: int = 0
    available4: int = 0
    available6: int = 0


@dataclass(frozen=True, slots=True)
class Allocation:
    """The outcome, by the key ("namespace/name") of each Service or the name of each pool.

    Args:
        ingress: addresses, IPv4 first; Services without any are left out.
        pools: the pool of each Service that has addresses.
        problems: one for each Service that should have addresses and got none.
    """

    ingress: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pools: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, Counters] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    problems: tuple[Problem, ...] = ()


def allocate(
    services: Sequence[Service], config: Config, namespaces: Sequence[Namespace] = (), lb_class: str = ""
) -> Allocation:
    """Give addresses to the Services of type LoadBalancer.

    Args:
        services: in the order in which they are served. Addresses that their status holds already are kept as far as
            the configuration still allows it, before any new one is given.
        namespaces: those whose labels a pool's namespaceSelectors may ask for.
        lb_class: the `loadBalancerClass` that MetalLB is responsible for; empty: Services without a class.
    """
    ours = [service for service in services if concerns(service, lb_class)]
    if not config.pools:
        return Allocation(problems=tuple(_problem(service, "there is no IPAddressPool") for service in ours))
    book = _Book(config, {pool.name: pool.namespaces(namespaces) for pool in config.pools})
    kept = {service.key: book.keep(service) for service in ours}
    for service in ours:
        book.serve(service, kept[service.key])
    return book.allocation()


def assigned(services: Iterable[Service], allocation: Allocation, lb_class: str = "") -> tuple[Service, ...]:
    """The same Services, with the outcome in their status and annotation, as the controller writes them.

    Services of another load balancer class are left as they are.
    """
    return tuple(
        _with(service, allocation) if service.spec.load_balancer_class == lb_class else service for service in services
    )


@dataclass(frozen=True, slots=True)
class _Use:
    """How a Service uses its addresses: what decides whether another may share them."""

    sharing: str
    backends: tuple[tuple[str, str], ...] | None  # the selector where only the same one may share; None for any
    ports: frozenset[tuple[str, int]]


class _Book:
    """Who has which address."""

    def __init__(self, config: Config, pinned: Mapping[str, frozenset[str]]) -> None:
        self._config = config
        self._pinned = pinned
        self._users: dict[Address, dict[str, _Use]] = {}
        self._held: dict[str, tuple[Pool, tuple[Address, ...]]] = {}
        self._events: list[Event] = []
        self._problems: list[Problem] = []

    def keep(self, service: Service) -> bool:
        """Let the Service keep the addresses of its status, if it may and still wants them."""
        addresses = ingress_addresses(service)
        if not addresses or not fits_families(service, addresses):
            return False
        try:
            pool = self._assign(service, addresses)
        except RefusedError as reason:
            text = f'current IP for "{service.key}" not allowed by config, will attempt for new IP assignment: {reason}'
            self._events.append(Event(service.key, "ClearAssignment", text))
            return False
        if not still_wanted(service, pool, addresses):
            self._release(service)
            return False
        return True

    def serve(self, service: Service, kept: bool) -> None:
        """Give the Service addresses, or a second one where it prefers to be dual stack."""
        if kept:
            self._complete(service)
            return
        try:
            addresses = self._allocate(service)
        except RefusedError as reason:
            text = f'Failed to allocate IP for "{service.key}": {reason}'
            self._events.append(Event(service.key, "AllocationFailed", text, warning=True))
            self._problems.append(_problem(service, str(reason), reason.place))
        else:
            self._events.append(Event(service.key, "IPAllocated", f"Assigned IP {quoted(addresses)}"))
        self._warn_of_old_annotations(service)

    def allocation(self) -> Allocation:
        """All that has been decided."""
        ordered = {key: sorted(addresses, key=lambda one: one.version) for key, (_, addresses) in self._held.items()}
        return Allocation(
            ingress={key: tuple(map(str, addresses)) for key, addresses in ordered.items()},
            pools={key: pool.name for key, (pool, _) in self._held.items()},
            counters={pool.name: self._counters(pool) for pool in self._config.pools},
            events=tuple(self._events),
            problems=tuple(self._problems),
        )

    def _allocate(self, service: Service) -> tuple[Address, ...]:
        wanted, place = requested(service)
        pool_name = annotation(service, POOL)
        if wanted:
            return self._requested(service, wanted, place, pool_name)
        if pool_name:
            return self._from_named_pool(service, pool_name)
        for wish in wishes(service):
            for pool in self._candidates(service):
                if addresses := self._free(service, pool, wish):
                    self._assign(service, addresses)
                    return addresses
        raise RefusedError("no available IPs", "spec", "type")

    def _requested(
        self, service: Service, wanted: tuple[Address, ...], place: tuple[str, ...], pool_name: str
    ) -> tuple[Address, ...]:
        if {address.version for address in wanted} != set(families(service)):
            text = f"requested loadBalancer IP(s) {quoted(wanted)} does not match the ipFamily of the service"
            raise RefusedError(text, *place)
        try:
            pool = self._assign(service, wanted)
        except RefusedError as reason:
            raise RefusedError(str(reason), *place) from None
        if pool_name not in ("", pool.name):
            self._release(service)
            asked = f"requested loadBalancer IP(s) {quoted(wanted)}"
            text = f"{asked} is not compatible with requested address pool {pool_name}"
            raise RefusedError(text, *place)
        return wanted

    def _from_named_pool(self, service: Service, name: str) -> tuple[Address, ...]:
        place = place_of(service, POOL)
        pool = self._config.pool(name)
        if pool is None:
            raise RefusedError(f'unknown pool "{name}"', *place)
        if not pool.compatible(service, self._pinned[name]):
            raise RefusedError(f"pool {name} not compatible for ip assignment", *place)
        for wish in wishes(service):
            if addresses := self._free(service, pool, wish):
                self._assign(service, addresses)
                return addresses
        for family in wishes(service)[-1]:
            if not pool.has_family(family):
                raise RefusedError(f"pool {name} has no IPv{family} addresses", *place)
        raise RefusedError(f"no available IPs in pool {name}", *place)

    def _candidates(self, service: Service) -> list[Pool]:
        """The pools the Service may get addresses from without asking, the first choice first."""
        attracted = [pool for pool in self._config.pools if pool.attracts(service, self._pinned[pool.name])]
        attracted.sort(key=_rank)
        return attracted + [pool for pool in self._config.pools if pool.auto_assign and pool.pinned is None]

    def _free(self, service: Service, pool: Pool, wish: Sequence[int]) -> tuple[Address, ...]:
        """The first address of each family that the Service may have; none at all if a family is exhausted."""
        found = [self._first_free(service, pool, family) for family in sorted(wish)]
        return tuple(address for address in found if address is not None) if all(found) else ()

    def _first_free(self, service: Service, pool: Pool, family: int) -> Address | None:
        use = _use(service)
        addresses = pool.addresses(family)
        if not use.sharing:  # only an address that nobody has will do: the cheap question first
            addresses = (one for one in addresses if not self._users.get(one))
        return next((one for one in addresses if not self._obstacle(service, use, one)), None)

    def _assign(self, service: Service, addresses: tuple[Address, ...]) -> Pool:
        """Book the addresses for the Service. Raises RefusedError when it may not have them."""
        pool = self._config.pool_of(addresses)
        if pool is None:
            raise RefusedError(f"{quoted(addresses)} is not allowed in config")
        if not pool.compatible(service, self._pinned[pool.name]):
            raise RefusedError(f"pool {pool.name} not compatible for ip assignment")
        use = _use(service)
        for address in addresses:
            if obstacle := self._obstacle(service, use, address):
                raise RefusedError(obstacle)
        self._release(service)
        self._held[service.key] = (pool, addresses)
        for address in addresses:
            self._users.setdefault(address, {})[service.key] = use
        return pool

    def _obstacle(self, service: Service, use: _Use, address: Address) -> str:
        """Why the Service may not use the address beside those who have it; empty when it may."""
        if not (users := self._users.get(address)):
            return ""
        others = {key: other for key, other in users.items() if key != service.key}
        if not all(_may_share(use, other) for other in others.values()):
            owners = ",".join(sorted(others))
            return f'can\'t change sharing key for "{service.key}", address also in use by {owners}'
        taken = sorted(port for other in others.values() for port in use.ports & other.ports)
        return f'port {taken[0][0]}/{taken[0][1]} is already in use on "{address}"' if taken else ""

    def _release(self, service: Service) -> None:
        _, addresses = self._held.pop(service.key, (None, ()))
        for address in addresses:
            self._users[address].pop(service.key)

    def _complete(self, service: Service) -> None:
        """Give a Service with one address a second one of the other family, from the same pool, if it prefers both."""
        pool, addresses = self._held[service.key]
        if service.spec.ip_family_policy != "PreferDualStack" or len(addresses) != 1:
            return
        missing = 10 - addresses[0].version
        second = self._first_free(service, pool, missing) if missing in families(service) else None
        if second is None:
            text = f"cannot assign additional IP in PreferDualStack: pool {pool.name} has no free IPv{missing} address"
            self._events.append(Event(service.key, "AdditionalAssignFailed", text))
            return
        self._assign(service, (*addresses, second))
        self._events.append(Event(service.key, "IPAllocated", f'Assigned additional IP "{second}"'))

    def _warn_of_old_annotations(self, service: Service) -> None:
        for name in (ADDRESSES, POOL, SHARING):
            if OLD_PREFIX + name in service.metadata.annotations:
                text = f"Service uses deprecated annotation {OLD_PREFIX}{name}"
                self._events.append(Event(service.key, "deprecatedAnnotation", text, warning=True))

    def _counters(self, pool: Pool) -> Counters:
        used = [address for address, users in self._users.items() if users and address in pool]
        four = sum(address.version == 4 for address in used)
        six = len(used) - four
        return Counters(four, six, pool.size(4) - four, pool.size(6) - six)


def _use(service: Service) -> _Use:
    spec = service.spec
    local = spec.external_traffic_policy == "Local"
    backends = tuple(sorted(spec.selector.items())) if local else None
    return _Use(annotation(service, SHARING), backends, frozenset((port.protocol, port.port) for port in spec.ports))


def _may_share(one: _Use, other: _Use) -> bool:
    return bool(one.sharing) and one.sharing == other.sharing and one.backends == other.backends


def _rank(pool: Pool) -> tuple[bool, int]:
    """Sorts pinned pools: lowest priority number first, none (0) last; `sorted` leaves equals in order of name."""
    priority = pool.pinned.priority if pool.pinned else 0
    return (priority == 0, priority)


def _problem(service: Service, why: str, place: tuple[str, ...] = ("spec", "type")) -> Problem:
    return Problem(f"Service {service.key}: MetalLB gives it no address: {why}", service.origin.at(*place))


def _with(service: Service, allocation: Allocation) -> Service:
    ingress = tuple(LoadBalancerIngress(ip=address) for address in allocation.ingress.get(service.key, ()))
    annotations = dict(_without_outcome(service))
    if pool := allocation.pools.get(service.key):
        annotations[PREFIX + ALLOCATED_FROM] = pool
    metadata = service.metadata.model_copy(update={"annotations": annotations})
    status = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress))
    return service.model_copy(update={"metadata": metadata, "status": status})


def _without_outcome(service: Service) -> Iterator[tuple[str, str]]:
    outcome = (PREFIX + ALLOCATED_FROM, OLD_PREFIX + ALLOCATED_FROM)
    return ((name, value) for name, value in service.metadata.annotations.items() if name not in outcome)
