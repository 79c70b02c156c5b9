"""What the checks of MetalLB's resources share: a problem with its place, duplicates, label selectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbed.errors import Problem
from testbed.model.kube import KubeObject
from testbed.model.metallb import LabelSelector, SelectorExpression

Path = tuple[str | int, ...]


def problem(resource: KubeObject, path: Path, message: str, hint: str = "") -> Problem:
    """A problem of `resource`, placed at the field `path` (names as in the file)."""
    return Problem(f"{resource.kind} {resource.name}: {message}", resource.origin.at(*path), hint)


def selected(selectors: Sequence[LabelSelector], labels: Mapping[str, str]) -> bool:
    """Whether any of the selectors matches; no selector at all selects everything."""
    return not selectors or any(selector.matches(labels) for selector in selectors)


def duplicate_values(resource: KubeObject, path: Path, values: Sequence[str], what: str) -> Iterator[Problem]:
    """A problem for each value that was written before in the same list."""
    for index, value in enumerate(values):
        if value in values[:index]:
            yield problem(resource, (*path, index), f'duplicate definition of {what} "{value}"')


def selector_problems(resource: KubeObject, path: Path, selectors: Sequence[LabelSelector]) -> Iterator[Problem]:
    """What is wrong with the list of selectors at `path`: duplicates and impossible expressions."""
    for index, selector in enumerate(selectors):
        yield from expression_problems(resource, (*path, index), selector)
        if any(_same(selector, other) for other in selectors[:index]):
            written = selector.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            yield problem(resource, (*path, index), f"duplicate definition of {path[-1]} {written}")


def expression_problems(resource: KubeObject, path: Path, selector: LabelSelector) -> Iterator[Problem]:
    """What is wrong with the expressions of the selector at `path`."""
    return _expressions(resource, path, selector.match_expressions)


def _expressions(resource: KubeObject, path: Path, expressions: Sequence[SelectorExpression]) -> Iterator[Problem]:
    for index, expression in enumerate(expressions):
        place = (*path, "matchExpressions", index)
        what = "match expression value in label selector"
        yield from duplicate_values(resource, (*place, "values"), expression.values, what)
        if expression.operator in ("In", "NotIn") and not expression.values:
            yield problem(resource, place, f"invalid label selector: for {expression.operator}, values can't be empty")
        if expression.operator in ("Exists", "DoesNotExist") and expression.values:
            yield problem(resource, place, f"invalid label selector: {expression.operator} takes no values")
        if any(_same_expression(expression, other) for other in expressions[:index]):
            yield problem(resource, place, "duplicate definition of match expressions")


def _same(one: LabelSelector, other: LabelSelector) -> bool:
    return one.match_labels == other.match_labels and [_key(e) for e in one.match_expressions] == [
        _key(e) for e in other.match_expressions
    ]


def _same_expression(one: SelectorExpression, other: SelectorExpression) -> bool:
    return _key(one) == _key(other)


def _key(expression: SelectorExpression) -> tuple[str, str, tuple[str, ...]]:
    return (expression.key, expression.operator, tuple(sorted(expression.values)))
