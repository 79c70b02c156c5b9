"""Text for `nft -f` (nft(8))."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.plan import Ruleset


def chain(name: str, hook: str, rules: Sequence[str]) -> str:
    """A base chain: its name, its `type … hook … priority …;` line, its rules."""
    lines = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n    {hook}\n{lines}  }}\n"


def table(
    family: str, name: str, chains: Sequence[str], vrf: str | None = None, *, before_routes: bool = False
) -> Ruleset:
    """A whole table, replaced in one transaction whether it was there before or not.

    The ruleset's name is the table's ("ip testbed-nat"), by which it can be deleted.
    """
    body = "".join(chains)
    return replaced(f"{family} {name}", f"table {family} {name} {{\n{body}}}\n", vrf, before_routes=before_routes)


def replaced(name: str, text: str, vrf: str | None = None, *, before_routes: bool = False) -> Ruleset:
    """The text of a whole table ("ip testbed-nat" is a name), loaded in the place of any that was there before.

    It is one transaction, so that no packet meets half a table. Connections that are translated stay so, for
    connection tracking keeps them.
    """
    return Ruleset(name, "nft", f"table {name}\ndelete table {name}\n{text}", vrf, before_routes)
