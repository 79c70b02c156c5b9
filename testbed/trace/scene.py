"""Looks closely at the place where a packet was last seen: asks again while the rules there tell what they decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as File

from testbed.errors import TestbedError
from testbed.plan import Protocol
from testbed.trace.evidence import Scene
from testbed.trace.inquire import Inquiry
from testbed.trace.map import Place
from testbed.trace.netfilter import rule_text, watched_rules
from testbed.trace.rules import RuleEvent, denial, dnat_target, marks
from testbed.trace.walk import Hop, Path, Walk

SETTINGS = ("rp_filter", "forwarding")
TELLING = {
    "TcpExt.IPReversePathFilter",
    "IpExt.InNoRoutes",
    "Ip.OutNoRoutes",
    "Ip.InAddrErrors",
    "Ip.FragFails",
    "Ip.InHdrErrors",
    "Udp.NoPorts",
    "TcpExt.ListenOverflows",
}
"""Counters of the kernel that say why a packet was dropped."""


def look(
    inquiry: Inquiry,
    walk: Walk,
    path: Path,
    counted: Mapping[str, int],
    again: Callable[[int], object],
    mark: int,
    protocol: Protocol,
) -> Scene:
    """Everything that bears on what became of a packet at its last hop.

    Args:
        counted: what rose there while the flow was asked. again: asks the flow once more, with this mark.
    """
    hop = path.last
    node, vrf = hop.place
    events = _rules(inquiry, hop.place, protocol, mark, again)
    target = None
    if hop.left is None and path.direction == "request":
        target = dnat_target(inquiry.listing(hop.place), [event.chain for event in events])
    best = inquiry.best_route(hop.place, target[0] if target else hop.ends.destination)
    return Scene(
        node,
        vrf,
        route=inquiry.routed(path, hop, target),
        destination=target[0] if target else hop.ends.destination,
        best=_words(best),
        best_kind=str(best.get("type", "unicast")) if best else "",
        denied=_denied(inquiry, hop.place, events),
        marks=tuple(marks(events)),
        counted={name: more for name, more in counted.items() if name in TELLING},
        unresolved=tuple(
            entry.target for entry in walk.solicitations if (entry.node, entry.vrf) == hop.place and not entry.answered
        ),
        links=_links(inquiry, hop.place),
        peer_links=_peer_links(inquiry, hop),
        settings=_settings(inquiry, hop),
        listening=_listening(inquiry, hop, protocol),
    )


def at_origin(inquiry: Inquiry, node: str, again: Callable[[int], object], mark: int, protocol: Protocol) -> Scene:
    """The place where a flow starts that sent nothing."""
    events = _rules(inquiry, (node, None), protocol, mark, again)
    return Scene(node, None, denied=_denied(inquiry, (node, None), events), links=_links(inquiry, (node, None)))


def _denied(inquiry: Inquiry, place: Place, events: Sequence[RuleEvent]) -> tuple[str, str] | None:
    """(chain, rule) of what dropped a packet."""
    event = denial(events)
    if event is None:
        return None
    text = rule_text(inquiry.runtime, *place, event) if event.handle else ""
    return f"{event.table} {event.chain}", text or f"{event.kind} {event.verdict}"


def _rules(
    inquiry: Inquiry, place: Place, protocol: Protocol, mark: int, again: Callable[[int], object]
) -> list[RuleEvent]:
    try:
        with watched_rules(inquiry.runtime, *place, protocol, mark) as events:
            again(mark)
    except (TestbedError, OSError):
        return []
    return events


def _words(route: dict[str, object] | None) -> str:
    if route is None:
        return ""
    kind = f"{route['type']} " if "type" in route else ""
    via = f" via {route['gateway']}" if "gateway" in route else ""
    dev = f" dev {route['dev']}" if "dev" in route else ""
    return f"{kind}{route.get('dst', '')}{via}{dev} ({route.get('protocol', '')})"


def _links(inquiry: Inquiry, place: Place) -> dict[str, tuple[int, bool]]:
    return {
        name: (int(link.get("mtu", 0)), "UP" in link.get("flags", [])) for name, link in inquiry.links(place).items()
    }


def _peer_links(inquiry: Inquiry, hop: Hop) -> dict[str, tuple[int, bool]]:
    """The other end of the link that the packet left by."""
    peer = inquiry.lab.peers.get((hop.node, hop.interface_out))
    if not peer:
        return {}
    found = _links(inquiry, (peer[0], inquiry.lab.vrfs.get(peer)))
    return {hop.interface_out: found[peer[1]]} if peer[1] in found else {}


def _settings(inquiry: Inquiry, hop: Hop) -> dict[str, str]:
    family = "ipv4" if inquiry.version == 4 else "ipv6"
    interface = inquiry.incoming(hop)
    found = {}
    for name in SETTINGS:
        for where in dict.fromkeys(("all", interface) if interface else ("all",)):
            key = f"net/{family}/conf/{where}/{name}"
            if value := inquiry.sysctl(hop.place, key):
                found[key] = value
    return found


def _listening(inquiry: Inquiry, hop: Hop, protocol: Protocol) -> bool | None:
    """Whether a socket waits at the packet's destination port, in the kernel's own table (proc(5), net/tcp)."""
    if protocol == "icmp":
        return None
    kind = "udp" if protocol in ("udp", "dns") else "tcp"

    def tables() -> str:
        return "".join(File("/proc/thread-self/net", name).read_text() for name in (kind, f"{kind}6"))

    text = inquiry.read(hop.place, tables)
    if text is None:
        return None
    wanted = f":{hop.ends.destination_port:04X}"
    lines = [line.split() for line in text.splitlines() if line.lstrip()[:1].isdigit()]
    return any(line[1].endswith(wanted) and (kind == "udp" or line[3] == "0A") for line in lines)
