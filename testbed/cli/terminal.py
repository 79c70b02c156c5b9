"""What is printed where: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from testbed.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

INTERRUPTED = 130
PIPED_WIDTH = 160  # columns of a table that goes to a file or another program


def complain(error: BaseException | str) -> None:
    """Print an error: each problem of an input on a line that begins with its file, line and column."""
    prefix = "" if isinstance(error, InputError) else "error: "
    colour = None if os.environ.get("NO_COLOR") else "red"
    typer.secho(f"{prefix}{error}", fg=colour, err=True)


def console() -> Console:
    """Standard output, for tables."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def show(parts: Iterable[RenderableType]) -> None:
    """Print tables and texts, one after the other; without the spaces at the ends of lines where no terminal is."""
    out = console()
    if out.is_terminal:
        out.print(*parts, sep="\n")
        return
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    show_lines(line.rstrip() for line in captured.get().splitlines())


def show_json(data: Any) -> None:
    """Print data as JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_lines(lines: Iterable[str]) -> None:
    """Print plain lines."""
    for line in lines:
        typer.echo(line)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind what is going on, as Ctrl-C does, so that what is half made is cleared away."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
