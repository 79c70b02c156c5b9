"""The flows of a lab file as test items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.deploy import evidence
from testbed.errors import TestbedError
from testbed.load import lab as labs
from testbed.model.lab import Flow
from testbed.probe.result import Verdict
from testbed.pytest_plugin.labs import Labs, LiveLab, compiled, shown
from testbed.report.words import duration


class LabFile(pytest.File):
    """A lab file; its tests are the flows it declares."""

    registry: Labs

    @classmethod
    def of(cls, parent: pytest.Collector, path: Path, registry: Labs) -> LabFile:
        file: LabFile = cls.from_parent(parent, path=path)
        file.registry = registry
        return file

    def collect(self) -> Iterator[pytest.Item]:
        """One item per flow. The lab is compiled here, so that what is wrong with it is an error of collection."""
        try:
            source = labs.load(shown(self.path))
            compiled(source)
        except TestbedError as error:
            raise self.CollectError(str(error)) from None
        for flow in source.lab.flows:
            yield FlowItem.of(self, flow)


class FlowItem(pytest.Item):
    """A flow: it passes when the live network answers as the lab file says."""

    flow: Flow
    file: LabFile
    lab: LiveLab

    @classmethod
    def of(cls, parent: LabFile, flow: Flow) -> FlowItem:
        item: FlowItem = cls.from_parent(parent, name=flow.name)
        item.flow, item.file = flow, parent
        item.extra_keyword_matches.add(flow.protocol)
        return item

    def reportinfo(self) -> tuple[Path, int | None, str]:
        position = self.flow.origin.at("name")
        return self.path, position.line - 1 if position else None, self.name

    def setup(self) -> None:
        self.lab = self.file.registry.up(self.path)

    def runtest(self) -> None:
        verdict = self.lab.test(self.name)[0]
        self.file.registry.record(self.lab, verdict)
        self.user_properties += [(name, value) for name, value in _facts(verdict).items() if value]
        if not verdict.passed:
            found = evidence.gather(self.lab.plan, self.lab.session.runtime, verdict.flow)
            raise FlowFailedError(verdict, [*self.lab.session.explained(verdict.flow), "", *found])

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The text of a failure: sentences for what the network or the user did, a traceback for the rest."""
        if isinstance(excinfo.value, FlowFailedError | TestbedError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))


class FlowFailedError(Exception):
    """A flow that was answered in another way than it must be."""

    def __init__(self, verdict: Verdict, found: list[str]) -> None:
        flow, answer = verdict.flow, verdict.answer
        port = f" port {flow.port}" if flow.port else ""
        lines = [f"{flow.name}: {flow.source} → {flow.target or flow.address} ({flow.address}{port}, {flow.protocol})"]
        lines += [f"  {reason}" for reason in verdict.reasons]
        if not any(answer.detail in reason for reason in verdict.reasons):
            lines.append(f"  the answer: {answer.detail}")
        lines += [f"  {line}" for line in answer.evidence]
        super().__init__("\n".join([*lines, "", *found]))


def _facts(verdict: Verdict) -> dict[str, str]:
    """What a JUnit report says of a flow, as properties of its test case."""
    flow, answer = verdict.flow, verdict.answer
    return {
        "from": flow.source,
        "to": flow.target,
        "address": flow.address,
        "port": str(flow.port or ""),
        "protocol": flow.protocol,
        "expected": flow.expect,
        "found": answer.outcome,
        "detail": answer.detail,
        "seenAs": answer.seen_as,
        "answeredBy": answer.answered_by,
        "forwardedFor": answer.forwarded_for,
        "status": str(answer.status or ""),
        "passed": ", ".join(node + (f" (VRF {vrf})" if vrf else "") for node, vrf in verdict.path),
        "latency": duration(answer.latency),
    }
