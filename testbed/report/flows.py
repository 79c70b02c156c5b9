"""Verdicts of flows for a terminal: a table, the reasons of what failed, one line for all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from testbed.plan import Flow
from testbed.probe.result import Verdict
from testbed.report.style import GOOD, POOR, QUIET, plain_table
from testbed.report.words import duration

# The two hashes that a Deployment's pods have after its name (SafeEncodeString in k8s.io/apimachinery/pkg/util/rand).
_HASHES = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$")

WIDE = 100
"""Columns that the whole table of verdicts needs."""


def verdict_table(verdicts: Sequence[Verdict], width: int = WIDE) -> Table:
    """One row per flow, in the given order; below WIDE columns without what `failures` tells anyway."""
    wide = width >= WIDE
    table = plain_table()
    table.add_column("flow", no_wrap=True)
    table.add_column("from", overflow="ellipsis", min_width=6)  # a narrow terminal cuts these two
    table.add_column("to", overflow="ellipsis", min_width=10)
    for heading in ("proto", *(("expected",) if wide else ()), "found", *(("server saw",) if wide else ())):
        table.add_column(heading, no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for verdict in verdicts:
        table.add_row(*_row(verdict, wide))
    return table


def _row(verdict: Verdict, wide: bool) -> tuple[Text | str, ...]:
    flow, answer = verdict.flow, verdict.answer
    style = GOOD if verdict.passed else POOR
    found = Text(answer.outcome, style=style if answer.outcome != flow.expect or verdict.passed else "")
    return (
        Text.assemble(("✓ " if verdict.passed else "✗ ", style), flow.name),
        source(flow),
        target(flow),
        flow.protocol,
        *((Text(flow.expect, style=QUIET), found, answer.seen_as) if wide else (found,)),
        duration(answer.latency),
    )


def source(flow: Flow) -> str:
    """Where a flow starts; a Deployment's pod without its hashes, by which commands know it too."""
    return _HASHES.sub("", flow.source)


def target(flow: Flow) -> str:
    """What a flow asks, in few letters."""
    place, in_vrf, vrf = (flow.target or flow.address).partition(" in VRF ")
    return place.replace("Service ", "svc/").replace("pod ", "pod/") + (f" ({vrf})" if in_vrf else "")


def failures(verdicts: Sequence[Verdict]) -> Text:
    """For each flow that failed, its reasons and what else the answer said."""
    text = Text()
    for verdict in verdicts:
        if verdict.passed:
            continue
        flow, answer = verdict.flow, verdict.answer
        port = f" port {flow.port}" if flow.port else ""
        text.append(f"✗ {flow.name}", style=POOR)
        text.append(f": {flow.source} → {flow.target or flow.address} ({flow.address}{port})\n")
        for reason in verdict.reasons:
            text.append(f"    {reason}\n")
        if not any(answer.detail in reason for reason in verdict.reasons):
            text.append(f"    {answer.detail}\n", style=QUIET)
    text.rstrip()
    return text
