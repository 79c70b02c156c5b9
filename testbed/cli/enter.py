"""`exec`, `ssh`, `logs`: inside a node."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import complete
from testbed.cli.options import LabOption, NodeArgument, running_session
from testbed.cli.terminal import complain
from testbed.errors import UnsupportedError

if TYPE_CHECKING:
    from testbed.session import Session

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it (POSIX, 2.8.2)


def execute(
    node: NodeArgument,
    command: Annotated[list[str], typer.Argument(metavar="CMD", help="The program, and its arguments.")],
    lab: LabOption = "",
    vrf: Annotated[str, typer.Option(help="The VRF whose network the program has; default: the default one.")] = "",
) -> None:
    """Run a program in a node or pod, on this terminal.

    What has options of its own stands after `--`. Ends with the program's exit status; 127 says that there is no such
    program, 126 that it cannot be executed, 128 + N that signal N ended it.
    """
    with running_session(lab) as session:
        raise typer.Exit(_run(session, node, command, vrf))


def _run(session: Session, node: str, command: list[str], vrf: str) -> int:
    try:
        return session.attach(node, command, vrf or None)
    except UnsupportedError:
        complain(f"{node} has no program {command[0]}")
        return NOT_FOUND
    except OSError as error:
        complain(f"{command[0]} cannot be executed: {error.strerror}")
        return NOT_EXECUTABLE


def ssh(
    node: NodeArgument,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="CMD", help="What to run; a shell when nothing is named.")
    ] = None,
    lab: LabOption = "",
) -> None:
    """Log in to any node or pod by ssh.

    No sshd need run there: one is started for this connection alone, with the lab's own keys. Ends with ssh's exit
    status.
    """
    with running_session(lab) as session:
        name = session.node(node).name
        through = (sys.executable, "-m", "testbed.cli", "exec", name, "--lab", session.name, "--")
        status = session.ssh(name, through, command or ())
    raise typer.Exit(status)


def logs(
    node: NodeArgument,
    process: Annotated[
        str, typer.Argument(metavar="PROCESS", help="Only this program's.", autocompletion=complete.processes)
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written, until Ctrl-C.")] = False,
    lab: LabOption = "",
) -> None:
    """Print what the programs of a node have printed."""
    from testbed.cli.tail import Tail

    with running_session(lab) as session:
        tail = Tail(session.log_files(node, process), typer.echo)
        tail.read()
        if follow:
            tail.follow()
