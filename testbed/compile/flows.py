"""Flows: every name in them resolved to addresses, namespaces and hostnames of the Plan."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from testbed import plan
from testbed.compile.kube.cluster import Built, pod_node
from testbed.compile.kube.instances import PodInstance
from testbed.compile.topology import Topology
from testbed.errors import Position, Problem
from testbed.load.explain import suggest
from testbed.model import kube
from testbed.model.lab import Flow, FlowTarget, Lab, Router
from testbed.model.lab import Places as LabPlaces

PORTS = {"ssh": 22, "http": 80, "dns": 53}
WORKLOADS = {"deployment": "Deployment", "daemonset": "DaemonSet", "statefulset": "StatefulSet", "pod": "Pod"}


class _CannotResolveError(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Places:
    """All that a flow can name."""

    lab: Lab
    topology: Topology
    built: Built | None

    # --- words → places ---------------------------------------------------------------------------------------------

    def target(self, text: str | FlowTarget) -> FlowTarget:
        """A place in its long form."""
        if isinstance(text, FlowTarget):
            return text
        kind, slash, name = text.partition("/")
        if slash and kind in (*WORKLOADS, "service"):
            return FlowTarget(**{kind: name})
        if slash:
            raise _CannotResolveError(f"{text!r} names no place", suggest(kind, [*WORKLOADS, "service"]))
        try:
            return FlowTarget(address=str(ipaddress.ip_address(text)))
        except ValueError:
            return FlowTarget(node=text)

    def pods(self, target: FlowTarget) -> list[PodInstance]:
        """The pods of a workload, of one node only when the target says so."""
        kind = next((word for word in WORKLOADS if getattr(target, word)), "")
        namespace, _, name = getattr(target, kind).rpartition("/")
        if self.built is None:
            raise _CannotResolveError(f"{kind}/{name}: the lab has no cluster")
        namespace = namespace or "default"
        found = [
            pod
            for pod in self.built.pods
            if pod.namespace == namespace and pod.origin.kind == WORKLOADS[kind] and pod.origin.name == name
        ]
        if not found:
            names = [pod.origin.name for pod in self.built.pods if pod.origin.kind == WORKLOADS[kind]]
            raise _CannotResolveError(f"no {WORKLOADS[kind]} {name!r} with pods in namespace {namespace}", suggest(name, names))
        if target.node:
            self.node(target.node)
            found = [pod for pod in found if pod.node_name == target.node]
            if not found:
                raise _CannotResolveError(f"{kind}/{name} has no pod on {target.node}")
        return found

    def service(self, target: FlowTarget) -> kube.Service:
        namespace, _, name = (target.service or "").rpartition("/")
        services = self.built.services if self.built else ()
        for service in services:
            if (service.namespace, service.name) == (namespace or "default", name):
                return service
        names = [f"{entry.namespace}/{entry.name}" if entry.namespace != "default" else entry.name for entry in services]
        raise _CannotResolveError(f"no Service {target.service!r}", suggest(target.service or "", names))

    def node(self, name: str) -> str:
        if name not in self.lab.nodes:
            raise _CannotResolveError(f"no node {name!r}", suggest(name, self.lab.nodes))
        return name

    # --- places → facts ---------------------------------------------------------------------------------------------

    def source(self, target: FlowTarget) -> tuple[str, bool]:
        """(name in the Plan, whether it is in the cluster) of where a flow starts."""
        if target.service or target.address:
            raise _CannotResolveError("a flow starts at a node or a pod")
        if any(getattr(target, word) for word in WORKLOADS):
            pod = self.pods(target)[0]
            return (pod.node_name if pod.host_network else pod_node(pod)), True
        name = self.node(target.node or "")
        if isinstance(self.lab.nodes[name], Router):
            raise _CannotResolveError(f"{name} is a router: flows start at hosts, Kubernetes nodes and pods")
        return name, self.lab.nodes[name].kind == "kubernetes"

    def destination(self, target: FlowTarget, version: int, inside: bool) -> tuple[str, str, int]:
        """(address, what it is, the only port there) of where a flow goes; port 0: it has none, or several."""
        if target.address:
            return target.address, target.address, 0
        if target.service:
            return self._service_address(target, version, inside)
        if any(getattr(target, word) for word in WORKLOADS):
            pod = self.pods(target)[0]
            assert self.built is not None
            address = next((text for text in self.built.addresses[pod.key] if _version(text) == version), "")
            return _needed(address, f"pod {pod.name}", version), f"pod {pod.name}", 0
        name = self.node(target.node or "")
        addresses = self.topology.addresses(name, version, target.vrf)
        where = f"{name} in VRF {target.vrf}" if target.vrf else name
        return _needed(addresses[0] if addresses else "", where, version), where, 0

    def _service_address(self, target: FlowTarget, version: int, inside: bool) -> tuple[str, str, int]:
        """From inside the cluster its cluster IP, from outside its load balancer address."""
        service = self.service(target)
        external = [entry.ip for entry in service.status.load_balancer.ingress]
        internal = list(service.spec.cluster_ips or (service.spec.cluster_ip,))
        if not inside and not external:
            raise _CannotResolveError(
                f"Service {service.name} has no load balancer address, and the flow starts outside the cluster"
            )
        address = next((text for text in (internal if inside else external) if _version(text) == version), "")
        ports = [port.port for port in service.spec.ports]
        return _needed(address, f"Service {service.name}", version), f"Service {service.name}", ports[0] if len(ports) == 1 else 0

    def addresses(self, text: str | FlowTarget, version: int) -> tuple[str, ...]:
        """All addresses of a place, to compare with what a server saw."""
        target = self.target(text)
        if target.address:
            return (target.address,)
        if target.service:
            service = self.service(target)
            return (*service.spec.cluster_ips, *(entry.ip for entry in service.status.load_balancer.ingress))
        if any(getattr(target, word) for word in WORKLOADS):
            found = self.pods(target)
            assert self.built is not None
            return tuple(address for pod in found for address in self.built.addresses[pod.key])
        return self.topology.addresses(self.node(target.node or ""), version)

    def hostnames(self, text: str | FlowTarget) -> tuple[str, ...]:
        """The names by which a place answers: a pod's, or a node's."""
        target = self.target(text)
        if any(getattr(target, word) for word in WORKLOADS):
            return tuple(pod.hostname for pod in self.pods(target))
        if target.node:
            return (self.node(target.node),)
        raise _CannotResolveError(f"{text!r} does not answer by itself: name a workload or a node")


def _version(text: str) -> int:
    return 6 if ":" in text else 4 if text and text != "None" else 0


def _needed(address: str, where: str, version: int) -> str:
    if not address:
        raise _CannotResolveError(f"{where} has no IPv{version} address")
    return address


def compile_flows(lab: Lab, topology: Topology, built: Built | None) -> tuple[tuple[plan.Flow, ...], list[Problem]]:
    """The flows of a lab, and what is wrong with them."""
    places = Places(lab, topology, built)
    made: list[plan.Flow] = []
    problems: list[Problem] = []
    names: set[str] = set()
    for flow in lab.flows:
        if flow.name in names:
            problems.append(Problem(f"two flows are named {flow.name}", flow.origin.at("name")))
        names.add(flow.name)
        compiled = _Resolver(places, flow, problems).resolve()
        if compiled:
            made.append(compiled)
    return tuple(made), problems


class _Resolver:
    """Resolves one flow; a field that cannot be resolved is a problem at that field."""

    def __init__(self, places: Places, flow: Flow, problems: list[Problem]) -> None:
        self.places, self.flow, self.problems = places, flow, problems
        self.version = 4 if flow.family == "IPv4" else 6

    def problem(self, field: str, message: str, hint: str = "") -> None:
        position: Position | None = self.flow.origin.at(field)
        self.problems.append(Problem(message, position, hint))

    def resolve(self) -> plan.Flow | None:
        before = len(self.problems)
        source, address, target, port = self._ends()
        self._check_fields()
        seen = self._each("seenAs", self.flow.seen_as, lambda text: self.places.addresses(text, self.version))
        forwarded = self._each("forwardedFor", self.flow.forwarded_for, lambda text: self.places.addresses(text, self.version))
        answered = self._each("answeredBy", self.flow.answered_by, self.places.hostnames)
        via, not_via = self._passages("via", self.flow.via), self._passages("notVia", self.flow.not_via)
        if len(self.problems) > before:
            return None
        flow = self.flow
        return plan.Flow(
            name=flow.name,
            source=source,
            address=address,
            protocol=flow.protocol,
            port=port,
            target=target,
            expect=flow.expect,
            seen_as=seen,
            answered_by=answered,
            via=via,
            not_via=not_via,
            http_host=flow.host,
            http_path=flow.path,
            status=flow.status or 0,
            forwarded_for=forwarded,
            user=flow.user,
            command=flow.command,
            output=flow.output,
            query=flow.query,
            answer=flow.answer,
            timeout=flow.timeout,
        )

    def _ends(self) -> tuple[str, str, str, int]:
        source, inside, address, target, only = "", False, "", "", 0
        try:
            source, inside = self.places.source(self.places.target(self.flow.source))
        except _CannotResolveError as error:
            self.problem("from", str(error), error.hint)
        try:
            address, target, only = self.places.destination(self.places.target(self.flow.to), self.version, inside)
        except _CannotResolveError as error:
            self.problem("to", str(error), error.hint)
        return source, address, target, self._port(only)

    def _port(self, only: int) -> int:
        if self.flow.protocol == "icmp":
            if self.flow.port:
                self.problem("port", "icmp has no ports")
            return 0
        port = self.flow.port or only or PORTS.get(self.flow.protocol, 0)
        if not port:
            self.problem("protocol", f"a {self.flow.protocol} flow needs a port", "add port: NUMBER")
        return port

    def _check_fields(self) -> None:
        """Fields that mean nothing to the flow's protocol are refused, not ignored."""
        allowed = {
            "http": {"host", "path", "status", "forwardedFor"},
            "ssh": {"user", "command", "output"},
            "dns": {"query", "answer"},
        }
        written = {
            "host": bool(self.flow.host),
            "path": "path" in self.flow.model_fields_set,
            "status": self.flow.status is not None,
            "forwardedFor": bool(self.flow.forwarded_for),
            "user": "user" in self.flow.model_fields_set,
            "command": bool(self.flow.command),
            "output": bool(self.flow.output),
            "query": bool(self.flow.query),
            "answer": bool(self.flow.answer),
        }
        for field, there in written.items():
            if there and field not in allowed.get(self.flow.protocol, set()):
                self.problem(field, f"{field} means nothing to a {self.flow.protocol} flow")
        if self.flow.protocol == "dns" and not self.flow.query:
            self.problem("protocol", "a dns flow needs a query")
        if self.flow.protocol in ("icmp", "dns") and (self.flow.seen_as or self.flow.answered_by):
            self.problem("seenAs" if self.flow.seen_as else "answeredBy", f"{self.flow.protocol} does not tell what the server saw")
        if self.flow.expect != "ok" and (self.flow.seen_as or self.flow.answered_by or self.flow.status):
            self.problem("expect", f"a flow that must end in {self.flow.expect} has no answer to check")
        if self.flow.vrf and not (self.flow.via or self.flow.not_via):
            self.problem("vrf", "vrf is that of the routers in via or notVia, and there are none")

    def _each(
        self, field: str, places: LabPlaces, resolve: Callable[[str | FlowTarget], tuple[str, ...]]
    ) -> tuple[str, ...]:
        found: list[str] = []
        for place in places if isinstance(places, tuple) else (places,):
            try:
                found += resolve(place)
            except _CannotResolveError as error:
                self.problem(field, str(error), error.hint)
        return tuple(dict.fromkeys(found))

    def _passages(self, field: str, names: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
        """(node, VRF) of nodes on the way; a router's VRF is the flow's, or its only one."""
        found: list[tuple[str, str | None]] = []
        for name in names:
            try:
                self.places.node(name)
            except _CannotResolveError as error:
                self.problem(field, str(error), error.hint)
                continue
            vrfs = self.places.topology.vrfs(name)
            default = any(end.vrf is None for _, end in self.places.topology.of(name))
            if self.flow.vrf and vrfs and self.flow.vrf not in vrfs:
                self.problem("vrf", f"{name} has no VRF {self.flow.vrf!r}", suggest(self.flow.vrf, vrfs))
            elif self.flow.vrf and vrfs:
                found.append((name, self.flow.vrf))
            elif not vrfs or (default and not self.flow.vrf):
                found.append((name, None))
            elif field == "notVia" or len(vrfs) == 1:
                found += [(name, vrf) for vrf in vrfs]
            else:
                self.problem(field, f"{name} has several VRFs", f"add vrf: {' or '.join(vrfs)}")
        return tuple(found)
