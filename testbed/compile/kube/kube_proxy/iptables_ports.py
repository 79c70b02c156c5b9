"""The rules of one service port in mode iptables.

Source: Kubernetes v1.36, pkg/proxy/iptables/proxier.go.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from ipaddress import ip_address, ip_network

from testbed.compile.kube.kube_proxy.iptables_rules import (
    Table,
    comment,
    from_pods,
    host,
    jump,
    one_in,
    port_match,
    recently_seen,
    remember,
    to_unless_from_pods,
)
from testbed.compile.kube.kube_proxy.iptables_tables import (
    EXTERNAL_SERVICES,
    LOCALHOST_ACCEPTED,
    MARK_MASQ,
    NODEPORTS,
    PROXY_FIREWALL,
    SERVICES,
    Scope,
    count,
)
from testbed.compile.kube.kube_proxy.service_ports import Backend, Family, ProxyPort


def add_port(filters: Table, nat: Table, port: ProxyPort, scope: Scope) -> None:
    """Add all rules of one service port to the tables filter and nat."""
    _cluster_ip(filters, nat, port, scope)
    _external_ips(filters, nat, port)
    _node_port(filters, nat, port, scope)
    _external_chain(nat, port, scope)
    _firewall_chain(filters, nat, port, scope)
    _policy_chains(nat, port, scope)
    _backend_chains(nat, port, scope)


def _chain(kind: str, port: ProxyPort, backend: Backend | None = None) -> str:
    """The chain of a service port (SVC, SVL, EXT, FW) or of one of its endpoints (SEP), by the hash of its name."""
    key = f"{port.label}{port.protocol}{backend or ''}"
    return f"KUBE-{kind}-{b32encode(sha256(key.encode()).digest()).decode()[:16]}"


def _to_port(port: ProxyPort, text: str) -> str:
    return port_match(port.protocol, port.port, comment(text))


def _refusal(port: ProxyPort, family: Family) -> tuple[str, str]:
    """What becomes of traffic that finds no endpoint: the reason and the target."""
    if port.backends.anywhere:
        return f"{port.label} has no local endpoints", "-j DROP"
    kind = "icmp" if family == 4 else "icmp6"
    return f"{port.label} has no endpoints", f"-j REJECT --reject-with {kind}-port-unreachable"


def _cluster_ip(filters: Table, nat: Table, port: ProxyPort, scope: Scope) -> None:
    destination = f"-d {host(port.cluster_ip)}"
    if not port.serves_internal:
        reason, target = _refusal(port, scope.family)
        filters.add(SERVICES, destination, _to_port(port, reason), target)
        return
    chain = _chain("SVL" if port.internal_local else "SVC", port)
    match = _to_port(port, f"{port.label} cluster IP")
    nat.add(SERVICES, destination, match, jump(chain))
    if scope.masquerade_all:
        nat.add(chain, destination, match, jump(MARK_MASQ))
    elif scope.local:
        # Traffic from outside the cluster, routed to a cluster IP by way of this node, must come back this way.
        nat.add(chain, to_unless_from_pods(port.cluster_ip, scope.local), match, jump(MARK_MASQ))


def _external_ips(filters: Table, nat: Table, port: ProxyPort) -> None:
    """External and load balancer IPs. Both rules are there where only outside traffic finds no endpoint."""
    chain, kinds = _chain("EXT", port), ((port.external_ips, "external"), (port.load_balancer_ips, "loadbalancer"))
    for addresses, kind in kinds:
        target = _chain("FW", port) if kind == "loadbalancer" and port.source_ranges else chain
        for address in addresses:
            if port.backends.anywhere:
                nat.add(SERVICES, f"-d {host(address)}", _to_port(port, f"{port.label} {kind} IP"), jump(target))
            if not port.serves_external:
                reason, verdict = _refusal(port, 6 if ":" in address else 4)
                filters.add(EXTERNAL_SERVICES, f"-d {host(address)}", _to_port(port, reason), verdict)


def _node_port(filters: Table, nat: Table, port: ProxyPort, scope: Scope) -> None:
    if port.health_check_node_port:
        match = port_match("tcp", port.health_check_node_port, comment(f"{port.label} health check node port"))
        filters.add(NODEPORTS, match, "-j ACCEPT")
    if not port.node_port:
        return
    if port.backends.anywhere:
        match, target = port_match(port.protocol, port.node_port, comment(port.label)), jump(_chain("EXT", port))
        if scope.localhost_node_ports:
            nat.add(NODEPORTS, "-d 127.0.0.0/8", match, count(LOCALHOST_ACCEPTED), target)
        nat.add(NODEPORTS, match, target)
    if not port.serves_external:
        reason, verdict = _refusal(port, scope.family)
        to_node = "-m addrtype --dst-type LOCAL"
        filters.add(EXTERNAL_SERVICES, port_match(port.protocol, port.node_port, comment(reason), to_node), verdict)


def _external_chain(nat: Table, port: ProxyPort, scope: Scope) -> None:
    """Where traffic from outside is masqueraded, or kept on this node."""
    if not (port.external and port.backends.anywhere):
        return
    chain, to_cluster = _chain("EXT", port), jump(_chain("SVC", port))
    what = f"for {port.label} external destinations"
    if not port.external_local:
        nat.add(chain, comment(f"masquerade traffic {what}"), jump(MARK_MASQ))
        nat.add(chain, to_cluster)
        return
    if scope.local:
        nat.add(chain, from_pods(scope.local), comment(f"pod traffic {what}"), to_cluster)
    from_node = "-m addrtype --src-type LOCAL"
    nat.add(chain, comment(f"masquerade LOCAL traffic {what}"), from_node, jump(MARK_MASQ))
    nat.add(chain, comment(f"route LOCAL traffic {what}"), from_node, to_cluster)
    if port.serves_external:
        nat.add(chain, jump(_chain("SVL", port)))


def _firewall_chain(filters: Table, nat: Table, port: ProxyPort, scope: Scope) -> None:
    """loadBalancerSourceRanges: what the chain does not translate, the table filter drops."""
    if not (port.backends.anywhere and port.load_balancer_ips and port.source_ranges):
        return
    chain = _chain("FW", port)
    rest = (comment(f"{port.label} loadbalancer IP"), jump(_chain("EXT", port)))
    allowed = list(port.source_ranges)
    if any(ip_address(scope.node_ip) in ip_network(prefix) for prefix in allowed):
        # The node's own connections to the address may have that very address as their source.
        allowed += [host(address) for address in port.load_balancer_ips]
    for source in allowed:
        nat.add(chain, f"-s {source}", *rest)
    nat.add(chain, comment(f"other traffic to {port.label} will be dropped by {PROXY_FIREWALL}"))
    for address in port.load_balancer_ips:
        match = _to_port(port, f"{port.label} traffic not accepted by {chain}")
        filters.add(PROXY_FIREWALL, f"-d {host(address)}", match, "-j DROP")


def _policy_chains(nat: Table, port: ProxyPort, scope: Scope) -> None:
    """The choice among endpoints: a client's earlier one where there is affinity, else one at random."""
    for kind, backends in (("SVC", port.backends.cluster), ("SVL", port.backends.local)):
        chain = _chain(kind, port)
        rules = [(_chain("SEP", port, b), comment(f"{port.label} -> {b}") if scope.commented else "") for b in backends]
        for own, text in rules if port.affinity_seconds else ():
            nat.add(chain, text, recently_seen(own, port.affinity_seconds, scope.family), jump(own))
        for index, (own, text) in enumerate(rules):
            left = len(rules) - index
            nat.add(chain, text, one_in(left) if left > 1 else "", jump(own))


def _backend_chains(nat: Table, port: ProxyPort, scope: Scope) -> None:
    text = comment(port.label) if scope.commented else ""
    for backend in port.backends.reachable:
        chain = _chain("SEP", port, backend)
        # A pod that reaches itself through the Service would otherwise get an answer from its own address.
        nat.add(chain, f"-s {host(backend.address)}", text, jump(MARK_MASQ))
        seen = remember(chain, scope.family) if port.affinity_seconds else ""
        target = f"-j DNAT --to-destination {backend}"
        nat.add(chain, f"-p {port.protocol}", text, seen, f"-m {port.protocol}", target)
