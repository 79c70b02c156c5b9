"""What an FRR configuration means, apart from its wording: sessions, networks, BFD profiles, effect of route-maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network


@dataclass
class Clause:
    permits: bool
    sequence: int
    matches: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    next: bool = False


@dataclass
class Neighbor:
    options: set[str] = field(default_factory=set)
    families: set[str] = field(default_factory=set)
    maps: dict[tuple[str, str], str] = field(default_factory=dict)  # (family, "in" or "out") → route-map


@dataclass
class Router:
    options: set[str] = field(default_factory=set)
    neighbors: dict[str, Neighbor] = field(default_factory=lambda: defaultdict(Neighbor))
    networks: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Frr:
    globals: set[str] = field(default_factory=set)
    lists: dict[tuple[str, str], list[tuple[int, bool, str]]] = field(default_factory=lambda: defaultdict(list))
    maps: dict[str, list[Clause]] = field(default_factory=lambda: defaultdict(list))
    routers: dict[tuple[str, ...], Router] = field(default_factory=lambda: defaultdict(Router))
    bfd: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def prefixes(self) -> set[Network]:
        """Every prefix that a prefix-list names."""
        return {ip_network(text) for entries in self.lists.values() for _, _, text in entries if text != "any"}

    def effect(self, name: str, prefix: Network) -> tuple[str, frozenset[str]] | None:
        """Local preference and communities that the route-map gives to the prefix; None where it denies it."""
        preference, communities = "", set()
        going_on = False
        for clause in sorted(self.maps[name], key=lambda one: one.sequence):
            if not all(self._matches(match, prefix) for match in clause.matches):
                continue
            if not clause.permits:
                return None
            for text in clause.sets:
                what, value = text.split(" ", 1)
                if what == "local-preference":
                    preference = value
                else:
                    assert value.endswith(" additive"), text
                    communities.add(f"{what} {value}")
            going_on = clause.next
            if not going_on:
                return preference, frozenset(communities)
        return (preference, frozenset(communities)) if going_on else None

    def _matches(self, match: str, prefix: Network) -> bool:
        keyword, address, kind, name = match.split()
        assert (address, kind) == ("address", "prefix-list"), match
        if {"ip": 4, "ipv6": 6}[keyword] != prefix.version:
            return False
        for _, permits, text in sorted(self.lists[keyword, name]):
            if text == "any" or ip_network(text) == prefix:
                return permits
        return False


def read(text: str) -> Frr:
    """Read what MetalLB uses of FRR's language; any other line fails the test."""
    frr = Frr()
    reader = _Reader(frr)
    for line in text.splitlines():
        words = line.split()
        if words and words[0] not in ("!", "log", "debug", "exit", "exit-address-family"):
            reader.line(words)
        if words and words[0] == "exit-address-family":
            reader.family = ""
    return frr


class _Reader:
    def __init__(self, frr: Frr) -> None:
        self._frr = frr
        self._router: Router | None = None
        self._clause: Clause | None = None
        self._profile = ""
        self.family = ""

    def line(self, words: list[str]) -> None:
        match words:
            case ["hostname", _] | ["ip" | "ipv6", "nht", *_]:
                self._frr.globals.add(" ".join(words))
            case ["ip" | "ipv6" as keyword, "prefix-list", name, "seq", number, "permit" | "deny" as action, prefix]:
                self._frr.lists[keyword, name].append((int(number), action == "permit", prefix))
            case ["route-map", name, "permit" | "deny" as action, number]:
                self._clause = Clause(action == "permit", int(number))
                self._frr.maps[name].append(self._clause)
            case ["match" | "set" | "on-match", *_] if self._clause:
                self._in_clause(self._clause, words)
            case ["router", "bgp", *instance]:
                self._router, self.family = self._frr.routers[tuple(instance)], ""
            case ["bfd"]:
                self._router = None
            case ["profile", name] if self._router is None:
                self._profile = name
                self._frr.bfd[name] |= set()
            case _ if self._router is not None:
                self._in_router(self._router, words)
            case _ if self._profile:
                self._frr.bfd[self._profile].add(" ".join(words))
            case _:
                raise AssertionError(f"what is this? {words}")

    def _in_clause(self, clause: Clause, words: list[str]) -> None:
        match words:
            case ["match", *rest]:
                clause.matches.append(" ".join(rest))
            case ["set", *rest]:
                clause.sets.append(" ".join(rest))
            case _:
                assert words == ["on-match", "next"], words
                clause.next = True

    def _in_router(self, router: Router, words: list[str]) -> None:
        match words:
            case ["address-family", *family]:
                self.family = " ".join(family)
            case ["network", prefix]:
                router.networks.add((self.family, prefix))
            case ["neighbor", name, "activate"]:
                router.neighbors[name].families.add(self.family)
            case ["neighbor", name, "route-map", route_map, direction]:
                router.neighbors[name].maps[self.family, direction] = route_map
            case ["neighbor", name, *option]:
                assert not self.family, words
                router.neighbors[name].options.add(" ".join(option))
            case _:
                router.options.add(" ".join(words))


def differences(ours: Frr, recorded: Frr) -> Iterator[str]:
    """Where two configurations differ in meaning; nothing when they mean the same."""
    table = _table(ours.prefixes() | recorded.prefixes())
    yield from _differ("globals", ours.globals, recorded.globals)
    yield from _differ("BFD profiles", dict(ours.bfd), dict(recorded.bfd))
    yield from _differ("routers", set(ours.routers), set(recorded.routers))
    for instance in set(ours.routers) & set(recorded.routers):
        mine, theirs = ours.routers[instance], recorded.routers[instance]
        yield from _differ(f"options of {instance}", mine.options, theirs.options)
        yield from _differ(f"networks of {instance}", mine.networks, theirs.networks)
        yield from _differ(f"neighbors of {instance}", set(mine.neighbors), set(theirs.neighbors))
        for name in set(mine.neighbors) & set(theirs.neighbors):
            yield from _session(ours, mine.neighbors[name], recorded, theirs.neighbors[name], table)


def _session(ours: Frr, mine: Neighbor, recorded: Frr, theirs: Neighbor, table: Iterable[Network]) -> Iterator[str]:
    yield from _differ("options", mine.options, theirs.options)
    yield from _differ("families", mine.families, theirs.families)
    yield from _differ("directions of route-maps", set(mine.maps), set(theirs.maps))
    for place in set(mine.maps) & set(theirs.maps):
        for prefix in table:
            one, other = ours.effect(mine.maps[place], prefix), recorded.effect(theirs.maps[place], prefix)
            yield from _differ(f"{place} of {prefix}", one, other)


def _differ(what: str, ours: object, recorded: object) -> Iterator[str]:
    if ours != recorded:
        yield f"{what}: {ours} instead of {recorded}"


def _table(named: set[Network]) -> set[Network]:
    """The prefixes named, a longer and a shorter one of each, and some that have nothing to do with them."""
    near = {network.supernet() for network in named if network.prefixlen}
    near |= {next(network.subnets()) for network in named if network.prefixlen < network.max_prefixlen}
    far = {ip_network(text) for text in ("0.0.0.0/0", "198.18.0.0/15", "203.0.113.77/32", "::/0", "2001:db8::1/128")}
    return named | near | far
