"""EndpointSlices as the controller makes them from Services and pods.

Source: k8s.io/endpointslice reconciler.go, utils.go, trafficdist/trafficdist.go (Kubernetes 1.36).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Literal

from testbed.compile.kube.instances import PodInstance
from testbed.compile.kube.owners import stable_suffix
from testbed.errors import InputError, Problem
from testbed.load.yaml import suggest
from testbed.model.kube import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    EndpointSlice,
    ForZone,
    Metadata,
    Service,
    ServicePort,
    TargetRef,
)

MAX_ENDPOINTS = 100  # per slice (kube-controller-manager --max-endpoints-per-slice)

_SERVICE = "kubernetes.io/service-name"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_HEADLESS = "service.kubernetes.io/headless"
_RESERVED = (_SERVICE, _MANAGED_BY, _HEADLESS)
_TOPOLOGY = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")

Family = Literal["IPv4", "IPv6"]


def endpoint_slices(
    services: Sequence[Service],
    pods: Sequence[PodInstance],
    addresses: Mapping[str, Sequence[str]],
    manual: Sequence[EndpointSlice] = (),
) -> tuple[EndpointSlice, ...]:
    """The EndpointSlices of a cluster.

    A Service with a selector gets, for each of its address families and each set of port numbers that its pods give its
    ports, slices of at most MAX_ENDPOINTS; one without endpoints when there is no pod. Its families are `ipFamilies`,
    else those of its cluster IPs; else of its pods: all when it asks for dual stack or is headless, otherwise the
    family of the first address of the first pod.

    Args:
        services: of the cluster; those without selector, and of type ExternalName, get none.
        pods: of the cluster.
        addresses: by the pod's key (namespace/name): its addresses, the primary first; for pods with `host_network`
            the InternalIPs of their node. Pods without are left out, as those that have no address yet.
        manual: slices that were written; they are kept as they are, before the others.

    Raises:
        InputError: a Service asks for a distribution of traffic that is not supported.
    """
    problems = [problem for service in services for problem in _problems(service)]
    if problems:
        raise InputError(problems)
    made = [piece for service in services if _selects(service) for piece in _slices(service, pods, addresses)]
    return (*manual, *made)


def _problems(service: Service) -> Iterator[Problem]:
    for annotation in _TOPOLOGY:
        if service.metadata.annotations.get(annotation, "").lower() == "auto":
            at = service.origin.at("metadata", "annotations", annotation)
            message = f"Service {service.key}: the annotation {annotation} is not supported"
            yield Problem(message, at, "use spec.trafficDistribution")
    wanted = service.spec.traffic_distribution
    if wanted and wanted not in _DISTRIBUTIONS:
        message = f"Service {service.key}: unknown trafficDistribution {wanted!r}"
        yield Problem(message, service.origin.at("spec", "trafficDistribution"), suggest(wanted, _DISTRIBUTIONS))


def _selects(service: Service) -> bool:
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def _slices(
    service: Service, pods: Sequence[PodInstance], addresses: Mapping[str, Sequence[str]]
) -> Iterator[EndpointSlice]:
    chosen = [
        pod
        for pod in pods
        if pod.namespace == service.namespace
        and all(pod.labels.get(key) == value for key, value in service.spec.selector.items())
        and addresses.get(pod.key)
    ]
    for family in _families(service, [addresses[pod.key] for pod in chosen]):
        groups: dict[tuple[EndpointPort, ...], list[Endpoint]] = {}
        for pod in chosen:
            mine = tuple(address for address in addresses[pod.key] if _family(address) == family)
            if mine:
                groups.setdefault(tuple(_ports(service, pod)), []).append(_endpoint(service, pod, mine))
        for ports, endpoints in (groups or {(): []}).items():
            for start in range(0, max(len(endpoints), 1), MAX_ENDPOINTS):
                yield _slice(service, family, ports, endpoints[start : start + MAX_ENDPOINTS], start)


def _families(service: Service, addresses: Sequence[Sequence[str]]) -> list[Family]:
    spec = service.spec
    if spec.ip_families:
        return list(spec.ip_families)
    cluster_ips = [ip for ip in (spec.cluster_ips or (spec.cluster_ip,)) if ip not in ("", "None")]
    if cluster_ips:
        return list(dict.fromkeys(_family(ip) for ip in cluster_ips))
    found = list(dict.fromkeys(_family(address) for each in addresses for address in each))
    dual = _headless(service) or spec.ip_family_policy in ("PreferDualStack", "RequireDualStack")
    return (found if dual else found[:1]) or ["IPv4"]


def _family(address: str) -> Family:
    return "IPv6" if ip_address(address).version == 6 else "IPv4"


def _headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None" or service.spec.cluster_ips == ("None",)


def _ports(service: Service, pod: PodInstance) -> Iterator[EndpointPort]:
    """The Service's ports, with the numbers this pod gives them; ports that it does not have are left out."""
    for port in service.spec.ports:
        number = _number(port, pod)
        if number is not None:
            yield EndpointPort(name=port.name, port=number, protocol=port.protocol, app_protocol=port.app_protocol)


def _number(port: ServicePort, pod: PodInstance) -> int | None:
    if isinstance(port.target_port, str):
        return pod.port(port.target_port, port.protocol)
    return port.target_port or port.port


def _endpoint(service: Service, pod: PodInstance, addresses: tuple[str, ...]) -> Endpoint:
    ready = pod.ready or service.spec.publish_not_ready_addresses
    named = pod.pod_hostname and pod.subdomain == service.name
    return Endpoint(
        addresses=tuple(str(ip_address(address)) for address in addresses),
        conditions=EndpointConditions(ready=ready, serving=pod.ready, terminating=False),
        hostname=pod.pod_hostname if named else "",
        node_name=pod.node_name,
        zone=pod.zone,
        hints=_hints(service, pod) if ready else None,
        target_ref=TargetRef(kind="Pod", name=pod.name, namespace=pod.namespace),
    )


def _hints(service: Service, pod: PodInstance) -> EndpointHints | None:
    if service.spec.traffic_distribution not in _DISTRIBUTIONS:
        return None
    zones = (ForZone(name=pod.zone),) if pod.zone else ()
    nodes = (ForZone(name=pod.node_name),) if service.spec.traffic_distribution == "PreferSameNode" else ()
    return EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


def _slice(
    service: Service, family: Family, ports: tuple[EndpointPort, ...], endpoints: Sequence[Endpoint], start: int
) -> EndpointSlice:
    numbers = [f"{port.name}={port.port}/{port.protocol}" for port in ports]
    suffix = stable_suffix(5, service.key, family, str(start), *numbers)
    labels = {key: value for key, value in service.metadata.labels.items() if key not in _RESERVED}
    labels |= {_SERVICE: service.name, _MANAGED_BY: "endpointslice-controller.k8s.io"}
    if _headless(service):
        labels[_HEADLESS] = ""
    made = EndpointSlice(
        api_version="discovery.k8s.io/v1",
        metadata=Metadata(name=f"{service.name}-{suffix}", namespace=service.namespace, labels=labels),
        address_type=family,
        ports=ports,
        endpoints=tuple(endpoints),
    )
    made._origin = service.origin
    return made
