"""A cluster node's default way out of the cluster, among its links to routers."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.compile.uplinks import Uplink, uplinks
from testbed.errors import Problem
from testbed.model.lab import Cluster, Lab


def default_uplink(lab: Lab, topology: Topology, name: str) -> Uplink | None:
    """The uplink of the node's default route: the first in the cluster's `defaultRoute`; None where there is none."""
    wanted = lab.cluster.default_route if lab.cluster else None
    return next((entry for entry in uplinks(lab, topology, name) if wanted in (None, entry.vrf)), None)


def uplink_problems(lab: Lab, cluster: Cluster, topology: Topology) -> Iterator[Problem]:
    """Routes of the cluster that one of its nodes could not have."""
    for name in kubernetes_nodes(lab):
        vrfs = {uplink.vrf for uplink in uplinks(lab, topology, name)}
        if cluster.default_route is not None and cluster.default_route not in vrfs:
            message = f"{name} has no link to a router in VRF {cluster.default_route}"
            yield Problem(message, cluster.origin.at("defaultRoute"))
        for index, route in enumerate(cluster.routes):
            if route.vrf not in vrfs:
                message = f"{name} has no link to a router in VRF {route.vrf}"
                yield Problem(message, cluster.origin.at("routes", index, "vrf"))
