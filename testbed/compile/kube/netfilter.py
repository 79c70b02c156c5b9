"""Several texts for iptables-restore as one, so that a node's rules change in one transaction."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.plan import Ruleset


def merge(name: str, rulesets: Iterable[Ruleset]) -> Ruleset:
    """One ruleset of all chains and rules, table by table, in the order given; `-I CHAIN 1` rules come first.

    Raises ValueError when they are for different tools.
    """
    texts = list(rulesets)
    tools = {entry.tool for entry in texts}
    if len(tools) != 1:
        raise ValueError(f"one tool is needed, not {sorted(tools)}")
    chains: dict[str, dict[str, str]] = {}
    rules: dict[str, list[str]] = {}
    for entry in texts:
        table = ""
        for line in entry.text.splitlines():
            if line.startswith("*"):
                table = line
                chains.setdefault(table, {})
                rules.setdefault(table, [])
            elif line.startswith(":"):
                chains[table][line.split()[0]] = line
            elif line.startswith("-I "):
                rules[table].append(line)
            elif line.startswith("-A "):
                rules[table].append(line)
    parts = []
    for table in chains:
        appended = [line for line in rules[table] if line.startswith("-A ")]
        inserted = [line for line in rules[table] if line.startswith("-I ")]
        parts.append("\n".join([table, *chains[table].values(), *appended, *inserted, "COMMIT", ""]))
    return Ruleset(name, tools.pop(), "".join(parts))
