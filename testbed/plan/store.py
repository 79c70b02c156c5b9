"""A Plan as JSON text, and back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from testbed.plan import Plan

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@cache
def _adapter() -> TypeAdapter[Plan]:
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)


def to_json(plan: Plan, *, indent: int | None = None) -> str:
    """The Plan as JSON; equal Plans give equal text."""
    return _adapter().dump_json(plan, indent=indent).decode()


def from_json(text: str) -> Plan:
    """The Plan that `to_json` wrote. Raises ValueError for any other text."""
    return _adapter().validate_json(text)
