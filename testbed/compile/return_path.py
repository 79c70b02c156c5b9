"""How a reply finds the VRF its request came in by, on a node that is in several VRFs with one routing instance.

`connmark`: a connection that is opened from an uplink other than the default one is marked; its replies, and only
these, get the mark back before routing, and a rule sends them to that uplink's table. (Restored in both directions the
mark would send the translated request back out.) Replies of the node's own sockets pass OUTPUT, where a chain of type
`route` asks for the route again. Strict and loose rp_filter would drop such traffic, so it is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.compile import nft
from testbed.plan import Route, Rule, Ruleset

# Below kube-proxy's 0x4000 and Calico's 0xffff0000; four bits tell 15 uplinks apart.
MARK_SHIFT = 8
MARK_MASK = 0xF00
MOST_UPLINKS = MARK_MASK >> MARK_SHIFT
FIRST_TABLE = 100
PRIORITY = 1000  # before main (32766); after Calico's and kube-proxy's, which have none


@dataclass(frozen=True)
class Uplink:
    """A node's interface into a VRF, with the prefixes on it and its gateway."""

    interface: str
    vrf: str
    gateway: str
    networks: tuple[str, ...]


@dataclass(frozen=True)
class ReturnPath:
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()


def connmark(uplinks: Sequence[Uplink]) -> ReturnPath:
    """The return path by connection mark.

    Args:
        uplinks: those that the node's default route does not use (IPv4), at most MOST_UPLINKS.
    """
    if not uplinks:
        return ReturnPath()
    routes: list[Route] = []
    rules: list[Rule] = []
    save: list[str] = []
    restore: list[str] = []
    for number, uplink in enumerate(uplinks, start=1):
        mark, table = number << MARK_SHIFT, FIRST_TABLE + number
        save.append(f'iifname "{uplink.interface}" ct state new ct mark set ct mark or {mark:#x}')
        restore.append(f"ct direction reply ct mark & {MARK_MASK:#x} == {mark:#x} meta mark set meta mark or {mark:#x}")
        rules.append(Rule(PRIORITY + number, table, fwmark=mark, fwmask=MARK_MASK))
        routes += [Route(network, dev=uplink.interface, table=table) for network in uplink.networks]
        routes.append(Route("0.0.0.0/0", via=uplink.gateway, dev=uplink.interface, table=table))
    chains = [
        nft.chain("prerouting", "type filter hook prerouting priority mangle; policy accept;", [*save, *restore]),
        nft.chain("output", "type route hook output priority mangle; policy accept;", restore),
    ]
    return ReturnPath(tuple(routes), tuple(rules), (nft.table("ip", "testbed-return-path", chains),))
