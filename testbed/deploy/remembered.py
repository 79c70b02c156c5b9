"""What rules have put into the sets of an nftables table, carried over to the table that takes its place.

kube-proxy changes its table bit by bit, so a client keeps its endpoint (session affinity) over a change of Services. A
table that is replaced as a whole must be given back what it knew, in the same transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from testbed.plan import Ruleset

_TIMED = re.compile(r"^\tset (\S+) \{\n(?:\t\t.*\n)*?\t\tflags [\w,]*timeout[\w,]*\n(?:\t\t.*\n)*?\t\}$", re.M)


def timed_sets(entry: Ruleset) -> dict[str, str]:
    """Name and text of each set of a table whose elements time out."""
    return {found[1]: found[0] for found in _TIMED.finditer(entry.text)}


def elements(entry: Ruleset, old: Ruleset, listing: str) -> str:
    """Commands for nft(8) that put back what sets hold that are the same in both texts.

    Args:
        entry, old: the table as it shall be, and as it was; the name of both is "FAMILY NAME".
        listing: the old table's sets, as `nft --json list` prints them.
    """
    before = timed_sets(old)
    same = {name for name, text in timed_sets(entry).items() if before.get(name) == text}
    lines = [
        f"add element {entry.name} {name} {{ {', '.join(held)} }}\n"
        for name, held in _held(entry.name, listing)
        if name in same and held
    ]
    return "".join(lines)


def _held(table: str, listing: str) -> Iterator[tuple[str, list[str]]]:
    family, _, name = table.partition(" ")
    for item in json.loads(listing)["nftables"]:
        found = item.get("set", {})
        if (found.get("family"), found.get("table")) == (family, name):
            entries = [entry["elem"] for entry in found.get("elem", ()) if isinstance(entry, dict) and "elem" in entry]
            yield (
                found["name"],
                [f"{entry['val']} expires {entry['expires']}s" for entry in entries if entry["expires"]],
            )
