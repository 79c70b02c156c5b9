"""The elements and chains of one service port in mode nftables.

Source: Kubernetes v1.36, pkg/proxy/nftables/proxier.go, and recordings of that program.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address, ip_network

from testbed.compile.kube.kube_proxy.config import LocalTraffic
from testbed.compile.kube.kube_proxy.nftables_text import ADDRESS, IP, Table, from_pods, one_or_set
from testbed.compile.kube.kube_proxy.service_ports import Backend, Family, ProxyPort

HAIRPIN = "hairpin-connections"
CLUSTER_IPS = "cluster-ips"
NO_ENDPOINT_SERVICES = "no-endpoint-services"
NO_ENDPOINT_NODEPORTS = "no-endpoint-nodeports"
FIREWALL_IPS = "firewall-ips"
SERVICE_IPS = "service-ips"
SERVICE_NODEPORTS = "service-nodeports"
REJECT = "reject-chain"

MARK = "0x00004000"  # nftables.masqueradeBit 14
SET_MARK = f"meta mark set meta mark | {MARK}"
NAME_LENGTH = 240  # of chains and sets, without their kind: 256 less the longest kind (chainNameBaseLengthMax)


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds for all rules of one family on one node.

    Args:
        node_ip: the node's address, or the loopback address where it has none.
        local: what marks packets of the node's pods; None: they cannot be told.
    """

    family: Family
    node_ip: str
    local: LocalTraffic | None


def add_port(table: Table, port: ProxyPort, scope: Scope) -> None:
    """Add all that one service port needs to a table that holds the sets and maps of all."""
    _cluster_ip(table, port)
    _external(table, port)
    _node_port(table, port)
    _firewall(table, port, scope)
    _affinity_sets(table, port, scope.family)
    _choices(table, port, scope.family)
    _external_chain(table, port, scope)
    for backend in port.backends.reachable:
        if backend.local:
            table.element(HAIRPIN, f"{backend.address} . {backend.address} . {port.protocol} . {backend.port}")


def _hashed(name: str) -> str:
    """A name with the hash of all of it in front, so that it may be cut (hashAndTruncate)."""
    text = f"{b32encode(sha256(name.encode()).digest()).decode()[:8]}-{name}"
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 3]}..."


def _chain(kind: str, port: ProxyPort) -> str:
    return f"{kind}-{_hashed(f'{port.namespace}/{port.service}/{port.protocol}/{port.name}')}"


def _of_backend(kind: str, port: ProxyPort, backend: Backend) -> str:
    """The chain (endpoint) or set (affinity) of an endpoint. A colon may not be in a name: IPv6 goes with dots."""
    address = backend.address.replace(":", ".")
    name = f"{port.namespace}/{port.service}/{port.protocol}/{port.name}__{address}/{backend.port}"
    return f"{kind}-{_hashed(name)}"


def _at(port: ProxyPort, address: str) -> str:
    return f"{address} . {port.protocol} . {port.port}"


def _refused(port: ProxyPort, key: str) -> str:
    """An element for traffic that finds no endpoint."""
    verdict = "drop" if port.backends.anywhere else f"goto {REJECT}"
    return f'{key} comment "{port.label}" : {verdict}'


def _cluster_ip(table: Table, port: ProxyPort) -> None:
    key = _at(port, port.cluster_ip)
    if port.serves_internal:
        table.element(SERVICE_IPS, f"{key} : goto {_chain('local' if port.internal_local else 'service', port)}")
    else:
        table.element(NO_ENDPOINT_SERVICES, _refused(port, key))


def _external(table: Table, port: ProxyPort) -> None:
    """External and load balancer IPs. Both elements are there where only outside traffic finds no endpoint."""
    for address in (*port.external_ips, *port.load_balancer_ips):
        key = _at(port, address)
        if port.backends.anywhere:
            table.element(SERVICE_IPS, f"{key} : goto {_chain('external', port)}")
        if not port.serves_external:
            table.element(NO_ENDPOINT_SERVICES, _refused(port, key))


def _node_port(table: Table, port: ProxyPort) -> None:
    if not port.node_port:
        return
    key = f"{port.protocol} . {port.node_port}"
    if port.backends.anywhere:
        table.element(SERVICE_NODEPORTS, f"{key} : goto {_chain('external', port)}")
    if not port.serves_external:
        table.element(NO_ENDPOINT_NODEPORTS, _refused(port, key))


def _firewall(table: Table, port: ProxyPort, scope: Scope) -> None:
    """loadBalancerSourceRanges: other sources are dropped before the address is translated."""
    if not (port.load_balancer_ips and port.source_ranges):
        return
    chain, allowed = _chain("firewall", port), list(port.source_ranges)
    if any(ip_address(scope.node_ip) in ip_network(prefix) for prefix in allowed):
        # The node's own connections to the address may have that very address as their source.
        allowed += port.load_balancer_ips
    table.add(chain, f"{IP[scope.family]} saddr != {one_or_set(allowed)} drop")
    for address in port.load_balancer_ips:
        table.element(FIREWALL_IPS, f"{_at(port, address)} : goto {chain}")


def _affinity_sets(table: Table, port: ProxyPort, family: Family) -> None:
    """Per endpoint, the clients that keep it, and the chain that remembers them; without affinity there are none."""
    for backend in port.backends.reachable if port.affinity_seconds else ():
        clients = _of_backend("affinity", port, backend)
        table.timed_set(clients, ADDRESS[family], port.affinity_seconds)
        table.add(
            _of_backend("endpoint", port, backend),
            f"update @{clients} {{ {IP[family]} saddr }}",
            f"meta l4proto {port.protocol} dnat to {backend}",
        )


def _choices(table: Table, port: ProxyPort, family: Family) -> None:
    """The choice among endpoints: a client's earlier one where there is affinity, else one at random."""
    for kind, backends in (("service", port.backends.cluster), ("local", port.backends.local)):
        if not backends:
            continue
        chain = _chain(kind, port)
        if port.affinity_seconds:
            table.add(chain, *_kept(port, backends, family))
            continue
        targets = ", ".join(f"{index} : {backend.address} . {backend.port}" for index, backend in enumerate(backends))
        choice = f"numgen random mod {len(backends)} map {{ {targets} }}"
        table.add(chain, f"meta l4proto {port.protocol} dnat {IP[family]} to {choice}")


def _kept(port: ProxyPort, backends: Sequence[Backend], family: Family) -> list[str]:
    ends = [_of_backend("endpoint", port, backend) for backend in backends]
    rules = [
        f"{IP[family]} saddr @{_of_backend('affinity', port, backend)} goto {end}"
        for backend, end in zip(backends, ends, strict=True)
    ]
    targets = ", ".join(f"{index} : goto {end}" for index, end in enumerate(ends))
    return [*rules, f"numgen random mod {len(backends)} vmap {{ {targets} }}"]


def _external_chain(table: Table, port: ProxyPort, scope: Scope) -> None:
    """Where traffic from outside is masqueraded, or kept on this node."""
    if not (port.external and port.backends.anywhere):
        return
    chain, to_cluster = _chain("external", port), f"goto {_chain('service', port)}"
    if not port.external_local:
        table.add(chain, f'{SET_MARK} comment "masquerade"', to_cluster)
        return
    if scope.local:
        table.add(chain, f'{from_pods(scope.local, scope.family)} {to_cluster} comment "short-circuit pod traffic"')
    from_node = "fib saddr type local"
    table.add(chain, f'{from_node} {SET_MARK} comment "masquerade local traffic"')
    table.add(chain, f'{from_node} {to_cluster} comment "short-circuit local traffic"')
    if port.serves_external:
        table.add(chain, f"goto {_chain('local', port)}")
