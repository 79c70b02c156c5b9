"""Shows the progress of a long operation on standard error: a few live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from testbed.events import Awaited, Event, Step, Told
from testbed.report.progress import Progress, after, ended, lines, missing, present

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

PATIENCE = 5.0  # seconds without a line after which plain output says what is awaited
PLAIN_WIDTH = 160


class Display:
    """An observer of events (testbed.events.Observer), to be used as a context manager.

    Args:
        silent: show nothing, only keep account of the steps, and of what was told (for whoever sums it up).
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.progress = Progress()
        self.told: list[str] = []
        self._silent = silent
        self._live: Live | None = None
        self._last_line = time.monotonic()

    @property
    def steps(self) -> dict[str, float]:
        """Name of each step that ended → seconds it took."""
        return {step.name: round(step.seconds or 0.0, 3) for step in self.progress.done}

    def __enter__(self) -> Display:
        if not self._silent and sys.stdout.isatty() and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True, highlight=False),
                get_renderable=self._lines,
                refresh_per_second=10,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        self.progress = after(self.progress, event)
        if isinstance(event, Told):
            self.told.append(event.text)
        elif not self._live and not self._silent:
            self._print(event)

    def _print(self, event: Step | Awaited) -> None:
        now = time.monotonic()
        if isinstance(event, Step):
            if event.seconds is not None:
                typer.echo(f"  {ended(event)}", err=True)
                self._last_line = now
        elif now - self._last_line >= PATIENCE:
            for line in (present(self.progress), missing(self.progress, PLAIN_WIDTH)):
                typer.echo(f"  {line}", err=True)
            self._last_line = now

    def _lines(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        width = self._live.console.width if self._live else PLAIN_WIDTH
        return Group(*(Text(line, no_wrap=True, style="dim") for line in lines(self.progress, width)))
