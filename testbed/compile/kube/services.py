"""What the API server gives a Service that its author left out: cluster IP and node ports, the same ones each time."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Sequence

from testbed.errors import Problem
from testbed.model.kube import Metadata, Service, ServicePort, ServiceSpec

Path = tuple[str | int, ...]

NODE_PORTS = range(30000, 32768)  # kube-apiserver --service-node-port-range
API = "default/kubernetes"


def api_service(subnet: str) -> Service:
    """The Service default/kubernetes, which every cluster has; there is no API server behind it here."""
    address = str(ipaddress.ip_network(subnet)[1])
    port = ServicePort(name="https", port=443, target_port=6443)
    spec = ServiceSpec(cluster_ip=address, cluster_ips=(address,), ports=(port,))
    return Service(
        api_version="v1", kind="Service", metadata=Metadata(name="kubernetes", namespace="default"), spec=spec
    )


def _probe(key: str, size: int) -> Iterator[int]:
    """Positions for a key: its hash, then the following ones.

    Another Service leaves these alone, unless it has the same hash (modulo `size`) and comes first.
    """
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % size
    yield from ((start + step) % size for step in range(size))


def completed(services: Sequence[Service], subnet: str) -> tuple[tuple[Service, ...], list[Problem]]:
    """The Services with cluster IPs and node ports, and what is wrong with those that were stated.

    Args:
        services: `api_service` and the others. subnet: of cluster IPs (IPv4), of at least 8 addresses.
    """
    network = ipaddress.IPv4Network(subnet)
    problems = [problem for service in services for problem in _problems(service, network)]
    problems += [
        _problem(service, (), "every cluster has it by itself") for service in services[1:] if service.key == API
    ]
    if problems:
        return tuple(services), problems
    addresses = _addresses(services, problems)
    ports = _node_ports(services, problems)
    made = []
    for service in services:
        addressed = _with_address(service, network, addresses, problems)
        made.append(_with_node_ports(addressed, ports, problems))
    return tuple(made), problems


# --- what is stated -------------------------------------------------------------------------------------------------


def _problems(service: Service, network: ipaddress.IPv4Network) -> Iterator[Problem]:
    """What the API server would refuse in a Service, and what is not supported."""
    spec = service.spec
    yield from _family_problems(service)
    for path, text in _stated_ips(spec):
        if spec.type == "ExternalName":
            yield _problem(service, path, "an ExternalName has no cluster IP")
        elif text != "None" and not _is_in(text, network):
            yield _problem(service, path, f"cluster IP {text!r} is not in the Service subnet {network}")
    if spec.cluster_ips and (len(spec.cluster_ips) > 1 or spec.cluster_ip not in ("", spec.cluster_ips[0])):
        yield _problem(service, ("clusterIPs",), "clusterIPs must be the one address that clusterIP is")
    headless = "None" in (spec.cluster_ip, *spec.cluster_ips)
    if headless and spec.type != "ClusterIP":
        yield _problem(service, ("clusterIP",), f"a Service of type {spec.type} cannot be headless")
    if spec.type == "ExternalName" and not spec.external_name:
        yield _problem(service, ("type",), "externalName is missing")
    if spec.health_check_node_port:
        message = "healthCheckNodePort is not supported yet: no health check server runs on the nodes"
        yield _problem(service, ("healthCheckNodePort",), message)
    if not spec.ports and spec.type != "ExternalName" and not headless:
        yield _problem(service, (), "it has no ports")
    yield from _port_problems(service)


def _family_problems(service: Service) -> Iterator[Problem]:
    if "IPv6" in service.spec.ip_families:
        yield _problem(service, ("ipFamilies",), "IPv6 Services are not supported yet")
    if service.spec.ip_family_policy == "RequireDualStack":
        yield _problem(service, ("ipFamilyPolicy",), "the cluster has IPv4 alone: RequireDualStack is not possible")


def _port_problems(service: Service) -> Iterator[Problem]:
    seen: set[tuple[int, str]] = set()
    for index, port in enumerate(service.spec.ports):
        if (port.port, port.protocol) in seen:
            yield _problem(service, ("ports", index, "port"), f"port {port.port}/{port.protocol} is there twice")
        seen.add((port.port, port.protocol))
        if port.node_port and service.spec.type not in ("NodePort", "LoadBalancer"):
            message = f"a Service of type {service.spec.type} has no node ports"
            yield _problem(service, ("ports", index, "nodePort"), message)
        elif port.node_port and port.node_port not in NODE_PORTS:
            message = f"nodePort {port.node_port} is not in {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            yield _problem(service, ("ports", index, "nodePort"), message)


def _stated_ips(spec: ServiceSpec) -> Iterator[tuple[Path, str]]:
    """The cluster IPs that were written, each once, with where."""
    if spec.cluster_ip:
        yield ("clusterIP",), spec.cluster_ip
    for index, text in enumerate(spec.cluster_ips):
        if text != spec.cluster_ip:
            yield ("clusterIPs", index), text


def _is_in(text: str, network: ipaddress.IPv4Network) -> bool:
    """Whether the text is an address that a Service can have: not the network's, not the broadcast address."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address in network and address not in (network.network_address, network.broadcast_address)


def _addresses(services: Sequence[Service], problems: list[Problem]) -> set[str]:
    owners: dict[str, Service] = {}
    for service in services:
        for path, text in _stated_ips(service.spec):
            if text in owners:
                problems.append(_problem(service, path, f"cluster IP {text} is that of Service {owners[text].key}"))
            if text != "None":
                owners[text] = service
    return set(owners)


def _node_ports(services: Sequence[Service], problems: list[Problem]) -> set[int]:
    """The node ports that were written. One Service may have the same for two protocols, two Services may not."""
    owners: dict[int, tuple[Service, set[str]]] = {}
    for service in services:
        for index, port in enumerate(service.spec.ports):
            if not port.node_port:
                continue
            owner, protocols = owners.setdefault(port.node_port, (service, set()))
            if owner is not service or port.protocol in protocols:
                message = f"nodePort {port.node_port} is that of Service {owner.key} already"
                problems.append(_problem(service, ("ports", index, "nodePort"), message))
            protocols.add(port.protocol)
    return set(owners)


def _problem(service: Service, path: Path, message: str) -> Problem:
    return Problem(f"Service {service.key}: {message}", service.origin.at("spec", *path))


# --- what is given --------------------------------------------------------------------------------------------------


def _with_address(
    service: Service, network: ipaddress.IPv4Network, taken: set[str], problems: list[Problem]
) -> Service:
    spec = service.spec
    if spec.type == "ExternalName":
        return service
    if stated := spec.cluster_ip or next(iter(spec.cluster_ips), ""):
        return _copied(service, spec.model_copy(update={"cluster_ip": stated, "cluster_ips": (stated,)}))
    size = network.num_addresses - 3  # not the network, not the API's, not the broadcast address
    for position in _probe(service.key, size):
        address = str(network[2 + position])
        if address not in taken:
            taken.add(address)
            return _copied(service, spec.model_copy(update={"cluster_ip": address, "cluster_ips": (address,)}))
    problems.append(_problem(service, (), f"the Service subnet {network} has no address left"))
    return service


def _with_node_ports(service: Service, taken: set[int], problems: list[Problem]) -> Service:
    spec = service.spec
    wanted = spec.type == "NodePort" or (spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports)
    if not wanted:
        return service
    ports = tuple(_with_node_port(service, port, taken) for port in spec.ports)
    if any(not port.node_port for port in ports):
        problems.append(_problem(service, ("ports",), f"no node port is left of {NODE_PORTS[0]}-{NODE_PORTS[-1]}"))
    return _copied(service, spec.model_copy(update={"ports": ports}))


def _with_node_port(service: Service, port: ServicePort, taken: set[int]) -> ServicePort:
    if port.node_port:
        return port
    positions = _probe(f"{service.key}:{port.name}:{port.port}/{port.protocol}", len(NODE_PORTS))
    number = next((NODE_PORTS[position] for position in positions if NODE_PORTS[position] not in taken), 0)
    taken.add(number)
    return port.model_copy(update={"node_port": number})


def _copied(service: Service, spec: ServiceSpec) -> Service:
    made = service.model_copy(update={"spec": spec})
    made._origin = service.origin
    return made
