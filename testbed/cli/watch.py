"""`watch`: the embedded cluster's controllers at work."""

from __future__ import annotations

import contextlib
import time
from json import dumps
from typing import Annotated

import typer

from testbed.cli.options import DEFAULT_LAB, LabFile, NameOption, name_in, need_root
from testbed.cli.terminal import complain, ended_by_signals, show_lines

JsonLines = Annotated[bool, typer.Option("--json", help="Print JSON, a line for each time nodes end.")]


def watch(lab: LabFile = DEFAULT_LAB, name: NameOption = "", json: JsonLines = False) -> None:
    """Have the lab's cluster react when a node of it ends, until Ctrl-C.

    As Kubernetes does: the node is not ready, its pods leave their Services, its egress services move to another node.
    `testbed up` makes the node anew. Ends with 5 when the lab has gone.
    """
    from testbed.report.reactions import reaction_data, reaction_lines
    from testbed.session import Session

    need_root()
    with Session(name or name_in(lab)) as session, ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
        watched = session.watch(lab)
        if not json:
            typer.echo(f"{session.name}: watching {', '.join(watched.nodes) or 'nothing'}; Ctrl-C ends that")
        for reaction in watched.reactions():
            if json:
                typer.echo(dumps(reaction_data(reaction)))
            else:
                first, *rest = reaction_lines(reaction)
                show_lines([f"{time.strftime('%H:%M:%S')} {first}", *rest])
        complain(f"lab {session.name} is {'only half there: `testbed up` makes it anew' if session.exists else 'gone'}")
        raise typer.Exit(5)
