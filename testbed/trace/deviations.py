"""Where a place is not as its Plan says: routes, tunnels, rules, addresses, settings. The rest is status's."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.plan import MAIN_TABLE, Node, Plan
from testbed.run import network_namespace
from testbed.runtime.base import Runtime
from testbed.trace.context import Fault
from testbed.trace.map import Place, place_name
from testbed.trace.rules import chains

LEAST_MTU = 1280  # of a link with IPv6 (RFC 8200, section 5)
REFUSING = ("blackhole", "unreachable", "prohibit")
LISTERS: dict[str, tuple[str, ...]] = {"iptables-restore": ("iptables-save",), "ip6tables-restore": ("ip6tables-save",)}


def deviations(runtime: Runtime, plan: Plan, places: Iterable[Place]) -> tuple[Fault, ...]:
    """What is not as planned in these places; those that do not run are left out."""
    nodes = {node.name: node for node in plan.nodes}
    found: list[Fault] = []
    for name, vrf in dict.fromkeys(places):
        try:
            found += [*_routes(runtime, nodes[name], vrf), *_rules(runtime, nodes[name], vrf)]
            found += _tunnels(runtime, nodes[name], vrf)
            found += [*_interfaces(runtime, nodes[name], vrf), *_settings(runtime, nodes[name], vrf)]
        except (TestbedError, ValueError, OSError):
            continue
    return tuple(found)


def absent(runtime: Runtime, plan: Plan, places: Iterable[Place]) -> tuple[tuple[Place, str], ...]:
    """The routes that BGP should have brought to these places, and that are not there."""
    found = []
    for place in dict.fromkeys(places):
        wanted = [entry for entry in plan.routes if (entry.node, entry.vrf) == place]
        if wanted:
            there = reached(_listed(runtime, *place), wanted[0].table)
            found += [(place, entry.prefix) for entry in wanted if _network(entry.prefix) not in there]
    return tuple(found)


def reached(routes: Iterable[Mapping[str, Any]], table: int) -> set[str]:
    """The prefixes of a table that lead somewhere, of what `ip -N -j route` lists: VRF devices share a namespace."""
    return {
        _network(route["dst"])
        for route in routes
        if str(route.get("table", MAIN_TABLE)) == str(table) and route.get("type") not in REFUSING
    }


def _listed(runtime: Runtime, node: str, vrf: str | None) -> list[dict[str, Any]]:
    try:
        four, six = (
            json.loads(runtime.run(node, vrf, ("ip", "-N", "-j", family, "route", "show", "table", "all")) or "[]")
            for family in ("-4", "-6")
        )
    except (TestbedError, ValueError):
        return []
    return [*four, *six]


def _network(text: str) -> str:
    return "default" if text in ("default", "0.0.0.0/0", "::/0") else str(ipaddress.ip_network(text, strict=False))


def _routes(runtime: Runtime, node: Node, vrf: str | None) -> Iterator[Fault]:
    planned = [route for route in node.routes if route.vrf == vrf]
    if not planned:
        return
    there = {
        (_network(route["dst"]), str(route.get("table", MAIN_TABLE)), route.get("gateway", ""), route.get("dev", ""))
        for route in _listed(runtime, node.name, vrf)
    }
    for route in planned:
        known = {(to, table, gateway) for to, table, gateway, _ in there}
        if (_network(route.to), str(route.table), route.via) not in known:
            table = f" in table {route.table}" if route.table != 254 else ""
            via = f" via {route.via}" if route.via else ""
            text = f"{place_name(node.name, vrf)} lacks its planned route {route.to}{via}{table}"
            yield Fault("route", node.name, vrf, text, route.to)


def _tunnels(runtime: Runtime, node: Node, vrf: str | None) -> Iterator[Fault]:
    """Peers that the kernel has no address, or another one, for."""
    for entry in node.interfaces:
        if entry.tunnel is None or entry.vrf != vrf or not entry.tunnel.peers:
            continue
        next_hops = json.loads(runtime.run(node.name, vrf, ("ip", "-j", "-4", "neigh", "show", "dev", entry.name)))
        stations = json.loads(runtime.run(node.name, vrf, ("bridge", "-j", "fdb", "show", "dev", entry.name)))
        there = {(known["dst"], known.get("lladdr", "")) for known in next_hops}
        there &= {(known.get("dst", ""), known["mac"]) for known in stations}
        for peer in entry.tunnel.peers:
            if (peer.address, peer.mac) not in there:
                text = (
                    f"{place_name(node.name, vrf)}: {entry.name} lacks its planned peer {peer.address} (MAC {peer.mac})"
                )
                yield Fault("tunnel", node.name, vrf, text)


def _rules(runtime: Runtime, node: Node, vrf: str | None) -> Iterator[Fault]:
    """Chains that have fewer rules than planned; what the rules say is not compared."""
    planned: dict[tuple[str, ...], Counter[str]] = {}
    for ruleset in node.rulesets:
        if ruleset.vrf == vrf and ruleset.tool != "nfacct":
            lister = LISTERS.get(ruleset.tool, ("nft", "list", "ruleset"))
            planned.setdefault(lister, Counter()).update(_counts(ruleset.text))
    for lister, wanted in planned.items():
        there = _counts(runtime.run(node.name, vrf, lister))
        for chain, number in wanted.items():
            if there[chain] < number:
                what = f"chain {chain} has {there[chain]} rules, and {number} are planned"
                yield Fault("rules", node.name, vrf, f"{place_name(node.name, vrf)}: {what}")


def _counts(text: str) -> Counter[str]:
    return Counter({chain: len(rules) for chain, rules in chains(text).items() if rules})


def _interfaces(runtime: Runtime, node: Node, vrf: str | None) -> Iterator[Fault]:
    """Interfaces that lack an address, have one that is not planned, or are not the port of a bridge that they are."""
    own = [entry for entry in node.interfaces if entry.vrf == vrf and entry.kind in ("veth", "bridge")]
    if not own:
        return
    listed = json.loads(runtime.run(node.name, vrf, ("ip", "-j", "addr")) or "[]")
    there = {link["ifname"]: link for link in listed if "ifname" in link}
    for planned in own:
        link = there.get(planned.name)
        if link is None:
            continue
        where = f"{place_name(node.name, vrf)}: {planned.name}"
        if planned.master and link.get("master", "") != planned.master:
            text = f"{where} is not a port of {planned.master}, as planned"
            yield Fault("port", node.name, vrf, text, interface=planned.name)
        has = addresses(link)
        wanted = {ipaddress.ip_interface(text) for text in planned.addresses}
        for address in sorted(wanted - has, key=str):
            text = f"{where} lacks its planned address {address}{_without(link, address)}"
            yield Fault("address", node.name, vrf, text, str(address), planned.name)
        for address in sorted(has - wanted, key=str):
            text = f"{where} has the address {address}, which is not planned"
            yield Fault("extra-address", node.name, vrf, text, str(address), planned.name)


def addresses(link: Mapping[str, Any]) -> set[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """The addresses of an interface that somebody gave it, of what `ip -j addr` lists."""
    return {
        ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}")
        for entry in link.get("addr_info", ())
        if entry.get("scope") != "link" and not entry.get("dynamic") and "local" in entry
    }


def _without(link: Mapping[str, Any], address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> str:
    """Why an interface has no IPv6 address at all, where it has none: in words."""
    if address.version == 4 or any(entry.get("family") == "inet6" for entry in link.get("addr_info", ())):
        return ""
    mtu = int(link.get("mtu", LEAST_MTU))
    if mtu < LEAST_MTU:
        return f": with an MTU of {mtu}, less than {LEAST_MTU}, it has no IPv6 (RFC 8200)"
    return ": it has no IPv6 address at all" if "UP" in link.get("flags", ()) else ": it is down"


def _settings(runtime: Runtime, node: Node, vrf: str | None) -> Iterator[Fault]:
    """Sysctls that have another value than the planned one."""
    planned = dict(node.sysctls)  # the last of a key counts
    if not planned:
        return
    found = _values(runtime, node.name, vrf, planned)
    for key, value in planned.items():
        if key in found and found[key].split() != value.split():
            text = f"{place_name(node.name, vrf)}: {key} is {found[key]}, and {value} is planned"
            yield Fault("setting", node.name, vrf, text, interface=_interface_of(key))


def _values(runtime: Runtime, node: str, vrf: str | None, keys: Iterable[str]) -> dict[str, str]:
    found = {}
    with network_namespace(runtime.network(node, vrf)):
        for key in keys:
            file = Path("/proc/sys", key)
            if key.startswith("net/") and "/default/" not in key and file.exists():
                found[key] = file.read_text().strip()
    return found


def _interface_of(key: str) -> str:
    """The interface that a sysctl is about: "net/ipv4/conf/eth0/rp_filter"; empty: none, or all of them."""
    parts = key.split("/")
    return parts[3] if len(parts) > 4 and parts[2] in ("conf", "neigh") and parts[3] != "all" else ""
