"""VRFs of a cluster's nodes: the wiring that MetalLB leaves to the host, so that a Service works through a VRF.

MetalLB's BGPPeer with `vrf` only attracts the traffic. A request then comes in by an interface of the VRF and, once
translated, is for a pod; its reply comes from the pod, in the default instance. So what is for pods is looked up in the
main table, whatever VRF it comes from; replies find the VRF by the cluster's `returnPath`; what the node itself answers
in the VRF has a default route there. The rule for the local table stays first, as the kernel has it, and sockets of the
default instance hear the VRFs: a backend with hostNetwork has the node's address of the default instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.compile import vrf_devices
from testbed.compile.topology import Topology, kubernetes_nodes
from testbed.compile.uplinks import Uplink
from testbed.errors import Problem
from testbed.model.lab import Cluster, Lab
from testbed.plan import MAIN_TABLE, Route, Rule

PODS_PRIORITY = 900  # before the kernel's rule for VRFs (1000)
SYSCTLS = (("net/ipv4/tcp_l3mdev_accept", "1"), ("net/ipv4/udp_l3mdev_accept", "1"))
_OTHERS = ("tunl0", "kube-ipvs0")  # interfaces of a node that others name, besides Calico's cali…


def node_vrf_problems(lab: Lab, topology: Topology) -> Iterator[Problem]:
    """What is wrong with `nodeVrfs` by itself."""
    cluster = lab.cluster
    if cluster is None or not cluster.node_vrfs:
        return
    place = cluster.origin.at("nodeVrfs")
    if cluster.provider != "embedded":
        message = f"nodeVrfs is not supported with provider {cluster.provider}: its nodes' network"
        message += " is not the lab's to wire"
        yield Problem(message, place, "use provider: embedded")
    if not topology.vrf_tables:
        message = "nodeVrfs needs VRF devices: pods and VRFs share the nodes' network namespace (VRF driver netns)"
        yield Problem(message, place, "on a kernel with VRF devices: vrfDriver: device, or --vrf-driver device")
    if cluster.default_route is None or cluster.default_route in cluster.node_vrfs:
        message = "nodeVrfs: the nodes' own address and default route are in the default routing instance"
        yield Problem(message, place, "state defaultRoute: a VRF of the lab that is none of nodeVrfs")
    for index, vrf in enumerate(cluster.node_vrfs):
        at = cluster.origin.at("nodeVrfs", index)
        if vrf in cluster.node_vrfs[:index]:
            yield Problem(f"VRF {vrf} is named twice", at)
        if vrf in _OTHERS or vrf.startswith("cali"):
            yield Problem(f"a VRF of the nodes cannot be named {vrf}: they have an interface of that name", at)
        for name in kubernetes_nodes(lab):
            if vrf not in topology.vrfs(name):
                yield Problem(f"{name} has no link in VRF {vrf}", at)


def routes(topology: Topology, name: str, uplinks: Sequence[Uplink]) -> Iterator[Route]:
    """Each VRF's own default route, by the first of its uplinks, and the end of its table."""
    vrfs = topology.vrfs(name)
    for vrf in vrfs:
        if uplink := next((entry for entry in uplinks if entry.vrf == vrf), None):
            table = topology.vrf_tables[vrf]
            yield Route("0.0.0.0/0", via=uplink.gateway, dev=uplink.interface, table=table, vrf=vrf)
    yield from vrf_devices.last_routes(vrfs, topology.vrf_tables)


def rules(cluster: Cluster) -> tuple[Rule, ...]:
    """Pods are in the default instance, wherever a packet comes from."""
    return (Rule(PODS_PRIORITY, MAIN_TABLE, destination=cluster.pod_subnet),) if cluster.node_vrfs else ()
