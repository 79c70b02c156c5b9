"""How a reply finds the VRF its request came in by, on a node that is in several VRFs with one routing instance (IPv4).

Each policy is a pure function from uplinks to routes, rules and rulesets. What each does, and in which cases it works,
is told and measured in docs/return-path.md and labs/vrf-return-path. In short: routing comes before POSTROUTING, where
netfilter gives a reply its address back, so a rule by source sees the pod's address, not the load balancer's (except
with IPVS, which translates in FORWARD and routes again). A mark on the connection does not depend on addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.compile import nft
from testbed.compile.uplinks import Uplink
from testbed.plan import MAIN_TABLE, Route, Rule, Ruleset

# Below kube-proxy's 0x4000 and Calico's 0xffff0000; four bits tell 15 uplinks apart.
MARK_SHIFT = 8
MARK_MASK = 0xF00
MOST_UPLINKS = MARK_MASK >> MARK_SHIFT
WHOLE_MARK = 0xFFFFFFFF
FIRST_TABLE = 100
PRIORITY = 1000  # the kernel's own for VRF devices: all come after it, and before main (32766)

_PREROUTING = "type filter hook prerouting priority mangle; policy accept;"
_OUTPUT = "type route hook output priority mangle; policy accept;"
_TABLE = "testbed-return-path"


@dataclass(frozen=True)
class ReturnPath:
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()


@dataclass(frozen=True)
class Way:
    """An uplink that is not the default one, with its number: table 100 + number, mark number << 8."""

    number: int
    uplink: Uplink

    @property
    def table(self) -> int:
        return FIRST_TABLE + self.number

    @property
    def mark(self) -> int:
        return self.number << MARK_SHIFT

    @property
    def routes(self) -> tuple[Route, ...]:
        """Its table: what is on the link, and a default route."""
        return (
            *(Route(network, dev=self.uplink.interface, table=self.table) for network in self.uplink.networks),
            Route("0.0.0.0/0", via=self.uplink.gateway, dev=self.uplink.interface, table=self.table),
        )


def ways(uplinks: Iterable[Uplink], default: Uplink | None) -> list[Way]:
    """The uplinks beside the default one, numbered from 1."""
    return [Way(number, uplink) for number, uplink in enumerate((u for u in uplinks if u != default), start=1)]


def static(way: Way, to: Sequence[str]) -> ReturnPath:
    """Routes in `main` to those who ask: right as long as all of them are known, and in one VRF only."""
    return ReturnPath(routes=tuple(Route(prefix, via=way.uplink.gateway, dev=way.uplink.interface) for prefix in to))


def by_source(way: Way, sources: Sequence[str], near: Sequence[str] = ()) -> ReturnPath:
    """A rule for each source address or prefix.

    Args:
        near: destinations that stay in `main`, such as pods and nodes.
    """
    first = PRIORITY + way.number
    stay = [Rule(first, MAIN_TABLE, destination=prefix) for prefix in near]
    leave = [Rule(first + bool(stay), way.table, source=prefix) for prefix in sources]
    return ReturnPath(way.routes, (*stay, *leave))


def connmark(chosen: Sequence[Way]) -> ReturnPath:
    """Marks a connection that is opened from one of these uplinks, and restores the mark on its replies alone.

    Replies of the node's own sockets pass OUTPUT, where a chain of type `route` asks for the route again.
    """
    restore = [
        f"ct direction reply ct mark & {MARK_MASK:#x} == {way.mark:#x} meta mark set meta mark or {way.mark:#x}"
        for way in chosen
    ]
    return _marked(chosen, [*_save(chosen), *restore], restore, MARK_MASK)


def connmark_both(chosen: Sequence[Way]) -> ReturnPath:
    """The mistake: as `-j CONNMARK --restore-mark` without direction or mask, and a rule that compares the whole mark.

    The translated request gets the mark, too, and goes back where it came from. Only a packet on which kube-proxy has
    set its own mark, for the first of a connection is to be masqueraded, slips past the rule.
    """
    restore = ["ct mark != 0 meta mark set ct mark"]
    return _marked(chosen, [*_save(chosen), *restore], restore, WHOLE_MARK)


def ctorigdst(way: Way, addresses: Sequence[str]) -> ReturnPath:
    """Marks replies of connections that were opened to these addresses, wherever from; nothing is kept in a mark."""
    wanted = ", ".join(address.removesuffix("/32") for address in addresses)
    rule = f"ct direction reply ct original ip daddr {{ {wanted} }} meta mark set meta mark or {way.mark:#x}"
    return _marked([way], [rule], [rule], MARK_MASK)


def _save(chosen: Sequence[Way]) -> list[str]:
    return [f'iifname "{way.uplink.interface}" ct state new ct mark set ct mark or {way.mark:#x}' for way in chosen]


def _marked(chosen: Sequence[Way], prerouting: Sequence[str], output: Sequence[str], mask: int) -> ReturnPath:
    if not chosen:
        return ReturnPath()
    chains = [nft.chain("prerouting", _PREROUTING, prerouting), nft.chain("output", _OUTPUT, output)]
    return ReturnPath(
        tuple(route for way in chosen for route in way.routes),
        tuple(Rule(PRIORITY + way.number, way.table, fwmark=way.mark, fwmask=mask) for way in chosen),
        (nft.table("ip", _TABLE, chains),),
    )
