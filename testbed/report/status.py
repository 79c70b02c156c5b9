"""The state of a running lab for a terminal: nodes, BGP sessions, Services, flows, and last what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from testbed.deploy.control import SessionState
from testbed.deploy.status import NodeStatus, Status
from testbed.plan import BgpSession, Flow
from testbed.probe.result import LastVerdict
from testbed.report.style import GOOD, POOR, QUIET, plain_table
from testbed.report.words import age, count


def status_report(
    status: Status, flows: Sequence[Flow], verdicts: Sequence[LastVerdict], now: float
) -> Iterator[RenderableType]:
    """Everything, part by part; what there is none of has no part.

    Args:
        flows: of the Plan. verdicts: the last of each that was asked. now: seconds since the epoch.
    """
    parts = [node_table(status.nodes)]
    if status.sessions:
        parts.append(session_table(status.sessions))
    if status.services:
        parts.append(service_table(status))
    if flows:
        parts.append(flow_table(flows, verdicts, now))
    for part in parts:
        yield part
        yield ""
    names = {flow.name for flow in flows}
    yield summary(status, [verdict for verdict in verdicts if verdict.flow in names])


def node_table(nodes: Sequence[NodeStatus]) -> Table:
    """Nodes, each followed by its pods."""
    table = plain_table()
    table.add_column("node", no_wrap=True, max_width=44, overflow="ellipsis")
    table.add_column("kind", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("links up", justify="right", no_wrap=True)
    table.add_column("processes")
    by_parent: dict[str, list[NodeStatus]] = {}
    for node in nodes:
        by_parent.setdefault(node.parent, []).append(node)
    for node in by_parent.get("", []):
        for entry in (node, *by_parent.get(node.name, [])):
            table.add_row(*_node_row(entry))
    return table


def _node_row(node: NodeStatus) -> tuple[Text | str, ...]:
    name = f"  {node.name}" if node.parent else node.name
    if not node.running:
        return name, node.kind, Text("gone", style=POOR), "", ""
    up = sum(entry.state == "up" for entry in node.interfaces)
    links = str(up) if up == len(node.interfaces) else f"{up} of {len(node.interfaces)}"
    processes = Text(" ").join(
        Text(entry.name if entry.running else f"{entry.name}✗", style="" if entry.running else POOR)
        for entry in node.processes
    )
    return (
        name,
        node.kind,
        Text("faulty" if node.faults else "running", style=POOR if node.faults else GOOD),
        Text(links, style="" if up == len(node.interfaces) else POOR),
        processes,
    )


def session_table(sessions: Sequence[tuple[BgpSession, SessionState]]) -> Table:
    """BGP sessions, those that are not established first, with the last error."""
    table = plain_table()
    for heading in ("node", "VRF", "BGP peer", "address"):
        table.add_column(heading, no_wrap=True)
    table.add_column("state")
    table.add_column("prefixes", justify="right", no_wrap=True)
    table.add_column("up", justify="right", no_wrap=True)
    order = {session.node: index for index, (session, _) in reversed(list(enumerate(sessions)))}

    def key(entry: tuple[BgpSession, SessionState]) -> tuple[bool, int, str]:
        return entry[1].established, order[entry[0].node], entry[0].vrf or ""

    for session, state in sorted(sessions, key=key):
        table.add_row(session.node, session.vrf or "", session.peer_name, session.peer, *_session_cells(state))
    return table


def _session_cells(state: SessionState) -> tuple[Text | str, ...]:
    if state.established:
        return Text(state.state, style=GOOD), str(state.prefixes), state.uptime
    detail = f", last error: {state.detail}" if state.detail else ""
    return Text.assemble((state.state, POOR), detail), "", ""


def service_table(status: Status) -> Table:
    """The cluster's Services with where they are reached, what is behind them and who announces them."""
    table = plain_table()
    table.add_column("Service")
    table.add_column("type", no_wrap=True)
    table.add_column("addresses", no_wrap=True)
    table.add_column("ports")
    table.add_column("endpoints")
    table.add_column("announced by")
    for entry in status.services:
        name = entry.name if entry.namespace == "default" else f"{entry.namespace}/{entry.name}"
        table.add_row(
            name,
            entry.type,
            "\n".join((*entry.cluster_ips, *entry.addresses)),
            " ".join(entry.ports),
            "\n".join(entry.endpoints),
            " ".join(entry.announced_by),
        )
    return table


def flow_table(flows: Sequence[Flow], verdicts: Sequence[LastVerdict], now: float) -> Table:
    """How each flow ended when it was last asked, and when that was."""
    table = plain_table()
    table.add_column("flow", no_wrap=True)
    table.add_column("last found", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    table.add_column("not as expected")
    known = {verdict.flow: verdict for verdict in verdicts}
    for flow in flows:
        verdict = known.get(flow.name)
        if verdict is None:
            table.add_row(f"  {flow.name}", Text("not asked yet", style=QUIET), "", "")
            continue
        style = GOOD if verdict.passed else POOR
        table.add_row(
            Text.assemble(("✓ " if verdict.passed else "✗ ", style), flow.name),
            verdict.outcome,
            age(now - verdict.when),
            "\n".join(verdict.reasons),
        )
    return table


def summary(status: Status, verdicts: Sequence[LastVerdict]) -> Text:
    """What is wrong with nodes, one line each, how many sessions are missing, then one line for the whole lab."""
    text = Text()
    for node in status.nodes:
        for fault in node.faults:
            text.append(f"{node.name}: {fault}\n", style=POOR)
    if missing := sum(not state.established for _, state in status.sessions):
        text.append(f"{missing} of {count(len(status.sessions), 'BGP session')} not established\n", style=POOR)
    kinds = Counter("pod" if node.parent else "node" for node in status.nodes)
    counts = [count(kinds["node"], "node")]
    counts += [count(kinds["pod"], "pod")] if kinds["pod"] else []
    counts += [count(len(status.sessions), "BGP session")] if status.sessions else []
    if verdicts:
        counts.append(f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} flows were as expected")
    wrong = len(status.problems)
    verb = "is" if wrong == 1 else "are"
    how = f"{count(wrong, 'thing')} {verb} not as planned" if wrong else "all is as planned"
    text.append(f"{status.name}: {how}", style=POOR if wrong else "")
    text.append(f"; {', '.join(counts)}")
    return text
