"""The tables filter and nat of kube-proxy in mode ipvs, which depend on what the address sets hold.

Source: Kubernetes v1.36, pkg/proxy/ipvs/proxier.go (iptablesJumpChain, writeIptablesRules).
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.compile.kube.kube_proxy import ipvs_sets as names
from testbed.compile.kube.kube_proxy.config import LocalTraffic
from testbed.compile.kube.kube_proxy.iptables_rules import Table, comment, from_others, jump
from testbed.compile.kube.kube_proxy.ipvs_sets import COMMENTS, Sets

SERVICES = "KUBE-SERVICES"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
NODE_PORT = "KUBE-NODE-PORT"
LOAD_BALANCER = "KUBE-LOAD-BALANCER"
FORWARD = "KUBE-FORWARD"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
SOURCE_RANGES = "KUBE-SOURCE-RANGES-FIREWALL"
FILTER = "KUBE-IPVS-FILTER"
OUT_FILTER = "KUBE-IPVS-OUT-FILTER"

MARK = "0x4000"  # iptables.masqueradeBit 14
PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}

# The rules that are there while a set has entries, in the order of kube-proxy: set, fields, chain, target, protocol.
_NAT = (
    (names.LOOP_BACK, "dst,dst,src", POSTROUTING, "MASQUERADE", ""),
    (names.LOAD_BALANCER, "dst,dst", SERVICES, LOAD_BALANCER, ""),
    (names.LOAD_BALANCER_LOCAL, "dst,dst", LOAD_BALANCER, "RETURN", ""),
    (names.NODE_PORT_LOCAL["tcp"], "dst", NODE_PORT, "RETURN", "tcp"),
    (names.NODE_PORT["tcp"], "dst", NODE_PORT, MARK_MASQ, "tcp"),
    (names.NODE_PORT_LOCAL["udp"], "dst", NODE_PORT, "RETURN", "udp"),
    (names.NODE_PORT["udp"], "dst", NODE_PORT, MARK_MASQ, "udp"),
    (names.NODE_PORT_LOCAL["sctp"], "dst,dst", NODE_PORT, "RETURN", "sctp"),
    (names.NODE_PORT["sctp"], "dst,dst", NODE_PORT, MARK_MASQ, "sctp"),
)
_FILTER = (
    (names.LOAD_BALANCER_FW, "dst,dst", PROXY_FIREWALL, SOURCE_RANGES, ""),
    (names.LOAD_BALANCER_SOURCE_CIDR, "dst,dst,src", SOURCE_RANGES, "RETURN", ""),
    (names.LOAD_BALANCER_SOURCE_IP, "dst,dst,src", SOURCE_RANGES, "RETURN", ""),
)
# What may be reached at the addresses of kube-ipvs0; any other new connection to them is rejected, for the addresses
# are the node's own, and so would its programs answer there (https://issue.k8s.io/72236).
_ADMITTED = (
    (names.LOAD_BALANCER, "dst,dst"),
    (names.CLUSTER_IP, "dst,dst"),
    (names.EXTERNAL_IP, "dst,dst"),
    (names.EXTERNAL_IP_LOCAL, "dst,dst"),
    (names.HEALTH_CHECK_NODE_PORT, "dst"),
)


def filter_table(sets: Sets, closed: Sequence[tuple[str, str, int]]) -> Table:
    """The table filter.

    Args:
        closed: (address, protocol, port) of load balancers that the node itself may not use.
    """
    table = Table("filter", ("INPUT", "FORWARD", "OUTPUT"))
    table.add("INPUT", comment("kubernetes ipvs access filter"), jump(FILTER))
    table.add("INPUT", comment("kube-proxy firewall rules"), jump(PROXY_FIREWALL))
    table.add("INPUT", comment("kubernetes health check rules"), jump(NODE_PORT))
    table.add("FORWARD", comment("kube-proxy firewall rules"), jump(PROXY_FIREWALL))
    table.add("FORWARD", comment("kubernetes forwarding rules"), jump(FORWARD))
    table.add("OUTPUT", comment("kubernetes ipvs access filter"), jump(OUT_FILTER))
    table.declare(FORWARD, FILTER, OUT_FILTER, NODE_PORT, PROXY_FIREWALL, SOURCE_RANGES)
    _of_sets(table, _FILTER, sets)
    table.add(SOURCE_RANGES, jump("DROP"))
    for address, protocol, port in closed:
        match = f"-m ipvs --vproto {PROTOCOL_NUMBERS[protocol]} --vaddr {address} --vport {port}"
        table.add(OUT_FILTER, f"-s {address}/32", match, jump("DROP"))
    table.add(FORWARD, comment("kubernetes forwarding rules"), f"-m mark --mark {MARK}/{MARK}", jump("ACCEPT"))
    related = "-m conntrack --ctstate RELATED,ESTABLISHED"
    table.add(FORWARD, comment("kubernetes forwarding conntrack rule"), related, jump("ACCEPT"))
    health = names.HEALTH_CHECK_NODE_PORT
    table.add(NODE_PORT, comment(COMMENTS[health]), _in(health, "dst"), jump("ACCEPT"))
    for name, fields in _ADMITTED:
        table.add(FILTER, _in(name, fields), jump("RETURN"))
    reject = "-j REJECT --reject-with icmp-port-unreachable"
    table.add(FILTER, "-m conntrack --ctstate NEW", _in(names.IPVS_IPS, "dst"), reject)
    return table


def nat_table(sets: Sets, local: LocalTraffic | None, *, masquerade_all: bool) -> Table:
    """The table nat. IPVS translates addresses by itself; here is decided what is masqueraded besides."""
    table = Table("nat", ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"))
    table.add("PREROUTING", comment("kubernetes service portals"), jump(SERVICES))
    table.add("OUTPUT", comment("kubernetes service portals"), jump(SERVICES))
    table.add("POSTROUTING", comment("kubernetes postrouting rules"), jump(POSTROUTING))
    table.declare(NODE_PORT)
    table.add(SERVICES, "-s 127.0.0.0/8", jump("RETURN"))
    _of_sets(table, _NAT, sets)
    _cluster_ips(table, sets, local, masquerade_all=masquerade_all)
    _external_ips(table, sets)
    table.add(SERVICES, "-m addrtype --dst-type LOCAL", jump(NODE_PORT))
    table.add(LOAD_BALANCER, jump(MARK_MASQ))
    # Accepted here, so that no later rule of this table keeps the packet from IPVS.
    for name in (names.CLUSTER_IP, names.LOAD_BALANCER):
        if sets.entries(name):
            table.add(SERVICES, _in(name, "dst,dst"), jump("ACCEPT"))
    table.add(POSTROUTING, f"-m mark ! --mark {MARK}/{MARK}", jump("RETURN"))
    table.add(POSTROUTING, f"-j MARK --set-xmark {MARK}/0x0")  # off again, should the packet come by once more
    table.add(POSTROUTING, comment("kubernetes service traffic requiring SNAT"), "-j MASQUERADE --random-fully")
    table.add(MARK_MASQ, f"-j MARK --set-xmark {MARK}/{MARK}")
    return table


def _in(name: str, fields: str) -> str:
    return f"-m set --match-set {name} {fields}"


def _of_sets(table: Table, rules: Sequence[tuple[str, str, str, str, str]], sets: Sets) -> None:
    for name, fields, chain, target, protocol in rules:
        if sets.entries(name):
            match = f"-p {protocol}" if protocol else ""
            table.add(chain, match, comment(COMMENTS[name]), _in(name, fields), jump(target))


def _cluster_ips(table: Table, sets: Sets, local: LocalTraffic | None, *, masquerade_all: bool) -> None:
    if not sets.entries(names.CLUSTER_IP):
        return
    # Traffic from outside the cluster, routed to a cluster IP by way of this node, must come back this way. Where pods
    # cannot be told, at least the node's own connections are masqueraded: their source is an address of kube-ipvs0.
    other = from_others(local) if local and not masquerade_all else ""
    fields = "dst,dst" if local or masquerade_all else "src,dst"
    table.add(SERVICES, other, comment(COMMENTS[names.CLUSTER_IP]), _in(names.CLUSTER_IP, fields), jump(MARK_MASQ))


def _external_ips(table: Table, sets: Sets) -> None:
    for name in (names.EXTERNAL_IP, names.EXTERNAL_IP_LOCAL):
        if not sets.entries(name):
            continue
        match = (comment(COMMENTS[name]), _in(name, "dst,dst"))
        if name == names.EXTERNAL_IP:
            table.add(SERVICES, *match, jump(MARK_MASQ))
        from_outside = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL"
        table.add(SERVICES, *match, from_outside, jump("ACCEPT"))
        table.add(SERVICES, *match, "-m addrtype --dst-type LOCAL", jump("ACCEPT"))
