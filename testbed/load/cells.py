"""The cells of a matrix, and the entry of its `expect` that holds for each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.errors import InputError, Problem
from testbed.load.explain import suggest
from testbed.model.matrix import Expectation, Matrix

# What a row of `expect` may say of a flow. All of these that the flow has by itself are forgotten in a cell, but for
# the last three, which are about the way there.
ANSWERS = ("expect", "seenAs", "answeredBy", "status", "forwardedFor", "output", "answer")
ROW_FIELDS = (*ANSWERS, "via", "notVia", "vrf")


@dataclass(frozen=True)
class Cell:
    """One combination: (axis, value) pairs in the order of the axes."""

    values: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return "-".join(value for _, value in self.values)

    def fits(self, when: Mapping[str, str | tuple[str, ...]]) -> bool:
        """Whether each axis named has the value, or one of the values, that go with it."""
        return all(self.fits_one(axis, wanted) for axis, wanted in when.items())

    def fits_one(self, axis: str, wanted: str | tuple[str, ...]) -> bool:
        return dict(self.values).get(axis) in ((wanted,) if isinstance(wanted, str) else wanted)


def cells(matrix: Matrix) -> list[Cell]:
    """All cells; the last axis changes fastest."""
    axes = [[(axis, value) for value in values] for axis, values in matrix.axes.items()]
    return [Cell(values) for values in itertools.product(*axes)]


def row_of(matrix: Matrix, cell: Cell) -> tuple[int, Expectation] | None:
    """The entry of `expect` that holds for a cell, with its index: the first that fits."""
    return next(((i, row) for i, row in enumerate(matrix.expect) if cell.fits(row.when)), None)


def chosen(matrix: Matrix, wanted: Mapping[str, Sequence[str]]) -> list[Cell]:
    """The cells that have, on each axis named, one of these values.

    Raises:
        InputError: there is no such axis or value.
    """
    problems = []
    for axis, values in wanted.items():
        if axis not in matrix.axes:
            problems.append(Problem(f"the matrix has no axis {axis!r}", hint=suggest(axis, matrix.axes)))
            continue
        for value in values:
            if value not in matrix.axes[axis]:
                hint = suggest(value, matrix.axes[axis])
                problems.append(Problem(f"axis {axis} has no value {value!r}", hint=hint))
    if problems:
        raise InputError(problems)
    return [cell for cell in cells(matrix) if cell.fits({axis: tuple(values) for axis, values in wanted.items()})]
