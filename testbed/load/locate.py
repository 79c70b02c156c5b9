"""Finds the place in a file that an entry of pydantic's ValidationError speaks of.

Its `loc` mixes steps into the data with names of union branches ('int', 'BgpLink', a discriminator's value), and with
fields that a validator made up. Walking the model's types along with the data tells them apart.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from testbed.load.document import Path

_UNIONS = (Union, types.UnionType)


@dataclass(frozen=True, slots=True)
class Branch:
    """A union that was entered: where in the data, and by which branch."""

    at: Path
    tag: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an error stands.

    Args:
        path: steps into the data as it was written; for a missing field the last one is its name.
        branches: the unions on the way, outermost first.
        fields: names of the fields of the model that holds the last step.
        refused: names of fields that this model refuses on purpose (its class variable `refused`), with the reason.
        types: what the value there may be.
    """

    path: Path
    branches: tuple[Branch, ...]
    fields: tuple[str, ...]
    refused: Mapping[str, str]
    types: tuple[Any, ...]


def locate(loc: Sequence[str | int], model: type[BaseModel], value: Any, *, missing: bool) -> Place:
    """Translates a pydantic `loc`.

    Args:
        loc: as in ValidationError.errors().
        model: the model that was validated.
        value: the data that was written.
        missing: the last step names a field that is not there.
    """
    path: list[str | int] = []
    branches: list[Branch] = []
    candidates, holders = list(_members(model)), list(_members(model))
    for position, step in enumerate(loc):
        inside, value_below = _step(value, step)
        below = [annotation for candidate in candidates for annotation in _below(candidate, step)]
        if inside or (missing and position == len(loc) - 1):
            path.append(step)
            value, holders = value_below, candidates
            candidates = below
        elif below:
            candidates = below
        else:
            branches.append(Branch(tuple(path), str(step)))
            candidates = [item for item in candidates if str(step) in _names(item)] or candidates
    refused = {name: reason for holder in holders for name, reason in getattr(holder, "refused", {}).items()}
    return Place(tuple(path), tuple(branches), tuple(dict.fromkeys(_fields(holders))), refused, tuple(candidates))


def _step(value: Any, step: str | int) -> tuple[bool, Any]:
    """Whether the data has that entry, and what it is."""
    if isinstance(value, dict):
        return step in value, value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return True, value[step]
    return False, None


def _members(annotation: Any) -> Iterator[Any]:
    """The types a value may have: unions taken apart, aliases and metadata removed."""
    if (alias := getattr(annotation, "__value__", None)) is not None:
        yield from _members(alias)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in _UNIONS:
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _below(candidate: Any, step: str | int) -> Iterator[Any]:
    """The types of an entry of a value of type `candidate`; nothing when it has no such entry."""
    if _is_model(candidate):
        for name, info in candidate.model_fields.items():
            if step == (info.alias or name):
                yield from _members(info.annotation)
        return
    origin, arguments = get_origin(candidate), get_args(candidate)
    if origin is dict and isinstance(step, str) and len(arguments) == 2:
        yield from _members(arguments[1])
    elif origin in (tuple, list, set, frozenset, Sequence, Iterable) and isinstance(step, int) and arguments:
        fixed = origin is tuple and arguments[-1] is not Ellipsis
        yield from _members(arguments[min(step, len(arguments) - 1) if fixed else 0])


def _names(candidate: Any) -> set[str]:
    """What pydantic may call this type as a branch of a union."""
    if not _is_model(candidate):
        return {getattr(candidate, "__name__", str(candidate))}
    names = {candidate.__name__}
    for info in candidate.model_fields.values():
        if get_origin(info.annotation) is Literal:
            names.update(str(constant) for constant in get_args(info.annotation))
    return names


def constants(candidates: Iterable[Any], field: str) -> list[str]:
    """The constants that the models among the types may have in a field."""
    found: list[str] = []
    for candidate in candidates:
        for name, info in candidate.model_fields.items() if _is_model(candidate) else ():
            if field in (name, info.alias) and get_origin(info.annotation) is Literal:
                found += (str(constant) for constant in get_args(info.annotation))
    return found


def _fields(candidates: Iterable[Any]) -> Iterator[str]:
    for candidate in candidates:
        if _is_model(candidate):
            for name, info in candidate.model_fields.items():
                yield info.alias or name


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
