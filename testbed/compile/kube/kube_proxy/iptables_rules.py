"""The text of iptables rules and tables, in the very form iptables-save prints, so that a loaded table equals its text.

iptables-save puts a rule's parts in a fixed order: source, destination, interface, protocol, then the matches in the
order given, then the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from testbed.compile.kube.kube_proxy.config import LocalTraffic
from testbed.compile.kube.kube_proxy.service_ports import Family


class Table:
    """A netfilter table while it is built.

    Args:
        name: filter or nat. builtin: its built-in chains, in the order iptables-save prints them.
    """

    def __init__(self, name: str, builtin: Sequence[str]) -> None:
        self._name = name
        self._builtin = tuple(builtin)
        self._chains: dict[str, list[str]] = {chain: [] for chain in builtin}

    def declare(self, *chains: str) -> None:
        """Make chains exist, without a rule."""
        for chain in chains:
            self._chains.setdefault(chain, [])

    def add(self, chain: str, *parts: str) -> None:
        """Append a rule made of the parts that are not empty; the chain is made where it does not exist."""
        self.declare(chain)
        self._chains[chain].append(" ".join(("-A", chain, *filter(None, parts))))

    def render(self) -> str:
        """The table as iptables-save prints it: built-in chains, then the others by name; rules in the same order."""
        order = (*self._builtin, *sorted(self._chains.keys() - set(self._builtin)))
        heads = [f":{chain} {'ACCEPT' if chain in self._builtin else '-'} [0:0]" for chain in order]
        rules = [rule for chain in order for rule in self._chains[chain]]
        return "\n".join((f"*{self._name}", *heads, *rules, "COMMIT", ""))


def comment(text: str) -> str:
    """A comment match; `text` holds no quote or backslash."""
    return f'-m comment --comment "{text}"'


def jump(chain: str) -> str:
    return f"-j {chain}"


def host(address: str) -> str:
    """The address as a prefix of full length."""
    return f"{address}/128" if ":" in address else f"{address}/32"


def from_pods(local: LocalTraffic) -> str:
    """Matches packets of this node's pods; it must be the only match of source, destination and interface."""
    return f"-s {local.source}" if local.source else f"-i {_interface(local)}"


def from_others(local: LocalTraffic) -> str:
    """Matches all packets but those of this node's pods, as `from_pods` matches these."""
    return f"! {from_pods(local)}"


def to_unless_from_pods(address: str, local: LocalTraffic | None) -> str:
    """Matches packets to an address, those of this node's pods excepted where these can be told."""
    source = f"! -s {local.source} " if local and local.source else ""
    interface = f" ! -i {_interface(local)}" if local and not local.source else ""
    return f"{source}-d {host(address)}{interface}"


def _interface(local: LocalTraffic) -> str:
    return local.interface or f"{local.interface_prefix}+"


def port_match(protocol: str, port: int, *matches: str) -> str:
    """Protocol and destination port, with other matches between the two."""
    return " ".join((f"-p {protocol}", *matches, f"-m {protocol} --dport {port}"))


def one_in(count: int) -> str:
    """A match that hits one packet in `count`.

    kube-proxy gives the probability with ten digits, the kernel keeps it in 31 bits, and that is what is printed.
    """
    kept = floor(0x80000000 * float(f"{1 / count:.10f}") + 0.5)
    return f"-m statistic --mode random --probability {kept / 0x80000000:.11f}"


def recently_seen(name: str, seconds: int, family: Family) -> str:
    """A match on sources that were put on the list `name` in the last `seconds`; older entries are forgotten."""
    return f"-m recent --rcheck --seconds {seconds} --reap {_recent_list(name, family)}"


def remember(name: str, family: Family) -> str:
    """A match that always hits and puts the source on the list `name`."""
    return f"-m recent --set {_recent_list(name, family)}"


def _recent_list(name: str, family: Family) -> str:
    mask = "255.255.255.255" if family == 4 else ":".join(["ffff"] * 8)
    return f"--name {name} --mask {mask} --rsource"
