"""What a link of the lab file may say, before anything is derived from it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from testbed.compile.addressing import reserved
from testbed.compile.lab_checks import no_vrf
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.lab import KubernetesNode, Lab, Link, LinkEnd, Router


def reserved_interfaces(lab: Lab, node: str) -> tuple[str, ...]:
    """The interfaces that a node has before it gets any link: kind's containers are on the engine's network."""
    real = lab.cluster is not None and lab.cluster.provider == "kind"
    return ("eth0",) if real and isinstance(lab.nodes[node], KubernetesNode) else ()


def link_problems(lab: Lab, link: Link) -> list[Problem]:
    """Everything that is wrong with a link by itself, in this lab."""
    return [*_ends(lab, link), *_vrfs(lab, link), *_kind(lab, link)]


def _ends(lab: Lab, link: Link) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, end in enumerate(link.ends):
        place = link.origin.at("endpoints", index)
        if end.node not in lab.nodes:
            yield Problem(
                f"no node {end.node!r}", link.origin.at("endpoints", index, "node"), suggest(end.node, lab.nodes)
            )
        if end.node in seen:
            yield Problem(f"{end.node} is on this link twice", place)
        seen.add(end.node)
        if end.node in lab.nodes and end.interface in reserved_interfaces(lab, end.node):
            message = f"{end.interface} of {end.node} is on the engine's network, for its cluster is made by kind"
            yield Problem(message, link.origin.at("endpoints", index, "interface"), "name another, or none")
        for family in ("ipv4", "ipv6"):
            yield from _address(link, end, family, index)
        if isinstance(lab.nodes.get(end.node), KubernetesNode) and (end.interface or "").startswith("cali"):
            message = f"{end.interface!r}: on a Kubernetes node such names are those of Calico's pods"
            yield Problem(message, link.origin.at("endpoints", index, "interface"))


def _address(link: Link, end: LinkEnd, family: str, index: int) -> Iterator[Problem]:
    text, subnet = getattr(end, family), getattr(link, family)
    if not text:
        return
    place = link.origin.at("endpoints", index, family)
    if not subnet:
        yield Problem(
            f"{text} is stated, and the link's {family} subnet is not", place, f"add {family}: PREFIX to the link"
        )
        return
    address, network = ip_address(text), ip_network(subnet)
    if address not in network:
        yield Problem(f"{text} is not in the link's subnet {subnet}", place)
    elif what := reserved(network, address):
        yield Problem(f"{text} is {what} in {subnet}", place)
    elif other := next((other for other in link.ends[:index] if getattr(other, family) == text), None):
        yield Problem(f"{text} is {other.node}'s address on this link already", place)


def _vrfs(lab: Lab, link: Link) -> Iterator[Problem]:
    if link.vrf and link.vrfs:
        yield Problem("a link has either vrf or vrfs", link.origin.at("vrfs"))
    stated = [(("vrf",), link.vrf)] if link.vrf else []
    for path, vrf in (*stated, *((("vrfs", index), vrf) for index, vrf in enumerate(link.vrfs))):
        if vrf not in lab.vrfs:
            yield no_vrf(lab, vrf, link.origin.at(*path))
    for index, vrf in enumerate(link.vrfs):
        if vrf in link.vrfs[:index]:
            yield Problem(f"VRF {vrf} is named twice", link.origin.at("vrfs", index))
    if len(link.vrfs) > 1 and (link.ipv4 or link.ipv6 or any(_explicit(end) for end in link.ends)):
        message = "a link over several VRFs stands for several links, which cannot share subnets and interface names"
        yield Problem(message, link.origin.at("vrfs"), "write a link for each VRF")


def _kind(lab: Lab, link: Link) -> Iterator[Problem]:
    known = [(index, end.node, lab.nodes[end.node]) for index, end in enumerate(link.ends) if end.node in lab.nodes]
    for index, name, node in known if link.bgp else ():
        if not isinstance(node, Router):
            hint = (
                "Kubernetes nodes peer by Calico's and MetalLB's BGPPeers" if isinstance(node, KubernetesNode) else ""
            )
            message = f"bgp: true is for links between routers, and {name} is a {_KINDS[node.kind]}"
            yield Problem(message, link.origin.at("endpoints", index), hint)
        elif node.bgp is None:
            message = f"bgp: true needs an AS number at every end, and {name} has none"
            yield Problem(message, link.origin.at("endpoints", index), "add bgp: {asn: NUMBER} to the router")
    first = lab.nodes.get(link.ends[0].node)
    if len(link.ends) > 2 and first is not None and not isinstance(first, Router):
        what = f"{link.ends[0].node} is a {_KINDS[first.kind]}"
        message = f"a link with {len(link.ends)} ends is switched by its first, which must be a router, and {what}"
        yield Problem(message, link.origin.at("endpoints", 0), "put the router first")


_KINDS = {"router": "router", "host": "host", "kubernetes": "Kubernetes node"}


def _explicit(end: LinkEnd) -> bool:
    return bool(end.ipv4 or end.ipv6 or end.interface)
