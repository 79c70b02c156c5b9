"""What a Service asks of MetalLB: its annotations, families and addresses.

Behaviour after MetalLB's documentation (the controller's annotations) and recordings of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.compile.kube.metallb.pools import Address, Pool, parse_address
from testbed.model.kube import Service

PREFIX, OLD_PREFIX = "metallb.io/", "metallb.universe.tf/"
ADDRESSES = "loadBalancerIPs"
POOL = "address-pool"
SHARING = "allow-shared-ip"
ALLOCATED_FROM = "ip-allocated-from-pool"

_FAMILIES = {"IPv4": 4, "IPv6": 6}


class RefusedError(Exception):
    """Why a Service does not get what it wants; `place`: the annotation or field that asks for it."""

    def __init__(self, message: str, *place: str) -> None:
        super().__init__(message)
        self.place = place


def concerns(service: Service, lb_class: str = "") -> bool:
    """Whether MetalLB, responsible for that load balancer class, has to do with the Service."""
    return service.spec.type == "LoadBalancer" and service.spec.load_balancer_class == lb_class


def annotation(service: Service, name: str) -> str:
    """The value of MetalLB's annotation `name`, under its present prefix or the old one; empty for none."""
    annotations = service.metadata.annotations
    return annotations.get(PREFIX + name, annotations.get(OLD_PREFIX + name, ""))


def ingress_addresses(service: Service) -> tuple[Address, ...]:
    """The addresses in the Service's status; what is no address is left out."""
    texts = (ingress.ip for ingress in service.status.load_balancer.ingress)
    return tuple(address for address in map(parse_address, texts) if address is not None)


def families(service: Service) -> tuple[int, ...]:
    """The IP versions of a Service, its primary first: of its cluster IPs, else `ipFamilies`, else IPv4.

    RequireDualStack without either means both. PreferDualStack does so only on a cluster that has both, which the
    caller, who knows the cluster, says by setting `ipFamilies`.
    """
    spec = service.spec
    addresses = [parse_address(text) for text in spec.cluster_ips or (spec.cluster_ip,)]
    if found := tuple(address.version for address in addresses if address is not None):
        return found
    if spec.ip_families:
        return tuple(_FAMILIES[family] for family in spec.ip_families)
    return (4, 6) if spec.ip_family_policy == "RequireDualStack" else (4,)


def requested(service: Service) -> tuple[tuple[Address, ...], tuple[str, ...]]:
    """The addresses the Service asks for, and the field that does. Raises RefusedError when it asks for nonsense."""
    written, field_text = annotation(service, ADDRESSES), service.spec.load_balancer_ip
    if written and field_text:
        text = f"service can not have both {PREFIX}{ADDRESSES} and svc.Spec.LoadBalancerIP"
        raise RefusedError(text, "spec", "loadBalancerIP")
    if field_text:
        address = parse_address(field_text)
        if address is None:
            raise RefusedError(f'invalid spec.loadBalancerIP "{field_text}"', "spec", "loadBalancerIP")
        return (address,), ("spec", "loadBalancerIP")
    place = place_of(service, ADDRESSES)
    return (_parse_list(written, place) if written else ()), place


def _parse_list(written: str, place: tuple[str, ...]) -> tuple[Address, ...]:
    addresses: list[Address] = []
    for part in written.split(","):
        address = parse_address(part.strip())
        if address is None:
            raise RefusedError(f'invalid {PREFIX}{ADDRESSES}: "{written}"', *place)
        addresses.append(address)
    if len(addresses) > 2:
        raise RefusedError(f"invalid ips length {len(addresses)} {quoted(addresses)}", *place)
    if len(addresses) == 2 and addresses[0].version == addresses[1].version:
        raise RefusedError(f"same address family {quoted(addresses)}", *place)
    return tuple(addresses)


def place_of(service: Service, name: str) -> tuple[str, ...]:
    """Where the Service's annotation `name` is written."""
    prefix = PREFIX if PREFIX + name in service.metadata.annotations else OLD_PREFIX
    return ("metadata", "annotations", prefix + name)


def wishes(service: Service) -> list[tuple[int, ...]]:
    """The sets of families the Service accepts, the first choice first."""
    wanted = families(service)
    prefers = service.spec.ip_family_policy == "PreferDualStack" and len(wanted) > 1
    return [wanted, wanted[:1]] if prefers else [wanted]


def fits_families(service: Service, addresses: Sequence[Address]) -> bool:
    """Whether the Service may have just these addresses, by their families."""
    versions = {address.version for address in addresses}
    if len(versions) != len(addresses):
        return False
    wanted = set(families(service))
    return versions == wanted or (service.spec.ip_family_policy == "PreferDualStack" and versions < wanted)


def still_wanted(service: Service, pool: Pool, addresses: tuple[Address, ...]) -> bool:
    """Whether addresses of that pool still are what the Service asks for."""
    if annotation(service, POOL) not in ("", pool.name):
        return False
    try:
        wanted, _ = requested(service)
    except RefusedError:
        return False
    return not wanted or set(wanted) == set(addresses)


def quoted(addresses: Iterable[Address]) -> str:
    """The addresses as MetalLB's messages show them."""
    return "[" + " ".join(f'"{address}"' for address in addresses) + "]"
