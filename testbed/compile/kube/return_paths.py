"""The return path of each node of a cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from testbed.compile import return_path as paths
from testbed.compile.kube.uplinks import default_uplink
from testbed.compile.return_path import MOST_UPLINKS, ReturnPath, Way, ways
from testbed.compile.return_path_checks import (
    EVERY_WAY,
    Ground,
    chosen,
    field_problems,
    source_check_problems,
    way_problems,
)
from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.compile.uplinks import uplinks
from testbed.errors import Problem
from testbed.model import kube
from testbed.model.lab import Cluster, KubernetesNode, Lab, NodeReturnPath


def policy_of(lab: Lab, cluster: Cluster, name: str) -> NodeReturnPath:
    """The return path of a node: its own, else the cluster's."""
    node = lab.nodes[name]
    assert isinstance(node, KubernetesNode)
    return node.return_path or cluster.return_path


def node_return_path(
    lab: Lab, cluster: Cluster, topology: Topology, services: Sequence[kube.Service], name: str
) -> ReturnPath:
    """The routes, rules and rulesets of a node's return path, which `return_path_problems` finds nothing wrong with."""
    policy = policy_of(lab, cluster, name)
    found = chosen(policy, _ways(lab, topology, name))
    if not found:
        return ReturnPath()
    match policy.mode:
        case "static":
            return paths.static(found[0], policy.to)
        case "rule-lb-ip":
            return paths.by_source(found[0], policy.addresses or _balanced(services))
        case "rule-pod-ip":
            near = (cluster.pod_subnet, *_node_networks(lab, topology))
            return paths.by_source(found[0], (cluster.pod_subnet,), near)
        case "ctorigdst":
            return paths.ctorigdst(found[0], policy.addresses or _balanced(services))
        case "connmark-both":
            return paths.connmark_both(found)
        case _:
            return paths.connmark(found)


def return_path_problems(
    lab: Lab, cluster: Cluster, topology: Topology, services: Sequence[kube.Service]
) -> Iterator[Problem]:
    """What is wrong with the return paths of the cluster and its nodes.

    Args:
        services: with load balancer addresses in their status.
    """
    names = kubernetes_nodes(lab)
    stated = [cluster.return_path, *(policy for name in names if (policy := policy_of(lab, cluster, name)))]
    for policy in {id(policy): policy for policy in stated}.values():
        yield from field_problems(policy)
        yield from _address_problems(policy, services)
        yield from _twice(policy, cluster)
    serves_any = any(chosen(cluster.return_path, _ways(lab, topology, name)) for name in names)
    for name in names:
        policy = policy_of(lab, cluster, name)
        found = _ways(lab, topology, name)
        inherited = policy is cluster.return_path and serves_any
        ground = Ground(lab, name, default_uplink(lab, topology, name), found, inherited)
        yield from way_problems(policy, ground)
        ipvs = cluster.kube_proxy_mode == "ipvs"
        yield from source_check_problems(policy, ground, lab.nodes[name].sysctls, ipvs=ipvs)
        if policy.mode in EVERY_WAY and len(found) > MOST_UPLINKS:
            message = f"{name} has {len(found) + 1} links to routers, and returnPath {policy.mode}"
            yield Problem(f"{message} tells {MOST_UPLINKS + 1} apart", policy.origin.at())


def _ways(lab: Lab, topology: Topology, name: str) -> list[Way]:
    return ways(uplinks(lab, topology, name), default_uplink(lab, topology, name))


def _balanced(services: Sequence[kube.Service]) -> tuple[str, ...]:
    """The load balancer addresses (IPv4) of all Services, as prefixes."""
    found = {entry.ip for service in services for entry in service.status.load_balancer.ingress}
    return tuple(f"{ip}/32" for ip in sorted(map(ipaddress.ip_address, found), key=int) if ip.version == 4)


def _node_networks(lab: Lab, topology: Topology) -> tuple[str, ...]:
    """The subnets of the nodes' default uplinks, by which they reach each other."""
    found = (default_uplink(lab, topology, name) for name in kubernetes_nodes(lab))
    return tuple(dict.fromkeys(network for uplink in found if uplink for network in uplink.networks))


def _address_problems(policy: NodeReturnPath, services: Sequence[kube.Service]) -> Iterator[Problem]:
    if policy.mode in ("rule-lb-ip", "ctorigdst") and not policy.addresses and not _balanced(services):
        message = f"return path {policy.mode}: no Service has a load balancer address"
        yield Problem(message, policy.origin.at("mode"), "add addresses: [PREFIX, ...], or a Service")


def _twice(policy: NodeReturnPath, cluster: Cluster) -> Iterator[Problem]:
    for index, prefix in enumerate(policy.to):
        if any(prefix == route.to for route in cluster.routes) or prefix in policy.to[:index]:
            yield Problem(f"two routes to {prefix}", policy.origin.at("to", index), "leave one out")
