"""kube-proxy's part of a node's Plan, in each mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.compile import nft
from testbed.compile.kube.kube_proxy.config import ProxyConfig
from testbed.compile.kube.kube_proxy.iptables import iptables
from testbed.compile.kube.kube_proxy.ipvs import DEVICE, ipvs
from testbed.compile.kube.kube_proxy.nftables import TABLE, nftables
from testbed.model.kube import EndpointSlice, Node, Service
from testbed.plan import Interface, Ruleset

Mode = Literal["iptables", "nftables", "ipvs"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a node's Plan needs for kube-proxy (IPv4).

    Args:
        interfaces: besides those that other parts of the Plan give the node.
        before, after: rulesets that must be loaded before, or may be loaded after the iptables rules.
        iptables: rules of the tables filter and nat, to be joined with those of other programs; empty: none.
        sysctls: (key, value) pairs, keys below /proc/sys.
    """

    interfaces: tuple[Interface, ...] = ()
    before: tuple[Ruleset, ...] = ()
    iptables: tuple[Ruleset, ...] = ()
    after: tuple[Ruleset, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


def planned(
    mode: Mode,
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: Node,
    config: ProxyConfig,
    addresses: Sequence[str],
) -> Planned:
    """What kube-proxy in `mode` puts into the kernel of `node`.

    Args:
        addresses: of the node's interfaces, all of them.

    Raises: InputError as the modes' own functions do.
    """
    if mode == "nftables":
        tables = nftables(services, slices, node, config, addresses)
        return Planned(before=(nft.replaced(f"ip {TABLE}", tables.v4),))
    if mode == "ipvs":
        made = ipvs(services, slices, node, config, addresses)
        return Planned(
            interfaces=(Interface(DEVICE, "dummy", addresses=tuple(f"{address}/32" for address in made.addresses)),),
            before=(Ruleset("kube-proxy-sets", "ipset", made.sets),),  # the rules name them
            iptables=(Ruleset("kube-proxy", "iptables-restore", made.v4),),
            after=(Ruleset("kube-proxy-servers", "ipvs", made.servers),),
            sysctls=made.sysctls,
        )
    rules = iptables(services, slices, node, config, addresses)
    return Planned(
        before=(Ruleset("kube-proxy-counters", "nfacct", "\n".join(rules.nfacct)),),  # the rules name them
        iptables=(Ruleset("kube-proxy", "iptables-restore", rules.v4),),
        sysctls=rules.sysctls,
    )
