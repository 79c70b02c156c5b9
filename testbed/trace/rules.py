"""Netfilter as text and data: which chain wrote an address, which rule decided. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.trace.packet import Ends


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of a namespace's connection tracking: the ends of the first packet, and those awaited of an answer."""

    protocol: int
    original: Ends
    reply: Ends
    mark: int = 0

    def __str__(self) -> str:
        mark = f", mark {self.mark:#x}" if self.mark else ""
        return f"{self.original}, answer {self.reply}{mark}"


@dataclass(frozen=True, slots=True)
class RuleEvent:
    """What a rule, or the policy of a chain, decided about a packet; `mark` is the packet's then.

    Args:
        family: of the table, as nft(8) names it; empty: not known.
        packet: a number that all events about one packet have. ends: its source and destination; empty: not told here.
    """

    table: str
    chain: str
    handle: int
    kind: str
    verdict: str
    mark: int = 0
    family: str = ""
    packet: int = 0
    ends: tuple[str, ...] = ()


def connection_of(entries: Iterable[Connection], seen: Ends) -> Connection | None:
    """The connection to which a packet with these ends belongs, whatever its direction."""
    for entry in entries:
        if seen in (entry.original, entry.reply, entry.original.reverse, entry.reply.reverse):
            return entry
    return None


IPTABLES = ("filter", "nat", "mangle", "raw", "security")
_TARGET = re.compile(r"-j DNAT --to-destination (\S+)|\bdnat (?:ip6? )?to ([\[\d]\S*)")


def chains(listing: str) -> dict[str, list[str]]:
    """Chain → its rules, of the output of `iptables-save -t nat` or `nft list ruleset`."""
    found: dict[str, list[str]] = {}
    chain = ""
    theirs = False  # a table that nft shows, but iptables owns and shows better
    for line in listing.splitlines():
        text = line.strip()
        if text.startswith("table "):
            theirs = text.split()[1:3] in [[family, name] for family in ("ip", "ip6") for name in IPTABLES]
        if text.startswith("-A "):
            _, name, rule = text.split(" ", 2) if text.count(" ") > 1 else (*text.split(" ", 1), "")
            found.setdefault(name, []).append(rule)
        elif theirs:
            continue
        elif text.startswith("chain "):
            chain = text.split()[1]
            found.setdefault(chain, [])
        elif chain and text and text != "}" and not text.startswith("type "):
            found[chain].append(text)
        elif text == "}":
            chain = ""
    return found


def dnat_chain(listing: str, before: Ends, address: str, port: int, *, local: bool = False) -> list[str]:
    """The chains that lead to the rule which writes this destination, from the outermost in; empty: none is known.

    Args:
        before: the packet as it came. local: whether it was made in this namespace.
    """
    table = chains(listing)
    for name, rules in table.items():
        if any(_writes(rule, address, port) for rule in rules):
            way = [name] if BUILT_IN.fullmatch(name) else _way(table, name, before, local=local, seen=())
            if way:
                return way
    return []


def _writes(rule: str, address: str, port: int) -> bool:
    """Whether a rule writes this destination, by itself or out of several (kube-proxy's mode nftables: `numgen`)."""
    if match := _TARGET.search(rule):
        return (match[1] or match[2]) in {f"{address}:{port}", f"[{address}]:{port}", address}
    return "dnat" in rule and re.search(rf": {re.escape(address)} \. {port}\b", rule) is not None


def dnat_target(listing: str, passed: Iterable[str]) -> tuple[str, int] | None:
    """The (address, port; 0: unchanged) that the last of the chains which a packet passed writes as its destination."""
    table = chains(listing)
    for name in reversed(list(passed)):
        for rule in table.get(name, ()):
            if match := _TARGET.search(rule):
                address, _, port = (match[1] or match[2]).rpartition(":")
                return (address.strip("[]"), int(port)) if address else (port, 0)
    return None


BUILT_IN = re.compile("(?i)prerouting|output|nat-prerouting|nat-output")


def _way(table: dict[str, list[str]], name: str, before: Ends, *, local: bool, seen: tuple[str, ...]) -> list[str]:
    """The shortest way of jumps, by rules that concern the packet, from a built-in chain (left out) to `name`.

    A chain that no rule names is reached by a map of nft, which is not looked into: the way begins there.
    """
    ways = []
    jump = re.compile(rf"(?:-j|-g|jump|goto) {re.escape(name)}(?![\w-])")
    callers = {caller: [rule for rule in rules if jump.search(rule)] for caller, rules in table.items()}
    if not any(callers.values()):
        return [name]
    for caller, rules in callers.items():
        if caller in (name, *seen) or not any(_concerns(rule, before, local) for rule in rules):
            continue
        if BUILT_IN.fullmatch(caller):
            return [name]
        if way := _way(table, caller, before, local=local, seen=(*seen, name)):
            ways.append([*way, name])
    return min(ways, key=len, default=[])


_CONDITIONS = (
    (re.compile(r"(! )?-s ([\da-f.:/]+)"), "source"),
    (re.compile(r"(! )?-d ([\da-f.:/]+)"), "destination"),
    (re.compile(r"(! )?--dport (\d+)"), "destination_port"),
    (re.compile(r"\bip6? saddr (!= )?([\da-f.:/]+)"), "source"),
    (re.compile(r"\bip6? daddr (!= )?([\da-f.:/]+)"), "destination"),
)


def _concerns(rule: str, before: Ends, local: bool) -> bool:
    """Whether what a rule says of addresses, and one of iptables of ports, is true of a packet."""
    if ("--src-type LOCAL" in rule or "fib saddr type local" in rule) and not local:
        return False
    for pattern, what in _CONDITIONS:
        if match := pattern.search(rule):
            value = str(getattr(before, what))
            same = value == match[2] if what.endswith("port") else _within(value, match[2])
            if same == bool(match[1]):
                return False
    return True


def _within(address: str, prefix: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix, strict=False)


def snat_chain(listing: str) -> list[tuple[str, str]]:
    """(chain, rule) of everything that writes sources."""
    return [
        (name, rule)
        for name, rules in chains(listing).items()
        for rule in rules
        if _SOURCE.search(_QUOTED.sub("", rule))
    ]


_QUOTED = re.compile(r'"[^"]*"')
_SOURCE = re.compile(r"-j (?:MASQUERADE|SNAT)|\bmasquerade\b|\bsnat\b")


def comment(listing: str, chain: str) -> str:
    """The first comment in a chain, such as "default/ssh"."""
    for rule in chains(listing).get(chain, ()):
        if match := re.search(r'comment "([^"]*)"', rule):
            return match[1].partition(" -> ")[0]
    return ""


def came(events: Sequence[RuleEvent], ends: Ends) -> bool:
    """Whether one of the packets had these addresses, before or after translation."""
    return any(event.ends == (ends.source, ends.destination) for event in events)


def denial(events: Sequence[RuleEvent], addresses: Collection[str] = ()) -> RuleEvent | None:
    """The event that ended a packet's life.

    Args:
        addresses: those that the packet had anywhere on its way. One that has both is preferred to one that has one of
            them (the other may have been translated here), and others do not count. Empty: any packet counts.
    """
    ends = {event.packet: set(event.ends) for event in events if event.ends}
    drops = [event for event in events if event.verdict == "drop"]
    if not addresses:
        return next(iter(drops), None)
    known = set(addresses)
    both = (event for event in drops if ends.get(event.packet, known | {""}) <= known)
    return next(both, None) or next((event for event in drops if ends.get(event.packet, known) & known), None)


def marks(events: Sequence[RuleEvent]) -> Iterator[int]:
    """The marks that the packets had, each once, without 0."""
    yield from dict.fromkeys(event.mark for event in events if event.mark)
