"""kube-proxy in mode nftables: Services and EndpointSlices to the table `kube-proxy` of one node.

A pure function with the result that the real program has, but for the order of elements and of chains. Source:
Kubernetes v1.36, pkg/proxy/nftables/proxier.go, and recordings of that program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from testbed.compile.kube.kube_proxy.config import (
    PRIMARY,
    NodePortAddresses,
    ProxyConfig,
    local_traffic,
    node_ip,
    node_port_addresses,
    node_port_candidates,
)
from testbed.compile.kube.kube_proxy.nftables_ports import (
    CLUSTER_IPS,
    FIREWALL_IPS,
    HAIRPIN,
    MARK,
    NO_ENDPOINT_NODEPORTS,
    NO_ENDPOINT_SERVICES,
    REJECT,
    SERVICE_IPS,
    SERVICE_NODEPORTS,
    SET_MARK,
    Scope,
    add_port,
)
from testbed.compile.kube.kube_proxy.nftables_text import ADDRESS, IP, Table, from_pods, one_or_set
from testbed.compile.kube.kube_proxy.service_ports import Family, service_ports
from testbed.errors import InputError, Problem
from testbed.model.kube import EndpointSlice, Node, Service

TABLE = "kube-proxy"
NODEPORT_IPS = "nodeport-ips"
_OWN_NODE_PORTS = "ct state new jump nodeport-endpoints-check"
_SERVICES = "ct state new jump service-endpoints-check"
_CLUSTER_IPS = "ct state new jump cluster-ips-check"


@dataclass(frozen=True, slots=True)
class NftablesRules:
    """The table `kube-proxy` of each family, as `nft list` prints it; the order of elements may differ."""

    v4: str
    v6: str


def nftables(
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: Node,
    config: ProxyConfig,
    interface_addresses: Sequence[str] | None = None,
) -> NftablesRules:
    """The rules kube-proxy in mode nftables makes on `node`.

    Args:
        services: all of the API, also default/kubernetes; `status.loadBalancer` is taken as it is.
        interface_addresses: every address of the node's interfaces; needed only where `config.node_port_addresses`
            are prefixes. No prefix at all means the node's own address in this mode, not every address.

    Returns: tables with what all services share, then chains in the order of namespace, name and port of the Services.
    Raises: InputError where kube-proxy would not run with the objects or the configuration, and for masquerade_all.
    """
    if config.masquerade_all:
        raise InputError([Problem("masqueradeAll is not supported in kube-proxy's mode nftables")])
    return NftablesRules(
        _table(4, services, slices, node, config, interface_addresses),
        _table(6, services, slices, node, config, interface_addresses),
    )


def _table(
    family: Family,
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: Node,
    config: ProxyConfig,
    interface_addresses: Sequence[str] | None,
) -> str:
    asked = config.node_port_addresses or (PRIMARY,)
    node_ports = node_port_addresses(config, node, family, default=(PRIMARY,))
    own = node_ip(node, family)
    scope = Scope(family, own, local_traffic(config, node, family))
    table = Table(family, TABLE, "rules for kube-proxy")
    _sets(table, family)
    to_node_port = _node_port_match(
        table, family, node_ports, node_port_candidates(asked, node_ports, own, interface_addresses)
    )
    _base_chains(table)
    _shared_chains(table, scope, config, to_node_port)
    ports = service_ports(services, slices, node, family)
    for address in dict.fromkeys(port.cluster_ip for port in ports):
        table.element(CLUSTER_IPS, address)
    for port in ports:
        add_port(table, port, scope)
    return table.render()


def _sets(table: Table, family: Family) -> None:
    address = ADDRESS[family]
    service, node_port = f"{address} . inet_proto . inet_service", "inet_proto . inet_service"
    table.set(HAIRPIN, f"{address} . {service}", "service hairpin connections")
    table.set(CLUSTER_IPS, address, "Active ClusterIPs")
    reason = "to drop or reject packets to"
    table.map(NO_ENDPOINT_SERVICES, service, f"vmap {reason} services with no endpoints")
    table.map(NO_ENDPOINT_NODEPORTS, node_port, f"vmap {reason} service nodeports with no endpoints")
    table.map(FIREWALL_IPS, service, "destinations that are subject to LoadBalancerSourceRanges")
    table.map(SERVICE_IPS, service, "ClusterIP, ExternalIP and LoadBalancer IP traffic")
    table.map(SERVICE_NODEPORTS, node_port, "NodePort traffic")


def _node_port_match(table: Table, family: Family, node_ports: NodePortAddresses, addresses: Sequence[str]) -> str:
    """The match on addresses that node ports answer on, and the set it needs. Loopback addresses never do."""
    if node_ports.everywhere:
        loopback = "127.0.0.0/8" if family == 4 else "::1"
        return f"fib daddr type local {IP[family]} daddr != {loopback}"
    table.set(NODEPORT_IPS, ADDRESS[family], "IPs that accept NodePort traffic")
    for address in node_ports.among(addresses):
        if not ip_address(address).is_loopback:
            table.element(NODEPORT_IPS, address)
    return f"{IP[family]} daddr @{NODEPORT_IPS}"


def _base_chains(table: Table) -> None:
    for name, kind, hook, priority, rules in (
        ("filter-prerouting-pre-dnat", "filter", "prerouting", "dstnat - 10", ("ct state new jump firewall-check",)),
        ("filter-output-pre-dnat", "filter", "output", "-110", ("ct state new jump firewall-check",)),
        ("filter-input", "filter", "input", "filter", (_OWN_NODE_PORTS, _SERVICES)),
        ("filter-forward", "filter", "forward", "filter", (_SERVICES, _CLUSTER_IPS)),
        ("filter-output", "filter", "output", "filter", (_SERVICES, _CLUSTER_IPS)),
        ("nat-prerouting", "nat", "prerouting", "dstnat", ("jump services",)),
        ("nat-output", "nat", "output", "-100", ("jump services",)),
        ("nat-postrouting", "nat", "postrouting", "srcnat", ("jump masquerading",)),
    ):
        table.add(name, f"type {kind} hook {hook} priority {priority}; policy accept;", *rules)


def _shared_chains(table: Table, scope: Scope, config: ProxyConfig, to_node_port: str) -> None:
    ip, port = IP[scope.family], "meta l4proto . th dport"
    table.add("nodeport-endpoints-check", f"{to_node_port} {port} vmap @{NO_ENDPOINT_NODEPORTS}")
    table.add("service-endpoints-check", f"{ip} daddr . {port} vmap @{NO_ENDPOINT_SERVICES}")
    table.add("firewall-check", f"{ip} daddr . {port} vmap @{FIREWALL_IPS}")
    if scope.local:
        # Traffic from outside the cluster, routed to a cluster IP by way of this node, must come back this way.
        outside = from_pods(scope.local, scope.family, negated=True)
        reason = 'comment "masquerade clusterIP traffic from outside cluster"'
        table.add("services", f"{ip} daddr @{CLUSTER_IPS} {outside} {SET_MARK} {reason}")
    table.add("services", f"{ip} daddr . {port} vmap @{SERVICE_IPS}")
    table.add("services", f"{to_node_port} {port} vmap @{SERVICE_NODEPORTS}")
    unmark = f"meta mark set meta mark ^ {MARK}"  # should the packet come by once more
    table.add("masquerading", f"meta mark & {MARK} != 0x00000000 {unmark} masquerade fully-random")
    hairpin = f"{ip} saddr . {ip} daddr . {port} @{HAIRPIN}"
    table.add("masquerading", f"ct status dnat {hairpin} masquerade fully-random")
    invalid = 'comment "Reject traffic to invalid ports of ClusterIPs"'
    table.add("cluster-ips-check", f"{ip} daddr @{CLUSTER_IPS} reject {invalid}")
    own = [cidr for cidr in config.service_cidrs if ip_network(cidr).version == scope.family]
    if own:
        # Without a Service there is nobody behind these addresses, and no route should send packets round and round.
        rest = 'comment "Drop traffic to unallocated ClusterIPs"'
        table.add("cluster-ips-check", f"{ip} daddr {one_or_set(own)} drop {rest}")
    table.add(REJECT, 'comment "helper for @no-endpoint-services / @no-endpoint-nodeports"', "reject")
