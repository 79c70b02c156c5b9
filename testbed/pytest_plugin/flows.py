"""The flows of a lab file as test items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.deploy import evidence
from testbed.errors import TestbedError
from testbed.load import lab as labs
from testbed.load.cells import Cell
from testbed.load.matrix import Variants
from testbed.model.lab import Flow
from testbed.probe.result import Verdict
from testbed.pytest_plugin.labs import Labs, LiveLab, shown
from testbed.report.words import duration


class LabFile(pytest.File):
    """A lab file; its tests are the flows it declares, then those of each cell of its matrix."""

    registry: Labs

    @classmethod
    def of(cls, parent: pytest.Collector, path: Path, registry: Labs) -> LabFile:
        file: LabFile = cls.from_parent(parent, path=path)
        file.registry = registry
        return file

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """One item per flow, one collector per cell.

        The lab is compiled here, so that what is wrong with it is an error of collection; the form it has in a cell is
        compiled when that one's turn comes.
        """
        try:
            source = labs.load(shown(self.path))
            self.registry.compiled(source, self.registry.name(source.lab.name))
        except TestbedError as error:
            raise self.CollectError(str(error)) from None
        for flow in source.lab.flows:
            yield FlowItem.of(self, flow)
        if source.lab.matrix is not None:
            variants = Variants(shown(self.path))
            for cell in variants.cells():
                yield CellNode.of(self, variants, cell)


class CellNode(pytest.Collector):
    """A cell of a matrix; its tests are the matrix's flows, all asked when the first of them is run."""

    variants: Variants
    cell: Cell
    file: LabFile
    verdicts: dict[str, Verdict]

    @classmethod
    def of(cls, parent: LabFile, variants: Variants, cell: Cell) -> CellNode:
        node: CellNode = cls.from_parent(parent, name=cell.name)
        node.variants, node.cell, node.file = variants, cell, parent
        node.extra_keyword_matches.update(value for _, value in cell.values)
        node.verdicts = {}
        return node

    def collect(self) -> Iterator[pytest.Item]:
        by_name = {flow.name: flow for flow in self.variants.lab.flows}
        for name in self.variants.matrix.flows:
            yield CellItem.of(self, by_name[name])

    def verdict(self, flow: str) -> tuple[LiveLab, Verdict]:
        """The lab in the form of this cell, and the verdict of one of its flows."""
        lab = self.file.registry.up(self.file.path, self.variants, self.cell)
        if not self.verdicts:
            self.verdicts = {verdict.flow.name: verdict for verdict in lab.test()}
        return lab, self.verdicts[flow]


class FlowItem(pytest.Item):
    """A flow: it passes when the live network answers as the lab file says."""

    flow: Flow
    file: LabFile
    lab: LiveLab

    @classmethod
    def of(cls, parent: LabFile | CellNode, flow: Flow) -> FlowItem:
        item: FlowItem = cls.from_parent(parent, name=flow.name)
        item.flow, item.file = flow, parent if isinstance(parent, LabFile) else parent.file
        item.extra_keyword_matches.add(flow.protocol)
        return item

    def reportinfo(self) -> tuple[Path, int | None, str]:
        position = self.flow.origin.at("name")
        return self.path, position.line - 1 if position else None, self.name

    def setup(self) -> None:
        self.lab = self.file.registry.up(self.path)

    def runtest(self) -> None:
        self.report(self.lab.test(self.name)[0])

    def report(self, verdict: Verdict) -> None:
        """Keep what reports say of it; raises FlowFailedError for a flow that is not as expected."""
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


class CellItem(FlowItem):
    """A flow in a cell of a matrix."""

    verdict: Verdict

    def setup(self) -> None:
        assert isinstance(self.parent, CellNode)
        self.lab, self.verdict = self.parent.verdict(self.name)

    def runtest(self) -> None:
        self.report(self.verdict)


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
