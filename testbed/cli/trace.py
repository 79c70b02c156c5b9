"""The command `trace`: asks one flow of a running lab and shows where its packets went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import complete
from testbed.cli.options import JsonOption, running_session
from testbed.cli.terminal import show_json, show_lines
from testbed.errors import InputError, Problem

if TYPE_CHECKING:
    from testbed.probe.result import Verdict
    from testbed.session import Session
    from testbed.trace.tracer import Trace


def trace(
    flow: Annotated[
        str, typer.Argument(metavar="[FLOW]", help="A flow of the lab.", autocompletion=complete.flows)
    ] = "",
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="The lab, not needed when only one runs.", autocompletion=complete.running_labs
        ),
    ] = "",
    source: Annotated[str, typer.Option("--from", help="Instead of a flow: a node, or a pod.")] = "",
    to: Annotated[str, typer.Option("--to", help="An address, a node, node/VRF, or service/NAME.")] = "",
    protocol: Annotated[str, typer.Option(help="tcp, udp, icmp or http.")] = "tcp",
    port: Annotated[int, typer.Option(help="Default: the Service's only one; 80 for http.", min=0, max=65535)] = 0,
    pcapng: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the packets, for Wireshark.")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a sequence diagram.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the way on the topology (SVG).")] = None,
    json: JsonOption = False,
) -> None:
    """Ask one flow of a running lab, and show every hop of its packets.

    For each: interfaces, addresses, what rewrote them and by which rule, and the route that decided, asked of the
    kernel. When the flow fails, or the answer is an error, the last lines say why. Ends with 1 when the flow is not as
    expected.
    """
    if bool(source) != bool(to) or not (flow or source) or (source and name):
        raise InputError([Problem("say which: a FLOW, or --from and --to")])
    lab = flow if source else name
    with running_session(lab) as session:
        question = session.question(source, to, protocol, port) if source else session.chosen([flow])[0]
        found = session.trace(question)
        _write(session, found, pcapng, svg, picture)
        lab = session.name
    if json:
        from testbed.report.walk_data import trace_data

        show_json(trace_data(lab, found))
    else:
        from testbed.report.walks import walk_lines

        show_lines(walk_lines(found))
    if not found.answer.passed:
        raise typer.Exit(1)


def _write(
    session: Session, found: Trace[Verdict], pcapng: Path | None, svg: Path | None, picture: Path | None
) -> None:
    if pcapng:
        from testbed.report.pcapng import notes
        from testbed.report.pcapng import pcapng as encoded

        title = f"{session.name}: {found.flow.name}"
        pcapng.write_bytes(encoded(found.recording.frames, notes(found.recording.frames, found.walk.question), title))
    if svg:
        from testbed.report.picture import drawing
        from testbed.report.sequence import sequence

        svg.write_text(drawing(sequence(found)))
    if picture:
        from testbed.report.picture import svg as drawn
        from testbed.report.topology import topology
        from testbed.report.walks import nodes_passed

        picture.write_text(drawn(topology(session.plan), nodes_passed(session.plan, found.walk)))
