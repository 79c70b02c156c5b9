"""Links and addresses: from what the lab file says to interfaces with addresses, both ends from one statement."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.errors import Position, Problem
from testbed.load.explain import suggest
from testbed.model.lab import Host, KubernetesNode, Lab, Link, LinkEnd, Router

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True)
class End:
    """A node's attachment to a segment.

    Args:
        interface: the interface that has the addresses: a veth, or the bridge of the router that switches the segment.
        ports: of that bridge, one for each other end in order; empty elsewhere.
        vrf: the node's routing instance for it; hosts and Kubernetes nodes have only the default one.
    """

    node: str
    interface: str
    vrf: str | None
    addresses: tuple[Interface, ...]
    ports: tuple[str, ...] = ()

    def address(self, version: int) -> str:
        """The address of a family, without prefix length; empty where there is none."""
        return next((str(entry.ip) for entry in self.addresses if entry.version == version), "")


@dataclass(frozen=True)
class Segment:
    """A link in one VRF (of the lab), with its subnets. Its first end switches it when there are more than two."""

    vrf: str | None
    ends: tuple[End, ...]
    networks: tuple[Network, ...]
    mtu: int
    bgp: bool
    position: Position | None

    @property
    def switched(self) -> bool:
        return len(self.ends) > 2

    def end(self, node: str) -> End | None:
        return next((end for end in self.ends if end.node == node), None)

    def others(self, node: str) -> tuple[End, ...]:
        return tuple(end for end in self.ends if end.node != node)


@dataclass(frozen=True)
class Topology:
    """All segments, and the loopback addresses of the routers."""

    segments: tuple[Segment, ...]
    loopbacks: dict[str, tuple[Interface, ...]]

    def of(self, node: str) -> Iterator[tuple[Segment, End]]:
        """The segments a node is on, in the order of the lab file, with its end."""
        for segment in self.segments:
            if end := segment.end(node):
                yield segment, end

    def vrfs(self, node: str) -> tuple[str, ...]:
        """The VRFs a node has, in order of appearance."""
        return tuple(dict.fromkeys(end.vrf for _, end in self.of(node) if end.vrf))

    def addresses(self, node: str, version: int | None = None, vrf: str | None = None) -> tuple[str, ...]:
        """Addresses of a node without prefix length; `vrf` limits them to segments of that VRF of the lab."""
        own = [entry for segment, end in self.of(node) if vrf in (None, segment.vrf) for entry in end.addresses]
        own += [] if vrf else self.loopbacks.get(node, ())
        return tuple(str(entry.ip) for entry in own if version in (None, entry.version))


@dataclass
class _Pool:
    """Hands out point-to-point subnets in order, leaving out what is taken."""

    network: Network
    taken: list[Network]
    length: int
    _subnets: Iterator[Network] | None = field(default=None)

    def take(self) -> Network | None:
        if self._subnets is None:
            self._subnets = iter(self.network.subnets(new_prefix=self.length))
        for subnet in self._subnets:
            if not any(subnet.version == other.version and subnet.overlaps(other) for other in self.taken):
                return subnet
        return None


def build(lab: Lab) -> tuple[Topology, list[Problem]]:
    """The topology of a lab, and everything that is wrong with its links."""
    return _Builder(lab).build()


class _Builder:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.problems: list[Problem] = []
        self.ports: dict[str, set[str]] = {name: set() for name in lab.nodes}
        self.counters: dict[tuple[str, str], int] = {}
        stated = [ipaddress.ip_network(text) for link in lab.links for text in (link.ipv4, link.ipv6) if text]
        pool = lab.addressing.links
        self.pools = [
            _Pool(ipaddress.ip_network(text), stated, length)
            for text, length in ((pool.ipv4, 31), (pool.ipv6, 127))
            if text and ipaddress.ip_network(text).prefixlen <= length
        ]

    def build(self) -> tuple[Topology, list[Problem]]:
        usable = [link for link in self.lab.links if self._check(link)]
        for link in usable:
            for end in link.ends:
                self._claim(link, end)
        segments = tuple(self._segment(link, vrf) for link in usable for vrf in link.instances)
        topology = Topology(segments, self._loopbacks())
        self._check_overlaps(topology)
        return topology, self.problems

    def problem(self, message: str, position: Position | None, hint: str = "") -> None:
        self.problems.append(Problem(message, position, hint))

    # --- what a link may say ----------------------------------------------------------------------------------------

    def _check(self, link: Link) -> bool:
        before = len(self.problems)
        self._check_ends(link)
        self._check_vrfs(link)
        routers = [end for end in link.ends if isinstance(self.lab.nodes.get(end.node), Router)]
        if link.bgp and not all(_speaks_bgp(self.lab, end.node) for end in link.ends):
            self.problem("bgp: true needs routers with an asn at all ends", link.origin.at("bgp"))
        if len(link.ends) > 2 and link.ends[0] not in routers:
            self.problem(
                f"a link with {len(link.ends)} ends is switched by its first end, which must be a router, "
                f"and {link.ends[0].node} is none",
                link.origin.at("endpoints", 0),
            )
        if len(link.instances) > 1 and (link.ipv4 or link.ipv6 or any(_explicit(end) for end in link.ends)):
            self.problem("a link over several VRFs is several links: state addresses link by link", link.origin.at("vrfs"))
        return len(self.problems) == before

    def _check_ends(self, link: Link) -> None:
        seen: set[str] = set()
        for index, end in enumerate(link.ends):
            position = link.origin.at("endpoints", index)
            if end.node not in self.lab.nodes:
                self.problem(f"no node {end.node!r}", position, suggest(end.node, self.lab.nodes))
            if end.node in seen:
                self.problem(f"{end.node} is on this link twice", position)
            seen.add(end.node)
            for family in ("ipv4", "ipv6"):
                self._check_address(link, end, family, index)

    def _check_address(self, link: Link, end: LinkEnd, family: str, index: int) -> None:
        address, network = getattr(end, family), getattr(link, family)
        if not address:
            return
        position = link.origin.at("endpoints", index, family)
        if not network:
            self.problem(f"{address} is stated but not the link's subnet", position, f"add {family}: PREFIX to the link")
        elif ipaddress.ip_address(address) not in ipaddress.ip_network(network):
            self.problem(f"{address} is not in the link's subnet {network}", position)
        elif any(getattr(other, family) == address for other in link.ends[:index]):
            self.problem(f"{address} is used twice on this link", position)

    def _check_vrfs(self, link: Link) -> None:
        if link.vrf and link.vrfs:
            self.problem("a link has either vrf or vrfs", link.origin.at("vrfs"))
        for vrf in link.instances:
            if vrf and vrf not in self.lab.vrfs:
                position = link.origin.at("vrfs" if link.vrfs else "vrf")
                self.problem(f"no VRF {vrf!r}", position, suggest(vrf, self.lab.vrfs))
        if len(set(link.vrfs)) < len(link.vrfs):
            self.problem("a VRF is named twice", link.origin.at("vrfs"))

    def _claim(self, link: Link, end: LinkEnd) -> None:
        """Note explicit interface names first, so that derived ones keep out of their way."""
        if not end.interface:
            return
        if end.interface in self.ports[end.node] or len(link.instances) > 1:
            self.problem(f"{end.node} has two interfaces {end.interface}", link.origin.at("endpoints"))
        self.ports[end.node].add(end.interface)

    # --- interfaces and addresses -----------------------------------------------------------------------------------

    def _name(self, node: str, prefix: str) -> str:
        while True:
            number = self.counters.get((node, prefix), 0)
            self.counters[node, prefix] = number + 1
            if f"{prefix}{number}" not in self.ports[node]:
                self.ports[node].add(f"{prefix}{number}")
                return f"{prefix}{number}"

    def _segment(self, link: Link, vrf: str | None) -> Segment:
        networks = self._networks(link)
        switched = len(link.ends) > 2
        ends = []
        for index, end in enumerate(link.ends):
            router = isinstance(self.lab.nodes[end.node], Router)
            switch = switched and index == 0
            ports = tuple(self._name(end.node, "eth") for _ in link.ends[1:]) if switch else ()
            interface = self._name(end.node, "br") if switch else (end.interface or self._name(end.node, "eth"))
            addresses = self._addresses(link, networks, index)
            ends.append(End(end.node, interface, vrf if router else None, addresses, ports))
        position = link.origin.at()
        return Segment(vrf, tuple(ends), networks, link.mtu or 0, link.bgp, position)

    def _networks(self, link: Link) -> tuple[Network, ...]:
        stated = tuple(ipaddress.ip_network(text) for text in (link.ipv4, link.ipv6) if text)
        if stated:
            return stated
        if len(link.ends) > 2:
            self.problem("a link with more than two ends needs its subnet", link.origin.at(), "add ipv4: PREFIX")
            return ()
        taken = []
        for pool in self.pools:
            network = pool.take()
            if network is None:
                self.problem(f"the pool of link addresses {pool.network} is used up", link.origin.at())
            else:
                taken.append(network)
        return tuple(taken)

    def _addresses(self, link: Link, networks: tuple[Network, ...], index: int) -> tuple[Interface, ...]:
        found = []
        for network in networks:
            family = "ipv4" if network.version == 4 else "ipv6"
            stated = [getattr(end, family) for end in link.ends]
            if stated[index]:
                found.append(ipaddress.ip_interface(f"{stated[index]}/{network.prefixlen}"))
                continue
            free = (str(address) for address in _hosts(network) if str(address) not in stated)
            place = sum(1 for other in stated[:index] if not other)
            text = next((address for position, address in enumerate(free) if position == place), None)
            if text is None:
                self.problem(f"{network} has no address left for {link.ends[index].node}", link.origin.at())
            else:
                found.append(ipaddress.ip_interface(f"{text}/{network.prefixlen}"))
        return tuple(found)

    def _loopbacks(self) -> dict[str, tuple[Interface, ...]]:
        pool = self.lab.addressing.loopbacks
        routers = [name for name, node in self.lab.nodes.items() if isinstance(node, Router)]
        found: dict[str, tuple[Interface, ...]] = {}
        for index, name in enumerate(routers):
            own = []
            for text in (pool.ipv4, pool.ipv6):
                if not text:
                    continue
                network = ipaddress.ip_network(text)
                if index + 1 >= network.num_addresses:
                    self.problem(f"the pool of loopbacks {network} is used up", self.lab.addressing.origin.at("loopbacks"))
                    continue
                own.append(ipaddress.ip_interface(f"{network[index + 1]}/{network.max_prefixlen}"))
            found[name] = tuple(own)
        return found

    def _check_overlaps(self, topology: Topology) -> None:
        """Subnets may repeat between VRFs, and behind hosts of different VRFs, but never within one VRF."""
        seen: dict[str | None, list[tuple[Network, Segment]]] = {}
        for segment in topology.segments:
            for network in segment.networks:
                for other, first in seen.get(segment.vrf, []):
                    if network.version == other.version and network.overlaps(other):
                        where = f" in VRF {segment.vrf}" if segment.vrf else ""
                        at = f" (line {first.position.line})" if first.position else ""
                        self.problem(f"subnet {network} overlaps {other}{where}{at}", segment.position)
                seen.setdefault(segment.vrf, []).append((network, segment))


def _hosts(network: Network) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Usable addresses, also of the point-to-point lengths (RFC 3021, RFC 6164)."""
    return iter(network) if network.num_addresses <= 2 else network.hosts()


def _explicit(end: LinkEnd) -> bool:
    return bool(end.ipv4 or end.ipv6 or end.interface)


def _speaks_bgp(lab: Lab, name: str) -> bool:
    node = lab.nodes.get(name)
    return isinstance(node, Router) and node.bgp is not None


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
