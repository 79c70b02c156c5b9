"""Flows: every name in them resolved to addresses, namespaces and hostnames of the Plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from testbed import plan
from testbed.compile.flow_places import WORKLOADS, PlaceError, each, object_name, place
from testbed.compile.kube.cluster import Built, pod_node
from testbed.compile.kube.instances import PodInstance
from testbed.compile.topology import Topology
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model import kube
from testbed.model.lab import Flow, FlowTarget, Lab
from testbed.model.lab import Places as LabPlaces

PORTS = {"ssh": 22, "http": 80, "dns": 53}


@dataclass(frozen=True)
class _Destination:
    """Where a flow goes: `what` it is in the user's words, `port` its only one (0: it has none, or several)."""

    address: str
    what: str
    port: int = 0


@dataclass(frozen=True)
class _Places:
    """All that a flow can name, and what is known of it in one family.

    Args:
        version: of IP, 4 or 6.
    """

    lab: Lab
    topology: Topology
    built: Built | None
    version: int

    @property
    def real(self) -> bool:
        """Whether the cluster is made by kind."""
        return self.built is not None and self.built.cluster.provider == "kind"

    # --- objects ----------------------------------------------------------------------------------------------------

    def pods(self, target: FlowTarget) -> list[PodInstance]:
        """The pods of a workload, of one node only when the target says so."""
        if self.real:
            message = f"{'/'.join(target.pods)}: pods of a cluster that kind makes are not supported yet in flows"
            raise PlaceError(message, "name a Service or a node")
        word, text = target.pods
        kind, (namespace, name) = WORKLOADS[word], object_name(text)
        known = [pod for pod in self.built.pods if pod.origin.kind == kind] if self.built else []
        found = [pod for pod in known if (pod.namespace, pod.origin.name) == (namespace, name)]
        if not found:
            names = [pod.origin.name for pod in known if pod.namespace == namespace]
            raise PlaceError(f"no {kind} {name!r} with pods in namespace {namespace}", suggest(name, names))
        if target.node:
            found = [pod for pod in found if pod.node_name == target.node]
            if not found:
                raise PlaceError(f"{kind} {name} has no pod on {target.node}")
        return found

    def service(self, text: str) -> kube.Service:
        services = self.built.services if self.built else ()
        for service in services:
            if (service.namespace, service.name) == object_name(text):
                return service
        names = [entry.key.removeprefix("default/") for entry in services]
        raise PlaceError(f"no Service {text!r}", suggest(text, names))

    # --- facts ------------------------------------------------------------------------------------------------------

    def source(self, target: FlowTarget) -> tuple[str, bool]:
        """(name in the Plan, whether it is in the cluster) of where a flow starts."""
        if target.pods[0]:
            pod = self.pods(target)[0]
            return (pod.node_name if pod.host_network else pod_node(pod)), True
        assert target.node is not None
        return target.node, self.lab.nodes[target.node].kind == "kubernetes"

    def destination(self, target: FlowTarget, *, inside: bool) -> _Destination:
        """Where a flow goes that starts inside or outside of the cluster."""
        if target.address:
            return _Destination(target.address, target.address)
        if target.service:
            return self._service_destination(self.service(target.service), inside=inside)
        if target.pods[0]:
            pod = self.pods(target)[0]
            return _Destination(self._only(self._pod_addresses([pod]), f"pod {pod.name}"), f"pod {pod.name}")
        assert target.node is not None
        what = f"{target.node} in VRF {target.vrf}" if target.vrf else target.node
        addresses = self.topology.addresses(target.node, self.version, target.vrf)
        return _Destination(self._only(addresses, what), what)

    def _service_destination(self, service: kube.Service, *, inside: bool) -> _Destination:
        """From inside the cluster its cluster IP, from outside its load balancer address."""
        what = f"Service {service.name}"
        if service.spec.type == "ExternalName":
            raise PlaceError(f"{what} is an ExternalName, which has no address")
        if service.spec.cluster_ip == "None" and inside:
            raise PlaceError(f"{what} is headless: it has no address of its own", "name a workload")
        if inside and self.real:
            message = f"{what}: its cluster IP is the cluster's choice, which kind makes: not supported yet"
            raise PlaceError(message, "begin the flow at a host, or name an address")
        external = [entry.ip for entry in service.status.load_balancer.ingress]
        if not inside and not external:
            message = f"{what} has no load balancer address, and the flow starts outside the cluster"
            raise PlaceError(message, f"its type is {service.spec.type}")
        ports = [port.port for port in service.spec.ports]
        address = self._only(self._family(_cluster_ips(service) if inside else external), what)
        return _Destination(address, what, ports[0] if len(ports) == 1 else 0)

    def addresses(self, text: str | FlowTarget) -> tuple[str, ...]:
        """All addresses of a place, to compare with what a server saw. Raises PlaceError when it has none."""
        target = place(self.lab, text)
        if target.address:
            found: Iterable[str] = (target.address,)
        elif target.service:
            service = self.service(target.service)
            own_ips = () if self.real else _cluster_ips(service)
            found = (*own_ips, *(entry.ip for entry in service.status.load_balancer.ingress))
        elif target.pods[0]:
            found = self._pod_addresses(self.pods(target))
        else:
            assert target.node is not None
            found = self.topology.addresses(target.node, self.version, target.vrf)
        own = self._family(found)
        self._only(own, _words(target))
        return own

    def hostnames(self, text: str | FlowTarget) -> tuple[str, ...]:
        """The names by which a place answers: a pod's, or a node's."""
        target = place(self.lab, text)
        if target.pods[0]:
            return tuple(pod.hostname for pod in self.pods(target))
        assert target.node is not None
        return (target.node,)

    def _pod_addresses(self, pods: Iterable[PodInstance]) -> tuple[str, ...]:
        assert self.built is not None
        return self._family(address for pod in pods for address in self.built.addresses[pod.key])

    def _family(self, addresses: Iterable[str]) -> tuple[str, ...]:
        return tuple(text for text in addresses if (6 if ":" in text else 4) == self.version)

    def _only(self, addresses: Iterable[str], what: str) -> str:
        """The first address. Raises PlaceError when there is none."""
        for address in addresses:
            return address
        raise PlaceError(f"{what} has no IPv{self.version} address")


def _cluster_ips(service: kube.Service) -> tuple[str, ...]:
    stated = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return tuple(text for text in stated if text not in ("", "None"))


def _words(target: FlowTarget) -> str:
    """A place in the user's words."""
    if target.service:
        return f"service/{target.service}"
    if target.pods[0]:
        return "/".join(target.pods)
    return target.address or (f"{target.node} in VRF {target.vrf}" if target.vrf else str(target.node))


def compile_flows(lab: Lab, topology: Topology, built: Built | None) -> tuple[tuple[plan.Flow, ...], list[Problem]]:
    """The flows of a lab, and what is wrong with them beyond what `flow_checks.flow_problems` finds."""
    made: list[plan.Flow] = []
    problems: list[Problem] = []
    for flow in lab.flows:
        version = 4 if flow.family == "IPv4" else 6
        resolver = _Resolver(_Places(lab, topology, built, version), flow)
        made.append(resolver.resolve())
        problems += resolver.problems
    return tuple(made), problems


class _Resolver:
    """Resolves one flow; a field that cannot be resolved is a problem at that field."""

    def __init__(self, places: _Places, flow: Flow) -> None:
        self.places, self.flow = places, flow
        self.problems: list[Problem] = []

    def problem(self, message: str, *path: str | int, hint: str = "") -> None:
        self.problems.append(Problem(message, self.flow.origin.at(*path), hint))

    def resolve(self) -> plan.Flow:
        """The flow; of no use when there are problems."""
        flow = self.flow
        source, inside = self._source()
        target = self._target(inside)
        return plan.Flow(
            name=flow.name,
            source=source,
            address=target.address,
            protocol=flow.protocol,
            port=self._port(target),
            target=target.what,
            expect=flow.expect,
            seen_as=self._each("seenAs", flow.seen_as, self.places.addresses),
            answered_by=self._each("answeredBy", flow.answered_by, self.places.hostnames),
            via=self._passages("via", flow.via),
            not_via=self._passages("notVia", flow.not_via),
            http_host=flow.host,
            http_path=flow.path,
            status=flow.status or 0,
            forwarded_for=self._each("forwardedFor", flow.forwarded_for, self.places.addresses),
            user=flow.user,
            command=flow.command,
            output=flow.output,
            query=flow.query,
            answer=flow.answer or "",
            timeout=flow.timeout,
        )

    def _source(self) -> tuple[str, bool]:
        try:
            return self.places.source(place(self.places.lab, self.flow.source))
        except PlaceError as error:
            self.problems.append(error.at(self.flow, "from"))
            return "", False

    def _target(self, inside: bool) -> _Destination:
        try:
            return self.places.destination(place(self.places.lab, self.flow.to), inside=inside)
        except PlaceError as error:
            self.problems.append(error.at(self.flow, "to"))
            return _Destination("", "", 1)

    def _port(self, target: _Destination) -> int:
        if self.flow.protocol == "icmp":
            return 0
        port = self.flow.port or target.port or PORTS.get(self.flow.protocol, 0)
        if not port:
            message = f"a {self.flow.protocol} flow to {target.what} needs a port"
            self.problem(message, "protocol", hint="add port: NUMBER")
        return port

    def _each(
        self, field: str, stated: LabPlaces, resolve: Callable[[str | FlowTarget], tuple[str, ...]]
    ) -> tuple[str, ...]:
        found: list[str] = []
        for path, text in each(stated, field):
            try:
                found += resolve(text)
            except PlaceError as error:
                self.problems.append(error.at(self.flow, *path))
        return tuple(dict.fromkeys(found))

    def _passages(self, field: str, names: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
        """(node, VRF) of nodes on the way: the flow's VRF, else the default one, else the only one.

        Without a VRF, `notVia` means all of them.
        """
        found: list[tuple[str, str | None]] = []
        for index, name in enumerate(names):
            instances = self._instances(name)
            if self.flow.vrf and instances != [None]:
                found.append((name, self.flow.vrf))
                if self.flow.vrf not in instances:
                    hint = suggest(self.flow.vrf, [vrf for vrf in instances if vrf])
                    self.problem(f"{name} has no VRF {self.flow.vrf!r}", "vrf", hint=hint)
            elif field == "notVia" or len(instances) == 1:
                found += [(name, vrf) for vrf in instances]
            elif None in instances:
                found.append((name, None))
            else:
                vrfs = [vrf for vrf in instances if vrf]
                self.problem(f"{name} has several VRFs", field, index, hint=f"add vrf: {' or '.join(vrfs)}")
        return tuple(found)

    def _instances(self, name: str) -> list[str | None]:
        """The routing instances of a node in which it has a link."""
        ends = [end for _, end in self.places.topology.of(name)]
        return list(dict.fromkeys(end.vrf for end in ends)) or [None]
