"""`up`, `down`, `list`: a lab's life."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import complete
from testbed.cli.options import DEFAULT_LAB, JsonOption, LabFile, NameOption, VrfDriverOption, name_in, need_root
from testbed.cli.prove import ask, show_verdicts
from testbed.cli.terminal import complain, ended_by_signals, show_json, show_lines
from testbed.errors import NoSuchLabError, TestbedError

if TYPE_CHECKING:
    from testbed.report.labs import Risen

TIMEOUT = 60.0


def up(
    lab: LabFile = DEFAULT_LAB,
    name: NameOption = "",
    runtime: Annotated[
        str, typer.Option(help="What nodes are made of: netns or docker; default: what the lab runs on, else netns.")
    ] = "",
    vrf_driver: VrfDriverOption = "",
    timeout: Annotated[float, typer.Option(help="Seconds until the lab must be ready.", min=1.0)] = TIMEOUT,
    keep: Annotated[bool, typer.Option("--keep", help="Leave a lab that did not become ready as it is.")] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Do not ask the flows.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring a lab up, or apply what has changed, and prove it.

    Ends with 1 when a flow is not as expected, with 4 when the lab is not ready in time (it is then taken down again,
    unless --keep is given or it was running before).
    """
    from testbed.cli.display import Display
    from testbed.deploy.apply import restored
    from testbed.report.labs import Change, Risen
    from testbed.session import Session, check, compiled

    start = time.monotonic()
    check(name or DEFAULT_LAB, runtime)
    plan = compiled(lab, name, runtime, vrf_driver)
    need_root()
    with Session(plan.name, runtime) as session, ended_by_signals(), Display(silent=json) as display:
        before = session.nodes() if session.whole else None
        change = session.up(plan, timeout=timeout, observer=display, keep=keep)
        verdicts = [] if no_test else ask(session, (), display)
    risen = Risen(
        plan,
        None if before is None else Change(change, tuple(restored(change, before, plan))),
        tuple(verdicts),
        time.monotonic() - start,
        display.steps,
        tuple(display.told),
    )
    _print_json(risen) if json else _print(risen)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


def _print(risen: Risen) -> None:
    from testbed.report.labs import change_lines, told_lines, up_summary

    if risen.change is not None:
        show_lines([*change_lines(risen.change), ""])
    if risen.verdicts:
        show_verdicts(risen.verdicts)
    if told := told_lines(risen):
        show_lines([*told, ""])
    typer.echo(up_summary(risen))


def _print_json(risen: Risen) -> None:
    from testbed.report.data import risen_data

    show_json(risen_data(risen))


def down(
    lab: Annotated[
        str,
        typer.Argument(
            metavar="LAB",
            help="A running lab's name, or a lab file; not needed when only one runs.",
            autocompletion=complete.running_labs,
        ),
    ] = "",
    name: NameOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All labs of this machine.")] = False,
) -> None:
    """Take a lab down, whatever state it is in.

    A lab that is not running is no error.
    """
    from testbed.session import Session, known

    need_root()
    names = _doomed(lab, name, known(), everything=everything)
    if not names:
        typer.echo("no lab is running")
    status = 0
    for one in names:
        start = time.monotonic()
        try:
            with Session(one) as session:
                there = session.down()
        except TestbedError as error:  # the others go all the same
            complain(error)
            status = error.exit_code
            continue
        typer.echo(f"{one} is down, {time.monotonic() - start:.1f} s" if there else f"{one} is not running")
    if status:
        raise typer.Exit(status)


def _doomed(lab: str, name: str, there: list[str], *, everything: bool) -> list[str]:
    """The names of the labs to take down."""
    if everything and (lab or name):
        complain("--all takes no lab beside it")
        raise typer.Exit(2)
    if everything:
        return there
    if name or lab:
        return [name or (lab if lab in there else name_in(lab))]
    if len(there) > 1:
        complain(f"several labs are running: {', '.join(there)}; say which, or --all")
        raise typer.Exit(2)
    return there


def list_labs(json: JsonOption = False) -> None:
    """List the labs that run on this machine."""
    from testbed.load.shipped import shipped_labs
    from testbed.report.labs import lab_lines
    from testbed.session import Session, running

    need_root()
    found = []
    for name in running():
        with Session(name) as session, contextlib.suppress(NoSuchLabError):  # it may end just now
            found.append(session.outline())
    if json:
        from testbed.report.data import labs_data

        show_json(labs_data(found))
        return
    show_lines(lab_lines(found, shipped_labs(), time.time()))
