"""A lab with a matrix, as each cell makes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from testbed.errors import InputError, Problem
from testbed.load.cells import ANSWERS, Cell, chosen, row_of
from testbed.load.document import Document
from testbed.load.images import catalogue
from testbed.load.lab import Loaded, find, lab_document, lab_of, manifests_of
from testbed.load.manifests import ObjectPatch
from testbed.load.matrix_checks import matrix_problems
from testbed.load.patch import merged
from testbed.load.yaml import read_text
from testbed.model.lab import Flow


class Variants:
    """A lab file with a matrix, read once for all its cells.

    Args:
        name: of the lab, as for `testbed.load.lab.find`.

    Raises:
        InputError: the lab file is wrong, or has no matrix.
    """

    def __init__(self, name: str) -> None:
        self.path: Path = find(name)
        self._document = lab_document(read_text(self.path), str(self.path))
        self.lab = lab_of(self._document)
        if self.lab.matrix is None:
            message = f"lab {self.lab.name} has no matrix"
            raise InputError([Problem(message, self._document.at(), "docs/lab-file.md, Matrix")])
        if problems := matrix_problems(self.lab):
            raise InputError(problems)
        self.matrix = self.lab.matrix
        self._read: dict[Path, list[Document]] = {}

    def cells(self, wanted: Mapping[str, Sequence[str]] | None = None) -> list[Cell]:
        """The cells, or those that `chosen` picks."""
        return chosen(self.matrix, wanted or {})

    def load(self, cell: Cell) -> Loaded:
        """The lab of a cell. Its flows are the matrix's, with what must come of them there.

        Raises:
            InputError: with what is wrong with it in this cell, or with the rest of the lab.
        """
        document = self._document
        patches: list[ObjectPatch] = []
        for axis, value in cell.values:
            path = ("matrix", "axes", axis, value)
            variation = self.matrix.axes[axis][value]
            if variation.lab:
                document = merged(document, self._document.part(*path, "lab"))
            for index, entry in enumerate(variation.manifests):
                place = (*path, "manifests", index)
                patch = self._document.part(*place, "patch")
                patches.append(ObjectPatch(entry.kind, entry.namespace, entry.name, patch, self._document.at(*place)))
        with in_cell(cell):
            lab = lab_of(self._with_flows(document, cell))
            lab = lab.model_copy(update={"flows": self._asked(lab.flows), "matrix": None})
            return Loaded(self.path, lab, manifests_of(lab, self.path, patches, self._read), catalogue(lab.images))

    def _asked(self, flows: Sequence[Flow]) -> tuple[Flow, ...]:
        by_name = {flow.name: flow for flow in flows}
        return tuple(by_name[name] for name in self.matrix.flows)

    def _with_flows(self, document: Document, cell: Cell) -> Document:
        """The document, its flows saying what is expected in the cell."""
        found = row_of(self.matrix, cell)
        assert found  # a matrix that leaves a cell out is refused
        names = [flow["name"] for flow in document.value["flows"]]
        for name in self.matrix.flows:
            row = self._document.part("matrix", "expect", found[0], "flows", name)
            document = _replaced(document, ("flows", names.index(name)), row)
        return document


@contextlib.contextmanager
def in_cell(cell: Cell) -> Iterator[None]:
    """Let an InputError say that it is this cell in which the lab is wrong."""
    try:
        yield
    except InputError as error:
        found = [replace(problem, message=f"in the cell {cell.name}: {problem.message}") for problem in error.problems]
        raise InputError(found) from None


def _replaced(document: Document, path: tuple[str | int, ...], row: Document) -> Document:
    """The document with the flow at `path` expecting what `row` says, and nothing else."""
    flow = document.part(*path)
    bare = {key: value for key, value in flow.value.items() if key not in ANSWERS}
    made = merged(Document(bare, flow.file, flow.positions, flow.keys), row)
    value = dict(document.value)
    value["flows"] = [made.value if i == path[1] else entry for i, entry in enumerate(value["flows"])]
    length = len(path)
    positions = {key: place for key, place in document.positions.items() if key[:length] != path}
    positions |= {(*path, *key): place for key, place in made.positions.items()}
    return Document(value, document.file, positions, document.keys)
