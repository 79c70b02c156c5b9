"""A matrix as a truth table: one row per combination of all axes but the last, one column per value of the last."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from rich.table import Table
from rich.text import Text

from testbed.plan import Plan
from testbed.probe.result import Verdict
from testbed.report.data import verdict_data
from testbed.report.style import GOOD, POOR, QUIET, plain_table

SILENCE = "\N{EN DASH}"


@dataclass(frozen=True)
class CellResult:
    """What was found in one cell.

    Args:
        values: axis → value, in the order of the axes. places: address → whose it is, in a few words.
        verdicts: in the order of the matrix's flows. not_run: why there are none; empty when there are.
    """

    values: Mapping[str, str]
    places: Mapping[str, str]
    verdicts: tuple[Verdict, ...] = ()
    not_run: str = ""

    @property
    def name(self) -> str:
        return "-".join(self.values.values())

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def text(self) -> str:
        """What became of its flows: whom the server saw, a dash for no answer; once when it is the same for all."""
        if self.not_run:
            return "not run"
        found = [_outcome(verdict, self.places) for verdict in self.verdicts]
        return found[0] if len(set(found)) == 1 else " / ".join(found)


def _outcome(verdict: Verdict, places: Mapping[str, str]) -> str:
    answer = verdict.answer
    if answer.outcome in ("timeout", "reset"):
        return SILENCE
    if answer.outcome != "ok":
        return answer.outcome
    return places.get(answer.seen_as, answer.seen_as) or "an answer"


def places(plan: Plan) -> dict[str, str]:
    """Address → the node that has it, with the interface where the node has several with addresses."""
    found = {}
    for node in plan.nodes:
        named = [entry for entry in node.interfaces if entry.addresses and entry.kind not in ("loopback", "vxlan")]
        for entry in named:
            for address in entry.addresses:
                found[str(ip_interface(address).ip)] = f"{node.name} {entry.name}" if len(named) > 1 else node.name
    return found


def truth_table(results: Sequence[CellResult]) -> Table:
    """The table for a terminal; cells that are not as expected stand out."""
    heads, columns, rows = _grid(results)
    table = plain_table()
    for head in (*heads, *columns):
        table.add_column(head, no_wrap=True)
    for labels, found in rows:
        table.add_row(*labels, *(_styled(cell) for cell in found))
    return table


def _styled(cell: CellResult | None) -> Text:
    if cell is None:
        return Text("")
    if cell.not_run:
        return Text(cell.text, style=QUIET)
    return Text(cell.text, style=GOOD) if cell.passed else Text(f"✗ {cell.text}", style=POOR)


def markdown(results: Sequence[CellResult]) -> list[str]:
    """The table in Markdown; cells that are not as expected are bold."""
    heads, columns, rows = _grid(results)
    lines = [_line((*heads, *columns)), _line(["---"] * (len(heads) + len(columns)))]
    for labels, found in rows:
        lines.append(_line([*labels, *(_plain(cell) for cell in found)]))
    return lines


def _plain(cell: CellResult | None) -> str:
    if cell is None:
        return ""
    return cell.text if cell.passed else f"**{cell.text}** ✗"


def _line(fields: Iterable[str]) -> str:
    return f"| {' | '.join(fields)} |"


_Row = tuple[tuple[str, ...], list[CellResult | None]]


def _grid(results: Sequence[CellResult]) -> tuple[list[str], list[str], list[_Row]]:
    """(names of all axes but the last, values of the last, rows). Axes with one value alone get no column."""
    axes = list(results[0].values)
    *before, last = axes
    shown = [axis for axis in before if len({cell.values[axis] for cell in results}) > 1]
    columns = list(dict.fromkeys(cell.values[last] for cell in results))
    rows: list[_Row] = []
    for _, group in itertools.groupby(results, key=lambda cell: [cell.values[axis] for axis in before]):
        found = list(group)
        by_value = {cell.values[last]: cell for cell in found}
        labels = tuple(found[0].values[axis] for axis in shown)
        rows.append((labels, [by_value.get(value) for value in columns]))
    return shown, columns, rows


def legend(results: Sequence[CellResult]) -> list[str]:
    """What the table leaves out: axes with one value, how to read a cell."""
    axes = results[0].values
    single = [(a, v) for a, v in list(axes.items())[:-1] if len({cell.values[a] for cell in results}) == 1]
    lines = [", ".join(f"{axis}: {value}" for axis, value in single)] if single else []
    flows = next(([verdict.flow.name for verdict in cell.verdicts] for cell in results if cell.verdicts), [])
    order = f"{' / '.join(flows)}, once where they are the same: " if len(flows) > 1 else ""
    return [*lines, f"{order}what address the server saw; {SILENCE} = no answer, or a connection that was reset"]


def wrong(results: Sequence[CellResult]) -> list[str]:
    """For each flow that is not as expected, its cell and the reasons."""
    return [
        f"✗ {cell.name}: {verdict.flow.name}: {reason}"
        for cell in results
        for verdict in cell.verdicts
        for reason in verdict.reasons
    ]


def not_run(results: Sequence[CellResult]) -> list[str]:
    """Each reason why cells were not run, with how many."""
    reasons: dict[str, int] = {}
    for cell in results:
        if cell.not_run:
            reasons[cell.not_run] = reasons.get(cell.not_run, 0) + 1
    return [f"not run: {count} cells: {reason}" for reason, count in reasons.items()]


def summary(results: Sequence[CellResult]) -> str:
    """How many cells are as expected, in one line."""
    ran = [cell for cell in results if not cell.not_run]
    text = f"{sum(cell.passed for cell in ran)} of {len(ran)} cells as expected"
    return text + (f", {len(results) - len(ran)} not run" if len(ran) < len(results) else "")


def matrix_data(lab: str, results: Sequence[CellResult]) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "lab": lab,
        "passed": all(cell.passed for cell in results),
        "cells": [
            {
                "values": dict(cell.values),
                "passed": None if cell.not_run else cell.passed,
                "notRun": cell.not_run,
                "text": cell.text,
                "flows": [verdict_data(verdict) for verdict in cell.verdicts],
            }
            for cell in results
        ],
    }
