"""JSON merge patches (RFC 7396) on documents whose parts know where they were written."""

from __future__ import annotations

from typing import Any

from testbed.load.document import Document, Path


def merged(document: Document, patch: Document) -> Document:
    """The document with a patch applied: mappings are merged, all else is replaced, null takes an entry away.

    What comes from the patch keeps the position it has there, so that an error about it points into the patch.
    """
    taken: list[Path] = []
    value = _merged(document.value, patch.value, (), taken)
    old = [path for path in document.positions if not _within(path, taken)]
    new = [path for path in patch.positions if _within(path, taken)]
    positions = {path: document.positions[path] for path in old} | {path: patch.positions[path] for path in new}
    keys = {path: place for path, place in document.keys.items() if not _within(path, taken)}
    keys |= {path: place for path, place in patch.keys.items() if _within(path, taken)}
    return Document(value, document.file, positions, keys)


def _merged(value: Any, patch: Any, path: Path, taken: list[Path]) -> Any:
    """RFC 7396, section 2; `taken` gets the paths at which the patch's value stands, or nothing any more."""
    if not isinstance(patch, dict):
        taken.append(path)
        return patch
    if not isinstance(value, dict):
        taken.append(path)
        value = {}
    made = dict(value)
    for key, entry in patch.items():
        if entry is None:
            taken.append((*path, key))
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), entry, (*path, key), taken)
    return made


def _within(path: Path, roots: list[Path]) -> bool:
    return any(path[: len(root)] == root for root in roots)
