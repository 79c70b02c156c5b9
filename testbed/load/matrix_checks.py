"""What is wrong between the parts of a matrix, and between it and the lab's flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from testbed.errors import Problem
from testbed.load.cells import ROW_FIELDS, cells, row_of
from testbed.load.explain import suggest
from testbed.model.lab import Lab
from testbed.model.matrix import Matrix

FIXED = ("apiVersion", "name", "flows", "matrix")  # of a lab file, in every cell


def matrix_problems(lab: Lab) -> list[Problem]:
    """Everything that can be told before a cell is looked at; nothing for a lab without a matrix."""
    if lab.matrix is None:
        return []
    found = [*_flows(lab, lab.matrix), *_axes(lab, lab.matrix), *_rows(lab.matrix)]
    return found or list(_coverage(lab.matrix))  # what follows from a wrong name is not worth telling


def _flows(lab: Lab, matrix: Matrix) -> Iterator[Problem]:
    names = [flow.name for flow in lab.flows]
    for index, name in enumerate(matrix.flows):
        place = matrix.origin.at("flows", index)
        if name not in names:
            yield Problem(f"no flow {name!r}", place, suggest(name, names))
        elif name in matrix.flows[:index]:
            yield Problem(f"flow {name} is named twice", place)


def _axes(lab: Lab, matrix: Matrix) -> Iterator[Problem]:
    for axis, values in matrix.axes.items():
        if not values:
            yield Problem(f"axis {axis} has no values", matrix.origin.at("axes", axis))
        for variation in values.values():
            for field in variation.lab:
                if field in FIXED:
                    place = variation.origin.at("lab", field)
                    hint = "what is expected of flows stands in expect" if field == "flows" else ""
                    yield Problem(f"a cell cannot change the lab's {field}", place, hint)
            if variation.manifests and lab.cluster is None:
                yield Problem("the lab has no cluster whose manifests could change", variation.origin.at("manifests"))


def _rows(matrix: Matrix) -> Iterator[Problem]:
    for index, row in enumerate(matrix.expect):
        for axis, wanted in row.when.items():
            yield from _when(matrix, index, axis, (wanted,) if isinstance(wanted, str) else wanted)
        for flow, fields in row.flows.items():
            place = matrix.origin.at("expect", index, "flows", flow)
            if flow not in matrix.flows:
                yield Problem(f"{flow!r} is none of the matrix's flows", place, suggest(flow, matrix.flows))
            for field in fields:
                if field not in ROW_FIELDS:
                    hint = suggest(field, ROW_FIELDS)
                    yield Problem(f"{field!r} is nothing that can be expected of a flow", place, hint)
        if missing := [flow for flow in dict.fromkeys(matrix.flows) if flow not in row.flows]:
            message = f"what is expected of {' and '.join(missing)} is missing"
            yield Problem(message, matrix.origin.at("expect", index, "flows"))


def _when(matrix: Matrix, index: int, axis: str, wanted: tuple[str, ...]) -> Iterator[Problem]:
    place = matrix.origin.at("expect", index, "when", axis)
    if axis not in matrix.axes:
        yield Problem(f"the matrix has no axis {axis!r}", place, suggest(axis, matrix.axes))
        return
    for value in wanted:
        if value not in matrix.axes[axis]:
            yield Problem(f"axis {axis} has no value {value!r}", place, suggest(value, matrix.axes[axis]))


def _coverage(matrix: Matrix) -> Iterator[Problem]:
    """Cells of which nothing is expected, and entries that no cell is left for."""
    used = set()
    names = Counter(cell.name for cell in cells(matrix))
    if twice := [name for name, count in names.items() if count > 1]:
        message = f"two cells would be named {twice[0]}"
        yield Problem(message, matrix.origin.at("axes"), "give values other names")
    for cell in cells(matrix):
        if found := row_of(matrix, cell):
            used.add(found[0])
        else:
            message = f"no entry of expect says what is expected in the cell {cell.name}"
            yield Problem(message, matrix.origin.at("expect"))
            break
    for index in range(len(matrix.expect)):
        if index not in used:
            message = "no cell is left for this entry: those that it fits have one before it, or there are none"
            yield Problem(message, matrix.origin.at("expect", index))
