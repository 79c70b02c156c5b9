"""The command `matrix`; the lab it changes is pretended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_fakes import MISSING, PLAN, Machine
from test_cli_commands import LAB, call, machine

import testbed.session
from testbed.errors import NotReadyError

__all__ = ["machine"]

MATRIX = """\
matrix:
  flows: [ping]
  axes:
    size: {small: {}, large: {}}
    reply: {comes: {}, stays: {}}
  expect:
    - {when: {reply: comes}, flows: {ping: {expect: ok}}}
    - {flows: {ping: {expect: timeout}}}
"""


@pytest.fixture
def lab(tmp_path: Path) -> str:
    (tmp_path / "lab.yaml").write_text(LAB + MATRIX)
    return str(tmp_path)


def test_a_table_and_what_is_wrong(machine: Machine, lab: str) -> None:
    result = call("matrix", lab, "--timeout", "7")
    assert result.exit_code == 1
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "size comes stays",
        "small an answer ✗ an answer",
        "large an answer ✗ an answer",
        "",
        "what address the server saw; – = no answer, or a connection that was reset",
        "✗ small-stays: ping: expected timeout, but found ok",
        "✗ large-stays: ping: expected timeout, but found ok",
        "fake-matrix: 2 of 4 cells as expected",
    ]
    assert machine.done == [*[("switch", "fake-matrix", 7.0)] * 4, ("down", "fake-matrix")]


def test_some_cells_in_markdown(machine: Machine, lab: str) -> None:
    result = call(
        "matrix", lab, "--axis", "reply=comes", "--axis", "size=large", "--markdown", "--name", "mine", "--keep"
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "| comes |",
        "| --- |",
        "| an answer |",
        "",
        "size: large",
        "what address the server saw; – = no answer, or a connection that was reset",
        "mine: 1 of 1 cells as expected",
    ]
    assert machine.done == [("switch", "mine", 60.0)]


# What a runtime and a VRF driver decide: whether r2 starts its image's FRR, and what r1's VRF is made of.
OWN_IMAGE = "r1: {kind: router}\n  r2: {kind: router, image: frrouting/frr, bgp: {asn: 65002}}\n"
VRFS = "links:\n  - {endpoints: [r1, r2]}\n  - {endpoints: [r1, {node: h1}], vrf: red}\n"


@pytest.mark.parametrize("runtime", ["", "netns", "docker"])
@pytest.mark.parametrize("driver", ["netns", "device"])
def test_a_cell_is_compiled_as_up_compiles_on_that_runtime_and_driver(
    machine: Machine, tmp_path: Path, runtime: str, driver: str
) -> None:
    text = LAB.replace("r1: {kind: router}\n", OWN_IMAGE).replace("links:\n  - {endpoints: [r1, h1]}\n", VRFS)
    (tmp_path / "lab.yaml").write_text(text.replace("nodes:", "vrfs: [red]\nnodes:") + MATRIX)
    chosen = ("--runtime", runtime, "--vrf-driver", driver)
    result = call("matrix", str(tmp_path), "--axis", "reply=comes", *chosen, "--keep")
    assert result.exit_code == 0
    found = machine.labs["fake-matrix"]
    assert found == testbed.session.compiled(str(tmp_path), "fake-matrix", runtime=runtime, vrf_driver=driver)
    assert found.node("r2").image == ("frrouting/frr" if runtime == "docker" else "")
    assert found.node("r1").vrf_devices == (("red",) if driver == "device" else ())


def test_json(machine: Machine, lab: str) -> None:
    result = call("matrix", lab, "--axis", "reply=comes", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [cell["values"]["size"] for cell in data["cells"]] == ["small", "large"]
    assert data["cells"][0]["flows"][0]["found"] == "ok"


def test_nothing_that_can_be_run(machine: Machine, lab: str) -> None:
    machine.up_error = MISSING
    result = call("matrix", lab)
    assert result.exit_code == 3
    assert "not run: 4 cells: nope is not installed" in result.stdout
    assert machine.done[-1] == ("down", "fake-matrix")


def test_a_cell_that_does_not_get_ready_ends_it(machine: Machine, lab: str) -> None:
    machine.up_error = NotReadyError(3, ["r1: route"])
    result = call("matrix", lab)
    assert result.exit_code == 4
    assert machine.done[-1] == ("down", "fake-matrix")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--axis", "size"), "--axis 'size': write AXIS=VALUE, or AXIS=VALUE,VALUE"),
        (("--axis", "size=small,"), "--axis 'size=small,': write AXIS=VALUE, or AXIS=VALUE,VALUE"),
        (("--axis", "siez=small"), "the matrix has no axis 'siez' (did you mean size?)"),
        (("--axis", "size=smal"), "axis size has no value 'smal' (did you mean small?)"),
        (("--name", "no_name"), "the name of a lab: "),
        (("--runtime", "podman"), "no runtime 'podman'"),
        (("--vrf-driver", "devcie"), "no VRF driver 'devcie' (did you mean device?)"),
    ],
)
def test_wrong_arguments(machine: Machine, lab: str, arguments: tuple[str, ...], message: str) -> None:
    result = call("matrix", lab, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert machine.done == []


def test_a_running_lab_is_left_alone(machine: Machine, lab: str) -> None:
    machine.labs["fake-matrix"] = PLAN
    result = call("matrix", lab)
    assert result.exit_code == 2
    assert "lab fake-matrix is running" in result.stderr
    assert machine.done == []


def test_a_cell_that_is_wrong_changes_nothing(machine: Machine, lab: str) -> None:
    path = Path(lab, "lab.yaml")
    path.write_text(path.read_text().replace("large: {}", "large: {lab: {links: [{endpoints: [r1, h2]}]}}"))
    result = call("matrix", lab)
    assert result.exit_code == 2
    assert "in the cell large-comes: no node 'h2'" in result.stderr
    assert machine.done == []
