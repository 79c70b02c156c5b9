"""Turns what pydantic finds into sentences for the author of a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from testbed.errors import Problem
from testbed.load.document import Document, Path
from testbed.load.locate import Place, constants, locate

M = TypeVar("M", bound=BaseModel)

_LISTED = 12  # choices that a hint lists before it cuts off
KEY = "[key]"  # how pydantic's `loc` ends where the key of a mapping is wrong, and not its value
_SHOWN = 60  # characters of an offending value that a message repeats


def suggest(word: str, choices: Iterable[str], closeness: float = 0.65) -> str:
    """A hint for a word that is none of the choices.

    "did you mean X?" when one is close, else "choose from a, b, c"; empty when there are no choices.
    `closeness` is the least similarity, from 0 to 1, of what one can have meant.
    """
    known = [choice for choice in dict.fromkeys(choices) if choice]
    folded = {choice.lower(): choice for choice in reversed(known)}
    if close := difflib.get_close_matches(word.lower(), folded, n=1, cutoff=closeness):
        return f"did you mean {folded[close[0]]}?"
    if not known:
        return ""
    more = ", ..." if len(known) > _LISTED else ""
    return f"choose from {', '.join(known[:_LISTED])}{more}"


def shown(value: Any) -> str:
    """A value as messages show it: short, and containers by what they are."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def validate_strictly(model: type[M], document: Document, name: str) -> tuple[M | None, list[Problem]]:
    """Checks a document against a model; see `testbed.load.yaml.validate`, which also sets origins."""
    instance, errors = _run(model, document.value, strict=False)
    found = [_Fault.of(error, model, document) for error in errors]
    faults = _select([fault for fault in found if not fault.is_follow_up(document)])
    _, errors = _run(model, _with_tuples(document.value), strict=True)
    strict = [_Fault.of(error, model, document) for error in errors]
    coerced = {fault.place.path: fault for fault in _select(strict) if fault.is_coercion(document)}
    faults = [fault for fault in faults if fault.place.path not in coerced]
    problems = [fault.problem(document, name) for fault in (*faults, *coerced.values())]
    return (None, problems) if problems else (instance, [])


def _run(model: type[M], value: Any, *, strict: bool) -> tuple[M | None, list[Mapping[str, Any]]]:
    try:
        return model.model_validate(value, strict=strict, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, [dict(entry) for entry in error.errors(include_url=False)]


def _with_tuples(value: Any) -> Any:
    """Lists as tuples, which strict validation wants where the models have tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    return value


@dataclass(frozen=True, slots=True)
class _Fault:
    """One entry of a ValidationError. `expected` joins what several branches of a union would have taken."""

    place: Place
    code: str
    context: Mapping[str, Any]
    text: str
    expected: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: Mapping[str, Any], model: type[BaseModel], document: Document) -> _Fault:
        place = locate(error["loc"], model, document.value, missing=error["type"] == "missing")
        fault = cls(place, error["type"], error.get("ctx", {}), error["msg"])
        return cls(place, fault.code, fault.context, fault.text, fault._expectation())

    def _expectation(self) -> tuple[str, ...]:
        if self.code in ("literal_error", "enum"):
            return tuple(repr(choice) for choice in _quoted(str(self.context.get("expected", ""))))
        expected = _EXPECTED.get(self.code)
        return (expected,) if expected else ()

    def is_coercion(self, document: Document) -> bool:
        """The strict pass alone objects: a scalar of one kind stands where another is wanted."""
        value = value_at(document.value, self.place.path)
        if isinstance(value, bool):
            return not {"an integer", "a number"}.isdisjoint(self.expected)
        if isinstance(value, int):
            return "true or false" in self.expected
        if isinstance(value, float):
            return not {"an integer", "true or false"}.isdisjoint(self.expected)
        return isinstance(value, str) and not {"an integer", "a number", "true or false"}.isdisjoint(self.expected)

    def is_follow_up(self, document: Document) -> bool:
        """The list is long enough as it was written: pydantic counts only the items that are right."""
        value = value_at(document.value, self.place.path)
        return self.code == "too_short" and isinstance(value, list) and len(value) >= self.context["min_length"]

    def problem(self, document: Document, name: str) -> Problem:
        path = self.place.path
        where, parent = dotted(name, path), dotted(name, path[:-1])
        last = str(path[-1]) if path else ""
        if self.code == "missing":
            return Problem(f"{last!r} is missing in {parent}", document.at(*path[:-1]))
        if self.code == "extra_forbidden" and last in self.place.refused:
            return Problem(f"{last!r} in {parent} is not supported", document.key_at(*path), self.place.refused[last])
        if self.code == "extra_forbidden":
            message = f"unknown field {last!r} in {parent}"
            return Problem(message, document.key_at(*path), suggest(last, self.place.fields))
        if self.code in ("union_tag_invalid", "union_tag_not_found"):
            return self._tag_problem(document, where)
        if any(branch.tag == KEY for branch in self.place.branches):
            message, hint = self._complaint(last)
            return Problem(f"{where}: {message}", document.key_at(*path), hint)
        value = value_at(document.value, path)
        message, hint = self._complaint(value)
        inner = getattr(self.context.get("error"), "path", ())
        return Problem(f"{dotted(where, inner)}: {message}", document.at(*path, *inner), hint)

    def _tag_problem(self, document: Document, where: str) -> Problem:
        field = str(self.context.get("discriminator", "")).strip("'")
        path = (*self.place.path, field)
        choices = constants(self.place.types, field)
        if self.code == "union_tag_not_found":
            return Problem(f"{field!r} is missing in {where}", document.at(*path), suggest("", choices))
        tag = str(self.context.get("tag", ""))
        return Problem(f"unknown {field} {tag!r} in {where}", document.at(*path), suggest(tag, choices))

    def _complaint(self, value: Any) -> tuple[str, str]:
        """Message and hint about a value."""
        if self.code in ("literal_error", "enum") and isinstance(value, str):
            return f"unknown value {shown(value)}", suggest(value, (text.strip("'") for text in self.expected))
        if self.expected:
            return f"expected {' or '.join(self.expected)}, found {shown(value)}", _quoting_hint(self.expected, value)
        if describe := _LIMITS.get(self.code):
            return f"{describe(self.context)}, found {shown(value)}", ""
        if self.code in ("value_error", "assertion_error"):
            return str(self.context.get("error", self.text)), ""
        if not (found := re.match(r"(Input|Value) (should be|is not) ", self.text)):
            return self.text, ""
        return f"expected {self.text[found.end() :]}, found {shown(value)}", ""


def dotted(name: str, path: Path) -> str:
    """A path as messages write it: Service.spec.ports[0].port."""
    text = name
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if re.fullmatch(r"[\w-]+", step) else f"[{step!r}]"
    return text.removeprefix(".") or "the document"


def _select(faults: Sequence[_Fault], depth: int = 0) -> list[_Fault]:
    """Of the branches of each union, the faults of the one that the author most likely meant."""
    selected = [fault for fault in faults if len(fault.place.branches) <= depth]
    deeper = [fault for fault in faults if len(fault.place.branches) > depth]
    deeper.sort(key=lambda fault: [(str(type(step)), str(step)) for step in fault.place.branches[depth].at])
    for at, group in groupby(deeper, key=lambda fault: fault.place.branches[depth].at):
        branches: dict[str, list[_Fault]] = {}
        for fault in group:
            branches.setdefault(fault.place.branches[depth].tag, []).append(fault)
        selected += _choose(list(branches.values()), at, depth)
    return selected


def _choose(branches: list[list[_Fault]], at: Path, depth: int) -> list[_Fault]:
    shaped = [branch for branch in branches if not any(fault.expected and fault.place.path == at for fault in branch)]
    if len(branches) == 1 or shaped:
        return _select(min(shaped or branches, key=_distance), depth + 1)
    faults = [fault for branch in branches for fault in branch if fault.expected and fault.place.path == at]
    expected = dict.fromkeys(text for fault in faults for text in fault.expected)
    kinds = {fault.code for fault in faults}
    kind = kinds.pop() if len(kinds) == 1 else "union"
    return [_Fault(faults[0].place, kind, {}, "", tuple(expected))]


def _distance(branch: Sequence[_Fault]) -> tuple[bool, int]:
    """How far what was written is from a branch: a wrong constant (`kind: a` against `kind: b`) weighs most."""
    return any(fault.code == "literal_error" for fault in branch), len(branch)


def _quoted(text: str) -> list[str]:
    """The choices in pydantic's list of them: 'a', 'b' or 4."""
    return [quoted or bare for quoted, bare in re.findall(r"'((?:[^'\\]|\\.)*)'|([^\s',]+)", text) if bare != "or"]


def _quoting_hint(expected: tuple[str, ...], value: Any) -> str:
    if "a string" in expected and isinstance(value, bool | int | float):
        return "put quotes around it"
    if "an integer" in expected and isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return "remove the quotes"
    if "true or false" in expected and value in ("true", "false"):
        return "remove the quotes"
    return ""


def value_at(value: Any, path: Path) -> Any:
    """The value at a path; None where it was not written."""
    try:
        for step in path:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return value


_EXPECTED: dict[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "an integer"),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_sub_type"), "a string"),
    **dict.fromkeys(
        ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type", "sequence_type"), "a list"
    ),
    **dict.fromkeys(
        ("dict_type", "model_type", "mapping_type", "model_attributes_type", "dataclass_type"), "a mapping"
    ),
    "none_required": "nothing",
    "ip_any_address": "an IP address",
    "ip_v4_address": "an IPv4 address",
    "ip_v6_address": "an IPv6 address",
    "ip_any_network": "a prefix",
    "ip_v4_network": "an IPv4 prefix",
    "ip_v6_network": "an IPv6 prefix",
    "ip_any_interface": "an address with prefix length",
    "ip_v4_interface": "an IPv4 address with prefix length",
    "ip_v6_interface": "an IPv6 address with prefix length",
}

_LIMITS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda context: f"must be more than {context['gt']}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than": lambda context: f"must be less than {context['lt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "multiple_of": lambda context: f"must be a multiple of {context['multiple_of']}",
    "string_too_short": lambda context: f"must have at least {_count(context['min_length'], 'character')}",
    "string_too_long": lambda context: f"must have at most {_count(context['max_length'], 'character')}",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "too_short": lambda context: f"must have at least {_count(context['min_length'], 'item')}",
    "too_long": lambda context: f"must have at most {_count(context['max_length'], 'item')}",
}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
