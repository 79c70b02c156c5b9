"""Whom a packet is to be handed to, as the kernel's table of neighbours has it, and as the lab's links have it."""

from __future__ import annotations

import ipaddress

from testbed.trace.evidence import NextHop
from testbed.trace.inquire import Inquiry
from testbed.trace.map import Place
from testbed.trace.routing import Decision


def next_hop(inquiry: Inquiry, place: Place, routed: Decision | None, destination: str) -> NextHop | None:
    """The next hop of a packet that a place routes so; of several, the first that did not answer."""
    if routed is None or routed.error or routed.kind != "unicast":
        return None
    found = [_next_hop(inquiry, place, gateway or destination, device) for gateway, device in routed.ways if device]
    return next((entry for entry in found if entry.unanswered), next(iter(found), None))


def _next_hop(inquiry: Inquiry, place: Place, address: str, interface: str) -> NextHop:
    lab = inquiry.lab
    state, noted = known(inquiry, place, address, interface)
    stations = {}
    for port in lab.segment((place[0], interface)):
        link = inquiry.links((port[0], lab.vrfs.get(port))).get(port[1], {})
        stations[port] = str(link.get("address", ""))
    ends = [port for port in stations if port not in lab.bridges]  # a port of a bridge has no addresses of its own
    owner = next((port[0] for port in ends if address in lab.addresses.get((port[0], lab.vrfs.get(port)), ())), "")
    if not owner and ipaddress.ip_address(address).is_link_local and len(ends) == 1:
        owner = ends[0][0]
    real = frozenset(mac for port, mac in stations.items() if port in ends and port[0] == owner)
    holder = next((port[0] for port, mac in stations.items() if noted and mac == noted), "")
    return NextHop(address, interface, owner, (state,) if state else (), noted, real, holder)


def known(inquiry: Inquiry, place: Place, address: str, interface: str) -> tuple[str, str]:
    """(state, link-layer address) of an entry in a place's table of neighbours; empty texts: there is none."""
    family = f"-{ipaddress.ip_address(address).version}"
    for entry in inquiry.listed(place, "ip", "-j", family, "neigh", "show", "to", address, "dev", interface):
        return str(next(iter(entry.get("state", ())), "")), str(entry.get("lladdr", ""))
    return "", ""
