"""What commands print with --json: plain dictionaries, whose keys are part of the command line's contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from testbed.deploy.control import SessionState
from testbed.deploy.status import NodeStatus, Outline, Status
from testbed.plan import BgpSession, Flow, Plan
from testbed.plan.diff import describe
from testbed.probe.result import LastVerdict, Verdict
from testbed.report.labs import Risen
from testbed.runtime.doctor import Finding

Data = dict[str, Any]


def verdict_data(verdict: Verdict) -> Data:
    """A verdict; `latency` is in seconds, `path` lists (node, VRF) pairs."""
    flow, answer = verdict.flow, verdict.answer
    return {
        "flow": flow.name,
        "passed": verdict.passed,
        "reasons": list(verdict.reasons),
        "from": flow.source,
        "to": flow.target or flow.address,
        "address": flow.address,
        "port": flow.port,
        "protocol": flow.protocol,
        "expected": flow.expect,
        "found": answer.outcome,
        "detail": answer.detail,
        "seenAs": answer.seen_as,
        "answeredBy": answer.answered_by,
        "answeredOn": answer.answered_on,
        "status": answer.status,
        "latency": round(answer.latency, 6),
        "path": [list(place) for place in verdict.path],
    }


def verdicts_data(lab: str, verdicts: Sequence[Verdict]) -> Data:
    return {
        "lab": lab,
        "passed": sum(verdict.passed for verdict in verdicts),
        "failed": sum(not verdict.passed for verdict in verdicts),
        "flows": [verdict_data(verdict) for verdict in verdicts],
    }


def risen_data(risen: Risen) -> Data:
    """What an `up` came to; `changes` is null for a lab that was not running before, `steps` are seconds."""
    return {
        **verdicts_data(risen.plan.name, risen.verdicts),
        **_counts(risen.plan),
        "seconds": round(risen.seconds, 3),
        "steps": dict(risen.steps),
        "changes": None if risen.change is None else describe(risen.change.planned),
        "restored": [] if risen.change is None else list(risen.change.restored),
        "notes": list(risen.plan.notes),
        "told": list(risen.told),
    }


def _counts(plan: Plan) -> Data:
    pods = sum(bool(node.parent) for node in plan.nodes)
    return {
        "nodes": len(plan.nodes) - pods,
        "pods": pods,
        "bgpSessions": len(plan.sessions),
        "routes": len(plan.routes),
    }


def labs_data(labs: Sequence[Outline]) -> Data:
    """Running labs; `since` is in seconds since the epoch, 0 where it is unknown."""
    return {"labs": [dataclasses.asdict(lab) for lab in labs]}


def status_data(status: Status, flows: Sequence[Flow], verdicts: Sequence[LastVerdict]) -> Data:
    """A lab's status; times are seconds since the epoch, `asked` is null for a flow that never was."""
    known = {verdict.flow: verdict for verdict in verdicts}
    return {
        "lab": status.name,
        "asPlanned": not status.problems,
        "problems": list(status.problems),
        "nodes": [_node(node) for node in status.nodes],
        "bgpSessions": [_session(*entry) for entry in status.sessions],
        "services": [_camel(dataclasses.asdict(entry)) for entry in status.services],
        "flows": [_flow(flow, known.get(flow.name)) for flow in flows],
    }


def _node(node: NodeStatus) -> Data:
    return {
        "name": node.name,
        "kind": node.kind,
        "parent": node.parent or None,
        "running": node.running,
        "faults": list(node.faults),
        "interfaces": [dataclasses.asdict(entry) for entry in node.interfaces],
        "processes": [
            {
                "name": entry.name,
                "running": entry.running,
                "pid": entry.state.pid if entry.state else None,
                "status": entry.state.status if entry.state else None,
                "started": entry.state.started if entry.state else None,
                "ended": entry.state.ended if entry.state else None,
            }
            for entry in node.processes
        ],
    }


def _session(session: BgpSession, state: SessionState) -> Data:
    return {
        "node": session.node,
        "vrf": session.vrf,
        "peer": session.peer_name,
        "address": session.peer,
        "daemon": session.daemon,
        "state": state.state,
        "established": state.established,
        "prefixes": state.prefixes,
        "uptime": state.uptime,
        "lastError": "" if state.established else state.detail,
    }


def _flow(flow: Flow, verdict: LastVerdict | None) -> Data:
    return {
        "name": flow.name,
        "asked": verdict.when if verdict else None,
        "passed": verdict.passed if verdict else None,
        "found": verdict.outcome if verdict else None,
        "reasons": list(verdict.reasons) if verdict else [],
    }


def _camel(data: Data) -> Data:
    words = {key: key.split("_") for key in data}
    return {head + "".join(part.title() for part in tail): data[key] for key, (head, *tail) in words.items()}


def doctor_data(findings: Sequence[Finding]) -> Data:
    return {
        "ok": not any(finding.fatal for finding in findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
