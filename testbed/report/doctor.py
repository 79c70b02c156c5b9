"""What `testbed doctor` found, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from testbed.report.style import GOOD, POOR, QUIET, plain_table
from testbed.runtime.doctor import Finding

HEADINGS = {
    "kernel": "kernel feature",
    "program": "program",
    "host": "this machine",
    "docker": "docker runtime",
    "vm": "testbed vm",
}


def doctor_report(findings: Sequence[Finding]) -> Iterator[RenderableType]:
    """A table for the kernel, one for the programs, and one line that says whether labs can run."""
    for kind, heading in HEADINGS.items():
        if own := [finding for finding in findings if finding.kind == kind]:
            yield finding_table(heading, own)
            yield ""
    yield conclusion(findings)


def finding_table(heading: str, findings: Sequence[Finding]) -> Table:
    table = plain_table()
    table.add_column(heading, no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("for", max_width=34)
    table.add_column("found, what to do")
    for finding in findings:
        table.add_row(Text.assemble(_mark(finding), finding.name), _state(finding), finding.purpose, _remark(finding))
    return table


def _style(finding: Finding) -> str:
    return GOOD if finding.works else POOR if finding.required else QUIET


def _mark(finding: Finding) -> tuple[str, str]:
    return ("✓ " if finding.works else "✗ " if finding.required else "- ", _style(finding))


def _state(finding: Finding) -> Text:
    words = {True: "works", False: finding.state or "missing", None: "unknown"}
    return Text(words[finding.works], style=_style(finding))


def _remark(finding: Finding) -> Text:
    if finding.works:
        return Text(finding.detail, style=QUIET)
    if not finding.required:
        return Text(finding.advice or finding.detail, style=QUIET)
    return Text("; ".join(part for part in (finding.detail, finding.advice) if part), style=POOR)


def conclusion(findings: Sequence[Finding]) -> Text:
    fatal = [finding.name for finding in findings if finding.fatal]
    if not fatal:
        return Text("this machine has all that the netns runtime needs")
    return Text(f"the netns runtime needs what is missing here: {', '.join(fatal)}", style=POOR)
