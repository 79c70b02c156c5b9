"""What pods open leaves by one VRF with one source address: a node's routes, rules and netfilter table for it (IPv4).

What such pods open to addresses outside the cluster is marked before it is routed, and by its mark it is routed: on the
node that translates by the network's uplink, on others to that node. Replies are not marked: `returnPath` is for them.

No packet leaves with another source. The table that marks also translates, and drops what is marked and would go any
other way; it is one transaction, and is there before rules and routes change (`Ruleset.before_routes`). What a
connection was translated to before is not used again: connections of the marked direction are looked up in a zone of
connection tracking of their own, another one whenever the translation is another. Replies are in the common zone
(nft(8), `ct original zone`; resolve_normal_ct() in net/netfilter/nf_conntrack_core.c looks a packet up in both).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.compile import nft
from testbed.compile.return_path import ReturnPath
from testbed.plan import Route, Rule

# Beside the return path's 0xf00, kube-proxy's 0x4000 and 0x8000 and Calico's 0xffff0000.
MARK_MASK = 0xFF
MOST_SERVICES = MARK_MASK
FIRST_TABLE = 200
PRIORITY = 800  # before the return path's and those of the nodes' VRFs
TABLE = "testbed-egress"
TUNNEL = "testbed-egress"  # the interface, see `handover`

_ZONES = 0xFFFF
# Nothing comes out of the tunnel but what such pods opened.
_STRAY = f'iifname "{TUNNEL}" meta mark & {MARK_MASK:#x} == 0 drop'
# The packet around another has its mark (skb_scrub_packet() in net/core/skbuff.c clears that between namespaces alone),
# and would be routed into the tunnel, too. All else is done by then.
_UNMARKED = nft.chain(
    "unmarked",
    "type filter hook postrouting priority srcnat + 20; policy accept;",
    [f'oifname "{TUNNEL}" meta mark set 0'],
)


@dataclass(frozen=True, slots=True)
class Leg:
    """What one node does with what the pods of one EgressService open.

    Args:
        number: of the EgressService, from 1: its mark, and its table from 200.
        service: its key. pods: the addresses of its pods, wherever they run.
        gateway, interface: where to; empty: the node has no way, and drops what it should send.
        networks: prefixes on the interface that need no gateway.
        source: the address that the packets get; empty: the node hands them over to the one that translates.
        strangers: next hops that the packets must not have: other nodes.
        balanced: the load balancer address, which no packet has that the node forwards; empty where none is used.
    """

    number: int
    service: str
    pods: tuple[str, ...]
    gateway: str = ""
    interface: str = ""
    networks: tuple[str, ...] = ()
    source: str = ""
    strangers: tuple[str, ...] = ()
    balanced: str = ""

    @property
    def table(self) -> int:
        return FIRST_TABLE + self.number

    @property
    def zone(self) -> int:
        """Another one for another translation (unless two numbers meet: then the last check drops the packets)."""
        facts = f"{self.service} {self.source} {self.interface} {self.gateway}"
        return 1 + zlib.crc32(facts.encode()) % _ZONES


def node_egress(legs: Sequence[Leg], near: Sequence[str], *, tunnelled: bool = False) -> ReturnPath:
    """The routes, rules and ruleset of a node.

    Args:
        near: addresses and prefixes in the cluster, none within another: what is sent there is left alone.
        tunnelled: whether the node has an end of the tunnel.
    """
    if not legs:
        return ReturnPath()
    routes = tuple(route for leg in legs if leg.gateway for route in _routes(leg))
    rules = tuple(
        Rule(PRIORITY + leg.number, leg.table, fwmark=leg.number, fwmask=MARK_MASK) for leg in legs if leg.gateway
    )
    unmarked = [_UNMARKED] if tunnelled else []
    return ReturnPath(
        routes, rules, (nft.table("ip", TABLE, [*_chains(legs, near, tunnelled), *unmarked], before_routes=True),)
    )


def _routes(leg: Leg) -> Sequence[Route]:
    on_link = [Route(network, dev=leg.interface, table=leg.table) for network in leg.networks]
    onlink = leg.interface == TUNNEL  # no prefix of the interface has the next hop
    return [*on_link, Route("0.0.0.0/0", via=leg.gateway, dev=leg.interface, table=leg.table, onlink=onlink)]


def _chains(legs: Sequence[Leg], near: Sequence[str], tunnelled: bool) -> list[str]:
    opened = {leg.number: f"ip saddr {_set(leg.pods)} ip daddr != {_set(near)}" for leg in legs}
    marks = [f"{opened[leg.number]} ct direction original meta mark set meta mark or {leg.number:#x}" for leg in legs]
    zones = [f"{opened[leg.number]} ct original zone set {leg.zone}" for leg in legs]
    chains = [
        nft.chain("separated", "type filter hook prerouting priority raw; policy accept;", zones),
        nft.chain("marked", "type filter hook prerouting priority mangle; policy accept;", marks),
        nft.chain(
            "guarded",
            "type filter hook forward priority filter - 10; policy accept;",
            [*([_STRAY] if tunnelled else []), *(rule for leg in legs for rule in _guard(leg))],
        ),
    ]
    if passing := [leg for leg in legs if leg.gateway]:
        translate = [f"{_marked(leg)} snat to {leg.source or 'ip saddr'}" for leg in passing]
        check = [f"{_marked(leg)} ip saddr != {leg.source or _set(leg.pods)} drop" for leg in passing]
        # Before Calico's and kube-proxy's masquerading: the first to translate a connection is the only one.
        chains += [
            nft.chain("translated", "type nat hook postrouting priority srcnat - 10; policy accept;", translate),
            nft.chain("checked", "type filter hook postrouting priority srcnat + 10; policy accept;", check),
        ]
    return chains


def _guard(leg: Leg) -> Sequence[str]:
    """What is marked goes the one way or none. And what other nodes translated does not pass this one."""
    rules = [f"ip saddr {leg.balanced} drop", f"ip daddr {leg.balanced} drop"] if leg.balanced else []
    if not leg.gateway:
        return [*rules, f"{_marked(leg)} drop"]
    rules.append(f'{_marked(leg)} oifname != "{leg.interface}" drop')
    if not leg.source:
        rules.append(f"{_marked(leg)} rt ip nexthop != {leg.gateway} drop")
    elif leg.strangers:
        rules.append(f"{_marked(leg)} rt ip nexthop {_set(leg.strangers)} drop")
    return rules


def _marked(leg: Leg) -> str:
    return f"meta mark & {MARK_MASK:#x} == {leg.number:#x}"


def _set(members: Sequence[str]) -> str:
    return "{ " + ", ".join(members) + " }"
