"""What workloads expand to: pods on nodes, and the programs in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Literal

from testbed.model.images import Role
from testbed.model.kube import KubeObject, Protocol
from testbed.model.workloads import ContainerPort, Probe
from testbed.plan import File, Ready


def later(fact: str) -> str:
    """The mark that stands for a fact known only once addresses are given. Input never holds the character NUL."""
    return f"\0{fact}\0"


@dataclass(frozen=True, slots=True)
class ContainerInstance:
    """A program of a pod.

    Args:
        name: the container's.
        image: its image's name in the catalogue.
        role: what the image is to the lab; empty when the container runs a command of its own instead.
        argv: the command, its program as an absolute path.
        env: pairs. Like `argv` it may hold marks for the pod's addresses until `with_addresses`.
        directory: the working directory.
        files: of the image, and of its ConfigMap and Secret volumes.
        directories: that must exist: of the image, and emptyDir volumes.
        ports: as declared.
        ready: when it counts as started.
        options: (name, value) of the options that the image hands on to whoever configures its role.
        readiness, liveness, startup: the probes as written, named ports replaced by their numbers.
    """

    name: str
    image: str
    role: Role
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    directory: str = "/"
    files: tuple[File, ...] = ()
    directories: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    ready: Ready = field(default_factory=Ready)
    options: tuple[tuple[str, str], ...] = ()
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None

    @property
    def needs_addresses(self) -> bool:
        """Whether an argument or variable waits for the pod's or the node's address."""
        return any("\0" in text for text in (*self.argv, *(value for _, value in self.env)))


@dataclass(frozen=True, slots=True)
class PodInstance:
    """One pod, on its node.

    Args:
        labels, annotations: the template's, and those its controller adds.
        node_name: where it runs. zone: that node's topology.kubernetes.io/zone, empty for none.
        host_network: it has the node's network, and no addresses of its own.
        hostname: what the kernel calls it; the node's name with `host_network`.
        subdomain: the headless Service that gives it a name in DNS; empty for none. pod_hostname: its name there.
        dns_policy: what /etc/resolv.conf holds: the cluster's DNS, or the node's.
        origin: the object that was written. index: which of its replicas this is.
        ready: whether Services send to it.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node_name: str
    zone: str
    host_network: bool
    hostname: str
    pod_hostname: str
    subdomain: str
    dns_policy: Literal["ClusterFirst", "Default"]
    containers: tuple[ContainerInstance, ...]
    origin: KubeObject
    index: int
    ready: bool = True

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def role(self) -> Role:
        """The first role among its containers."""
        return next((container.role for container in self.containers if container.role), "")

    @property
    def files(self) -> tuple[File, ...]:
        """The files of all containers, which share one file system; each path once, sorted."""
        by_path = {file.path: file for container in self.containers for file in container.files}
        return tuple(by_path[path] for path in sorted(by_path))

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories of all containers, sorted."""
        return tuple(sorted({path for container in self.containers for path in container.directories}))

    def port(self, name: str, protocol: Protocol) -> int | None:
        """The number of a declared port; None when no container declares it with that protocol."""
        for container in self.containers:
            for port in container.ports:
                if port.name == name and port.protocol == protocol:
                    return port.container_port
        return None


def with_addresses(pod: PodInstance, ips: Sequence[str], host_ip: str) -> PodInstance:
    """The pod with the facts that its arguments and variables waited for.

    Args:
        pod: as `pods` gives it.
        ips: its addresses, the primary first; with `host_network` those of its node.
        host_ip: the primary InternalIP of its node.

    Raises:
        ValueError: `ips` is empty, or something in it or `host_ip` is no address.
    """
    addresses = [str(ip_address(ip)) for ip in ips]
    if not addresses:
        raise ValueError(f"pod {pod.key} has no address")
    facts = {"status.podIP": addresses[0], "status.podIPs": ",".join(addresses), "status.hostIP": host_ip}
    ip_address(host_ip)
    return replace(pod, containers=tuple(_resolved(container, facts) for container in pod.containers))


def _resolved(container: ContainerInstance, facts: Mapping[str, str]) -> ContainerInstance:
    def fill(text: str) -> str:
        for fact, value in facts.items():
            text = text.replace(later(fact), value)
        return text

    env = tuple((name, fill(value)) for name, value in container.env)
    return replace(container, argv=tuple(fill(text) for text in container.argv), env=env)


def host_ports(ports: Iterator[ContainerPort]) -> frozenset[tuple[Protocol, int]]:
    """What a pod with `hostNetwork` takes on its node."""
    return frozenset((port.protocol, port.container_port) for port in ports)
