"""How a pod's interface looks with Calico, in the pod and on its node, and how pods leave the cluster.

Sources: recordings of the CNI plugin (interfaces, the pod's side) and of felix (the node's side once it has settled).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from testbed.model.calico import IPPool
from testbed.plan import Route, Ruleset

Family = Literal[4, 6]

POD_INTERFACE = "eth0"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""The host's end of every pod's veth has this hardware address, so that pods need not learn it anew."""

_GATEWAY_V4 = "169.254.1.1"
_GATEWAY_V6 = "fe80::ecee:eeff:feee:eeee"  # the link-local address (EUI-64) that HOST_MAC gives the host's end
_METRIC = 1024
"""Felix's metric of pods' routes. BIRD exports a block's single addresses of a lesser metric (`bird`)."""


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """One pod's link, eth0 in the pod and `host_interface` on its node.

    Args:
        host_interface: the kernel's name of the host's end; `host_mac` its hardware address.
        addresses: of eth0, in CIDR form, each a network of its own.
        pod_routes, host_routes: to be added on either side, in this order. The pod's IPv6 gateway is a link-local
            address that the host's end has by itself once it is up.
        pod_sysctls, host_sysctls: (key, value) pairs below /proc/sys, to be set before the interfaces are up.

    The host's end has no address but its link-local one, and there are no fixed neighbours on either side: the host
    answers for 169.254.1.1 by proxy ARP.
    """

    host_interface: str
    addresses: tuple[str, ...]
    pod_routes: tuple[Route, ...]
    host_routes: tuple[Route, ...]
    pod_sysctls: tuple[tuple[str, str], ...]
    host_sysctls: tuple[tuple[str, str], ...]
    host_mac: str = HOST_MAC


def host_interface(namespace: str, pod: str) -> str:
    """The name of the host's end: `cali` and 11 digits of the SHA-1 hash of NAMESPACE.POD."""
    digest = hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
    return f"cali{digest[:11]}"


def pod_network(namespace: str, pod: str, addresses: Sequence[str]) -> PodNetwork:
    """The link of a pod with these addresses (without prefix length, of any family)."""
    name = host_interface(namespace, pod)
    v4 = [address for address in addresses if ip_address(address).version == 4]
    v6 = [address for address in addresses if ip_address(address).version == 6]
    return PodNetwork(
        host_interface=name,
        addresses=tuple(_single(address) for address in addresses),
        pod_routes=(*(_POD_ROUTES_V4 if v4 else ()), *(_POD_ROUTES_V6 if v6 else ())),
        host_routes=tuple(Route(_single(address), dev=name, metric=_METRIC) for address in (*v4, *v6)),
        pod_sysctls=((f"net/ipv6/conf/{POD_INTERFACE}/accept_dad", "0"),) if v6 else (),
        host_sysctls=_host_sysctls(name, bool(v6)),
    )


def node_sysctls(families: Sequence[Family]) -> tuple[tuple[str, str], ...]:
    """What felix sets on a node once, as (key, value) pairs: forwarding of each family, and byte counts of flows."""
    return (
        *((("net/ipv4/ip_forward", "1"),) if 4 in families else ()),
        *((("net/ipv6/conf/all/forwarding", "1"),) if 6 in families else ()),
        ("net/netfilter/nf_conntrack_acct", "1"),
    )


def nat_outgoing(pools: Sequence[IPPool], family: Family = 4) -> Ruleset:
    """The masquerading of what pods of natOutgoing pools send out of all pools, for iptables-restore --noflush.

    The chains are Calico's (POSTROUTING → cali-POSTROUTING → cali-nat-outgoing); its two address sets are rules here: a
    return for each pool as destination, then a MASQUERADE for each natOutgoing pool as source. Disabled pools count.

    The text empties its own two chains and puts its jump first into POSTROUTING, where felix keeps it: in front of
    KUBE-POSTROUTING. So of the texts that share the node's nat table (all with --noflush) this one is loaded last,
    after kube-proxy's, whether that one appends its jump or puts it first. Loading the text again adds a second jump,
    which changes nothing but is untidy; whoever reloads the table starts with one that empties POSTROUTING
    (`-F POSTROUTING`) and loads all of them again in that order.
    """
    mine = [pool for pool in pools if pool.spec.network.version == family]
    lines = [
        "*nat",
        ":cali-POSTROUTING - [0:0]",
        ":cali-nat-outgoing - [0:0]",
        "-I POSTROUTING 1 -j cali-POSTROUTING",
        "-A cali-POSTROUTING -j cali-nat-outgoing",
    ]
    if sources := sorted(pool.spec.cidr for pool in mine if pool.spec.nat_outgoing):
        lines += [f"-A cali-nat-outgoing -d {cidr} -j RETURN" for cidr in sorted(pool.spec.cidr for pool in mine)]
        lines += [f"-A cali-nat-outgoing -s {cidr} -j MASQUERADE --random-fully" for cidr in sources]
    text = "\n".join([*lines, "COMMIT", ""])
    tool: Literal["iptables-restore", "ip6tables-restore"] = "iptables-restore" if family == 4 else "ip6tables-restore"
    return Ruleset("calico-nat" if family == 4 else "calico-nat6", tool, text)


_POD_ROUTES_V4 = (
    Route(_GATEWAY_V4 + "/32", dev=POD_INTERFACE),
    Route("0.0.0.0/0", via=_GATEWAY_V4, dev=POD_INTERFACE),
)
_POD_ROUTES_V6 = (Route("::/0", via=_GATEWAY_V6, dev=POD_INTERFACE, metric=_METRIC),)


def _host_sysctls(name: str, with_v6: bool) -> tuple[tuple[str, str], ...]:
    """IPv6 as well is kept from taking router advertisements of pods; the rest of it only where the pod has it."""
    v4 = (
        (f"net/ipv4/conf/{name}/route_localnet", "1"),
        (f"net/ipv4/neigh/{name}/proxy_delay", "0"),
        (f"net/ipv4/conf/{name}/proxy_arp", "1"),
        (f"net/ipv4/conf/{name}/forwarding", "1"),
        (f"net/ipv6/conf/{name}/accept_ra", "0"),
    )
    v6 = (
        (f"net/ipv6/conf/{name}/accept_dad", "0"),
        (f"net/ipv6/conf/{name}/proxy_ndp", "1"),
        (f"net/ipv6/conf/{name}/forwarding", "1"),
    )
    return (*v4, *v6) if with_v6 else v4


def _single(address: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen}"
