"""Service ports and the endpoints each may use from one node: what all modes of kube-proxy share.

Source: Kubernetes v1.36, pkg/proxy: serviceport.go (what a port is), endpointslicecache.go (which endpoints it has),
topology.go (which of them it uses), cmd/kube-proxy/app/server.go (which objects it looks at).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Literal

from testbed.compile.kube.service_checks import check
from testbed.model import kube

Family = Literal[4, 6]

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Backend:
    """One address and port that a service port may be translated to.

    Args:
        local: it runs on the node the rules are for.
        zones, nodes: where it should be used (the hints of its EndpointSlice); empty: no hint.
    """

    address: str
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False
    zones: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """address:port, an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def draining(self) -> bool:
        """It is going away but still answers: used where nothing ready is left."""
        return self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class Backends:
    """The endpoints of a service port, as seen from one node; each sorted by "address:port".

    Args:
        every: all there are, whatever their state.
        cluster: those that traffic under policy Cluster uses; empty where no traffic is under it.
        local: those that traffic under policy Local uses; empty where no traffic is under it.
        anywhere: some node of the cluster has one that could be used.
    """

    every: tuple[Backend, ...] = ()
    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()
    anywhere: bool = False

    @property
    def reachable(self) -> tuple[Backend, ...]:
        """Those that any traffic uses."""
        return tuple(sorted({*self.cluster, *self.local}, key=str))


@dataclass(frozen=True, slots=True)
class ProxyPort:
    """One port of one Service in one address family, and the endpoints it uses.

    Args:
        name: of the port; empty where it has none. protocol: tcp, udp or sctp.
        node_port, health_check_node_port: 0 where there is none.
        load_balancer_ips: those the node answers for itself (ipMode VIP).
        source_ranges: prefixes that may use load_balancer_ips; empty: all may.
        external_local, internal_local: the traffic policy is Local.
        affinity_seconds: how long a client keeps its endpoint; 0: no affinity.
    """

    namespace: str
    service: str
    name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    health_check_node_port: int = 0
    external_local: bool = False
    internal_local: bool = False
    affinity_seconds: int = 0
    backends: Backends = Backends()

    @property
    def label(self) -> str:
        """namespace/service:port, or namespace/service for a port without a name."""
        return f"{self.namespace}/{self.service}" + (f":{self.name}" if self.name else "")

    @property
    def external(self) -> bool:
        """It can be reached by something else than its cluster IP."""
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)

    @property
    def uses_cluster(self) -> bool:
        """Some traffic is under policy Cluster: external traffic from the node itself and its pods always is."""
        return not self.internal_local or self.external

    @property
    def uses_local(self) -> bool:
        return self.internal_local or (self.external_local and self.external)

    @property
    def serves_internal(self) -> bool:
        """Traffic to the cluster IP finds an endpoint."""
        return self.backends.anywhere and (not self.internal_local or bool(self.backends.local))

    @property
    def serves_external(self) -> bool:
        """Traffic from outside finds an endpoint."""
        return self.backends.anywhere and (not self.external_local or bool(self.backends.local))


def service_ports(
    services: Sequence[kube.Service], slices: Sequence[kube.EndpointSlice], node: kube.Node, family: Family
) -> tuple[ProxyPort, ...]:
    """All service ports that kube-proxy on `node` handles in one address family.

    Left out, as kube-proxy does: ExternalName and headless Services, Services of another proxy (label
    service.kubernetes.io/service-proxy-name), Services without a cluster IP of that family.

    Returns: ports in the order of namespace, service, and their place in the Service.
    Raises: InputError where an object holds what the Kubernetes API would not have accepted.
    """
    check([service for service in services if is_proxied(service)], slices)
    by_service = _slices_by_service(slices, family)
    ports = []
    for service in sorted(filter(is_proxied, services), key=lambda service: (service.namespace, service.name)):
        cluster_ip = next(iter(_of_family(_cluster_ips(service), family)), None)
        if cluster_ip is None:
            continue
        own = by_service.get((service.namespace, service.name), [])
        for spec in service.spec.ports:
            port = _port(service, spec, cluster_ip, family)
            ports.append(replace(port, backends=choose(port, _backends(own, spec, node.name), node)))
    return tuple(ports)


def is_proxied(service: kube.Service) -> bool:
    """kube-proxy handles this Service: it has cluster IPs, and is not left to another proxy."""
    headless = service.spec.cluster_ip == "None" or "None" in service.spec.cluster_ips
    return service.spec.type != "ExternalName" and not headless and PROXY_NAME_LABEL not in service.metadata.labels


def choose(port: ProxyPort, every: Sequence[Backend], node: kube.Node) -> Backends:
    """The endpoints that a service port uses on `node`, under each traffic policy.

    Ready endpoints are used; where there are none, those that are terminating but still serve.
    """
    cluster = _cluster_backends(every, node.name, node.metadata.labels.get(ZONE_LABEL, "")) if port.uses_cluster else ()
    local = _usable([backend for backend in every if backend.local]) if port.uses_local else ()
    anywhere = bool(cluster) or (port.uses_local and bool(_usable(every)))
    return Backends(tuple(every), cluster, local, anywhere)


def _usable(backends: Sequence[Backend]) -> tuple[Backend, ...]:
    ready = tuple(backend for backend in backends if backend.ready)
    return ready or tuple(backend for backend in backends if backend.draining)


def _cluster_backends(every: Sequence[Backend], node: str, zone: str) -> tuple[Backend, ...]:
    """Hints count only where every ready endpoint has one and some ready endpoint is meant for this node or zone."""
    ready = [backend for backend in every if backend.ready]
    near = [backend for backend in ready if node in backend.nodes]
    if near and all(backend.nodes for backend in ready):
        return tuple(near)
    near = [backend for backend in ready if zone in backend.zones]
    if near and all(backend.zones for backend in ready):
        return tuple(near)
    return _usable(every)


def _port(service: kube.Service, port: kube.ServicePort, cluster_ip: str, family: Family) -> ProxyPort:
    spec = service.spec
    ingress = [entry.ip for entry in service.status.load_balancer.ingress if entry.ip and entry.ip_mode == "VIP"]
    # A policy for external traffic has a meaning only where a Service asks for such traffic.
    asks_external = spec.type in ("NodePort", "LoadBalancer") or bool(spec.external_ips)
    external_local = spec.external_traffic_policy == "Local" and asks_external
    checked = external_local and spec.type == "LoadBalancer"
    return ProxyPort(
        namespace=service.namespace,
        service=service.name,
        name=port.name,
        protocol=port.protocol.lower(),
        cluster_ip=cluster_ip,
        port=port.port,
        node_port=port.node_port,
        external_ips=_of_family(spec.external_ips, family),
        load_balancer_ips=_of_family(ingress, family),
        source_ranges=_source_ranges(service, family),
        health_check_node_port=spec.health_check_node_port if checked else 0,
        external_local=external_local,
        internal_local=spec.internal_traffic_policy == "Local",
        affinity_seconds=_affinity_seconds(spec),
    )


def _affinity_seconds(spec: kube.ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    return (spec.session_affinity_config or kube.SessionAffinityConfig()).client_ip.timeout_seconds


def _source_ranges(service: kube.Service, family: Family) -> tuple[str, ...]:
    ranges = [ip_network(text.strip(), strict=False) for text in service.spec.load_balancer_source_ranges]
    own = [prefix for prefix in ranges if prefix.version == family]
    # "Everything may" says the same as no ranges at all, and kube-proxy takes it as that.
    return () if any(prefix.prefixlen == 0 for prefix in own) else tuple(str(prefix) for prefix in own)


def _cluster_ips(service: kube.Service) -> tuple[str, ...]:
    return service.spec.cluster_ips or (service.spec.cluster_ip,)


def _of_family(addresses: Sequence[str], family: Family) -> tuple[str, ...]:
    parsed = [ip_address(text) for text in addresses]
    return tuple(str(address) for address in parsed if address.version == family)


def _slices_by_service(
    slices: Sequence[kube.EndpointSlice], family: Family
) -> Mapping[tuple[str, str], list[kube.EndpointSlice]]:
    """The EndpointSlices of each Service, by (namespace, name), in the order of their names.

    Slices of type FQDN and of headless Services are none of kube-proxy's business.
    """
    found: dict[tuple[str, str], list[kube.EndpointSlice]] = {}
    for piece in sorted(slices, key=lambda piece: piece.name):
        labels = piece.metadata.labels
        if piece.address_type == f"IPv{family}" and HEADLESS_LABEL not in labels and labels.get(SERVICE_NAME_LABEL):
            found.setdefault((piece.namespace, labels[SERVICE_NAME_LABEL]), []).append(piece)
    return found


def _backends(slices: Sequence[kube.EndpointSlice], port: kube.ServicePort, node: str) -> tuple[Backend, ...]:
    """The endpoints of one service port: a slice's port belongs to it by name and protocol."""
    found: dict[str, Backend] = {}
    for piece in slices:
        numbers = [own.port for own in piece.ports if (own.name, own.protocol) == (port.name, port.protocol)]
        for backend in (_backend(end, number, node) for number in numbers if number for end in piece.endpoints):
            # A new pod may already have the address of one that is still going away; the new one counts.
            if str(backend) not in found or not backend.terminating:
                found[str(backend)] = backend
    return tuple(found[text] for text in sorted(found))


def _backend(endpoint: kube.Endpoint, port: int, node: str) -> Backend:
    conditions = endpoint.conditions
    hints = endpoint.hints or kube.EndpointHints()
    return Backend(
        address=str(ip_address(endpoint.addresses[0])),
        port=port,
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        local=endpoint.node_name == node,
        zones=frozenset(zone.name for zone in hints.for_zones),
        nodes=frozenset(hint.name for hint in hints.for_nodes),
    )
