"""The entry point: all commands, and what becomes of errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from testbed import __version__
from testbed.cli import enter, export, image, life, look, matrix, picture, prove, trace, vm, watch
from testbed.cli.terminal import INTERRUPTED, complain
from testbed.errors import TestbedError

EPILOG = """\
Exit codes:

\b
  0    all is well
  1    a flow is not as expected, something is not as planned, plans differ, or the machine refused
  2    the command line, the lab file or a manifest is wrong
  3    this machine lacks a kernel feature, a program or the right to use them
  4    the lab did not become ready in time
  5    no such lab, node or program is running
  130  interrupted

exec and ssh end with the status of what they ran. The lab file is described in docs/lab-file.md, the commands in
docs/cli.md.
"""


class Commands(TyperGroup):
    """The commands, with errors meant for the user printed as such instead of with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TestbedError as error:
            complain(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    help="Multi-node network testbeds: one lab file, a live network in seconds, and a test for every claim about it.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would take longer to import than the help to print
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"testbed {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before the command."""


app.command("up")(life.up)
app.command("down")(life.down)
app.command("list")(life.list_labs)
app.command("status")(look.status)
app.command("test")(prove.prove)
app.command("trace")(trace.trace)
app.command("matrix")(matrix.matrix)
app.command("exec")(enter.execute)
app.command("ssh")(enter.ssh)
app.command("logs")(enter.logs)
app.command("plan")(look.plan)
app.command("diff")(look.diff)
app.command("watch")(watch.watch)
app.command("graph")(picture.graph)
app.command("report")(picture.report)
app.command("export")(export.export)
app.command("schema")(look.schema)
app.command("doctor")(look.doctor)
app.add_typer(image.app, name="image")
app.command("vm")(vm.vm)


def main() -> None:
    """Run the command that the arguments name; never returns."""
    app()
