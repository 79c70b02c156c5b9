"""Tells models where they were written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from testbed.errors import Position
from testbed.load.document import Path
from testbed.model.base import Located, Origin


def attach(value: Any, positions: Mapping[Path, Position]) -> None:
    """Sets the origin of every Located model in `value` that was written in the file.

    Args:
        value: a validated model, or what one of its fields holds.
        positions: of its parts, relative to it; () is the value itself. Models that came from a default have none,
            and stay untouched: a default is shared between instances.
    """
    if isinstance(value, Located):
        value._origin = Origin(dict(positions))
    parts = dict(_parts(value))
    if not parts:
        return
    below: dict[str | int, dict[Path, Position]] = {}
    for path, position in positions.items():
        if path and path[0] in parts:
            below.setdefault(path[0], {})[path[1:]] = position
    for step, part in parts.items():
        if step in below:
            attach(part, below[step])


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    """The parts that may hold models, under the names they have in the file."""
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            if name in value.model_fields_set:
                yield info.alias or name, getattr(value, name)
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
    elif isinstance(value, dict):
        yield from value.items()
