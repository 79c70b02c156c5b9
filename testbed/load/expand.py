"""Variables of the environment in a containerlab topology file.

Source: containerlab's docs/manual/topo-def-file.md, "Environment variables". A variable that is not set and has no
default stays as it is written, as containerlab leaves it (core/file.go: BytesRestrictedNoReplace).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(
    r"\$(?:(?P<escape>\$)|(?P<plain>"
    + _NAME
    + r")|\{(?P<name>"
    + _NAME
    + r")(?:(?P<how>:?[-=+])(?P<other>[^{}\n]*))?\})"
)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with $NAME, ${NAME}, ${NAME:-DEFAULT}, ${NAME:=DEFAULT}, ${NAME:+OTHER} (and without the colon)
    replaced; `$$` is one `$`. Line breaks stay where they are, so positions keep their lines.
    """
    return _REFERENCE.sub(lambda found: _value(found, variables), text)


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["escape"]:
        return "$"
    name, how = found["plain"] or found["name"], found["how"] or ""
    value = variables.get(name)
    if not how:
        return found[0] if value is None else value.replace("\n", " ")
    there = bool(value) if how.startswith(":") else value is not None
    if how.endswith("+"):
        return expand(found["other"], variables) if value is not None else ""
    return (value or "").replace("\n", " ") if there else expand(found["other"], variables)
