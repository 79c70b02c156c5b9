"""Label selectors, as workloads and affinities write them (Kubernetes API: meta/v1 LabelSelector, core/v1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from testbed.model.base import Model

_INTEGER = re.compile(r"-?[0-9]{1,18}")


class Expression(Model):
    """One condition on a label. `Gt` and `Lt` compare integers and belong to node affinity alone."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _values_fit(self) -> Expression:
        wanted = {"Exists": "no values", "DoesNotExist": "no values", "Gt": "one integer", "Lt": "one integer"}
        match self.operator:
            case "In" | "NotIn":
                fits = bool(self.values)
            case "Exists" | "DoesNotExist":
                fits = not self.values
            case _:
                fits = len(self.values) == 1 and bool(_INTEGER.fullmatch(self.values[0]))
        if not fits:
            raise ValueError(f"operator {self.operator} takes {wanted.get(self.operator, 'at least one value')}")
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant; NotIn also means what lacks the label."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        if value is None or not _INTEGER.fullmatch(value):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "Gt" else int(value) < bound


class LabelExpression(Expression):
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]


class LabelSelector(Model):
    """All labels and all expressions must match; an empty selector means everything."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelExpression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            expression.matches(labels) for expression in self.match_expressions
        )
