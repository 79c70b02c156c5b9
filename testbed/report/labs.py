"""Lines about whole labs: the list of those that run, and what an `up` came to."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.deploy.status import Outline
from testbed.plan import Plan
from testbed.probe.result import Verdict
from testbed.report.words import age, columns, count, duration


def lab_lines(labs: Sequence[Outline], shipped: Sequence[str], now: float) -> list[str]:
    """The running labs as a table; where none runs, what could.

    Args:
        shipped: labs that come with the project. now: seconds since the epoch.
    """
    if not labs:
        return [f"no lab is running; `testbed up` starts one of {', '.join(shipped)}, or yours"]
    rows = [("lab", "state", "nodes", "pods", "started")]
    for lab in labs:
        started = age(now - lab.since) if lab.since else ""
        rows.append((lab.name, "running" if lab.whole else "half there", str(lab.nodes), str(lab.pods), started))
    return columns(rows)


def up_summary(plan: Plan, verdicts: Sequence[Verdict], seconds: float) -> str:
    """ "edge is up: 13 nodes, 9 pods, 44 BGP sessions, 214 routes, 18 of 18 flows as expected, 4.1 s"."""
    pods = sum(bool(node.parent) for node in plan.nodes)
    parts = [count(len(plan.nodes) - pods, "node")]
    for number, noun in ((pods, "pod"), (len(plan.sessions), "BGP session"), (len(plan.routes), "route")):
        parts += [count(number, noun)] if number else []
    parts += [passed(verdicts)] if verdicts else []
    return f"{plan.name} is up: {', '.join(parts)}, {duration(seconds)}"


def passed(verdicts: Sequence[Verdict]) -> str:
    """ "18 of 18 flows as expected"."""
    good = sum(verdict.passed for verdict in verdicts)
    return f"{good} of {len(verdicts)} flows as expected"
