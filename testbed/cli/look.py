"""`status`, `plan`, `diff`, `schema`, `doctor`: questions that change nothing."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from testbed.cli.options import (
    DEFAULT_LAB,
    JsonOption,
    LabFile,
    NameOption,
    RunningLab,
    VrfDriverOption,
    need_root,
    running_session,
)
from testbed.cli.terminal import show, show_json, show_lines


def status(name: RunningLab = "", json: JsonOption = False) -> None:
    """Show what a running lab is like now.

    Nodes and their processes, BGP sessions per VRF, Services with their addresses, the flows' last verdicts.

    Ends with 1 when something is not as planned: a node is gone, a process has ended, an interface is not up, a BGP
    session is not established.
    """
    with running_session(name) as session:
        plan = session.plan
        found = session.status()
        verdicts = session.last_verdicts()
    if json:
        from testbed.report.data import status_data

        show_json(status_data(found, plan.flows, verdicts))
    else:
        from testbed.report.status import status_report

        show(status_report(found, plan.flows, verdicts, time.time()))
    if found.problems:
        raise typer.Exit(1)


def plan(
    lab: LabFile = DEFAULT_LAB,
    name: NameOption = "",
    node: Annotated[str, typer.Option(help="Only this node or pod, with the contents of its files.")] = "",
    runtime: Annotated[str, typer.Option(help="The runtime it is for: what an image is depends on it.")] = "",
    vrf_driver: VrfDriverOption = "",
    json: JsonOption = False,
) -> None:
    """Print all that a lab makes exist.

    Nodes with their interfaces, addresses, routes, files and processes, links, and what must be so before the lab
    counts as up. Nothing is changed.
    """
    from testbed.plan.store import to_json
    from testbed.session import check, compiled, planned_node

    check(name or DEFAULT_LAB, runtime)
    found = compiled(lab, name, runtime, vrf_driver)
    one = planned_node(found, node) if node else None
    if json:
        import dataclasses

        typer.echo(to_json(dataclasses.replace(found, nodes=(one,)) if one else found, indent=2))
        return
    from testbed.report.plan import node_lines, plan_lines

    show_lines(node_lines(found, one) if one else plan_lines(found))


def diff(lab: LabFile = DEFAULT_LAB, name: NameOption = "", vrf_driver: VrfDriverOption = "") -> None:
    """Print what `testbed up` would change in a running lab.

    Ends with 1 when there is a difference, else with 0.
    """
    from testbed.report.plan import diff_lines
    from testbed.session import Session, compiled

    new = compiled(lab, name, vrf_driver)
    need_root()
    with Session(new.name) as session:
        old, change = session.stored(), session.diff(new)
    lines = diff_lines(old, new, change)
    show_lines(lines)
    if lines:
        raise typer.Exit(1)


def schema() -> None:
    """Print the JSON Schema of the lab file, for editors."""
    from testbed.model.schema import lab_schema

    show_json(lab_schema())


def doctor(json: JsonOption = False) -> None:
    """Say whether this machine has what labs need, and how to get it.

    Kernel features are tried, in namespaces of their own; programs are looked for. Ends with 1 when something is
    missing that the netns runtime needs. Nothing of this machine is changed.
    """
    from testbed.report.data import doctor_data
    from testbed.runtime import docker_doctor, host_doctor
    from testbed.runtime.doctor import examine
    from testbed.vm import doctor as vm_doctor

    findings = [*examine(), *host_doctor.examine(), *docker_doctor.examine(), *vm_doctor.examine()]
    if json:
        show_json(doctor_data(findings))
    else:
        from testbed.report.doctor import doctor_report

        show(doctor_report(findings))
    if any(finding.fatal for finding in findings):
        raise typer.Exit(1)
