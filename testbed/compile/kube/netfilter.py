"""Several texts for iptables-restore as one, so that a node's rules change in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from testbed.plan import Ruleset


def merge(name: str, rulesets: Iterable[Ruleset]) -> Ruleset:
    """One ruleset of all chains and rules, table by table, in the order given; `-I CHAIN 1` rules come first.

    Raises ValueError when they are for different tools, or hold a line that is none of table, chain, rule.
    """
    texts = list(rulesets)
    tools = {entry.tool for entry in texts}
    if len(tools) != 1:
        raise ValueError(f"one tool is needed, not {sorted(tools)}")
    tables: dict[str, _Table] = {}
    for entry in texts:
        current = _Table()
        for line in entry.text.splitlines():
            if line.startswith("*"):
                current = tables.setdefault(line, _Table())
            elif line != "COMMIT" and not line.startswith("#"):
                current.add(line)
    return Ruleset(name, tools.pop(), "".join(table.text(title) for title, table in tables.items()))


@dataclass
class _Table:
    chains: dict[str, str] = field(default_factory=dict)
    appended: list[str] = field(default_factory=list)
    inserted: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        if line.startswith(":"):
            self.chains[line.split()[0]] = line
        elif line.startswith("-A "):
            self.appended.append(line)
        elif line.startswith("-I "):
            self.inserted.append(line)
        else:
            raise ValueError(f"not a line of iptables-restore: {line!r}")

    def text(self, title: str) -> str:
        """The table for iptables-restore: what is inserted at the top comes after what it is put before."""
        return "\n".join([title, *self.chains.values(), *self.appended, *self.inserted, "COMMIT", ""])
