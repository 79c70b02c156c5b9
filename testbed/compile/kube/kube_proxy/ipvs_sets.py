"""The address sets of kube-proxy in mode ipvs, as text of `ipset save`, and the iptables rules that go with each.

Source: Kubernetes v1.36, pkg/proxy/ipvs/ipset.go and proxier.go (ipsetInfo, ipsetWithIptablesChain).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

LOOP_BACK = "KUBE-LOOP-BACK"
CLUSTER_IP = "KUBE-CLUSTER-IP"
EXTERNAL_IP = "KUBE-EXTERNAL-IP"
EXTERNAL_IP_LOCAL = "KUBE-EXTERNAL-IP-LOCAL"
LOAD_BALANCER = "KUBE-LOAD-BALANCER"
LOAD_BALANCER_LOCAL = "KUBE-LOAD-BALANCER-LOCAL"
LOAD_BALANCER_FW = "KUBE-LOAD-BALANCER-FW"
LOAD_BALANCER_SOURCE_IP = "KUBE-LOAD-BALANCER-SOURCE-IP"
LOAD_BALANCER_SOURCE_CIDR = "KUBE-LOAD-BALANCER-SOURCE-CIDR"
HEALTH_CHECK_NODE_PORT = "KUBE-HEALTH-CHECK-NODE-PORT"
IPVS_IPS = "KUBE-IPVS-IPS"
NODE_PORT = {"tcp": "KUBE-NODE-PORT-TCP", "udp": "KUBE-NODE-PORT-UDP", "sctp": "KUBE-NODE-PORT-SCTP-HASH"}
NODE_PORT_LOCAL = {
    "tcp": "KUBE-NODE-PORT-LOCAL-TCP",
    "udp": "KUBE-NODE-PORT-LOCAL-UDP",
    "sctp": "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
}

_HASH = "family inet hashsize 1024 maxelem 65536 bucketsize 12"
_IP_PORT = f"hash:ip,port {_HASH}"
_IP_PORT_IP = f"hash:ip,port,ip {_HASH}"
_PORTS = "bitmap:port range 0-65535"

TYPES = {
    LOOP_BACK: _IP_PORT_IP,
    CLUSTER_IP: _IP_PORT,
    EXTERNAL_IP: _IP_PORT,
    EXTERNAL_IP_LOCAL: _IP_PORT,
    LOAD_BALANCER: _IP_PORT,
    LOAD_BALANCER_LOCAL: _IP_PORT,
    LOAD_BALANCER_FW: _IP_PORT,
    LOAD_BALANCER_SOURCE_IP: _IP_PORT_IP,
    LOAD_BALANCER_SOURCE_CIDR: f"hash:ip,port,net {_HASH}",
    HEALTH_CHECK_NODE_PORT: _PORTS,
    IPVS_IPS: f"hash:ip {_HASH}",
    NODE_PORT["tcp"]: _PORTS,
    NODE_PORT["udp"]: _PORTS,
    NODE_PORT["sctp"]: _IP_PORT,
    NODE_PORT_LOCAL["tcp"]: _PORTS,
    NODE_PORT_LOCAL["udp"]: _PORTS,
    NODE_PORT_LOCAL["sctp"]: _IP_PORT,
}
_BALANCER = "Kubernetes service load balancer ip + port"
COMMENTS = {
    LOOP_BACK: "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
    CLUSTER_IP: "Kubernetes service cluster ip + port for masquerade purpose",
    EXTERNAL_IP: "Kubernetes service external ip + port for masquerade and filter purpose",
    EXTERNAL_IP_LOCAL: "Kubernetes service external ip + port with externalTrafficPolicy=local",
    LOAD_BALANCER: "Kubernetes service lb portal",
    LOAD_BALANCER_LOCAL: f"{_BALANCER} with externalTrafficPolicy=local",
    LOAD_BALANCER_FW: f"{_BALANCER} for load balancer with sourceRange",
    LOAD_BALANCER_SOURCE_IP: f"{_BALANCER} + source IP for packet filter purpose",
    LOAD_BALANCER_SOURCE_CIDR: f"{_BALANCER} + source cidr for packet filter purpose",
    HEALTH_CHECK_NODE_PORT: "Kubernetes health check node port",
    NODE_PORT["tcp"]: "Kubernetes nodeport TCP port for masquerade purpose",
    NODE_PORT["udp"]: "Kubernetes nodeport UDP port for masquerade purpose",
    NODE_PORT["sctp"]: "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
    NODE_PORT_LOCAL["tcp"]: "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
    NODE_PORT_LOCAL["udp"]: "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
    NODE_PORT_LOCAL["sctp"]: "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
}


class Sets:
    """All sets of one node (IPv4) while they are filled."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, None]] = {name: {} for name in TYPES}

    def add(self, name: str, *entries: str) -> None:
        """Put entries into a set; one that is there already stays once."""
        self._entries[name].update(dict.fromkeys(entries))

    def entries(self, name: str) -> Sequence[str]:
        """What a set holds, in the order it was put there."""
        return tuple(self._entries[name])

    def render(self) -> str:
        """All sets, then all entries, as `ipset restore` takes them and `ipset save` prints them."""
        lines = [f"create {name} {kind}" for name, kind in TYPES.items()]
        lines += [f"add {name} {entry}" for name, held in self._entries.items() for entry in held]
        return "\n".join((*lines, ""))


def net(prefix: str) -> str:
    """A prefix as ipset prints it: one address goes without its length."""
    parsed = ip_network(prefix)
    return str(parsed.network_address) if parsed.prefixlen == parsed.max_prefixlen else str(parsed)
