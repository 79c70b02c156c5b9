"""JSON merge patches (RFC 7396) on documents whose parts know where they were written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.errors import Position
from testbed.load.document import Document, Path


def merged(document: Document, patch: Document) -> Document:
    """The document with a patch applied: mappings are merged, all else is replaced, null takes an entry away.

    What comes from the patch keeps the position it has there, so that an error about it points into the patch.
    """
    taken: list[Path] = []
    gone: list[Path] = []
    value = _merged(document.value, patch.value, (), taken, gone)

    def both(old: Mapping[Path, Position], new: Mapping[Path, Position]) -> dict[Path, Position]:
        kept = {path: place for path, place in old.items() if not _within(path, taken) and not _within(path, gone)}
        return kept | {path: place for path, place in new.items() if _within(path, taken) and not _within(path, gone)}

    positions, keys = both(document.positions, patch.positions), both(document.keys, patch.keys)
    return Document(value, document.file, positions, keys)


def _merged(value: Any, patch: Any, path: Path, taken: list[Path], gone: list[Path]) -> Any:
    """RFC 7396, section 2. `taken` gets the paths at which the patch's value stands now, `gone` those it takes away."""
    if not isinstance(patch, dict):
        taken.append(path)
        return patch
    if not isinstance(value, dict):
        taken.append(path)
        value = {}
    made = dict(value)
    for key, entry in patch.items():
        if entry is None:
            gone.append((*path, key))
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), entry, (*path, key), taken, gone)
    return made


def _within(path: Path, roots: list[Path]) -> bool:
    return any(path[: len(root)] == root for root in roots)
