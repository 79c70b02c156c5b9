"""What all models of user input share: frozen, strict about unknown fields, camelCase in files, tuples for lists."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic.alias_generators import to_camel

from testbed.errors import Position


class Model(BaseModel):
    """Base of everything read from YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Origin:
    """Where an object and each of its fields was written.

    Args:
        positions: field path (as pydantic's `loc`, aliases as in the file) → position; () is the object itself.
    """

    def __init__(self, positions: dict[tuple[str | int, ...], Position]) -> None:
        self._positions = positions

    def at(self, *path: str | int) -> Position | None:
        """The position of `path`, or of the nearest enclosing field that was written; None when nothing is known."""
        for length in range(len(path), -1, -1):
            if position := self._positions.get(path[:length]):
                return position
        return None


NOWHERE = Origin({})


class Located(Model):
    """A model that remembers where it was written (not part of its value)."""

    _origin: Origin = PrivateAttr(default=NOWHERE)

    @property
    def origin(self) -> Origin:
        return self._origin

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return id(self)
