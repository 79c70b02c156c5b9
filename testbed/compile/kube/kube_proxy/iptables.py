"""kube-proxy in mode iptables: Services and EndpointSlices to the tables filter and nat of one node.

A pure function with the result that the real program has, rule for rule; what is left to it is one order among the
rules of different service ports in the four chains all share. Source: Kubernetes v1.36, pkg/proxy/iptables/proxier.go,
and recordings of that program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.compile.kube.kube_proxy.config import (
    NodePortAddresses,
    ProxyConfig,
    local_traffic,
    node_ip,
    node_port_addresses,
    node_port_candidates,
)
from testbed.compile.kube.kube_proxy.iptables_ports import add_port
from testbed.compile.kube.kube_proxy.iptables_tables import (
    INVALID_DROPPED,
    LOCALHOST_ACCEPTED,
    Scope,
    filter_table,
    nat_table,
    node_port_jumps,
)
from testbed.compile.kube.kube_proxy.service_ports import Family, service_ports
from testbed.model.kube import EndpointSlice, Node, Service

__all__ = ["ProxyConfig", "ProxyRules", "iptables"]

LARGE_CLUSTER = 1000  # endpoints, beyond which the rules of endpoints go without comments


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """What kube-proxy puts into a node's kernel.

    Args:
        v4, v6: whole tables filter and nat, for iptables-restore and ip6tables-restore.
        nfacct: accounting objects that must exist before the tables are loaded.
        sysctls: (key, value) pairs, keys below /proc/sys.
    """

    v4: str
    v6: str
    nfacct: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...] = ()


def iptables(
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: Node,
    config: ProxyConfig,
    interface_addresses: Sequence[str] | None = None,
) -> ProxyRules:
    """The rules kube-proxy in mode iptables makes on `node`.

    Args:
        services: all of the API, also default/kubernetes; `status.loadBalancer` is taken as it is.
        interface_addresses: every address of the node's interfaces, lo among them; needed only where
            `config.node_port_addresses` are prefixes, for those are matched against them.

    Returns: rules in the order of namespace, name and port of the Services.
    Raises: InputError where the objects or the configuration are such that kube-proxy would not run with them.
    """
    v4 = _tables(4, services, slices, node, config, interface_addresses)
    v6 = _tables(6, services, slices, node, config, interface_addresses)
    localhost = _localhost_node_ports(config, node_port_addresses(config, node, 4))
    sysctls = (("net/ipv4/conf/all/route_localnet", "1"),) if localhost else ()
    return ProxyRules(v4, v6, (INVALID_DROPPED, LOCALHOST_ACCEPTED), sysctls)


def _tables(
    family: Family,
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: Node,
    config: ProxyConfig,
    interface_addresses: Sequence[str] | None,
) -> str:
    ports = service_ports(services, slices, node, family)
    node_ports = node_port_addresses(config, node, family)
    scope = Scope(
        family=family,
        node_ip=node_ip(node, family),
        local=local_traffic(config, node, family),
        masquerade_all=config.masquerade_all,
        localhost_node_ports=_localhost_node_ports(config, node_ports),
        commented=sum(len(port.backends.every) for port in ports) <= LARGE_CLUSTER,
    )
    filters, nat = filter_table(scope), nat_table()
    for port in ports:
        add_port(filters, nat, port, scope)
    asked = config.node_port_addresses
    addresses = node_port_candidates(asked, node_ports, scope.node_ip, interface_addresses)
    node_port_jumps(nat, scope, node_ports, addresses)
    return filters.render() + nat.render()


def _localhost_node_ports(config: ProxyConfig, node_ports: NodePortAddresses) -> bool:
    return config.localhost_node_ports and node_ports.ipv4_loopback
