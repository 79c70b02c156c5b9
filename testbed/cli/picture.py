"""`graph` and `report`: a lab as a picture, a run as a page."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from testbed.cli.options import DEFAULT_LAB, LabFile, NameOption, RunningLab, running_session


class GraphFormat(StrEnum):
    """What `graph` writes."""

    SVG = "svg"
    MERMAID = "mermaid"
    DOT = "dot"
    DRAWIO = "drawio"


OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; default: the terminal.")]


def graph(
    lab: LabFile = DEFAULT_LAB,
    name: NameOption = "",
    form: Annotated[GraphFormat, typer.Option("--format", "-f", help="What to write.")] = GraphFormat.SVG,
    output: OutputOption = None,
) -> None:
    """Draw a lab's topology: nodes, their pods, and the cables with their VRFs. Nothing is changed."""
    from testbed.report import picture
    from testbed.report.topology import dot, mermaid, topology
    from testbed.session import compiled

    found = topology(compiled(lab, name))
    makers = {
        GraphFormat.SVG: picture.svg,
        GraphFormat.MERMAID: mermaid,
        GraphFormat.DOT: dot,
        GraphFormat.DRAWIO: picture.drawio_file,
    }
    text = makers[form](found)
    if output:
        output.write_text(text)
    else:
        typer.echo(text, nl=False)


def report(
    name: RunningLab = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
) -> None:
    """Ask the flows of a running lab and write a page: topology, verdicts, BGP sessions, versions.

    One HTML file that needs no network. Ends with 1 when a flow is not as expected.
    """
    from testbed.cli.display import Display
    from testbed.cli.prove import ask
    from testbed.report.page import Report, page

    with running_session(name) as session, Display() as display:
        verdicts = ask(session, (), display)
        section = session.report_section(verdicts)
        text = page(Report((section,), time.time(), tuple(session.versions())))
    output.write_text(text)
    passed = sum(verdict.passed for verdict in verdicts)
    typer.echo(f"{output}: {passed} of {len(verdicts)} flows as expected")
    if passed < len(verdicts):
        raise typer.Exit(1)
