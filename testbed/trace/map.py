"""What a walk knows of the lab it is in: links, VRFs, addresses. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.plan import Plan

Place = tuple[str, str | None]
"""A node or pod, and one of its routing instances (None: the default one)."""
Port = tuple[str, str]
"""A node and one of its interfaces."""


def place_name(node: str, vrf: str | None) -> str:
    """A place in words: "leaf1 (VRF sbi)"."""
    return f"{node} (VRF {vrf})" if vrf else node


@dataclass(frozen=True, slots=True)
class Map:
    """What the walk knows of the lab.

    Args:
        peers: the other end of each link. vrfs: the routing instance of each interface, in its node.
        addresses: those of each (node, VRF). bridges: the bridge that an interface is a port of.
        forwarders: nodes that pass packets on: routers and Kubernetes nodes.
        tables: the routing table of each VRF that is a device; other routing instances have a namespace, and `main`.
        tunnels: interfaces that put packets into others.
    """

    peers: Mapping[Port, Port] = field(default_factory=dict)
    vrfs: Mapping[Port, str | None] = field(default_factory=dict)
    addresses: Mapping[tuple[str, str | None], frozenset[str]] = field(default_factory=dict)
    bridges: Mapping[Port, str] = field(default_factory=dict)
    forwarders: frozenset[str] = frozenset()
    tables: Mapping[Place, int] = field(default_factory=dict)
    tunnels: frozenset[Port] = frozenset()

    @staticmethod
    def of(plan: Plan) -> Map:
        """The map of a Plan."""
        peers: dict[Port, Port] = {}
        for link in plan.links:
            a, b = (link.a.node, link.a.interface), (link.b.node, link.b.interface)
            peers |= {a: b, b: a}
        vrfs = {(node.name, entry.name): entry.vrf for node in plan.nodes for entry in node.interfaces}
        addresses: dict[tuple[str, str | None], frozenset[str]] = {}
        for node in plan.nodes:
            for entry in node.interfaces:
                own = frozenset(text.partition("/")[0] for text in entry.addresses)
                place = (node.name, entry.vrf)
                addresses[place] = addresses.get(place, frozenset()) | own
        entries = [(node.name, entry) for node in plan.nodes for entry in node.interfaces]
        bridges = {(node, entry.name) for node, entry in entries if entry.kind == "bridge"}  # a VRF's device is none
        ports = {(node, entry.name): entry.master for node, entry in entries if (node, entry.master) in bridges}
        tables: dict[Place, int] = {(node, entry.vrf): entry.table for node, entry in entries if entry.kind == "vrf"}
        forwarders = frozenset(node.name for node in plan.nodes if node.kind in ("router", "kubernetes"))
        tunnels = frozenset((node, entry.name) for node, entry in entries if entry.tunnel)
        return Map(peers, vrfs, addresses, ports, forwarders, tables, tunnels)

    def neighbour(self, place: Place, address: str) -> str:
        """Who has an address: the one that shares a link with a place, if any does; empty: nobody."""
        owners = self.owners(address)
        near = {peer[0] for port, peer in self.peers.items() if port[0] == place[0] and self.vrfs.get(port) == place[1]}
        return next((node for node, _ in owners if node in near), owners[0][0] if owners else "")

    def segment(self, port: Port) -> frozenset[Port]:
        """The other interfaces on the Ethernet segment of one, as planned: bridges join links."""
        seen: set[Port] = set()
        todo = [port]
        while todo:
            found = todo.pop()
            if found in seen:
                continue
            seen.add(found)
            node = found[0]
            todo += [self.peers[found]] if found in self.peers else []
            todo += [(node, self.bridges[found])] if found in self.bridges else []
            todo += [member for member, bridge in self.bridges.items() if (member[0], bridge) == found]
        return frozenset(seen - {port})

    def owners(self, address: str) -> tuple[tuple[str, str | None], ...]:
        """Who has an address."""
        return tuple(place for place, own in self.addresses.items() if address in own)

    def networks(self, place: tuple[str, str | None]) -> frozenset[str]:
        """The VRFs that a routing instance's links lead into."""
        node, vrf = place
        own = (port for port, of in self.vrfs.items() if port[0] == node and of == vrf)
        return frozenset(found for port in own if (found := self.network(node, vrf, port[1])))

    def network(self, node: str, vrf: str | None, interface: str) -> str:
        """The VRF of what an interface leads into: its own, else that of its link's other end; empty: neither."""
        own = vrf or self.vrfs.get((node, interface))
        if own:
            return own
        peer = self.peers.get((node, interface))
        return (self.vrfs.get(peer) or "") if peer else ""
