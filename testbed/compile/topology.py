"""Links and addresses: from what the lab file says to interfaces with addresses, both ends from one statement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from testbed.compile import vrf_devices
from testbed.compile.addressing import (
    Interface,
    Network,
    SubnetPool,
    end_address,
    family,
    link_subnets,
    loopback,
    prefixes,
)
from testbed.compile.link_checks import link_problems, reserved_interfaces
from testbed.errors import Position, Problem
from testbed.model.base import NOWHERE, Origin
from testbed.model.lab import Host, KubernetesNode, Lab, Link, LinkEnd, Router
from testbed.plan import VrfDriver

LEAST_MTU_6 = 1280  # bytes (RFC 8200, section 5); below it Linux takes IPv6 from an interface


@dataclass(frozen=True)
class End:
    """A node's attachment to a segment.

    Args:
        interface: the interface that has the addresses: a veth, or the bridge of the router that switches the segment.
        ports: of that bridge, one for each other end in order; empty elsewhere.
        vrf: the node's routing instance for it. Hosts have only the default one, Kubernetes nodes that and their
            cluster's `nodeVrfs`.
    """

    node: str
    interface: str
    vrf: str | None
    addresses: tuple[Interface, ...]
    ports: tuple[str, ...] = ()

    def address(self, version: int) -> str:
        """The address of a family, without prefix length; empty where there is none."""
        return next((str(entry.ip) for entry in self.addresses if entry.version == version), "")

    def network(self, version: int) -> str:
        """The subnet of that address; empty where there is none."""
        return next((str(entry.network) for entry in self.addresses if entry.version == version), "")


@dataclass(frozen=True)
class Segment:
    """A link in one VRF (of the lab), with its subnets. Its first end switches it when there are more than two."""

    vrf: str | None
    ends: tuple[End, ...]
    networks: tuple[Network, ...]
    mtu: int
    bgp: bool
    origin: Origin = NOWHERE

    @property
    def position(self) -> Position | None:
        """Where the link was written."""
        return self.origin.at()

    def others(self, node: str) -> tuple[End, ...]:
        return tuple(end for end in self.ends if end.node != node)


@dataclass(frozen=True)
class Topology:
    """All segments, and the loopback addresses of the routers.

    Args:
        vrf_tables: VRF → the routing table of its device; empty where VRFs are network namespaces.
    """

    segments: tuple[Segment, ...]
    loopbacks: dict[str, tuple[Interface, ...]]
    vrf_tables: dict[str, int] = field(default_factory=dict)

    @cached_property
    def _by_node(self) -> dict[str, list[tuple[Segment, End]]]:
        found: dict[str, list[tuple[Segment, End]]] = {}
        for segment in self.segments:
            for end in segment.ends:
                found.setdefault(end.node, []).append((segment, end))
        return found

    def of(self, node: str) -> Iterator[tuple[Segment, End]]:
        """The segments a node is on, in the order of the lab file, with its end."""
        yield from self._by_node.get(node, ())

    def vrfs(self, node: str) -> tuple[str, ...]:
        """The VRFs a node has, in order of appearance."""
        return tuple(dict.fromkeys(end.vrf for _, end in self.of(node) if end.vrf))

    def addresses(self, node: str, version: int | None = None, vrf: str | None = None) -> tuple[str, ...]:
        """Addresses of a node without prefix length; `vrf` limits them to segments of that VRF of the lab."""
        own = [entry for segment, end in self.of(node) if vrf in (None, segment.vrf) for entry in end.addresses]
        own += [] if vrf else self.loopbacks.get(node, ())
        return tuple(str(entry.ip) for entry in own if version in (None, entry.version))


def build(lab: Lab, vrf_driver: VrfDriver = "netns") -> tuple[Topology, list[Problem]]:
    """The topology of a lab, and what is wrong with its links by themselves; links that are wrong are left out of it.

    Whether subnets overlap is another question: see `testbed.compile.overlaps`.
    """
    return _Builder(lab, vrf_driver).build()


class _Builder:
    def __init__(self, lab: Lab, vrf_driver: VrfDriver) -> None:
        self.lab = lab
        self.vrf_driver = vrf_driver
        self.problems: list[Problem] = []
        self.ports: dict[str, set[str]] = {name: set(reserved_interfaces(lab, name)) for name in lab.nodes}
        self.counters: dict[tuple[str, str], int] = {}
        stated = [network for link in lab.links for network in link_subnets(link)]
        taken = [*stated, *prefixes(lab.addressing.loopbacks)]
        self.pools = [SubnetPool(network, taken) for network in prefixes(lab.addressing.links)]

    def build(self) -> tuple[Topology, list[Problem]]:
        usable = [link for link in self.lab.links if self._check(link)]
        for link in usable:
            for index, end in enumerate(link.ends):
                self._claim(link, end, index)
        segments = tuple(self._segment(link, vrf) for link in usable for vrf in link.instances)
        tables = vrf_devices.tables(self.lab.vrfs) if self.vrf_driver == "device" else {}
        return Topology(segments, self._loopbacks(), tables), self.problems

    def _problem(self, message: str, position: Position | None, hint: str = "") -> None:
        self.problems.append(Problem(message, position, hint))

    def _check(self, link: Link) -> bool:
        found = link_problems(self.lab, link)
        self.problems += found
        return not found

    def _vrfs(self, name: str) -> tuple[str, ...]:
        """The VRFs of the lab that a node has as routing instances, as far as it has links in them."""
        node, cluster = self.lab.nodes[name], self.lab.cluster
        if isinstance(node, Router):
            return self.lab.vrfs
        return cluster.node_vrfs if cluster and isinstance(node, KubernetesNode) else ()

    # --- interfaces -------------------------------------------------------------------------------------------------

    def _claim(self, link: Link, end: LinkEnd, index: int) -> None:
        """Note explicit interface names first, so that derived ones keep out of their way."""
        if not end.interface:
            return
        if end.interface in self.ports[end.node]:
            position = link.origin.at("endpoints", index, "interface")
            self._problem(f"{end.node} has two interfaces {end.interface}", position)
        if end.interface in self._vrfs(end.node):
            position = link.origin.at("endpoints", index, "interface")
            self._problem(f"{end.node}: the interface {end.interface} has the name of a VRF", position, "rename it")
        self.ports[end.node].add(end.interface)

    def _name(self, node: str, prefix: str) -> str:
        while True:
            number = self.counters.get((node, prefix), 0)
            self.counters[node, prefix] = number + 1
            if f"{prefix}{number}" not in (*self.ports[node], *self.lab.vrfs):  # a VRF may be a device of its name
                self.ports[node].add(f"{prefix}{number}")
                return f"{prefix}{number}"

    def _segment(self, link: Link, vrf: str | None) -> Segment:
        networks = self._networks(link)
        ends = tuple(self._end(link, vrf, networks, index) for index in range(len(link.ends)))
        return Segment(vrf, ends, networks, link.mtu or 0, link.bgp, link.origin)

    def _end(self, link: Link, vrf: str | None, networks: tuple[Network, ...], index: int) -> End:
        end = link.ends[index]
        switch = len(link.ends) > 2 and index == 0
        ports = tuple(self._name(end.node, "eth") for _ in link.ends[1:]) if switch else ()
        interface = end.interface or self._name(end.node, "br" if switch else "eth")
        own_vrf = vrf if vrf in self._vrfs(end.node) else None
        return End(end.node, interface, own_vrf, self._addresses(link, networks, index), ports)

    # --- addresses --------------------------------------------------------------------------------------------------

    def _networks(self, link: Link) -> tuple[Network, ...]:
        found = link_subnets(link)
        if not found and len(link.ends) > 2:
            self._problem("a link with more than two ends needs its subnet", link.origin.at(), "add ipv4: PREFIX")
        elif not found and not prefixes(self.lab.addressing.links):
            message = "the link states no subnet, and the lab's addressing has no pool for links"
            self._problem(message, link.origin.at(), "add ipv4: PREFIX")
        elif not found:
            found = self._from_pools(link)
        if link.mtu and link.mtu < LEAST_MTU_6 and any(network.version == 6 for network in found):
            hint = "RFC 8200; state ipv4 alone for a link without IPv6"
            self._problem(f"mtu {link.mtu}: IPv6 needs at least {LEAST_MTU_6} bytes", link.origin.at("mtu"), hint)
        return found

    def _from_pools(self, link: Link) -> tuple[Network, ...]:
        """A subnet of each pool. A pool that is used up is told of once, at the first link it has nothing for."""
        taken = []
        for pool in list(self.pools):
            network = pool.take()
            if network is None:
                hint = "give addressing.links a larger prefix"
                self._problem(f"the pool of link addresses {pool.network} is used up", link.origin.at(), hint)
                self.pools.remove(pool)
            else:
                taken.append(network)
        return tuple(taken)

    def _addresses(self, link: Link, networks: tuple[Network, ...], index: int) -> tuple[Interface, ...]:
        found = []
        for network in networks:
            address = end_address(link, network, index)
            if address is None:
                place = link.origin.at("endpoints", index)
                self._problem(f"{network} has no address left for {link.ends[index].node}", place)
            else:
                found.append(address)
        return tuple(found)

    def _loopbacks(self) -> dict[str, tuple[Interface, ...]]:
        routers = [name for name, node in self.lab.nodes.items() if isinstance(node, Router)]
        found: dict[str, tuple[Interface, ...]] = dict.fromkeys(routers, ())
        for network in prefixes(self.lab.addressing.loopbacks):
            for index, name in enumerate(routers):
                address = loopback(network, index)
                if address is None:
                    place = self.lab.origin.at("addressing", "loopbacks", family(network.version))
                    message = f"the pool of loopbacks {network} is used up: {name} gets none of it"
                    self._problem(message, place, f"the lab has {len(routers)} routers")
                    break
                found[name] += (address,)
        return found


def gateway(lab: Lab, topology: Topology, host: str, version: int, vrf: str | None = None) -> tuple[End, End] | None:
    """The router a host's default route uses, as (the host's end, the router's end); None without one.

    Args:
        vrf: only on segments of this VRF of the lab.
    """
    node = lab.nodes[host]
    wanted = node.gateway if isinstance(node, Host) else ""
    for segment, own in topology.of(host):
        if vrf is not None and segment.vrf != vrf:
            continue
        for other in segment.others(host):
            suits = other.node == wanted if wanted else isinstance(lab.nodes[other.node], Router)
            if suits and own.address(version) and other.address(version):
                return own, other
    return None


def kubernetes_nodes(lab: Lab) -> tuple[str, ...]:
    """The cluster's nodes, in the order of the lab file."""
    return tuple(name for name, node in lab.nodes.items() if isinstance(node, KubernetesNode))
