"""A cluster node's ways out of the cluster: its links to routers, one per VRF of the lab."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.compile.return_path import MOST_UPLINKS, Uplink
from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.errors import Problem
from testbed.model.lab import Cluster, Lab, Router


def uplinks(lab: Lab, topology: Topology, name: str) -> list[Uplink]:
    """The node's segments that have a router, with the first router there as gateway (IPv4)."""
    found = []
    for segment, own in topology.of(name):
        for other in segment.others(name):
            if isinstance(lab.nodes[other.node], Router) and other.address(4) and own.address(4):
                networks = tuple(str(entry) for entry in segment.networks if entry.version == 4)
                found.append(Uplink(own.interface, segment.vrf or "", other.address(4), networks))
                break
    return found


def default_uplink(lab: Lab, topology: Topology, name: str) -> Uplink | None:
    """The uplink of the node's default route: the first in the cluster's `defaultRoute`; None where there is none."""
    wanted = lab.cluster.default_route if lab.cluster else None
    return next((entry for entry in uplinks(lab, topology, name) if wanted in (None, entry.vrf)), None)


def uplink_problems(lab: Lab, cluster: Cluster, topology: Topology) -> Iterator[Problem]:
    """Routes of the cluster that one of its nodes could not have, and uplinks beyond what marks can tell apart."""
    for name in kubernetes_nodes(lab):
        own = uplinks(lab, topology, name)
        vrfs = {uplink.vrf for uplink in own}
        if cluster.default_route is not None and cluster.default_route not in vrfs:
            message = f"{name} has no link to a router in VRF {cluster.default_route}"
            yield Problem(message, cluster.origin.at("defaultRoute"))
        for index, route in enumerate(cluster.routes):
            if route.vrf not in vrfs:
                message = f"{name} has no link to a router in VRF {route.vrf}"
                yield Problem(message, cluster.origin.at("routes", index, "vrf"))
        if cluster.return_path == "connmark" and len(own) > MOST_UPLINKS + 1:
            message = f"{name} has {len(own)} links to routers, and returnPath connmark tells {MOST_UPLINKS + 1} apart"
            yield Problem(message, cluster.origin.at("returnPath"))
