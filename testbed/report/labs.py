"""Lines about whole labs: the list of those that run, and what an `up` came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.deploy.status import Outline
from testbed.plan import Plan
from testbed.plan.diff import PlanDiff
from testbed.probe.result import Verdict
from testbed.report.words import age, columns, count, duration


def lab_lines(labs: Sequence[Outline], shipped: Sequence[str], now: float) -> list[str]:
    """The running labs as a table; where none runs, what could.

    Args:
        shipped: labs that come with the project. now: seconds since the epoch.
    """
    if not labs:
        return [f"no lab is running; `testbed up` starts one of {', '.join(shipped)}, or yours"]
    rows = [("lab", "runtime", "state", "nodes", "pods", "started")]
    for lab in labs:
        started = age(now - lab.since) if lab.since else ""
        state = "running" if lab.whole else "half there"
        rows.append((lab.name, lab.runtime, state, str(lab.nodes), str(lab.pods), started))
    return columns(rows)


@dataclass(frozen=True)
class Change:
    """What an `up` did to a lab that was running: the Plans' difference, and what should have run and did not."""

    planned: PlanDiff
    restored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Risen:
    """What an `up` came to.

    Args:
        change: None for a lab that was not running before.
        seconds: from the reading of the files to the last verdict. steps: name → seconds, of its parts.
        told: what went another way than its author may expect.
    """

    plan: Plan
    change: Change | None
    verdicts: tuple[Verdict, ...]
    seconds: float
    steps: Mapping[str, float]
    told: tuple[str, ...] = ()


def change_lines(change: Change, most: int = 12) -> list[str]:
    """A change in a few lines: a line per node and per thing that was restored, links counted."""
    planned = change.planned
    lines = [f"+ {node.kind} {node.name}" for node in planned.added]
    lines += [f"- {node.kind} {node.name}" for node in planned.removed]
    for entry in planned.changed:
        how = "made anew" if entry.recreated else ", ".join(entry.fields)
        lines.append(f"~ {entry.new.kind} {entry.new.name}: {how}")
    for sign, links in (("+", planned.links_added), ("-", planned.links_removed)):
        lines += [f"{sign} {count(len(links), 'link')}"] if links else []
    lines += [f"! {name} did not run, and was started again" for name in change.restored]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"… and {len(lines) - most + 1} more"]
    return lines or ["nothing had changed"]


def told_lines(risen: Risen) -> list[str]:
    """What the author should know: notes of a Plan that was not there before, and what was told while it was made."""
    notes = risen.plan.notes if risen.change is None else ()
    return [*(f"note: {text}" for text in notes), *(f"! {text}" for text in risen.told)]


def up_summary(risen: Risen) -> str:
    """ "edge is up: 13 nodes, 9 pods, 44 BGP sessions, 214 routes, 18 of 18 flows as expected, 4.1 s"."""
    plan = risen.plan
    pods = sum(bool(node.parent) for node in plan.nodes)
    parts = [count(len(plan.nodes) - pods, "node")]
    for number, noun in ((pods, "pod"), (len(plan.sessions), "BGP session"), (len(plan.routes), "route")):
        parts += [count(number, noun)] if number else []
    parts += [passed(risen.verdicts)] if risen.verdicts else []
    parts += [] if plan.flows else ["no flows to ask"]
    return f"{plan.name} is up: {', '.join(parts)}, {duration(risen.seconds)}"


def passed(verdicts: Sequence[Verdict]) -> str:
    """ "18 of 18 flows as expected"."""
    good = sum(verdict.passed for verdict in verdicts)
    return f"{good} of {len(verdicts)} flows as expected"
