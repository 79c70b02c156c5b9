"""The text of an nftables table in the very form `nft list` prints, so that a loaded table equals its text.

`nft` leaves the order of a set's elements to the kernel; here they are in the order they were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from testbed.compile.kube.kube_proxy.config import LocalTraffic
from testbed.compile.kube.kube_proxy.service_ports import Family

IP: dict[Family, str] = {4: "ip", 6: "ip6"}
ADDRESS: dict[Family, str] = {4: "ipv4_addr", 6: "ipv6_addr"}
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass
class _Set:
    """A set or map: its properties, each a line, and its elements."""

    kind: str
    properties: tuple[str, ...]
    elements: list[str] = field(default_factory=list)

    def lines(self, name: str) -> list[str]:
        held = [f"elements = {{ {', '.join(self.elements)} }}"] if self.elements else []
        return _block(f"{self.kind} {name}", (*self.properties, *held))


class Table:
    """A table while it is built.

    Args:
        family: 4 or 6. name, comment: of the table.
    """

    def __init__(self, family: Family, name: str, comment: str) -> None:
        self._title = f"{IP[family]} {name}"
        self._comment = comment
        self._sets: dict[str, _Set] = {}
        self._chains: dict[str, list[str]] = {}

    def set(self, name: str, type_: str, comment: str) -> None:
        """Declare a set of named type, without elements."""
        self._sets[name] = _Set("set", (f"type {type_}", f'comment "{comment}"'))

    def map(self, name: str, key: str, comment: str) -> None:
        """Declare a map from a key of named type to a verdict, without elements."""
        self._sets[name] = _Set("map", (f"type {key} : verdict", f'comment "{comment}"'))

    def timed_set(self, name: str, type_: str, seconds: int) -> None:
        """Declare a set that rules add to, and whose elements go after `seconds`."""
        # 65535 is the kernel's default, which it gives back as if it had been asked for.
        properties = (f"type {type_}", "size 65535", "flags dynamic,timeout", f"timeout {duration(seconds)}")
        self._sets[name] = _Set("set", properties)

    def element(self, name: str, text: str) -> None:
        """Put an element into a set or map that was declared."""
        self._sets[name].elements.append(text)

    def add(self, chain: str, *rules: str) -> None:
        """Append rules; the chain is made where it does not exist."""
        self._chains.setdefault(chain, []).extend(rules)

    def render(self) -> str:
        """The table as `nft list` prints it."""
        blocks = [entry.lines(name) for name, entry in self._sets.items()]
        blocks += [_block(f"chain {name}", rules) for name, rules in self._chains.items()]
        lines = [f"table {self._title} {{", f'\tcomment "{self._comment}"']
        for index, block in enumerate(blocks):
            lines += [*([""] if index else []), *(f"\t{line}" for line in block)]
        return "\n".join((*lines, "}", ""))


def _block(head: str, lines: Sequence[str]) -> list[str]:
    return [f"{head} {{", *(f"\t{line}" for line in lines), "}"]


def duration(seconds: int) -> str:
    """A time as nft prints it: 10800 is "3h", 90 is "1m30s"."""
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def one_or_set(prefixes: Sequence[str]) -> str:
    """Prefixes of one family as an anonymous set; nft joins those that touch, sorts them, and prints one alone bare."""
    networks = [ip_network(prefix) for prefix in prefixes]
    joined: list[IPv4Network | IPv6Network] = []
    joined += collapse_addresses(entry for entry in networks if isinstance(entry, IPv4Network))
    joined += collapse_addresses(entry for entry in networks if isinstance(entry, IPv6Network))
    texts = [str(net.network_address if net.prefixlen == net.max_prefixlen else net) for net in joined]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def from_pods(local: LocalTraffic, family: Family, *, negated: bool = False) -> str:
    """Matches packets of this node's pods, or with `negated` all others."""
    sign = "!= " if negated else ""
    if local.source:
        return f"{IP[family]} saddr {sign}{local.source}"
    return f'iifname {sign}"{local.interface or f"{local.interface_prefix}*"}"'
