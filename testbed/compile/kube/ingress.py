"""Ingress objects → nginx configuration, as ingress-nginx does it: requests go to endpoints, past the Service's IP.

Meaning of paths: Kubernetes API, networking.k8s.io/v1 HTTPIngressPath. `Exact` is the whole path; `Prefix` matches
path element by element; ImplementationSpecific is a prefix in ingress-nginx. Longer paths come before shorter ones.
X-Forwarded-For holds the peer's address alone (ingress-nginx's `use-forwarded-headers: false`).

Default backends and host wildcards: ingress-nginx internal/ingress/controller (controller.go, template/template.go).
The default backend of an Ingress serves what no path of its hosts matches; that of one without rules serves all else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.kube import EndpointSlice, Service, ServicePort
from testbed.model.workloads import Ingress, IngressBackend, IngressClass, IngressPath
from testbed.render import environment

CONTROLLER = "k8s.io/ingress-nginx"
CONFIG = "/etc/nginx/nginx.conf"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"

# What ingress-nginx lets stand in a path (its `strict-validate-path-type`); other characters mean something to nginx.
_PATH = re.compile(r"/[A-Za-z0-9._~/-]*", re.ASCII)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class _Upstream:
    name: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class _Location:
    """`match` as nginx writes it. Without an upstream the answer is `status`."""

    match: str
    upstream: str
    status: int = 503


@dataclass(frozen=True)
class _Server:
    """`name` as nginx writes it; empty for the one that answers what no other does."""

    name: str
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
        self.implied: dict[str, dict[str, _Location]] = {}
        self.defaults: dict[str, _Location] = {}

    def add(self, ingress: Ingress) -> None:
        self.problems += _refused(ingress)
        default: _Location | None = None
        if ingress.spec.default_backend:
            at: Path = ("spec", "defaultBackend", "service")
            default = _Location("/", self._target(ingress, ingress.spec.default_backend, at))
        if default and not ingress.spec.rules:
            self.defaults.setdefault("", default)
        for number, rule in enumerate(ingress.spec.rules):
            if default and rule.host and rule.host not in self.paths:
                self.defaults[rule.host] = default
            self.paths.setdefault(rule.host, {})
            for index, path in enumerate(rule.http.paths if rule.http else ()):
                self._add_path(ingress, rule.host, path, ("spec", "rules", number, "http", "paths", index))

    def _add_path(self, ingress: Ingress, host: str, path: IngressPath, at: Path) -> None:
        if path.path and not _PATH.fullmatch(path.path):
            message = f"Ingress {ingress.key}: the path {path.path!r} is not supported"
            hint = "letters, digits and - . _ ~ /"
            self.problems.append(Problem(message, ingress.origin.at(*at, "path"), hint))
        upstream = self._target(ingress, path.backend, (*at, "backend", "service"))
        match, implied = _matches(path)
        # The oldest Ingress that claims a path has it; a file has no age but its order.
        self.paths[host].setdefault(match, _Location(match, upstream))
        if implied:
            self.implied.setdefault(host, {}).setdefault(implied, _Location(implied, upstream))

    def _target(self, ingress: Ingress, backend: IngressBackend, at: Path) -> str:
        """The upstream's name; empty when it has no endpoint (ingress-nginx answers 503 then)."""
        found = self._find(ingress, backend, at)
        servers = tuple(_servers(found, self.slices)) if found else ()
        if found is None or not servers:
            return ""
        known = self.upstreams.setdefault(found.name, _Upstream(found.name, servers))
        if known.servers == servers:
            return found.name
        # Namespace a, Service b-c and namespace a-b, Service c have the same name there; here they differ.
        other = _Upstream(f"{found.service.namespace}.{found.service.name}.{found.port.port}", servers)
        return self.upstreams.setdefault(other.name, other).name

    def _find(self, ingress: Ingress, backend: IngressBackend, at: Path) -> _Backend | None:
        wanted = backend.service
        service = self.services.get(f"{ingress.namespace}/{wanted.name}")
        if service is None:
            names = [entry.name for entry in self.services.values() if entry.namespace == ingress.namespace]
            message = f"Ingress {ingress.key}: no Service {wanted.name!r} in namespace {ingress.namespace}"
            self.problems.append(Problem(message, ingress.origin.at(*at, "name"), suggest(wanted.name, names)))
            return None
        if service.spec.type == "ExternalName":
            message = f"Ingress {ingress.key}: Service {wanted.name} is an ExternalName, which is not supported here"
            self.problems.append(Problem(message, ingress.origin.at(*at, "name")))
            return None
        for port in service.spec.ports:
            if port.port == wanted.port.number or (wanted.port.name and port.name == wanted.port.name):
                return _Backend(service, port)
        ports = [port.name if wanted.port.name else str(port.port) for port in service.spec.ports]
        message = f"Ingress {ingress.key}: Service {wanted.name} has no port {wanted.port.name or wanted.port.number}"
        self.problems.append(Problem(message, ingress.origin.at(*at, "port"), suggest("", ports)))
        return None

    def servers(self) -> list[_Server]:
        """A server per host, the one without a host first: it answers what no other does."""
        made = []
        for host in sorted(self.paths):
            locations = self.implied.get(host, {}) | self.paths[host]  # a path of type Exact goes first
            locations.setdefault("/", self.defaults.get(host, _Location("/", "", 404)))
            made.append(_Server(_server_name(host), tuple(locations[match] for match in sorted(locations))))
        return made


def _refused(ingress: Ingress) -> Iterator[Problem]:
    what = f"Ingress {ingress.key}"
    if ingress.spec.tls:
        yield Problem(f"{what}: tls is not supported yet", ingress.origin.at("spec", "tls"))
    for name in ingress.metadata.annotations:
        place = ingress.origin.at("metadata", "annotations", name)
        if name == CLASS_ANNOTATION:
            yield Problem(f"{what}: the annotation {name} is not supported", place, "use spec.ingressClassName")
        elif "ingress.kubernetes.io/" in name:
            yield Problem(f"{what}: the annotation {name} is not supported", place)


def _server_name(host: str) -> str:
    """A wildcard stands for one label (networking.k8s.io/v1 IngressRule); nginx's own would match several."""
    if not host.startswith("*."):
        return host
    rest = host.removeprefix("*").replace(".", r"\.")
    return f"~^[a-z0-9-]+{rest}$"


def _matches(path: IngressPath) -> tuple[str, str]:
    """nginx locations for a path: its own, and the one that it implies (empty for none).

    Of prefix locations nginx takes the longest by itself.
    """
    if path.path_type == "Exact":
        return f"= {path.path}", ""
    bare = path.path.rstrip("/")
    if not bare:
        return "/", ""
    if path.path_type == "ImplementationSpecific":
        return path.path, ""
    return f"{bare}/", f"= {bare}"


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
    ours = [entry for entry in classes if entry.spec.controller == CONTROLLER]
    for entry in classes:
        if entry not in ours:
            message = f"IngressClass {entry.name}: there is no controller {entry.spec.controller!r}"
            place = entry.origin.at("spec", "controller")
            renderer.problems.append(Problem(message, place, f"supported is {CONTROLLER}"))
    for ingress in ingresses:
        if problem := _class_problem(ingress, classes):
            renderer.problems.append(problem)
        else:
            renderer.add(ingress)
    text = (
        environment()
        .get_template("nginx/ingress.conf.j2")
        .render(
            upstreams=[renderer.upstreams[name] for name in sorted(renderer.upstreams)],
            servers=renderer.servers(),
            port=port,
        )
    )
    return text, renderer.problems


def _class_problem(ingress: Ingress, classes: Sequence[IngressClass]) -> Problem | None:
    """Why no controller would take the Ingress; None when one does."""
    name, names = ingress.spec.ingress_class_name, [entry.name for entry in classes]
    if name is not None and name not in names:
        message = f"Ingress {ingress.key}: no IngressClass {name!r}"
        return Problem(message, ingress.origin.at("spec", "ingressClassName"), suggest(name, names))
    if name is None and not any(entry.default for entry in classes):
        message = f"Ingress {ingress.key}: it names no class, and no IngressClass is the default"
        hint = f"add ingressClassName: {names[0]}" if names else f"add an IngressClass with controller {CONTROLLER}"
        return Problem(message, ingress.origin.at("spec"), hint)
    return None
