"""What the reports look like, at a fixed width: golden files. TESTBED_RENEW=1 writes them anew; read the difference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from report_samples import BAD_VERDICT, FAULTY, GOOD_VERDICT, LAST, LEAF, NOW, PLAN, WELL
from rich.console import Console, RenderableType

from testbed.report.doctor import doctor_report
from testbed.report.flows import failures, verdict_table
from testbed.report.plan import node_lines, plan_lines
from testbed.report.status import status_report
from testbed.runtime.doctor import Finding

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "report"
FINDINGS = [
    Finding("veth", "kernel", True, True, "every link"),
    Finding("overlayfs", "kernel", False, True, "every node", "no such device", "needs CONFIG_OVERLAY_FS"),
    Finding("netem", "kernel", False, False, "delay", "the kernel has no netem", "not supported yet"),
    Finding("pidfd", "kernel", None, True, "ends", "no namespace", "run testbed doctor as root"),
    Finding("/usr/sbin/nft", "program", True, True, "rulesets", "nftables v1.0.6"),
    Finding("/usr/sbin/nginx", "program", False, False, "image nginx", "not installed", "apt install nginx"),
]


def text(parts: Iterable[RenderableType], width: int = 100) -> str:
    console = Console(width=width, force_terminal=False, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


CASES: dict[str, Callable[[], str]] = {
    "plan": lambda: "\n".join(plan_lines(PLAN)) + "\n",
    "node": lambda: "\n".join(node_lines(PLAN, LEAF)) + "\n",
    "verdicts": lambda: text([verdict_table([GOOD_VERDICT, BAD_VERDICT]), "", failures([GOOD_VERDICT, BAD_VERDICT])]),
    "verdicts-narrow": lambda: text([verdict_table([GOOD_VERDICT, BAD_VERDICT], 72)], width=72),
    "status-faulty": lambda: text(status_report(FAULTY, PLAN.flows, LAST, NOW)),
    "status-well": lambda: text(status_report(WELL, (), (), NOW)),
    "doctor": lambda: text(doctor_report(FINDINGS)),
}


@pytest.mark.parametrize("name", CASES)
def test_looks_as_it_did(name: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    found = CASES[name]()
    if os.environ.get("TESTBED_RENEW"):
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("name", CASES)
def test_fits_a_hundred_columns(name: str) -> None:
    assert max(len(line) for line in CASES[name]().splitlines()) <= 100


def test_text_in_square_brackets_is_no_markup() -> None:
    node = WELL.nodes[0]
    odd = text(status_report(type(WELL)("[bold]", "", (node,), (), ()), (), (), NOW))
    assert "[bold]: all is as planned" in odd
