"""Ingress objects → nginx configuration, as ingress-nginx does it: requests go to endpoints, past the Service's address.

Meaning of paths: Kubernetes API, networking.k8s.io/v1 HTTPIngressPath. `Exact` is the whole path; `Prefix` matches
path element by element; ImplementationSpecific is a prefix in ingress-nginx. Longer paths come before shorter ones.
X-Forwarded-For holds the peer's address alone (ingress-nginx's `use-forwarded-headers: false`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.kube import EndpointSlice, Service, ServicePort
from testbed.model.workloads import Ingress, IngressBackend, IngressClass, IngressPath
from testbed.render import environment

CONTROLLER = "k8s.io/ingress-nginx"
CONFIG = "/etc/nginx/nginx.conf"


@dataclass(frozen=True)
class _Upstream:
    name: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class _Location:
    match: str
    upstream: str
    status: int = 503


@dataclass(frozen=True)
class _Server:
    host: str
    locations: tuple[_Location, ...]


@dataclass(frozen=True)
class _Backend:
    """What an Ingress sends requests to: a port of a Service."""

    service: Service
    port: ServicePort

    @property
    def name(self) -> str:
        return f"{self.service.namespace}-{self.service.name}-{self.port.port}"


class _Renderer:
    def __init__(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> None:
        self.services = {service.key: service for service in services}
        self.slices = slices
        self.problems: list[Problem] = []
        self.upstreams: dict[str, _Upstream] = {}
        self.paths: dict[str, dict[str, _Location]] = {"": {}}

    def add(self, ingress: Ingress) -> None:
        if ingress.spec.tls:
            self.problems.append(Problem("TLS of an Ingress is not supported yet", ingress.origin.at("spec", "tls")))
        if ingress.metadata.annotations:
            unknown = next(iter(ingress.metadata.annotations))
            if "ingress.kubernetes.io/" in unknown:
                position = ingress.origin.at("metadata", "annotations", unknown)
                self.problems.append(Problem(f"annotation {unknown} is not supported", position))
        if ingress.spec.default_backend:
            at = ("spec", "defaultBackend", "service")
            self._add_location("", "/", self._target(ingress, ingress.spec.default_backend, at))
        for number, rule in enumerate(ingress.spec.rules):
            for index, path in enumerate(rule.http.paths if rule.http else ()):
                at = ("spec", "rules", number, "http", "paths", index, "backend", "service")
                upstream = self._target(ingress, path.backend, at)
                for match in _matches(path):
                    self._add_location(rule.host, match, upstream)

    def _add_location(self, host: str, match: str, upstream: str) -> None:
        # The oldest Ingress that claims a path has it; a file has no age but its order.
        self.paths.setdefault(host, {}).setdefault(match, _Location(match, upstream))

    def _target(self, ingress: Ingress, backend: IngressBackend, at: tuple[str | int, ...]) -> str:
        """The upstream's name; empty when it has no endpoint (ingress-nginx answers 503 then)."""
        found = self._find(ingress, backend, at)
        if found is None:
            return ""
        servers = tuple(_servers(found, self.slices))
        if servers:
            self.upstreams[found.name] = _Upstream(found.name, servers)
        return found.name if servers else ""

    def _find(self, ingress: Ingress, backend: IngressBackend, at: tuple[str | int, ...]) -> _Backend | None:
        wanted = backend.service
        service = self.services.get(f"{ingress.namespace}/{wanted.name}")
        if service is None:
            names = [entry.name for entry in self.services.values() if entry.namespace == ingress.namespace]
            message = f"no Service {wanted.name!r} in namespace {ingress.namespace}"
            self.problems.append(Problem(message, ingress.origin.at(*at, "name"), suggest(wanted.name, names)))
            return None
        for port in service.spec.ports:
            if port.port == wanted.port.number or (wanted.port.name and port.name == wanted.port.name):
                return _Backend(service, port)
        ports = [str(port.port) for port in service.spec.ports]
        message = f"Service {wanted.name} has no port {wanted.port.name or wanted.port.number}"
        self.problems.append(Problem(message, ingress.origin.at(*at, "port"), suggest("", ports)))
        return None

    def servers(self) -> list[_Server]:
        """A server per host, the one without a host first: it answers what no other does."""
        made = []
        for host in sorted(self.paths):
            locations = dict(self.paths[host])
            locations.setdefault("/", _Location("/", "", 404))
            made.append(_Server(host, tuple(locations[match] for match in sorted(locations))))
        return made


def _matches(path: IngressPath) -> list[str]:
    """nginx locations for a path; of prefix locations nginx takes the longest by itself."""
    if path.path_type == "Exact":
        return [f"= {path.path}"]
    bare = path.path.rstrip("/")
    if not bare:
        return ["/"]
    if path.path_type == "ImplementationSpecific":
        return [path.path]
    return [f"= {bare}", f"{bare}/"]


def _servers(backend: _Backend, slices: Iterable[EndpointSlice]) -> Iterable[str]:
    for entry in slices:
        if entry.metadata.labels.get("kubernetes.io/service-name") != backend.service.name:
            continue
        if entry.namespace != backend.service.namespace or entry.address_type == "FQDN":
            continue
        for port in entry.ports:
            if port.name == backend.port.name and port.port:
                for endpoint in entry.endpoints:
                    if endpoint.conditions.ready is not False:
                        address = endpoint.addresses[0]
                        yield f"[{address}]:{port.port}" if ":" in address else f"{address}:{port.port}"


def nginx(
    ingresses: Sequence[Ingress],
    classes: Sequence[IngressClass],
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    port: int = 80,
) -> tuple[str, list[Problem]]:
    """The configuration of the ingress controller, and what is wrong with the Ingresses it is responsible for.

    Args:
        port: the one it listens on.
    """
    renderer = _Renderer(services, slices)
    ours = {entry.name for entry in classes if entry.spec.controller == CONTROLLER}
    default = any(entry.default for entry in classes if entry.spec.controller == CONTROLLER)
    for ingress in ingresses:
        name = ingress.spec.ingress_class_name
        if name is not None and name not in {entry.name for entry in classes}:
            at = ingress.origin.at("spec", "ingressClassName")
            hint = suggest(name, [entry.name for entry in classes])
            renderer.problems.append(Problem(f"no IngressClass {name!r}", at, hint))
        elif name in ours or (name is None and default):
            renderer.add(ingress)
    text = environment().get_template("nginx/ingress.conf.j2").render(
        upstreams=[renderer.upstreams[name] for name in sorted(renderer.upstreams)],
        servers=renderer.servers(),
        port=port,
    )
    return text, renderer.problems
