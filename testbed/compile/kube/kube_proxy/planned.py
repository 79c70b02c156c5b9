"""kube-proxy's part of a node's Plan, in each mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.compile import nft
from testbed.compile.kube.kube_proxy.config import ProxyConfig
from testbed.compile.kube.kube_proxy.iptables import iptables
from testbed.compile.kube.kube_proxy.nftables import TABLE, nftables
from testbed.model.kube import EndpointSlice, Node, Service
from testbed.plan import Ruleset

Mode = Literal["iptables", "nftables"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a node's Plan needs for kube-proxy (IPv4).

    Args:
        before: rulesets that must be loaded before the iptables rules.
        iptables: rules of the tables filter and nat, to be joined with those of other programs; empty: none.
        sysctls: (key, value) pairs, keys below /proc/sys.
    """

    before: tuple[Ruleset, ...] = ()
    iptables: tuple[Ruleset, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


def planned(
    mode: Mode, services: Sequence[Service], slices: Sequence[EndpointSlice], node: Node, config: ProxyConfig
) -> Planned:
    """What kube-proxy in `mode` puts into the kernel of `node`. Raises InputError as the modes' own functions do."""
    if mode == "nftables":
        return Planned(before=(nft.replaced(f"ip {TABLE}", nftables(services, slices, node, config).v4),))
    rules = iptables(services, slices, node, config)
    return Planned(
        # What the rules name must be there before them.
        before=(Ruleset("kube-proxy-counters", "nfacct", "\n".join(rules.nfacct)),),
        iptables=(Ruleset("kube-proxy", "iptables-restore", rules.v4),),
        sysctls=rules.sysctls,
    )
