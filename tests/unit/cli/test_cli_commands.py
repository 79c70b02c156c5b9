"""Arguments, errors, exit codes and JSON of the commands; the labs they ask are pretended."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import typer.testing
from cli_fakes import MISSING, PLAN, Machine
from typer.testing import CliRunner

import testbed.session
from testbed import __version__
from testbed.cli.main import app
from testbed.errors import CommandError, NotReadyError

LAB = """\
apiVersion: testbed/v1
name: fake
nodes:
  r1: {kind: router}
  h1: {kind: host}
links:
  - {endpoints: [r1, h1]}
flows:
  - {name: ping, from: h1, to: r1, protocol: icmp}
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(testbed.session, "Session", made.session)
    monkeypatch.setattr(testbed.session, "running", lambda: sorted(made.labs))
    monkeypatch.setattr(testbed.session, "known", lambda: sorted({*made.labs, *made.left_over}))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


@pytest.fixture
def lab(tmp_path: Path) -> str:
    (tmp_path / "lab.yaml").write_text(LAB)
    return str(tmp_path)


def call(*arguments: str) -> typer.testing.Result:
    return CliRunner().invoke(app, list(arguments))


# --- without a lab ----------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes() -> None:
    result = call("--help")
    assert result.exit_code == 0
    commands = "up down list status test matrix exec ssh logs plan diff schema export doctor"
    for word in commands.split():
        assert f"\n  {word} " in result.stdout
    assert "130  interrupted" in result.stdout


def test_version() -> None:
    assert call("--version").stdout == f"testbed {__version__}\n"


def test_help_does_not_import_what_is_slow() -> None:
    import subprocess

    program = "import sys, testbed.cli.main; print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    slow = ("rich", "pydantic", "yaml", "jinja2", "paramiko", "httpx", "pyroute2", "cryptography", "testbed.session")
    found = subprocess.run([sys.executable, "-c", program, *slow], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upp",), "No such command"),
        (("up", "--timeout", "0"), "--timeout"),
        (("exec", "leaf1"), "CMD"),
        (("up", "no-such-lab"), "no lab 'no-such-lab': neither a lab file, nor a folder with a lab.yaml"),
        (("up", "edgge"), "did you mean edge?"),
        (("up", "--name", "Not_Legal"), "the name of a lab: 'Not_Legal' is no legal name: lower-case letters"),
        (("up", "--name", "../etc"), "the name of a lab: '../etc' is no legal name"),
        (("up", "--runtime", "netn"), "no runtime 'netn' (did you mean netns?)"),
        (("down", "--all", "edge"), "--all takes no lab beside it"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_each_problem_of_a_lab_file_is_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(LAB.replace("kind: host", "kind: hosst").replace("protocol: icmp", "protocol: icpm"))
    result = call("plan", str(path))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.startswith(f"{path}:{row}:") for line, row in zip(lines, (5, 9), strict=True)] == [True, True]
    assert "did you mean host?" in lines[0]


def test_labs_need_root(monkeypatch: pytest.MonkeyPatch, lab: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for arguments in (("up", lab), ("down",), ("status",), ("list",), ("diff", lab), ("exec", "r1", "ls")):
        result = call(*arguments)
        assert (result.exit_code, result.stderr) == (3, "error: labs need root: run it with sudo\n")
    assert call("plan", lab).exit_code == 0


def test_plan_as_text_and_as_json(lab: str) -> None:
    assert "node r1 (router)" in call("plan", lab).stdout
    found = json.loads(call("plan", lab, "--json", "--name", "other").stdout)
    assert (found["name"], [node["name"] for node in found["nodes"]]) == ("other", ["r1", "h1"])
    one = json.loads(call("plan", lab, "--json", "--node", "h1").stdout)
    assert [node["name"] for node in one["nodes"]] == ["h1"]
    assert "--- /etc/hosts" in call("plan", lab, "--node", "h1").stdout
    result = call("plan", lab, "--node", "h9")
    assert (result.exit_code, result.stderr) == (5, "error: no node 'h9' (choose from r1, h1)\n")


def test_schema_is_json() -> None:
    schema = json.loads(call("schema").stdout)
    assert schema["title"] == "testbed lab file (testbed/v1)"
    assert call("schema").stdout == call("schema").stdout


# --- up ---------------------------------------------------------------------------------------------------------------


def test_up_proves_the_lab(machine: Machine, lab: str) -> None:
    result = call("up", lab, "--timeout", "7", "--keep")
    assert result.exit_code == 0
    assert machine.done == [("up", "fake", 7.0, True)]
    assert "✓ ping" in result.stdout
    assert "fake is up: 2 nodes, 1 of 1 flows as expected" in result.stdout.splitlines()[-1]
    assert "links 250 ms" in result.stderr
    assert "+" not in result.stdout, "nothing was there before, so nothing has changed"


def test_up_on_a_running_lab_says_what_has_changed(machine: Machine, lab: str) -> None:
    machine.labs["small"] = testbed.session.compiled(lab, "small")
    assert "nothing had changed" in call("up", lab, "--name", "small").stdout
    (Path(lab) / "lab.yaml").write_text(LAB.replace("h1: {kind: host}", "h1: {kind: host}\n  h2: {kind: host}"))
    result = call("up", lab, "--name", "small", "--no-test")
    assert "+ host h2" in result.stdout
    assert "flows" not in result.stdout


def test_up_ends_with_1_when_a_flow_is_not_as_expected(machine: Machine, lab: str) -> None:
    machine.answers["ping"] = "timeout"
    result = call("up", lab)
    assert result.exit_code == 1
    assert "✗ ping: h1 → r1" in result.stdout
    assert "    expected ok, but found timeout" in result.stdout
    assert "0 of 1 flows as expected" in result.stdout


def test_up_json(machine: Machine, lab: str) -> None:
    result = call("up", lab, "--json")
    found = json.loads(result.stdout)
    assert (found["lab"], found["passed"], found["failed"], found["changes"]) == ("fake", 1, 0, None)
    assert found["steps"]["links"] == 0.25
    assert result.stderr == ""
    assert json.loads(call("up", lab, "--json").stdout)["changes"] == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (NotReadyError(7, ["r1: BGP to r2: Active"]), 4, "still awaited:\n  r1: BGP to r2: Active"),
        (CommandError(["/sbin/nft"], 1, "syntax error", "r1"), 1, "/sbin/nft in r1 ended with status 1: syntax error"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_up_that_fails(machine: Machine, lab: str, error: BaseException, code: int, message: str) -> None:
    machine.up_error = error
    result = call("up", lab)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_what_is_no_error_of_the_users_is_not_hidden(machine: Machine, lab: str) -> None:
    machine.up_error = ZeroDivisionError("a bug")
    assert isinstance(call("up", lab).exception, ZeroDivisionError)


# --- down and list ----------------------------------------------------------------------------------------------------


def test_down_by_name_by_file_and_alone(machine: Machine, lab: str) -> None:
    for arguments in (("down", "fake"), ("down", lab), ("down",), ("down", lab, "--name", "fake"), ("down", "--all")):
        machine.labs["fake"] = PLAN
        result = call(*arguments)
        assert result.exit_code == 0
        assert result.stdout.startswith("fake is down")
        assert machine.labs == {}


def test_down_twice_is_no_error(machine: Machine, lab: str) -> None:
    for arguments, text in (
        (("down", "fake"), "fake is not running\n"),
        (("down", lab), "fake is not running\n"),
        (("down",), "no lab is running\n"),
        (("down", "--all"), "no lab is running\n"),
    ):
        result = call(*arguments)
        assert (result.exit_code, result.stdout) == (0, text)


def test_down_of_one_of_several_must_say_which(machine: Machine) -> None:
    machine.labs = {"one": PLAN, "two": PLAN}
    result = call("down")
    assert result.exit_code == 2
    assert "several labs are running: one, two; say which, or --all" in result.stderr
    assert sorted(machine.labs) == ["one", "two"]
    machine.left_over = ["killed"]
    assert call("down", "--all").exit_code == 0
    assert [entry[1] for entry in machine.done] == ["killed", "one", "two"]


def test_list(machine: Machine) -> None:
    assert "no lab is running" in call("list").stdout
    assert "edge" in call("list").stdout
    machine.labs = {"one": PLAN}
    assert call("list").stdout.splitlines()[1].split()[:4] == ["one", "netns", "running", "2"]
    assert json.loads(call("list", "--json").stdout)["labs"][0]["name"] == "one"


# --- status, test, diff -----------------------------------------------------------------------------------------------


def test_status_ends_with_1_when_something_is_not_as_planned(machine: Machine) -> None:
    machine.labs = {"fake": PLAN}
    well = call("status")
    assert (well.exit_code, "fake: all is as planned" in well.stdout) == (0, True)
    machine.link = "down"
    ill = call("status", "fake")
    assert (ill.exit_code, "r1: eth0: down" in ill.stdout) == (1, True)
    result = call("status", "--json")
    assert (result.exit_code, json.loads(result.stdout)["problems"]) == (1, ["r1: eth0: down"])


@pytest.mark.parametrize("command", ["status", "test"])
def test_the_lab_that_is_meant(machine: Machine, command: str) -> None:
    none = call(command)
    assert (none.exit_code, none.stderr) == (5, "error: no lab is running: `testbed up` starts one\n")
    gone = call(command, "gone")
    assert (gone.exit_code, "lab gone is not running" in gone.stderr) == (5, True)
    machine.labs = {"one": PLAN, "two": PLAN}
    many = call(command)
    assert (many.exit_code, many.stderr) == (2, "several labs are running: one, two (say which)\n")


def test_asking_flows_again(machine: Machine) -> None:
    machine.labs = {"fake": PLAN}
    assert call("test").stdout.splitlines()[-1] == "fake: 2 of 2 flows as expected"
    assert call("test", "web").stdout.splitlines()[-1] == "fake: 1 of 1 flows as expected"
    assert call("test", "fake", "ping").stdout.splitlines()[-1] == "fake: 1 of 1 flows as expected"
    assert call("test", "fake", "nope").exit_code == 1
    machine.answers["web"] = "ok"
    result = call("test", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["passed"], found["failed"]) == (1, 1)
    machine.labs["other"] = PLAN
    assert "lab web is not running" in call("test", "web").stderr


def test_diff_is_like_diff(machine: Machine, lab: str) -> None:
    machine.labs["fake"] = testbed.session.compiled(lab)
    same = call("diff", lab)
    assert (same.exit_code, same.stdout) == (0, "")
    (Path(lab) / "lab.yaml").write_text(LAB.replace("name: ping", "name: pong"))
    other = call("diff", lab)
    assert (other.exit_code, other.stdout) == (1, "+ flow pong\n- flow ping\n")
    absent = call("diff", lab, "--name", "absent")
    assert (absent.exit_code, "+ node r1 (router)" in absent.stdout) == (1, True)


# --- inside a node ----------------------------------------------------------------------------------------------------


def test_exec_passes_arguments_and_status_on(machine: Machine) -> None:
    machine.labs = {"fake": PLAN}
    machine.exec_result = 42
    assert call("exec", "r1", "--vrf", "mgmt", "--", "ip", "-br", "addr", "--", "x").exit_code == 42
    assert machine.done == [("attach", "fake", "r1", ("ip", "-br", "addr", "--", "x"), "mgmt")]


@pytest.mark.parametrize(
    ("result", "code", "message"),
    [
        (MISSING, 127, "error: r1 has no program nope\n"),
        (PermissionError(13, "Permission denied"), 126, "error: nope cannot be executed: Permission denied\n"),
    ],
)
def test_exec_of_what_cannot_be_run(machine: Machine, result: Exception, code: int, message: str) -> None:
    machine.labs = {"fake": PLAN}
    machine.exec_result = result
    found = call("exec", "r1", "nope")
    assert (found.exit_code, found.stderr) == (code, message)
    assert call("exec", "r9", "ls").exit_code == 5


def test_ssh_goes_through_exec(machine: Machine) -> None:
    machine.labs = {"fake": PLAN}
    assert call("ssh", "r1", "--", "uptime", "-p").exit_code == 3
    through = (sys.executable, "-m", "testbed.cli", "exec", "r1", "--lab", "fake", "--")
    assert machine.done == [("ssh", "fake", "r1", through, ("uptime", "-p"))]


def test_logs(machine: Machine, tmp_path: Path) -> None:
    machine.labs = {"fake": PLAN}
    machine.log = tmp_path / "log"
    machine.log.write_text("one\ntwo\n")
    assert call("logs", "r1").stdout == "one\ntwo\n"
    assert call("logs", "r1", "bgpd", "--lab", "fake").stdout == "one\ntwo\n"


# --- the documentation ------------------------------------------------------------------------------------------------


def test_docs_name_every_command_and_option() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) > 10
    for name, command in commands.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, f"no section about {name}"
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        missing = {option for option in options - {"--help"} if option not in section}
        assert not missing, f"{name}: {missing}"
