"""How kube-proxy is configured, and what follows from that on one node: pod traffic, node port addresses, node IP.

Source: Kubernetes v1.36, cmd/kube-proxy/app/server.go and server_linux.go, pkg/proxy/util/nodeport_addresses.go and
localdetector.go; the names of KubeProxyConfiguration are in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from testbed.compile.kube.kube_proxy.service_ports import Family
from testbed.compile.kube.service_checks import is_prefix, version
from testbed.errors import InputError, Problem
from testbed.model.kube import Node

DetectLocal = Literal["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]
PRIMARY = "primary"
# Those of ipvsadm(8), without mh, for which kube-proxy sets a flag besides.
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf")
_INTERFACE = re.compile(r"[\w.:@-]{1,15}", re.ASCII)
_LOOPBACK: dict[Family, str] = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The settings of kube-proxy that rules depend on.

    Args:
        cluster_cidrs: the prefixes of all pods, at most one per family [clusterCIDR].
        detect_local: how a packet is known to come from a pod of this node [detectLocalMode].
        local_interface: for BridgeInterface the bridge [detectLocal.bridgeInterface], for InterfaceNamePrefix what the
            names of the pods' interfaces begin with [detectLocal.interfaceNamePrefix].
        masquerade_all: all traffic to cluster IPs gets the node's source address [iptables.masqueradeAll].
        localhost_node_ports: node ports answer on 127.0.0.1 [iptables.localhostNodePorts].
        node_port_addresses: prefixes of the node's addresses on which node ports answer; ("primary",) means the node's
            own addresses; empty means every address, and in mode nftables the node's own [nodePortAddresses].
        service_cidrs: the prefixes cluster IPs are taken from [the ServiceCIDRs of the API].
        scheduler: how IPVS chooses among endpoints [ipvs.scheduler].
        strict_arp: the node answers ARP for no address of another interface, so not for those of kube-ipvs0
            [ipvs.strictARP].

    Raises: InputError where kube-proxy would not start with it.
    """

    cluster_cidrs: tuple[str, ...] = ()
    detect_local: DetectLocal = "ClusterCIDR"
    local_interface: str = ""
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    node_port_addresses: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    scheduler: str = "rr"
    strict_arp: bool = False

    def __post_init__(self) -> None:
        problems = _prefix_problems("cluster CIDR", self.cluster_cidrs)
        problems += _prefix_problems("service CIDR", self.service_cidrs)
        if self.node_port_addresses != (PRIMARY,):
            problems += _prefix_problems("node port address", self.node_port_addresses)
        if not problems and len(self.cluster_cidrs) > len({p.version for p in _prefixes(self.cluster_cidrs)}):
            problems.append(Problem(f"more than one cluster CIDR of a family: {', '.join(self.cluster_cidrs)}"))
        by_interface = self.detect_local in ("BridgeInterface", "InterfaceNamePrefix")
        if by_interface and not _INTERFACE.fullmatch(self.local_interface):
            message = f"detectLocalMode {self.detect_local}: {self.local_interface!r} is not the name of an interface"
            problems.append(Problem(message))
        if self.scheduler not in SCHEDULERS:
            problems.append(Problem(f"IPVS scheduler {self.scheduler!r}: choose from {', '.join(SCHEDULERS)}"))
        if problems:
            raise InputError(problems)


@dataclass(frozen=True, slots=True)
class LocalTraffic:
    """What marks a packet of a pod: its source prefix, or the interface it comes in by (or the start of its name)."""

    source: str = ""
    interface: str = ""
    interface_prefix: str = ""


@dataclass(frozen=True, slots=True)
class NodePortAddresses:
    """Where node ports answer in one family: on every address of the node, or on those in `prefixes`."""

    prefixes: tuple[str, ...]

    @property
    def everywhere(self) -> bool:
        return any(prefix.prefixlen == 0 for prefix in _prefixes(self.prefixes))

    @property
    def ipv4_loopback(self) -> bool:
        """Some prefix lies in 127.0.0.0/8 or holds its first address."""
        return any(
            isinstance(prefix, IPv4Network) and (prefix[0].is_loopback or IPv4Address("127.0.0.0") in prefix)
            for prefix in _prefixes(self.prefixes)
        )

    def among(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Those of `addresses` that are meant, each once, in the order of their text."""
        prefixes = _prefixes(self.prefixes)
        parsed = {ip_address(text) for text in addresses}
        return tuple(sorted(str(address) for address in parsed if any(address in prefix for prefix in prefixes)))


def local_traffic(config: ProxyConfig, node: Node, family: Family) -> LocalTraffic | None:
    """How packets of the node's pods are known; None: they are not.

    Raises: InputError where they are to be known by the node's pod CIDR and the Node has none.
    """
    if config.detect_local == "BridgeInterface":
        return LocalTraffic(interface=config.local_interface)
    if config.detect_local == "InterfaceNamePrefix":
        return LocalTraffic(interface_prefix=config.local_interface)
    cidrs = config.cluster_cidrs
    if config.detect_local == "NodeCIDR":
        cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
        problems = _prefix_problems(f"pod CIDR of Node {node.name}", cidrs)
        if not cidrs:
            problems = [Problem(f"detectLocalMode NodeCIDR: Node {node.name} has no podCIDR", node.origin.at("spec"))]
        if problems:
            raise InputError(problems)
    own = [str(prefix) for prefix in _prefixes(cidrs) if prefix.version == family]
    return LocalTraffic(source=own[0]) if own else None


def node_ip(node: Node, family: Family) -> str:
    """The node's address: its first InternalIP of that family, else its first ExternalIP, else the loopback address.

    Raises: InputError where an address of the Node is none.
    """
    return next(iter(_node_ips(node, family)), _LOOPBACK[family])


def node_port_addresses(
    config: ProxyConfig, node: Node, family: Family, default: tuple[str, ...] = ()
) -> NodePortAddresses:
    """Where node ports answer. A family for which nothing is configured answers everywhere, as in kube-proxy.

    Args:
        default: what it means that nothing is configured for any family.
    """
    asked = config.node_port_addresses or default
    if asked == (PRIMARY,):
        return NodePortAddresses(
            tuple(str(ip_network(text)) for text in _node_ips(node, family)[:1]) or _everywhere(family)
        )
    own = tuple(str(prefix) for prefix in _prefixes(asked) if prefix.version == family)
    return NodePortAddresses(own or _everywhere(family))


def node_port_candidates(
    asked: Sequence[str], node_ports: NodePortAddresses, own: str, interface_addresses: Sequence[str] | None
) -> Sequence[str]:
    """The addresses among which those for node ports are looked for.

    Args:
        asked: as configured. node_ports: what it means on the node. own: the node's address.
        interface_addresses: every address of the node's interfaces; None: they are not known.

    Raises: InputError where they are needed and not known.
    """
    if tuple(asked) == (PRIMARY,):
        return (own,)
    if interface_addresses is None and not node_ports.everywhere:
        prefixes = ", ".join(node_ports.prefixes)
        hint = "the addresses of the node's interfaces are not known; use primary, or no prefix"
        raise InputError([Problem(f"nodePortAddresses {prefixes} cannot be matched", hint=hint)])
    return interface_addresses or ()


def _everywhere(family: Family) -> tuple[str]:
    return ("0.0.0.0/0",) if family == 4 else ("::/0",)


def _node_ips(node: Node, family: Family) -> list[str]:
    addresses = enumerate(node.status.addresses)
    ordered = [(i, a.address) for i, a in addresses if a.type in ("InternalIP", "ExternalIP")]
    if wrong := [(i, text) for i, text in ordered if version(text) is None]:
        raise InputError(
            Problem(
                f"Node {node.name}: {text!r} is not an IP address", node.origin.at("status", "addresses", i, "address")
            )
            for i, text in wrong
        )
    ordered.sort(key=lambda entry: node.status.addresses[entry[0]].type != "InternalIP")
    return [str(ip_address(text)) for _, text in ordered if version(text) == family]


def _prefixes(texts: Sequence[str]) -> list[IPv4Network | IPv6Network]:
    return [ip_network(text, strict=False) for text in texts]


def _prefix_problems(what: str, texts: Sequence[str]) -> list[Problem]:
    hint = "such as 192.168.0.0/16"
    return [Problem(f"{what}: {text!r} is not a prefix", hint=hint) for text in texts if not is_prefix(text)]
