"""What the kernel said about a routing decision, as data and as a sentence. Pure.

Source of the meaning of errors: fib_props in net/ipv4/fib_semantics.c, ip_route_input_slow in net/ipv4/route.c, and
fib_validate_source in net/ipv4/fib_frontend.c of Linux.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ACTIONS = {"6": "blackhole", "7": "unreachable", "8": "prohibit"}  # FR_ACT_… in linux/fib_rules.h
TABLES = {"255": "local", "254": "main", "253": "default"}


@dataclass(frozen=True, slots=True)
class Decision:
    """The route that the kernel chose for a packet.

    Args:
        to, via, dev, kind: of the route. ways: all its next hops, (gateway, interface) each.
        table: by name or number. rule: the rule that named the table, as ip(8) writes it.
        mark: the mark with which the kernel was asked.
        again: the source with which the packet was routed a second time; empty: it was routed once.
        error: what the kernel answered instead.
    """

    to: str = ""
    ways: tuple[tuple[str, str], ...] = ()
    kind: str = "unicast"
    table: str = "main"
    rule: str = ""
    mark: int = 0
    protocol: str = ""
    error: str = ""
    again: str = ""

    def leads_to(self, interface: str) -> bool:
        return any(dev == interface for _, dev in self.ways)

    def __str__(self) -> str:
        if self.error:
            return self.error
        ways = " or ".join(f"via {gateway} dev {dev}" if gateway else f"dev {dev}" for gateway, dev in self.ways)
        kind = "" if self.kind == "unicast" else f"{self.kind} "
        origin = f" ({self.protocol})" if self.protocol else ""
        rule = f", by rule {self.rule}" if self.rule and self.table not in ("main", "local") else ""
        again = f", routed again as from {self.again}" if self.again else ""
        return f"table {self.table}: {kind}{self.to} {ways}".rstrip() + origin + rule + again


def decision(
    answer: Sequence[dict[str, Any]], rules: Sequence[dict[str, Any]], mark: int, iif: str, source: str
) -> Decision:
    """What `ip -j route get … fibmatch` answered; `rules` is what `ip -j -N rule` lists."""
    route = answer[0]
    ways = tuple((hop.get("gateway", _via(hop)), hop.get("dev", "")) for hop in route.get("nexthops", [route]))
    kind = route.get("type", "unicast")
    table = str(route.get("table", "local" if kind in ("local", "broadcast") else "main"))
    table = TABLES.get(table, table)
    return Decision(
        _prefix(route.get("dst", "")),
        ways,
        kind,
        table,
        _rule(rules, table, mark, iif, source),
        mark,
        route.get("protocol", ""),
    )


def _via(hop: dict[str, Any]) -> str:
    return str(hop.get("via", {}).get("host", ""))


def _prefix(text: str) -> str:
    return text


def _rule(rules: Sequence[dict[str, Any]], table: str, mark: int, iif: str, source: str) -> str:
    """The first rule that matches the packet and names that table."""
    for rule in rules:
        name = TABLES.get(str(rule.get("table", "")), str(rule.get("table", "")))
        if name == table and _matches(rule, mark, iif, source):
            return rule_words(rule)
    return ""


def refusal(rules: Sequence[dict[str, Any]], mark: int, iif: str, source: str, destination: str) -> tuple[str, str]:
    """(kind, words) of the first rule that matches a packet and refuses it by itself; empty texts: none does."""
    for rule in rules:
        action = ACTIONS.get(rule.get("action", ""), "")
        if action and _matches(rule, mark, iif, source) and _leads(rule, destination):
            return action, rule_words(rule)
    return "", ""


def _leads(rule: dict[str, Any], destination: str) -> bool:
    to = f"{rule['dst']}/{rule['dstlen']}" if "dstlen" in rule else rule.get("dst", "all")
    return to == "all" or destination in _Net(to)


def _matches(rule: dict[str, Any], mark: int, iif: str, source: str) -> bool:
    if "fwmark" in rule and mark & int(rule.get("fwmask", "0xffffffff"), 0) != int(rule["fwmark"], 0):
        return False
    if rule.get("iif", iif) != iif:
        return False
    if rule.get("src", "all") != "all":
        prefix = f"{rule['src']}/{rule['srclen']}" if "srclen" in rule else rule["src"]
        if source not in _Net(prefix):
            return False
    return True


def too_late(
    rules: Sequence[dict[str, Any]], mark: int, iif: str, routed: str, left: str, destination: str
) -> tuple[str, ...]:
    """The rules, in words, that match the source a packet left with, and not `routed`, which it was routed with."""
    return tuple(
        rule_words(rule)
        for rule in rules
        if _leads(rule, destination) and _matches(rule, mark, iif, left) and not _matches(rule, mark, iif, routed)
    )


def held_by(
    rules: Sequence[dict[str, Any]],
    routes: Sequence[dict[str, Any]],
    mark: int,
    iif: str,
    source: str,
    destination: str,
) -> tuple[dict[str, Any] | None, str]:
    """The route that decides about a packet, of whatever type, and the rule that named its table.

    Args:
        rules: as `ip -j -N rule` lists them, by priority. routes: those of all tables that hold the destination.

    The rule is empty where the table is local, main or default. A rule whose table holds no route for the destination
    is passed over, and so is a route that is not longer than what the rule suppresses (ip-rule(8)).
    """
    for rule in rules:
        if "table" not in rule or not _matches(rule, mark, iif, source) or not _leads(rule, destination):
            continue
        short = int(rule.get("suppress_prefixlen", -1))
        there = [
            route
            for route in routes
            if _named(route.get("table", "main")) == _named(rule["table"]) and _length(route) > short
        ]
        if found := longest(there):
            return found, "" if _named(rule["table"]) in TABLES.values() else rule_words(rule)
    return None, ""


def _named(table: object) -> str:
    return TABLES.get(str(table), str(table))


class _Net:
    def __init__(self, text: str) -> None:
        self.network = ipaddress.ip_network(text, strict=False)

    def __contains__(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self.network


def rule_words(rule: dict[str, Any]) -> str:
    """A rule as ip-rule(8) writes it."""
    source = rule.get("src", "all") + (f"/{rule['srclen']}" if "srclen" in rule else "")
    mark = f" fwmark {rule['fwmark']}" + (f"/{rule['fwmask']}" if "fwmask" in rule else "") if "fwmark" in rule else ""
    to = f" to {rule['dst']}" + (f"/{rule['dstlen']}" if "dstlen" in rule else "") if "dst" in rule else ""
    iif = f" iif {rule['iif']}" if "iif" in rule else ""
    table = TABLES.get(str(rule.get("table", "")), str(rule.get("table", "")))
    action = ACTIONS.get(rule.get("action", ""), f"lookup {table}")
    return f"{rule.get('priority', 0)}: from {source}{to}{mark}{iif} {action}"


def longest(routes: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the routes that hold an address, the most specific."""
    return max(routes, key=lambda route: (_length(route), -int(route.get("metric", 0))), default=None)


def _length(route: dict[str, Any]) -> int:
    to = str(route.get("dst", ""))
    return 0 if to == "default" else int(to.partition("/")[2] or (128 if ":" in to else 32))
