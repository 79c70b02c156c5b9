"""kube-proxy in mode ipvs: Services and EndpointSlices to virtual servers, address sets and iptables rules of one node.

A pure function with the result that the real program has for IPv4. Source: Kubernetes v1.36, pkg/proxy/ipvs, and
recordings of that program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from testbed.compile.kube.kube_proxy import ipvs_sets as names
from testbed.compile.kube.kube_proxy.config import (
    ProxyConfig,
    local_traffic,
    node_ip,
    node_port_addresses,
    node_port_candidates,
)
from testbed.compile.kube.kube_proxy.ipvs_servers import real_servers, virtual_server
from testbed.compile.kube.kube_proxy.ipvs_sets import Sets
from testbed.compile.kube.kube_proxy.ipvs_tables import filter_table, nat_table
from testbed.compile.kube.kube_proxy.service_ports import ProxyPort, service_ports
from testbed.model.kube import EndpointSlice, Node, Service

DEVICE = "kube-ipvs0"
_SYSCTLS = (
    ("net/ipv4/vs/conntrack", "1"),
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    ("net/ipv4/ip_forward", "1"),
)
_STRICT_ARP = (("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2"))


@dataclass(frozen=True, slots=True)
class IpvsRules:
    """What kube-proxy in mode ipvs puts into a node's kernel (IPv4).

    Args:
        v4: whole tables filter and nat, for iptables-restore; they name the sets.
        sets: for `ipset restore`. servers: for `ipvsadm --restore`.
        addresses: of the dummy interface kube-ipvs0, which is down and only makes them the node's own.
        sysctls: (key, value) pairs, keys below /proc/sys.
    """

    v4: str
    sets: str
    servers: str
    addresses: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...]


def ipvs(
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: Node,
    config: ProxyConfig,
    interface_addresses: Sequence[str],
) -> IpvsRules:
    """What kube-proxy in mode ipvs makes on `node`. The IPv6 addresses of Services are left out.

    Args:
        services: all of the API, also default/kubernetes; `status.loadBalancer` is taken as it is.
        interface_addresses: every address of the node's interfaces but kube-ipvs0; node ports answer on those that are
            not loopback addresses.

    Returns: everything in the order of namespace, name and port of the Services.
    Raises: InputError where kube-proxy would not run with the objects or the configuration.
    """
    own = node_ip(node, 4)
    node_ports = node_port_addresses(config, node, 4)
    candidates = node_port_candidates(config.node_port_addresses, node_ports, own, interface_addresses)
    answering = [text for text in node_ports.among(candidates) if not ip_address(text).is_loopback]
    build = _Build(own, frozenset(interface_addresses), answering, config.scheduler)
    for port in service_ports(services, slices, node, 4):
        build.add(port)
    build.sets.add(names.IPVS_IPS, *build.addresses)
    local = local_traffic(config, node, 4)
    filters = filter_table(build.sets, build.closed)
    nat = nat_table(build.sets, local, masquerade_all=config.masquerade_all)
    return IpvsRules(
        v4=filters.render() + nat.render(),
        sets=build.sets.render(),
        servers="".join(f"{line}\n" for line in build.servers),
        addresses=tuple(build.addresses),
        sysctls=(*_SYSCTLS, *(_STRICT_ARP if config.strict_arp else ())),
    )


@dataclass
class _Build:
    """What one service port after the other adds.

    Args:
        node_ip: the node's address. elsewhere: addresses of the node's other interfaces. node_port_ips: those that
            node ports answer on.
        closed: load balancers that the node itself may not use, for their source ranges do not hold it.
    """

    node_ip: str
    elsewhere: frozenset[str]
    node_port_ips: Sequence[str]
    scheduler: str
    sets: Sets = field(default_factory=Sets)
    servers: list[str] = field(default_factory=list)
    addresses: dict[str, None] = field(default_factory=dict)
    closed: list[tuple[str, str, int]] = field(default_factory=list)

    def add(self, port: ProxyPort) -> None:
        for backend in port.backends.every:
            if backend.local:
                entry = f"{backend.address},{port.protocol}:{backend.port},{backend.address}"
                self.sets.add(names.LOOP_BACK, entry)
        self.sets.add(names.CLUSTER_IP, _entry(port, port.cluster_ip))
        self.addresses[port.cluster_ip] = None
        self._serve(port, port.cluster_ip, port.port, local=port.internal_local)
        for address in port.external_ips:
            kind = names.EXTERNAL_IP_LOCAL if port.external_local else names.EXTERNAL_IP
            self.sets.add(kind, _entry(port, address))
            self._serve_outside(port, address)
        for address in port.load_balancer_ips:
            self._balancer_sets(port, address)
            self._serve_outside(port, address)
        if port.node_port and self.node_port_ips:
            self._node_port(port)
        if port.health_check_node_port:
            self.sets.add(names.HEALTH_CHECK_NODE_PORT, str(port.health_check_node_port))

    def _serve(self, port: ProxyPort, address: str, number: int, *, local: bool) -> None:
        servers = real_servers(port, local=local)
        self.servers += virtual_server(port, f"{address}:{number}", self.scheduler, servers)

    def _serve_outside(self, port: ProxyPort, address: str) -> None:
        if address not in self.elsewhere:
            self.addresses[address] = None
        self._serve(port, address, port.port, local=port.external_local)

    def _balancer_sets(self, port: ProxyPort, address: str) -> None:
        entry = _entry(port, address)
        self.sets.add(names.LOAD_BALANCER, entry)
        if port.external_local:
            self.sets.add(names.LOAD_BALANCER_LOCAL, entry)
        if not port.source_ranges:
            return
        self.sets.add(names.LOAD_BALANCER_FW, entry)
        for prefix in port.source_ranges:
            self.sets.add(names.LOAD_BALANCER_SOURCE_CIDR, f"{entry},{names.net(prefix)}")
        if any(ip_address(self.node_ip) in ip_network(prefix) for prefix in port.source_ranges):
            # The node's own connections to the address have that very address as their source.
            self.sets.add(names.LOAD_BALANCER_SOURCE_IP, f"{entry},{address}")
        else:
            self.closed.append((address, port.protocol, port.port))

    def _node_port(self, port: ProxyPort) -> None:
        entries = [str(port.node_port)]
        if port.protocol == "sctp":  # no bitmap: its match cannot read ports of SCTP
            entries = [f"{address},sctp:{port.node_port}" for address in self.node_port_ips]
        self.sets.add(names.NODE_PORT[port.protocol], *entries)
        if port.external_local:
            self.sets.add(names.NODE_PORT_LOCAL[port.protocol], *entries)
        for address in self.node_port_ips:
            self._serve(port, address, port.node_port, local=port.external_local)


def _entry(port: ProxyPort, address: str) -> str:
    return f"{address},{port.protocol}:{port.port}"
