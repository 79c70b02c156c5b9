"""Subnets that may not be together: what one routing table has must not overlap.

Subnets may repeat between VRFs, and behind hosts of different VRFs; not in one VRF, and not on one host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from testbed.compile.addressing import Network, family
from testbed.compile.topology import Segment, Topology, kubernetes_nodes
from testbed.errors import Problem
from testbed.model.lab import Lab, Router


@dataclass(frozen=True, slots=True)
class _Use:
    """A subnet of a segment. `order` is the segment's place in the lab file."""

    network: Network
    segment: Segment
    order: int

    @property
    def first(self) -> tuple[int, int, int]:
        """Sorts prefixes such that one that holds others comes right before them."""
        return self.network.version, int(self.network.network_address), self.network.prefixlen

    def overlaps(self, other: _Use) -> bool:
        return self.network.version == other.network.version and self.network.overlaps(other.network)


def overlap_problems(lab: Lab, topology: Topology) -> list[Problem]:
    """A problem for each subnet that overlaps one of an earlier link, or holds a router's loopback."""
    tables: dict[str, list[_Use]] = {}
    for order, segment in enumerate(topology.segments):
        names = [f"both in VRF {segment.vrf}" if segment.vrf else "both in no VRF"]
        names += [f"and {end.node} is on both" for end in segment.ends if not isinstance(lab.nodes[end.node], Router)]
        for name in names:
            tables.setdefault(name, []).extend(_Use(network, segment, order) for network in segment.networks)
    found: dict[tuple[int, Network], Problem] = {}
    for name, uses in tables.items():
        for use, other in _clashes(uses):
            found.setdefault((use.order, use.network), _problem(use, other, name))
    return [*found.values(), *_loopback_problems(topology)]


def _clashes(uses: list[_Use]) -> Iterator[tuple[_Use, _Use]]:
    """(later, earlier in the file) of subnets that overlap: prefixes do so only when one holds the other."""
    widest: _Use | None = None
    for use in sorted(uses, key=lambda entry: entry.first):
        if widest and widest.overlaps(use):
            yield (use, widest) if use.order >= widest.order else (widest, use)
        else:
            widest = use


def _problem(use: _Use, other: _Use, where: str) -> Problem:
    at = f" of the link on line {position.line}" if (position := other.segment.position) else ""
    place = use.segment.origin.at(family(use.network.version))
    return Problem(f"subnet {use.network} overlaps {other.network}{at}, {where}", place)


def _loopback_problems(topology: Topology) -> Iterator[Problem]:
    """Loopbacks are in the default routing instance, and so are the links in no VRF."""
    loopbacks = [(name, address) for name, addresses in topology.loopbacks.items() for address in addresses]
    for segment in topology.segments:
        for network in segment.networks if segment.vrf is None else ():
            if clash := next(((name, own) for name, own in loopbacks if own.ip in network), None):
                name, own = clash
                message = f"subnet {network} holds {own.ip}, the loopback address of {name}"
                hint = "choose another subnet, or another pool in addressing.loopbacks"
                yield Problem(message, segment.origin.at(family(network.version)), hint)


def cluster_overlaps(lab: Lab, topology: Topology) -> Iterator[Problem]:
    """The cluster's own subnets may not be in the VRFs that its nodes are in: no packet would find its way."""
    if lab.cluster is None:
        return
    cluster = lab.cluster
    vrfs = {segment.vrf for name in kubernetes_nodes(lab) for segment, _ in topology.of(name)}
    for name, text in (("podSubnet", cluster.pod_subnet), ("serviceSubnet", cluster.service_subnet)):
        own = ip_network(text)
        for segment in topology.segments:
            other = next((entry for entry in segment.networks if entry.version == 4 and entry.overlaps(own)), None)
            if other and segment.vrf in vrfs:
                at = f" of the link on line {segment.position.line}" if segment.position else ""
                yield Problem(f"{name} {own} overlaps the subnet {other}{at}", cluster.origin.at(name))
