"""BGPFilters as functions of BIRD's filter language (upstream confd, resource/template, and its recordings)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal

from testbed.compile.kube.calico.bgp import Family
from testbed.model.calico import BGPFilter, FilterOperation, FilterRule

Direction = Literal["import", "export"]

MAX_METRIC = 2147483647
"""Calico carries a route's metric in the local preference: this number less the metric, for a greater one wins."""

_SYMBOL_LENGTH = 64  # BIRD's SYM_MAX_LEN
_HASH_LENGTH = 16
_OPERATORS = {"Equal": "=", "NotEqual": "!=", "In": "~", "NotIn": "!~"}


@dataclass(frozen=True, slots=True)
class FilterFunction:
    """A function of BIRD; `by_peer` ones are called with whether the peer is of the same AS."""

    name: str
    by_peer: bool
    statements: tuple[str, ...]

    def call(self, internal: bool) -> str:
        """The statement that calls it for a peer."""
        return f"'{self.name}'({str(internal).lower() if self.by_peer else ''});"


def filter_function(found: BGPFilter, direction: Direction, family: Family) -> FilterFunction | None:
    """The function of one filter, direction and family; None where it has no rules."""
    if not (rules := _rules(found, direction, family)):
        return None
    suffix = f"_{direction}FilterV{family}"
    name = f"bgp_{_shortened(found.name, _SYMBOL_LENGTH - len('bgp_') - len(suffix))}{suffix}"
    by_peer = any(rule.peer_type for rule in rules)
    return FilterFunction(name, by_peer, tuple(_statement(rule) for rule in rules))


def community(value: str) -> tuple[str, str]:
    """("bgp_community", "(65001, 100)") for "65001:100", and the large one for three parts (RFC 8092)."""
    parts = value.split(":")
    return ("bgp_community" if len(parts) == 2 else "bgp_large_community"), f"({', '.join(parts)})"


def _rules(found: BGPFilter, direction: Direction, family: Family) -> Sequence[FilterRule]:
    spec = found.spec
    by_direction = {
        ("import", 4): spec.import_v4,
        ("import", 6): spec.import_v6,
        ("export", 4): spec.export_v4,
        ("export", 6): spec.export_v6,
    }
    return by_direction[direction, family]


def _statement(rule: FilterRule) -> str:
    body = " ".join([*(text for operation in rule.operations for text in _operation(operation)), _action(rule)])
    if conditions := "&&".join(_conditions(rule)):
        body = f"if ({conditions}) then {{ {body} }}"
    if rule.peer_type:
        body = f"if ({'' if rule.peer_type == 'iBGP' else '!'}is_same_as) then {{ {body} }}"
    return body


def _action(rule: FilterRule) -> str:
    return f"{rule.action.lower()};"


def _conditions(rule: FilterRule) -> Iterator[str]:
    if rule.cidr and rule.match_operator:
        yield f"(net {_OPERATORS[rule.match_operator]} {_prefixes(rule.cidr, rule)})"
    if rule.source:
        yield "((defined(source))&&(source ~ [ RTS_BGP ]))"
    if rule.interface:
        yield f'((defined(ifname))&&(ifname ~ "{rule.interface}"))'
    if rule.communities:
        attribute, value = community(rule.communities.values[0])
        yield f"({value} ~ {attribute})"
    if rule.as_path_prefix:
        yield f"(bgp_path ~ [= {' '.join(str(number) for number in rule.as_path_prefix)} * =])"
    if rule.priority is not None:
        yield f"(defined(bgp_local_pref)&&(bgp_local_pref = {MAX_METRIC - rule.priority}))"


def _prefixes(cidr: str, rule: FilterRule) -> str:
    if not rule.prefix_length:
        return cidr
    network = ip_network(cidr)
    low = max(network.prefixlen, rule.prefix_length.min or 0)
    high = network.max_prefixlen if rule.prefix_length.max is None else rule.prefix_length.max
    return f"[ {cidr}{{{low},{min(network.max_prefixlen, high)}}} ]"


def _operation(operation: FilterOperation) -> Iterator[str]:
    if operation.add_community:
        attribute, value = community(operation.add_community.value)
        yield f"{attribute}.add({value});"
    elif operation.prepend_as_path:
        for number in reversed(operation.prepend_as_path.prefix):  # the last that is prepended comes first
            yield f"bgp_path.prepend({number});"
    elif operation.set_priority:
        yield f"bgp_local_pref = {MAX_METRIC - operation.set_priority.value};"


def _shortened(name: str, length: int) -> str:
    """A name that is too long for a symbol ends in a part of its SHA-256 hash."""
    if len(name) <= length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest().upper()[:_HASH_LENGTH]
    return f"{name[: length - _HASH_LENGTH - 1]}_{digest}"
