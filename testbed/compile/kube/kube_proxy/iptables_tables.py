"""The tables filter and nat of kube-proxy in mode iptables, without any service: what all services share.

Source: Kubernetes v1.36, pkg/proxy/iptables/proxier.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from testbed.compile.kube.kube_proxy.config import LocalTraffic, NodePortAddresses
from testbed.compile.kube.kube_proxy.iptables_rules import Table, comment, host, jump
from testbed.compile.kube.kube_proxy.service_ports import Family

SERVICES = "KUBE-SERVICES"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
NODEPORTS = "KUBE-NODEPORTS"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
FORWARD = "KUBE-FORWARD"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
FIREWALL = "KUBE-FIREWALL"

MARK = "0x4000"  # iptables.masqueradeBit 14
INVALID_DROPPED = "ct_state_invalid_dropped_pkts"
LOCALHOST_ACCEPTED = "localhost_nps_accepted_pkts"

_NEW = "-m conntrack --ctstate NEW"
_LAST = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds for all rules of one family on one node.

    Args:
        node_ip: the node's address, or the loopback address where it has none.
        local: what marks packets of the node's pods; None: they cannot be told.
        localhost_node_ports: node ports answer on 127.0.0.1.
        commented: the rules of endpoints carry comments.
    """

    family: Family
    node_ip: str
    local: LocalTraffic | None
    masquerade_all: bool
    localhost_node_ports: bool
    commented: bool


def filter_table(scope: Scope) -> Table:
    """The table filter before any service port is added to it."""
    table = Table("filter", ("INPUT", "FORWARD", "OUTPUT"))
    firewall = (_NEW, comment("kubernetes load balancer firewall"), jump(PROXY_FIREWALL))
    portals = (_NEW, comment("kubernetes service portals"), jump(SERVICES))
    external = (_NEW, comment("kubernetes externally-visible service portals"), jump(EXTERNAL_SERVICES))
    table.add("INPUT", jump(FIREWALL))
    table.add("INPUT", *firewall)
    table.add("INPUT", comment("kubernetes health check service ports"), jump(NODEPORTS))
    table.add("INPUT", *external)
    table.add("FORWARD", *firewall)
    table.add("FORWARD", comment("kubernetes forwarding rules"), jump(FORWARD))
    table.add("FORWARD", *portals)
    table.add("FORWARD", *external)
    table.add("OUTPUT", jump(FIREWALL))
    table.add("OUTPUT", *firewall)
    table.add("OUTPUT", *portals)
    table.declare(EXTERNAL_SERVICES, FIREWALL, NODEPORTS, PROXY_FIREWALL, SERVICES)
    if scope.localhost_node_ports:
        # route_localnet lets packets from outside reach 127.0.0.0/8 (https://issue.k8s.io/90259); this stops them.
        only_local = "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT"
        blocked = comment("block incoming localnet connections")
        table.add(FIREWALL, "! -s 127.0.0.0/8 -d 127.0.0.0/8", blocked, only_local, "-j DROP")
    table.add(FORWARD, "-m conntrack --ctstate INVALID", count(INVALID_DROPPED), "-j DROP")
    table.add(FORWARD, comment("kubernetes forwarding rules"), f"-m mark --mark {MARK}/{MARK}", "-j ACCEPT")
    related = "-m conntrack --ctstate RELATED,ESTABLISHED"
    table.add(FORWARD, comment("kubernetes forwarding conntrack rule"), related, "-j ACCEPT")
    return table


def nat_table() -> Table:
    """The table nat before any service port is added to it; its KUBE-SERVICES still lacks the last rule."""
    table = Table("nat", ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"))
    table.add("PREROUTING", comment("kubernetes service portals"), jump(SERVICES))
    table.add("OUTPUT", comment("kubernetes service portals"), jump(SERVICES))
    table.add("POSTROUTING", comment("kubernetes postrouting rules"), jump(POSTROUTING))
    table.declare(SERVICES, NODEPORTS)
    table.add(POSTROUTING, f"-m mark ! --mark {MARK}/{MARK}", "-j RETURN")
    table.add(POSTROUTING, f"-j MARK --set-xmark {MARK}/0x0")  # off again, should the packet come by once more
    table.add(POSTROUTING, comment("kubernetes service traffic requiring SNAT"), "-j MASQUERADE --random-fully")
    table.add(MARK_MASQ, f"-j MARK --set-xmark {MARK}/{MARK}")
    return table


def node_port_jumps(nat: Table, scope: Scope, node_ports: NodePortAddresses, addresses: Sequence[str]) -> None:
    """From KUBE-SERVICES to KUBE-NODEPORTS, after all rules for addresses of Services."""
    if node_ports.everywhere:
        loopback = "127.0.0.0/8" if scope.family == 4 else "::1/128"
        but = "" if scope.localhost_node_ports else f"! -d {loopback}"
        nat.add(SERVICES, but, comment(_LAST), "-m addrtype --dst-type LOCAL", jump(NODEPORTS))
        return
    for address in node_ports.among(addresses):
        if scope.localhost_node_ports or not ip_address(address).is_loopback:
            nat.add(SERVICES, f"-d {host(address)}", comment(_LAST), jump(NODEPORTS))


def count(name: str) -> str:
    """A match that always hits and counts into the nfacct object `name`."""
    return f"-m nfacct --nfacct-name  {name}"  # iptables-save prints two spaces
