"""The report of a run as one HTML file: topology, flows with their verdicts and walks, BGP sessions, versions.

The file needs no network and no script: pictures are SVG, details open by the browser's own <details>.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from testbed.deploy.control import SessionState
from testbed.deploy.status import Status
from testbed.plan import BgpSession, Plan
from testbed.probe.result import Verdict
from testbed.render import configs, pages
from testbed.report.flows import source, target
from testbed.report.picture import style_sheet, svg
from testbed.report.topology import Topology, topology
from testbed.report.words import count, duration


@dataclass(frozen=True, slots=True)
class FlowSection:
    """One flow of a report.

    Args:
        walk: the steps of its packets, as aligned lines. path: the nodes its packets passed, in order.
        sequence: a sequence diagram as SVG. evidence: what the lab says about a flow that failed.
    """

    verdict: Verdict
    walk: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    sequence: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabSection:
    """One lab of a report; `problems` are what of it is not as planned."""

    plan: Plan
    runtime: str
    flows: tuple[FlowSection, ...] = ()
    sessions: tuple[tuple[BgpSession, SessionState], ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says.

    Args:
        when: seconds since the epoch.
        versions: (name, version) of what took part.
        not_run: (how many tests, why) for what was not run.
    """

    labs: tuple[LabSection, ...]
    when: float
    versions: tuple[tuple[str, str], ...] = ()
    not_run: tuple[tuple[int, str], ...] = ()


def lab_section(status: Status, plan: Plan, runtime: str, flows: Sequence[FlowSection]) -> LabSection:
    """A lab as it is now, and what its flows came to."""
    return LabSection(plan, runtime, tuple(flows), status.sessions, status.problems)


def page(report: Report) -> str:
    """The report as HTML. Raises UnsupportedError when Graphviz, which lays the pictures out, is not installed."""
    flows = [flow for lab in report.labs for flow in lab.flows]
    failed = sum(not flow.verdict.passed for flow in flows)
    return (
        pages()
        .get_template("report/report.html.j2")
        .render(
            title=", ".join(lab.plan.name for lab in report.labs) or "no lab",
            when=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.when)),
            passed=len(flows) - failed,
            failed=failed,
            labs=[_lab(lab) for lab in report.labs],
            versions=report.versions,
            not_run=report.not_run,
            styles=Markup((configs() / "report" / "report.css").read_text() + style_sheet()),  # noqa: S704 - our own
        )
    )


def _lab(lab: LabSection) -> dict[str, object]:
    plan, graph = lab.plan, topology(lab.plan)
    pods = sum(bool(node.parent) for node in plan.nodes)
    facts = [lab.runtime, count(len(plan.nodes) - pods, "node"), count(pods, "pod")]
    return {
        "name": plan.name,
        "description": plan.description,
        "facts": ", ".join([*facts, count(len(plan.sessions), "BGP session"), count(len(plan.routes), "route")]),
        "picture": _drawn(svg(graph, alone=False)),
        "problems": lab.problems,
        "flows": [_flow(plan.name, graph, flow) for flow in lab.flows],
        "sessions": [_session(*entry) for entry in lab.sessions],
    }


def _drawn(text: str) -> Markup:
    """SVG that Graphviz or our own code made; both escape the names in it."""
    return Markup(text)  # noqa: S704


def _flow(lab: str, graph: Topology, section: FlowSection) -> dict[str, object]:
    verdict = section.verdict
    flow, answer = verdict.flow, verdict.answer
    port = f" port {flow.port}" if flow.port else ""
    return {
        "id": f"{lab}-{flow.name}",
        "name": flow.name,
        "source": source(flow),
        "target": target(flow),
        "protocol": flow.protocol,
        "expected": flow.expect,
        "found": answer.outcome,
        "saw": answer.seen_as,
        "time": duration(answer.latency),
        "passed": verdict.passed,
        "reasons": verdict.reasons,
        "question": f"{flow.source} → {flow.target or flow.address} ({flow.address}{port}, {flow.protocol})",
        "detail": answer.detail,
        "evidence": (*answer.evidence, *section.evidence),
        "walk": section.walk,
        "pictures": _pictures(graph, section),
    }


def _pictures(graph: Topology, section: FlowSection) -> list[tuple[str, Markup]]:
    """(what it is, the picture) of a flow's way on the topology, and of its walk as a sequence."""
    name = section.verdict.flow.name
    found = []
    if len(section.path) > 1:
        found.append((f"way of {name} on the topology", _drawn(svg(graph, section.path, alone=False))))
    if section.sequence:
        found.append((f"sequence of {name}", _drawn(section.sequence)))
    return found


def _session(session: BgpSession, state: SessionState) -> dict[str, object]:
    return {
        "node": session.node,
        "vrf": session.vrf or "",
        "peer": session.peer_name,
        "address": session.peer,
        "state": state.state,
        "established": state.established,
        "prefixes": state.prefixes,
        "detail": "" if state.established else state.detail,
    }
