"""`matrix`: runs the cells of a lab's matrix and prints the truth table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.life import TIMEOUT
from testbed.cli.options import JsonOption, LabFile, VrfDriverOption, need_root
from testbed.cli.terminal import ended_by_signals, show, show_json, show_lines
from testbed.errors import InputError, Problem, UnsupportedError
from testbed.events import Step

if TYPE_CHECKING:
    from testbed.events import Observer
    from testbed.load.cells import Cell
    from testbed.load.matrix import Variants
    from testbed.plan import Plan
    from testbed.report.matrix import CellResult
    from testbed.session import Session

LACKING = 3  # as UnsupportedError.exit_code
LONGEST = 63 - len("-matrix")


def matrix(
    lab: LabFile,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUE,...", help="Only cells with these values; repeatable."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    name: Annotated[str, typer.Option("--name", help="The name it runs under; default: LAB-matrix.")] = "",
    runtime: Annotated[str, typer.Option(help="What nodes are made of: netns or docker.")] = "",
    vrf_driver: VrfDriverOption = "",
    timeout: Annotated[float, typer.Option(help="Seconds until a cell must be ready.", min=1.0)] = TIMEOUT,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running, in the form of the last cell.")] = False,
    json: JsonOption = False,
) -> None:
    """Run the cells of a lab's matrix, one running lab changed from cell to cell, and print the truth table.

    Ends with 1 when a flow of a cell is not as expected, with 3 when no cell could be run on this machine.
    """
    from testbed.cli.display import Display
    from testbed.load.matrix import Variants
    from testbed.session import Session, check

    variants = Variants(lab)
    own = name or f"{variants.lab.name[:LONGEST]}-matrix"
    check(own, runtime)
    cells = variants.cells(wanted(axis or ()))
    plans = [(cell, compiled(variants, cell, own, runtime=runtime, vrf_driver=vrf_driver)) for cell in cells]
    need_root()
    with Session(own, runtime) as session, ended_by_signals(), Display(silent=json) as display:
        if session.exists:
            message = f"lab {own} is running, and its form would be lost"
            raise InputError([Problem(message, hint=f"`testbed down {own}` ends it; or use another --name")])
        try:
            results = list(run_cells(session, plans, timeout, display))
        finally:
            if not keep:
                session.down()
    _print(own, results, markdown=markdown, json=json)
    if not all(cell.passed for cell in results):
        raise typer.Exit(1)
    if all(cell.not_run for cell in results):
        raise typer.Exit(LACKING)


def wanted(options: Sequence[str]) -> Mapping[str, list[str]]:
    """Axis → values of `--axis` options. Raises InputError for one that is no AXIS=VALUE,...."""
    found: dict[str, list[str]] = {}
    for text in options:
        axis, equals, values = text.partition("=")
        if not axis or not equals or not all(values.split(",")):
            raise InputError([Problem(f"--axis {text!r}: write AXIS=VALUE, or AXIS=VALUE,VALUE")])
        found.setdefault(axis, []).extend(values.split(","))
    return found


def compiled(variants: Variants, cell: Cell, name: str, *, runtime: str = "", vrf_driver: str = "") -> Plan:
    """The Plan of a cell, for a runtime and VRF driver as `testbed.session.compiled` takes them.

    Raises:
        InputError: with what is wrong with the lab in this cell.
    """
    from testbed.load.matrix import in_cell
    from testbed.session import compiled_from

    loaded = variants.load(cell)
    with in_cell(cell):
        return compiled_from(loaded, name, runtime=runtime, vrf_driver=vrf_driver)


def run_cells(
    session: Session, plans: Sequence[tuple[Cell, Plan]], timeout: float, observer: Observer
) -> Iterator[CellResult]:
    """Give the lab the form of each cell in turn and ask its flows; a cell that this machine cannot run says why."""
    from testbed.report.matrix import CellResult, places

    for number, (cell, plan) in enumerate(plans, start=1):
        step, start = f"cell {number} of {len(plans)}: {cell.name}", time.monotonic()
        observer(Step(step))
        try:
            session.switch(plan, timeout=timeout)
        except UnsupportedError as error:
            yield CellResult(dict(cell.values), {}, not_run=str(error))
            continue
        verdicts = session.test()
        observer(Step(step, time.monotonic() - start))
        yield CellResult(dict(cell.values), places(plan), tuple(verdicts))


def _print(lab: str, results: Sequence[CellResult], *, markdown: bool, json: bool) -> None:
    from testbed.report import matrix as report

    if json:
        show_json(report.matrix_data(lab, results))
        return
    if markdown:
        show_lines([*report.markdown(results), ""])
    else:
        show([report.truth_table(results), ""])
    show_lines([*report.legend(results), *report.wrong(results), *report.not_run(results)])
    typer.echo(f"{lab}: {report.summary(results)}")
