"""What is wrong between the parts of a lab file, found before anything is derived from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network

from testbed.errors import Position, Problem
from testbed.load.explain import suggest
from testbed.model.base import Located
from testbed.model.lab import Cluster, Host, KubernetesNode, Lab, Router, Timers

NO_GATEWAY = "none"
_SYSCTL = re.compile(r"net(\.[A-Za-z0-9_-]+)+", re.ASCII)
_LONGEST_SERVICE_PREFIX = 29  # kube-apiserver: a range of at least 8 addresses (k8s.io/kubernetes/pkg/controlplane)


def lab_problems(lab: Lab) -> list[Problem]:
    """Everything that is wrong with a lab apart from its links and flows."""
    found = [*_vrfs(lab), *_timers(lab.bgp.timers, lab, "bgp")]
    for name, node in lab.nodes.items():
        found += _sysctls(name, node)
        if name == NO_GATEWAY:
            found.append(
                Problem(f"no node can be named {name}: as a gateway it stands for no router", node.origin.at())
            )
        if isinstance(node, Host):
            found += _gateway(lab, name, node)
        if isinstance(node, Router):
            found += _router(lab, node)
    return [*found, *_cluster(lab)]


def no_vrf(lab: Lab, vrf: str, position: Position | None) -> Problem:
    """The problem that the lab has no VRF of that name."""
    return Problem(f"no VRF {vrf!r}", position, suggest(vrf, lab.vrfs) or "add it to the lab's vrfs")


def _vrfs(lab: Lab) -> Iterator[Problem]:
    for index, vrf in enumerate(lab.vrfs):
        if vrf in lab.vrfs[:index]:
            yield Problem(f"VRF {vrf} is named twice", lab.origin.at("vrfs", index))


def _timers(timers: Timers | None, holder: Located, *path: str) -> Iterator[Problem]:
    """RFC 4271, section 4.2: a hold time is 0 or at least 3 s; keepalive messages come more often."""
    if timers is None or timers.hold == 0:
        return
    if timers.hold < 3:
        message = f"hold {timers.hold}: a BGP hold time is 0 or at least 3 seconds"
        yield Problem(message, holder.origin.at(*path, "timers", "hold"), "RFC 4271, section 4.2")
    elif timers.keepalive >= timers.hold:
        message = f"keepalive {timers.keepalive} must be less than hold {timers.hold}"
        field = "keepalive" if "keepalive" in timers.model_fields_set else "hold"
        yield Problem(message, holder.origin.at(*path, "timers", field), "a third of it is usual")


def _sysctls(name: str, node: Router | Host | KubernetesNode) -> Iterator[Problem]:
    for key, value in node.sysctls.items():
        place = node.origin.at("sysctls", key)
        if not _SYSCTL.fullmatch(key):
            hint = "those of a network namespace begin with net."
            yield Problem(f"{name}: {key!r} is no setting of a node's own", place, hint)
        elif "\n" in str(value):
            yield Problem(f"{name}: the value of {key} is more than one line", place)


def _gateway(lab: Lab, name: str, node: Host) -> Iterator[Problem]:
    if node.gateway in ("", NO_GATEWAY):
        return
    gateway = lab.nodes.get(node.gateway)
    place = node.origin.at("gateway")
    if gateway is None:
        routers = [other for other, entry in lab.nodes.items() if isinstance(entry, Router)]
        yield Problem(f"no node {node.gateway!r}", place, suggest(node.gateway, [*routers, NO_GATEWAY]))
    elif not isinstance(gateway, Router):
        yield Problem(f"the gateway of {name} must be a router, and {node.gateway} is none", place)


def _router(lab: Lab, node: Router) -> Iterator[Problem]:
    if node.bgp:
        yield from _timers(node.bgp.timers, node, "bgp")
    stated: list[tuple[tuple[str, int], str | None]] = [
        (("routes", i), route.vrf) for i, route in enumerate(node.routes)
    ]
    stated += [(("nat", i), nat.vrf) for i, nat in enumerate(node.nat)]
    for path, vrf in stated:
        if vrf and vrf not in lab.vrfs:
            yield no_vrf(lab, vrf, node.origin.at(*path, "vrf"))
    for index, nat in enumerate(node.nat):
        if nat.outside not in lab.nodes:
            place = node.origin.at("nat", index, "outside")
            yield Problem(f"no node {nat.outside!r}", place, suggest(nat.outside, lab.nodes))


def _cluster(lab: Lab) -> Iterator[Problem]:
    names = [name for name, node in lab.nodes.items() if isinstance(node, KubernetesNode)]
    if lab.cluster is None:
        for name in names:
            message = f"{name} is a Kubernetes node, and the lab has no cluster"
            yield Problem(message, lab.nodes[name].origin.at("kind"), "add cluster: {name: NAME}")
        return
    if not names:
        yield Problem("the cluster has no node", lab.origin.at("cluster"), "add nodes of kind kubernetes")
    yield from _cluster_vrfs(lab, lab.cluster)
    yield from _cluster_subnets(lab.cluster)


def _cluster_vrfs(lab: Lab, cluster: Cluster) -> Iterator[Problem]:
    stated: list[tuple[tuple[str | int, ...], str | None]] = [(("defaultRoute",), cluster.default_route)]
    stated += [(("routes", index, "vrf"), route.vrf) for index, route in enumerate(cluster.routes)]
    stated += [(("nodeVrfs", index), vrf) for index, vrf in enumerate(cluster.node_vrfs)]
    for path, vrf in stated:
        if vrf is not None and vrf not in lab.vrfs:
            yield no_vrf(lab, vrf, cluster.origin.at(*path))


def _cluster_subnets(cluster: Cluster) -> Iterator[Problem]:
    pods, services = ip_network(cluster.pod_subnet), ip_network(cluster.service_subnet)
    if services.prefixlen > _LONGEST_SERVICE_PREFIX:
        message = f"serviceSubnet {services} is too small: a cluster needs at least a /{_LONGEST_SERVICE_PREFIX}"
        yield Problem(message, cluster.origin.at("serviceSubnet"))
    if pods.overlaps(services):
        message = f"podSubnet {pods} and serviceSubnet {services} overlap"
        yield Problem(message, cluster.origin.at("podSubnet"))
