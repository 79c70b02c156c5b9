"""A YAML document: its plain data, and where each part of it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.errors import Position
from testbed.model.base import Origin

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One document of a YAML file, or a part of one.

    Args:
        value: dicts with str keys, lists, str, int, float, bool and None; nothing else.
        file: the file's name, as positions give it.
        positions: path → where an error about that part's value points: for a scalar the scalar itself, for a list or
            mapping under a key that key, for a list item its first character. () is the document.
        keys: path of a mapping's entry → where its key stands (what an error about an unknown field points at).
    """

    value: Any
    file: str
    positions: Mapping[Path, Position]
    keys: Mapping[Path, Position]

    @property
    def origin(self) -> Origin:
        """The positions, in the form models keep."""
        return Origin(dict(self.positions))

    def at(self, *path: str | int) -> Position:
        """Where the value at `path` stands, or the nearest enclosing part that was written."""
        for length in range(len(path), -1, -1):
            if position := self.positions.get(path[:length]):
                return position
        return Position(self.file, 1, 1)

    def key_at(self, *path: str | int) -> Position:
        """Where the key of the mapping entry at `path` stands; where it is no mapping entry, as `at`."""
        return self.keys.get(path) or self.at(*path)

    def part(self, *path: str | int) -> Document:
        """The value at `path` as a document of its own. Raises KeyError or IndexError when there is none."""
        value = self.value
        for step in path:
            value = value[step]
        return Document(value, self.file, _below(self.positions, path), _below(self.keys, path))

    def without_nulls(self) -> Document:
        """The same document without the mapping entries that are null: to Kubernetes they are not set at all."""
        return Document(_without_nulls(self.value), self.file, self.positions, self.keys)


def _below(positions: Mapping[Path, Position], path: Path) -> dict[Path, Position]:
    length = len(path)
    return {key[length:]: position for key, position in positions.items() if key[:length] == path}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
