"""The command `test`: asks a running lab's flows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import complete
from testbed.cli.options import JsonOption, running_session
from testbed.cli.terminal import console, show, show_json, show_lines
from testbed.events import Awaited, Step

if TYPE_CHECKING:
    from testbed.events import Observer
    from testbed.probe.result import Verdict
    from testbed.session import Session


def ask(session: Session, names: Sequence[str], observer: Observer) -> list[Verdict]:
    """Ask flows (all when none is named) and tell the observer which have not been answered yet."""
    waiting = [flow.name for flow in session.chosen(names)]
    total, start = len(waiting), time.monotonic()

    def told(verdict: Verdict) -> None:
        waiting.remove(verdict.flow.name)
        observer(Awaited("answers", tuple(waiting), total))

    observer(Step("flows"))
    verdicts = session.test(names, told)
    observer(Step("flows", time.monotonic() - start))
    return verdicts


def prove(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME FLOW",
            help="The lab, not needed when only one runs; then the flows, all when none is named.",
            autocompletion=complete.labs_and_flows,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Ask the flows of a running lab again.

    Ends with 1 when one is not as expected.
    """
    from testbed.cli.display import Display

    session, flows = _meant(names or [])
    with session, Display(silent=json) as display:
        verdicts = ask(session, flows, display)
        explained = [] if json else [(entry, session.explained(entry.flow)) for entry in verdicts if not entry.passed]
    _print(session.name, verdicts, json=json)
    for verdict, lines in explained:
        typer.echo(f"\n{verdict.flow.name}: {lines[0]}")
        show_lines(f"  {line}" for line in lines[1:])
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


def _meant(words: Sequence[str]) -> tuple[Session, Sequence[str]]:
    """The lab and the flows: the first word names the lab, unless only one runs and it is another's name."""
    from testbed.session import running

    there = running()
    if words and (len(there) != 1 or words[0] in there or "/" in words[0]):
        return running_session(words[0]), words[1:]
    return running_session(""), words


def _print(lab: str, verdicts: list[Verdict], *, json: bool) -> None:
    if json:
        from testbed.report.data import verdicts_data

        show_json(verdicts_data(lab, verdicts))
        return
    from testbed.report.labs import passed

    show_verdicts(verdicts)
    typer.echo(f"{lab}: {passed(verdicts)}")


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print the table of verdicts, and below it why those flows failed that did."""
    from testbed.report.flows import failures, verdict_table

    show([verdict_table(verdicts, console().width), ""])
    if not all(verdict.passed for verdict in verdicts):
        show([failures(verdicts), ""])
