"""How a node hands over to the one that translates: by a link of both, else by a tunnel from uplink to uplink.

The tunnel is one VXLAN device (RFC 7348) on each node that needs it, as Calico's and flannel's are: the peers' hardware
addresses are told, the next hop in the tunnel is the peer's own address, and what carries the packets is routed as all
that the node sends by itself. Replies to pods do not come by it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed import plan
from testbed.bpf import TUNNEL_PORT
from testbed.compile.kube.egress.checks import Scene
from testbed.compile.kube.egress.tables import TUNNEL
from testbed.compile.return_path_checks import LOOSE, STRICT, effective
from testbed.errors import Problem

VNI = 200  # Calico's is 4096
OVERHEAD = 50  # bytes: IPv4, UDP, VXLAN and Ethernet headers
ETHERNET_MTU = 1500  # bytes, the kernel's for a link without a stated one
LEAST_MTU = 68  # bytes (RFC 791)
_CHECK = f"net.ipv4.conf.{TUNNEL}.rp_filter"
# What comes out of the tunnel has a way back by another interface; the larger of this and that of `all` counts.
SYSCTLS = ((_CHECK.replace(".", "/"), str(LOOSE)),)


@dataclass(frozen=True, slots=True)
class Way:
    """The interface and the next hop by which a node hands over."""

    interface: str
    gateway: str

    @property
    def tunnelled(self) -> bool:
        return self.interface == TUNNEL


def way(scene: Scene, node: str, to: str) -> Way | None:
    """From a node to another: on a link of both, that of the default route first; else by the tunnel, where both have
    a default route into the same VRF; None where they have not."""
    found = []
    default = scene.uplink(node, "")
    for segment, end in scene.topology.of(node):
        for other in segment.others(node):
            if other.node == to and other.address(4) and end.address(4):
                first = default is not None and default.interface == end.interface
                found.append((not first, end.interface, other.address(4)))
    if found:
        return Way(*min(found)[1:])
    there = scene.uplink(to, "")
    if default is None or there is None or default.vrf != there.vrf or _mtu(scene, node, to) < LEAST_MTU:
        return None
    return Way(TUNNEL, there.address)


def tunnel(scene: Scene, handed: Sequence[tuple[str, str]], node: str) -> plan.Interface | None:
    """The node's end of the tunnel; None where it needs none.

    Args:
        handed: (node, to whom it hands over), for all nodes.
    """
    pairs = [pair for pair in _tunnelled(scene, handed) if node in pair]
    own = scene.uplink(node, "")
    if not pairs or own is None:
        return None
    peers = sorted({_peer(scene, to) for sender, to in pairs if sender == node})
    return plan.Interface(
        TUNNEL,
        "vxlan",
        addresses=(f"{own.address}/32",),  # an interface without any fails a loose source check (no_addr)
        mac=_mac(own.address),
        mtu=min(_mtu(scene, *pair) for pair in pairs),
        tunnel=plan.Tunnel(VNI, own.address, TUNNEL_PORT, tuple(peers)),
    )


def tunnel_problems(scene: Scene, handed: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    """What keeps nodes from having the tunnel, and packets from coming out of it."""
    pairs = _tunnelled(scene, handed)
    for node in sorted({node for pair in pairs for node in pair}):
        for segment, end in scene.topology.of(node):
            if end.interface == TUNNEL:
                message = f"{node}: the interface {TUNNEL} has the name of the EgressServices' tunnel"
                yield Problem(message, segment.position, "rename it")
    for node in sorted({to for _, to in pairs}):
        settings = scene.lab.nodes[node]
        key, strictness = effective({_CHECK: LOOSE, **settings.sysctls}, "rp_filter", TUNNEL)
        if strictness == STRICT:
            message = f"{node}: {key} = 1 drops what other nodes hand over by {TUNNEL}: the way back to their pods is"
            message += " by another interface"
            yield Problem(message, settings.origin.at("sysctls", key), f"leave out {_CHECK}, or set it to 2")


def _tunnelled(scene: Scene, handed: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in handed if (found := way(scene, *pair)) and found.tunnelled]


def _mtu(scene: Scene, *nodes: str) -> int:
    """The largest packet that the tunnel takes, by the links of these nodes' uplinks."""
    names = {node: uplink.interface for node in nodes if (uplink := scene.uplink(node, ""))}
    links = [segment for node in nodes for segment, end in scene.topology.of(node) if end.interface == names.get(node)]
    return min((segment.mtu or ETHERNET_MTU for segment in links), default=0) - OVERHEAD


def _peer(scene: Scene, node: str) -> plan.TunnelPeer:
    uplink = scene.uplink(node, "")
    assert uplink is not None  # else there is no way to it
    return plan.TunnelPeer(uplink.address, _mac(uplink.address))


def _mac(address: str) -> str:
    """A hardware address that nobody else has in the tunnel, administered locally (IEEE 802)."""
    return "02:00:" + ipaddress.IPv4Address(address).packed.hex(":")
