"""The embedded cluster in the Plan: nodes, pods, the links between them, and Services as `status` shows them."""

from __future__ import annotations

from collections.abc import Iterable

from testbed import plan
from testbed.compile import frr, sysctls
from testbed.compile.base import with_base
from testbed.compile.kube import ingress, netfilter, node_vrfs
from testbed.compile.kube.calico import bird as calico_bird
from testbed.compile.kube.calico.network import PodNetwork, nat_outgoing, node_sysctls, pod_network
from testbed.compile.kube.cluster import Built, pod_node
from testbed.compile.kube.egress.nodes import egress_of
from testbed.compile.kube.instances import PodInstance
from testbed.compile.kube.kube_proxy.config import ProxyConfig
from testbed.compile.kube.kube_proxy.planned import Planned, planned
from testbed.compile.kube.metallb import frr as metallb_frr
from testbed.compile.kube.return_paths import node_return_path
from testbed.compile.kube.uplinks import default_uplink
from testbed.compile.routers import interfaces
from testbed.compile.uplinks import uplinks
from testbed.model import kube
from testbed.render import environment

BIRD_CONFIG = "/etc/calico/confd/config"
BIRD_SOCKET = "/run/calico/bird.ctl"
BIRDC = "/usr/sbin/birdc"
# Calico waits 2 s before it first connects, and 5 s between attempts; in a lab both ends start together.
BIRD_TIMERS = calico_bird.Timers(connect_delay=1, connect_retry=1)


def node_plan(built: Built, name: str) -> plan.Node:
    """A Kubernetes node's part of the Plan."""
    node = built.lab.nodes[name]
    own = built.pods_on(name)
    networks = {pod.key: _network(built, pod) for pod in own if not pod.host_network}
    path = node_return_path(built.lab, built.cluster, built.topology, built.services, name)
    egress = egress_of(built.scene, built.egresses, name)
    proxy = _kube_proxy(built, name)
    cali = [plan.Interface(network.host_interface, addresses=(), mac=network.host_mac) for network in networks.values()]
    routes = [*_default_routes(built, name), *path.routes, *egress.path.routes]
    routes += node_vrfs.routes(built.topology, name, uplinks(built.lab, built.topology, name))
    routes += [route for network in networks.values() for route in network.host_routes]
    settings = [*sysctls.ROUTER, *node_sysctls((4,)), *proxy.sysctls]
    settings += node_vrfs.SYSCTLS if built.cluster.node_vrfs else ()
    settings += [*(entry for network in networks.values() for entry in network.host_sysctls), *egress.sysctls]
    programs = _Programs(built, name)
    return plan.Node(
        name=name,
        kind="kubernetes",
        vrfs=built.topology.vrfs(name),
        interfaces=(*interfaces(built.topology, name), *cali, *proxy.interfaces, *egress.interfaces),
        routes=tuple(routes),
        rules=(*node_vrfs.rules(built.cluster), *egress.path.rules, *path.rules),
        rulesets=(*_rulesets(built, proxy), *path.rulesets, *egress.path.rulesets),
        sysctls=(*settings, *sysctls.stated(node.sysctls)),
        directories=programs.directories,
        files=with_base(programs.files, name, (built.node_ips[name],)),
        processes=programs.processes,
    )


def _kube_proxy(built: Built, name: str) -> Planned:
    config = ProxyConfig((built.cluster.pod_subnet,), service_cidrs=(built.cluster.service_subnet,))
    own = [address.partition("/")[0] for entry in interfaces(built.topology, name) for address in entry.addresses]
    mode = built.cluster.kube_proxy_mode
    return planned(mode, built.services, built.slices, built.object(name), config, ("127.0.0.1", *own))


def _rulesets(built: Built, proxy: Planned) -> Iterable[plan.Ruleset]:
    """The netfilter rules of kube-proxy and Calico, in the order in which they can be loaded."""
    yield from proxy.before
    yield netfilter.merge("iptables", (*proxy.iptables, nat_outgoing(built.bgp.pools)))
    yield from proxy.after


def _default_routes(built: Built, name: str) -> Iterable[plan.Route]:
    """The default route into the cluster's default VRF, and the stated routes into others."""
    if default := default_uplink(built.lab, built.topology, name):
        yield plan.Route("0.0.0.0/0", via=default.gateway, dev=default.interface)
    for route in built.cluster.routes:
        uplink = next(entry for entry in uplinks(built.lab, built.topology, name) if entry.vrf == route.vrf)
        yield plan.Route(route.to, via=uplink.gateway, dev=uplink.interface)


def _network(built: Built, pod: PodInstance) -> PodNetwork:
    return pod_network(pod.namespace, pod.name, built.addresses[pod.key])


class _Programs:
    """What runs on a node beside its pods: Calico's BIRD, MetalLB's FRR, and pods with hostNetwork."""

    def __init__(self, built: Built, name: str) -> None:
        bird = _bird(built, name)
        speaker = _speaker(built, name)
        hosted = [pod for pod in built.pods_on(name) if pod.host_network]
        self.files = (*bird[0], *speaker[0], *(file for pod in hosted for file in _files(built, pod)))
        self.processes = (
            *bird[1],
            *speaker[1],
            *(entry for pod in hosted for entry in _processes(built, pod, own=False)),
        )
        directories = dict(frr.DIRECTORIES) if speaker[1] else {}
        self.directories = (("/run/calico", "root"), *directories.items())
        self.directories += tuple((path, "root") for pod in hosted for path in pod.directories)


def _bird(built: Built, name: str) -> tuple[list[plan.File], list[plan.Process]]:
    texts = calico_bird.bird(environment(), built.bgp, name, BIRD_TIMERS)
    files = [plan.File(f"{BIRD_CONFIG}/{file}", text) for file, text in sorted(texts.items())]
    process = plan.Process(
        name="bird",
        argv=("/usr/sbin/bird", "-d", "-R", "-s", BIRD_SOCKET, "-c", f"{BIRD_CONFIG}/bird.cfg"),
        ready=plan.Ready("path", path=BIRD_SOCKET),
        reload="bird",
        reload_command=(BIRDC, "-s", BIRD_SOCKET, "configure"),
        files=tuple(file.path for file in files),
        directory=BIRD_CONFIG,  # its includes are relative
    )
    return files, [process]


def _speaker(built: Built, name: str) -> tuple[list[plan.File], list[plan.Process]]:
    """MetalLB's speaker: FRR with the text the speaker writes, cut in two for each daemon reads a file of its own."""
    if not built.metallb_sessions(name):
        return [], []
    instances = dict.fromkeys((session.my_asn, session.vrf) for session in built.metallb_sessions(name))
    # FRR waits a second to batch updates (routers.SMALL_FABRIC); a speaker announces too little for that to pay.
    heads = [f"router bgp {asn} vrf {vrf}" if vrf else f"router bgp {asn}" for asn, vrf in instances]
    extras = "".join(f"{head}\n coalesce-time 0\nexit\n" for head in heads)
    text = metallb_frr.frr(built.object(name), built.metallb, built.announcements, extras)
    lines = text.splitlines()
    zebra = [line for line in lines if line.startswith(("hostname", "ip nht", "ipv6 nht"))]
    bgpd = [line for line in lines if not line.startswith(("ip nht", "ipv6 nht"))]
    files = [
        frr.VTYSH,
        frr.daemon_file("zebra", "\n".join([*zebra, ""])),
        frr.daemon_file("bgpd", "\n".join(["log stdout informational", *bgpd, ""])),
    ]
    return files, list(frr.processes(("zebra", "bgpd"), namespace_vrfs=False, listen=False))


def pod_plans(built: Built) -> tuple[list[plan.Node], list[plan.Link]]:
    """The pods with a network of their own, and the links to their nodes."""
    nodes, links = [], []
    for pod in built.pods:
        if pod.host_network:
            continue
        network = _network(built, pod)
        name = pod_node(pod)
        directories = tuple((path, "root") for path in pod.directories)
        nodes.append(
            plan.Node(
                name=name,
                kind="pod",
                hostname=pod.hostname,
                parent=pod.node_name,
                interfaces=(plan.Interface("eth0", addresses=network.addresses),),
                routes=network.pod_routes,
                sysctls=(*sysctls.END_SYSTEM, *network.pod_sysctls),
                directories=directories,
                files=with_base(_files(built, pod), pod.hostname, built.addresses[pod.key]),
                processes=tuple(_processes(built, pod, own=True)),
            )
        )
        links.append(plan.Link(plan.Endpoint(pod.node_name, network.host_interface), plan.Endpoint(name, "eth0")))
    return nodes, links


def _files(built: Built, pod: PodInstance) -> Iterable[plan.File]:
    yield from pod.files
    if pod.role == "ingress-nginx":
        yield plan.File(ingress.CONFIG, built.ingress_config)


def _processes(built: Built, pod: PodInstance, *, own: bool) -> Iterable[plan.Process]:
    """The containers as processes. A container that restarts takes over its files; nginx reads its own again."""
    for container in pod.containers:
        paths = tuple(file.path for file in _files(built, pod))
        yield plan.Process(
            name=container.name if own else f"{pod.name}.{container.name}",
            argv=container.argv,
            env=container.env,
            ready=container.ready,
            reload="hup" if container.role == "ingress-nginx" else "restart",
            files=paths,
            directory=container.directory,
        )


def services(built: Built) -> tuple[plan.Service, ...]:
    """The Services as `status` shows them."""
    return tuple(_service(built, entry) for entry in built.services)


def _service(built: Built, service: kube.Service) -> plan.Service:
    endpoints = []
    for entry in built.slices:
        if (
            entry.metadata.labels.get("kubernetes.io/service-name") == service.name
            and entry.namespace == service.namespace
        ):
            numbers = [port.port for port in entry.ports]
            ready = [end for end in entry.endpoints if end.conditions.ready is not False]
            endpoints += [f"{end.addresses[0]}:{number}" for end in ready for number in numbers]
    announced = built.announcements.services.get(service.key)
    return plan.Service(
        name=service.name,
        namespace=service.namespace,
        type=service.spec.type,
        cluster_ips=tuple(entry for entry in service.spec.cluster_ips or (service.spec.cluster_ip,) if entry),
        ports=tuple(f"{port.port}/{port.protocol}" for port in service.spec.ports),
        addresses=tuple(entry.ip for entry in service.status.load_balancer.ingress),
        endpoints=tuple(endpoints),
        announced_by=tuple(sorted(set(announced.bgp) - built.not_ready)) if announced else (),
    )
