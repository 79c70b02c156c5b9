"""What the API server gives a Service that its author left out: cluster IP and node ports, the same ones each time."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence

from testbed.errors import Problem
from testbed.model.kube import Metadata, Service, ServicePort, ServiceSpec

NODE_PORTS = range(30000, 32768)  # kube-apiserver --service-node-port-range


def api_service(subnet: str) -> Service:
    """The Service default/kubernetes, which every cluster has; there is no API server behind it here."""
    address = str(ipaddress.ip_network(subnet)[1])
    port = ServicePort(name="https", port=443, target_port=6443)
    spec = ServiceSpec(cluster_ip=address, cluster_ips=(address,), ports=(port,))
    return Service(api_version="v1", kind="Service", metadata=Metadata(name="kubernetes", namespace="default"), spec=spec)


def _probe(key: str, size: int) -> Iterator[int]:
    """Positions for a key: its hash, then the following ones. Others' positions do not move when one is added."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % size
    yield from ((start + step) % size for step in range(size))


def completed(services: Sequence[Service], subnet: str) -> tuple[tuple[Service, ...], list[Problem]]:
    """The Services with cluster IPs and node ports, and what is wrong with those that were stated."""
    network = ipaddress.ip_network(subnet)
    problems: list[Problem] = []
    addresses = _stated(services, "clusterIP", lambda spec: _cluster_ips(spec), problems)
    ports = _stated(services, "ports", lambda spec: [str(port.node_port) for port in spec.ports if port.node_port], problems)
    for service in services:
        for address in _cluster_ips(service.spec):
            if ipaddress.ip_address(address) not in network:
                message = f"cluster IP {address} is not in the Service subnet {subnet}"
                problems.append(Problem(message, service.origin.at("spec", "clusterIP")))
        if service.spec.health_check_node_port:
            message = "healthCheckNodePort is not supported yet: no health check server runs on the nodes"
            problems.append(Problem(message, service.origin.at("spec", "healthCheckNodePort")))
    made = [_with_node_ports(_with_address(service, network, addresses), ports) for service in services]
    return tuple(made), problems


def _cluster_ips(spec: ServiceSpec) -> list[str]:
    return [entry for entry in dict.fromkeys((spec.cluster_ip, *spec.cluster_ips)) if entry not in ("", "None")]


def _stated(
    services: Sequence[Service], field: str, values: Callable[[ServiceSpec], list[str]], problems: list[Problem]
) -> set[str]:
    owners: dict[str, Service] = {}
    for service in services:
        for value in values(service.spec):
            if value in owners:
                message = f"{value} belongs to Service {owners[value].key} already"
                problems.append(Problem(message, service.origin.at("spec", field)))
            owners[value] = service
    return set(owners)


def _with_address(service: Service, network: ipaddress.IPv4Network | ipaddress.IPv6Network, taken: set[str]) -> Service:
    spec = service.spec
    if spec.type == "ExternalName" or spec.cluster_ip or spec.cluster_ips:
        return _copied(service, spec.model_copy(update={"cluster_ip": spec.cluster_ip or (spec.cluster_ips or ("",))[0]}))
    size = network.num_addresses - 3  # not the network, not the API's, not the broadcast address
    for position in _probe(service.key, size):
        address = str(network[2 + position])
        if address not in taken:
            taken.add(address)
            return _copied(service, spec.model_copy(update={"cluster_ip": address, "cluster_ips": (address,)}))
    return service


def _with_node_ports(service: Service, taken: set[str]) -> Service:
    spec = service.spec
    wanted = spec.type == "NodePort" or (spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports)
    if not wanted:
        return service
    ports = tuple(_with_node_port(service, port, taken) for port in spec.ports)
    return _copied(service, spec.model_copy(update={"ports": ports}))


def _with_node_port(service: Service, port: ServicePort, taken: set[str]) -> ServicePort:
    if port.node_port:
        return port
    for position in _probe(f"{service.key}:{port.name}:{port.port}/{port.protocol}", len(NODE_PORTS)):
        number = str(NODE_PORTS[position])
        if number not in taken:
            taken.add(number)
            return port.model_copy(update={"node_port": int(number)})
    return port


def _copied(service: Service, spec: ServiceSpec) -> Service:
    made = service.model_copy(update={"spec": spec})
    made._origin = service.origin
    return made
