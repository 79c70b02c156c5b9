"""What in the lab is not as planned, and which of it is to blame for what became of a packet. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.trace.evidence import Cause
from testbed.trace.map import Place
from testbed.trace.routing import Decision
from testbed.trace.walk import Hop


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as planned.

    Args:
        kind: gone, process, interface, carrier, tunnel, session, route, rules; in the order in which they are to blame.
        node, vrf: where. text: what, as a sentence without its end.
        prefix: of a route.
    """

    kind: str
    node: str
    vrf: str | None
    text: str
    prefix: str = ""


ORDER = ("gone", "process", "interface", "carrier", "tunnel", "session", "route", "rules")


@dataclass(frozen=True, slots=True)
class Context:
    """The state of the lab.

    Args:
        faults: all that is not as planned. absent: (place, prefix) of routes that BGP should have brought.
        way_back: what the place that got the request says about the answer's way; None: not asked.
    """

    faults: tuple[Fault, ...] = ()
    absent: tuple[tuple[Place, str], ...] = ()
    way_back: Decision | None = None

    @property
    def lines(self) -> list[str]:
        """The faults as lines of evidence."""
        return [f"not as planned: {fault.text}" for fault in self.faults]


def expected(context: Context, hop: Hop) -> str:
    """Whether the Plan has a route for the packet where there is none now, as the end of a sentence."""
    for place, prefix in context.absent:
        if place == hop.place and _holds(prefix, hop.ends.destination):
            return f", though BGP should have brought {prefix}"
    return ""


def _holds(prefix: str, address: str) -> bool:
    network = ipaddress.ip_network(prefix, strict=False)
    found = ipaddress.ip_address(address)
    return network.version == found.version and found in network and network.prefixlen > 0


def blamed(cause: Cause, context: Context, hop: Hop, gateways: Sequence[Hop] = ()) -> Cause:
    """The cause, or what brought it about.

    A fault at the place itself comes first; then, of what bears on routes anywhere, the gravest: a route that is
    missing here is often a session that is down there. `gateways` may have lost the rules by which they translate.
    """
    faults = sorted(context.faults, key=lambda fault: ORDER.index(fault.kind))
    own = ("gone", "process", "tunnel", "route")
    here = [fault for fault in faults if (fault.node, fault.vrf) == hop.place and fault.kind in own]
    rules = [fault for gate in gateways for fault in faults if fault.node == gate.node and fault.kind == "rules"]
    owner = [fault for fault in faults if fault.kind == "gone"]
    afar = [fault for fault in faults if fault.kind in ("process", "interface", "carrier", "session", "route")]
    remote = afar if cause.kind in ("no-route", "blackhole", "unreachable", "loop") else []
    chosen = next(iter([*here, *rules, *owner, *remote]), None)
    if chosen is None:
        return cause
    kinds = {
        "rules": "nat-missing",
        "gone": "gone",
        "process": "process",
        "interface": "link-down",
        "carrier": "link-down",
        "session": "bgp-session",
    }
    return replace(
        cause,
        kind=kinds.get(chosen.kind, cause.kind)
        if chosen.kind != "process" or cause.kind != "no-listener"
        else cause.kind,
        node=chosen.node,
        vrf=chosen.vrf,
        sentence=f"{cause.sentence}; {chosen.text}",
    )
