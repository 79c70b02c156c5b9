"""Which Service addresses a node advertises over BGP (upstream confd, routes.go, and its recordings)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from testbed.compile.kube.calico.bgp import BgpCluster, BgpNode, Family
from testbed.model.calico import ServiceRange
from testbed.model.kube import EndpointSlice, Service

Network = IPv4Network | IPv6Network

_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
_SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class ServiceRoutes:
    """Prefixes of Services, sorted as text.

    Args:
        advertised: blackhole routes of BIRD that the node's peers are told of.
        not_in_kernel: ranges that BIRD keeps out of the kernel's table, and with them every prefix inside.
    """

    advertised: tuple[str, ...] = ()
    not_in_kernel: tuple[str, ...] = ()


def service_routes(cluster: BgpCluster, node: BgpNode, family: Family) -> ServiceRoutes:
    """The routes of one node and family.

    A range is advertised whole by every node, but a LoadBalancer range where serviceLoadBalancerAggregation is
    Disabled. The addresses of a Service are advertised one by one where it qualifies: with externalTrafficPolicy
    Local on nodes with a ready endpoint; else on every node, where one of its addresses is configured by itself, or
    where it has a ready endpoint and aggregation is off. A node with the label
    node.kubernetes.io/exclude-from-external-load-balancers=true advertises nothing.
    """
    ranges = _Ranges(cluster, family)
    if node.labels.get(_EXCLUDED) == "true":
        return ServiceRoutes((), _text(ranges.wide))
    single = [
        address
        for service in cluster.services
        if _qualifies(service, node, ranges, _slices(cluster, service))
        for address in ranges.allowed(service)
    ]
    return ServiceRoutes(_text([*ranges.wide, *single]), _text(ranges.wide))


class _Ranges:
    """The configured ranges of one family, and of all (a Service is judged with all its addresses)."""

    def __init__(self, cluster: BgpCluster, family: Family) -> None:
        spec = cluster.defaults
        self.family = family
        self.aggregates = spec.service_load_balancer_aggregation == "Enabled"
        self.cluster_ips = _networks(spec.service_cluster_ips)
        self.external_ips = _networks(spec.service_external_ips)
        self.load_balancer_ips = _networks(spec.service_load_balancer_ips)

    @property
    def wide(self) -> list[Network]:
        load_balancer = self.load_balancer_ips if self.aggregates else []
        every = [*self.cluster_ips, *self.external_ips, *load_balancer]
        return [network for network in every if network.version == self.family and network.num_addresses > 1]

    def allowed(self, service: Service) -> list[Network]:
        """The addresses of a Service, of this family, that lie in the ranges of their sort."""
        sorts = (
            (_cluster_ips(service), self.cluster_ips),
            (service.spec.external_ips, self.external_ips),
            (_ingress(service), self.load_balancer_ips),
        )
        found = [ip_network(address) for addresses, ranges in sorts for address in addresses if _lies(address, ranges)]
        return [network for network in found if network.version == self.family]

    def has_single(self, service: Service) -> bool:
        """Whether an external or load balancer address of the Service is configured by itself."""
        external = [network for network in self.external_ips if network.num_addresses == 1]
        load_balancer = [network for network in self.load_balancer_ips if network.num_addresses == 1]
        is_load_balancer = service.spec.type == "LoadBalancer"
        return any(_lies(address, external) for address in service.spec.external_ips) or (
            is_load_balancer and any(_lies(address, load_balancer) for address in _ingress(service))
        )


def _qualifies(service: Service, node: BgpNode, ranges: _Ranges, slices: Iterable[EndpointSlice]) -> bool:
    addresses = _cluster_ips(service)
    if service.spec.type == "ExternalName" or not addresses:
        return False
    primary = "IPv6" if ":" in addresses[0] else "IPv4"
    ready = [
        endpoint.node_name
        for found in slices
        if found.address_type == primary
        for endpoint in found.endpoints
        if endpoint.conditions.ready is not False  # unset means ready (discovery.k8s.io/v1)
    ]
    if _is_local(service):
        return node.name in ready
    alone = service.spec.type == "LoadBalancer" and not ranges.aggregates and bool(ready)
    return alone or ranges.has_single(service)


def _is_local(service: Service) -> bool:
    """externalTrafficPolicy is about traffic from outside: a plain ClusterIP Service has none."""
    spec = service.spec
    is_external = spec.type in ("NodePort", "LoadBalancer") or bool(spec.external_ips)
    return is_external and spec.external_traffic_policy == "Local"


def _cluster_ips(service: Service) -> tuple[str, ...]:
    found = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return tuple(address for address in found if address not in ("", "None"))


def _ingress(service: Service) -> tuple[str, ...]:
    return tuple(ingress.ip for ingress in service.status.load_balancer.ingress if ingress.ip)


def _slices(cluster: BgpCluster, service: Service) -> list[EndpointSlice]:
    return [
        found
        for found in cluster.slices
        if found.namespace == service.namespace and found.metadata.labels.get(_SERVICE_NAME) == service.name
    ]


def _networks(ranges: Iterable[ServiceRange]) -> list[Network]:
    return [ip_network(found.cidr) for found in ranges if found.cidr]


def _lies(address: str, networks: Iterable[Network]) -> bool:
    return any(ip_address(address) in network for network in networks)


def _text(networks: Iterable[Network]) -> tuple[str, ...]:
    return tuple(sorted({str(network) for network in networks}))
