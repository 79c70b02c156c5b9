"""An end system's ways out: its links to routers, each in a VRF of the lab."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.compile.topology import Topology
from testbed.model.lab import Lab, Router


@dataclass(frozen=True)
class Uplink:
    """A node's interface into a VRF, with the prefixes on it, its gateway and the node's own address there (IPv4)."""

    interface: str
    vrf: str
    gateway: str
    networks: tuple[str, ...]
    address: str = ""


def uplinks(lab: Lab, topology: Topology, name: str) -> list[Uplink]:
    """The node's segments that have a router, with the first router there as gateway (IPv4)."""
    found = []
    for segment, own in topology.of(name):
        for other in segment.others(name):
            if isinstance(lab.nodes[other.node], Router) and other.address(4) and own.address(4):
                networks = tuple(str(entry) for entry in segment.networks if entry.version == 4)
                found.append(Uplink(own.interface, segment.vrf or "", other.address(4), networks, own.address(4)))
                break
    return found
