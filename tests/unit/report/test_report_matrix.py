"""A matrix as a truth table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType

from testbed.plan import Flow, Interface, Node, Plan, Tunnel
from testbed.probe.result import Answer, Verdict
from testbed.report.matrix import (
    CellResult,
    legend,
    markdown,
    matrix_data,
    not_run,
    places,
    summary,
    truth_table,
    wrong,
)

PLAN = Plan(
    "test",
    nodes=(
        Node(
            "n1",
            "kubernetes",
            interfaces=(
                Interface("lo", "loopback", addresses=("10.255.0.1/32",)),
                Interface("eth0", addresses=("10.1.0.2/24", "fd00::2/64")),
                Interface("eth1", addresses=("10.2.0.2/24",)),
                Interface("cali0"),
                Interface("tun0", "vxlan", addresses=("10.1.0.2/32",), tunnel=Tunnel(200, "10.1.0.2", 14789)),
            ),
        ),
        Node("client", "host", interfaces=(Interface("eth0", addresses=("10.10.10.10/24",)),)),
    ),
)
PLACES = places(PLAN)


def verdict(name: str, outcome: str, seen_as: str = "", reasons: tuple[str, ...] = ()) -> Verdict:
    flow = Flow(name, "client", "3.3.3.3", "tcp")
    return Verdict(flow, Answer(outcome, "", seen_as=seen_as), not reasons, reasons)  # type: ignore[arg-type]


def cell(mode: str, backend: str, path: str, *verdicts: Verdict, reason: str = "") -> CellResult:
    return CellResult({"mode": mode, "backend": backend, "path": path}, PLACES, verdicts, reason)


RESULTS = [
    cell("iptables", "pod", "none", verdict("tcp", "timeout"), verdict("udp", "timeout")),
    cell("iptables", "pod", "mark", verdict("tcp", "ok", "10.2.0.2"), verdict("udp", "ok", "10.2.0.2")),
    cell("iptables", "host", "none", verdict("tcp", "refused"), verdict("udp", "ok", "10.9.9.9", ("it is not",))),
    cell("iptables", "host", "mark", verdict("tcp", "ok", "10.10.10.10"), verdict("udp", "reset")),
    cell("ipvs", "pod", "none", reason="no IPVS"),
    cell("ipvs", "pod", "mark", reason="no IPVS"),
]


def text(parts: Iterable[RenderableType]) -> str:
    console = Console(width=100, force_terminal=False, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def test_a_tunnel_has_no_address_of_its_own() -> None:
    assert PLACES["10.1.0.2"] == "n1 eth0"


def test_places() -> None:
    assert PLACES == {"10.1.0.2": "n1 eth0", "fd00::2": "n1 eth0", "10.2.0.2": "n1 eth1", "10.10.10.10": "client"}


def test_table() -> None:
    assert text([truth_table(RESULTS)]) == (
        "mode      backend  none                  mark\n"
        "iptables  pod      –                     n1 eth1\n"
        "iptables  host     ✗ refused / 10.9.9.9  client / –\n"
        "ipvs      pod      not run               not run"
    )


def test_markdown() -> None:
    assert markdown(RESULTS) == [
        "| mode | backend | none | mark |",
        "| --- | --- | --- | --- |",
        "| iptables | pod | – | n1 eth1 |",
        "| iptables | host | **refused / 10.9.9.9** ✗ | client / – |",
        "| ipvs | pod | not run | not run |",
    ]


def test_an_axis_with_one_value_is_told_once() -> None:
    assert markdown(RESULTS[:2]) == ["| none | mark |", "| --- | --- |", "| – | n1 eth1 |"]
    assert legend(RESULTS[:2]) == [
        "mode: iptables, backend: pod",
        "tcp / udp, once where they are the same: what address the server saw; "
        "– = no answer, or a connection that was reset",
    ]


def test_what_is_wrong_and_what_was_not_run() -> None:
    assert wrong(RESULTS) == ["✗ iptables-host-none: udp: it is not"]
    assert not_run(RESULTS) == ["not run: 2 cells: no IPVS"]
    assert summary(RESULTS) == "3 of 4 cells as expected, 2 not run"


def test_data() -> None:
    data = matrix_data("test", RESULTS)
    assert (data["lab"], data["passed"]) == ("test", False)
    assert [entry["passed"] for entry in data["cells"]] == [True, True, False, True, None, None]
    assert data["cells"][4] == {
        "values": {"mode": "ipvs", "backend": "pod", "path": "none"},
        "passed": None,
        "notRun": "no IPVS",
        "text": "not run",
        "flows": [],
    }
