"""Text for `nft -f` (nft(8))."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.plan import Ruleset


def chain(name: str, hook: str, rules: Sequence[str]) -> str:
    """A base chain: its name, its `type … hook … priority …;` line, its rules."""
    lines = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n    {hook}\n{lines}  }}\n"


def table(family: str, name: str, chains: Sequence[str], vrf: str | None = None) -> Ruleset:
    """A whole table, replaced in one transaction whether it was there before or not.

    The ruleset's name is the table's ("ip testbed-nat"), by which it can be deleted.
    """
    body = "".join(chains)
    text = f"table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{body}}}\n"
    return Ruleset(f"{family} {name}", "nft", text, vrf)
