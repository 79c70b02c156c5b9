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
        kind: one of ORDER. node, vrf: where. text: what, as a sentence without its end.
        prefix: of a route, or an interface's address. interface: that it is about.
    """

    kind: str
    node: str
    vrf: str | None
    text: str
    prefix: str = ""
    interface: str = ""


ORDER = (
    "gone", "process", "interface", "carrier", "port", "address", "setting", "tunnel", "session", "filter", "route",
    "rules", "extra-address",
)  # fmt: skip
"""The kinds of faults, in the order in which they are to blame."""
AFAR = ("process", "interface", "carrier", "session", "filter", "route")
"""Those that can take away a route of another node."""


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
    return within(address, prefix) and ipaddress.ip_network(prefix, strict=False).prefixlen > 0


def within(address: str, prefix: str) -> bool:
    """Whether a prefix, or the network of an interface's address, holds an address of its family."""
    network = ipaddress.ip_network(prefix, strict=False)
    found = ipaddress.ip_address(address)
    return network.version == found.version and found in network


def _lost(fault: Fault, hop: Hop) -> bool:
    """Whether it is an address that is missing, of the family of the packet."""
    family = ipaddress.ip_address(hop.ends.destination).version
    return fault.kind == "address" and ipaddress.ip_interface(fault.prefix).version == family


def blamed(cause: Cause, context: Context, hop: Hop, gateways: Sequence[Hop] = ()) -> Cause:
    """The cause, or what brought it about.

    A fault at the place itself comes first; then, of what bears on routes anywhere, the gravest: a route that is
    missing here is often a session that is down there. `gateways` may have lost the rules by which they translate.
    """
    faults = sorted(context.faults, key=lambda fault: ORDER.index(fault.kind))
    own = ("gone", "process", "tunnel", "route")
    here = [
        fault
        for fault in faults
        if (fault.node, fault.vrf) == hop.place
        and (fault.kind in own or (cause.kind == "no-route" and _lost(fault, hop)))
    ]
    rules = [fault for gate in gateways for fault in faults if fault.node == gate.node and fault.kind == "rules"]
    owner = [fault for fault in faults if fault.kind == "gone"]
    afar = [fault for fault in faults if fault.kind in AFAR]
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
        "filter": "bgp-filter",
        "address": "address-missing",
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
