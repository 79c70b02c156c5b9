"""Completion, tailing of logs, plain progress, and the ssh client's command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_fakes import PLAN, Machine

import testbed.cli.display
import testbed.session
from testbed.cli import complete
from testbed.cli.display import Display
from testbed.cli.tail import Tail
from testbed.deploy.control import parse_bird
from testbed.deploy.login import SERVER, client
from testbed.events import Awaited, Step


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(labs={"fake": PLAN})
    monkeypatch.setattr(testbed.session, "Session", made.session)
    monkeypatch.setattr(testbed.session, "running", lambda: sorted(made.labs))
    return made


def context(**params: object) -> Any:
    return SimpleNamespace(params=params)


def test_completion_offers_what_there_is(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ether").mkdir()
    (tmp_path / "ether" / "own.yaml").touch()
    (tmp_path / "edit.txt").touch()
    assert complete.running_labs("f") == ["fake"]
    assert complete.labs("e") == ["edge", "egress", "ether/"]
    assert complete.labs("ether/") == ["ether/own.yaml"]
    assert complete.nodes(context(lab=""), "") == ["h1", "r1"]
    assert complete.nodes(context(lab="fake"), "r") == ["r1"]
    assert complete.processes(context(lab="", node="r1"), "") == ["bgpd"]
    assert complete.labs_and_flows(context(names=["fake"]), "") == ["fake", "ping", "web"]


def test_completion_never_fails(machine: Machine) -> None:
    machine.labs = {}
    assert complete.nodes(context(lab="gone"), "") == []
    assert complete.nodes(context(), "") == []
    assert complete.processes(context(lab="fake"), "") == []
    assert complete.labs("no/such/folder/") == []
    assert complete.labs_and_flows(context(names=None), "") == []


def test_tail_prints_whole_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthr")
    printed: list[str] = []
    tail = Tail({"bgpd": log}, printed.append)
    assert tail.read()
    assert printed == ["one\ntwo"]
    log.write_bytes(b"one\ntwo\nthree\n\xff\n")
    tail.read()
    tail.read()
    assert printed == ["one\ntwo", "three\n�"]
    log.unlink()
    assert not tail.read()


def test_tail_of_several_says_whose_lines_they_are(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("bgpd", "zebra")}
    for name, path in files.items():
        path.write_text(f"{name} starts\n")
    printed: list[str] = []
    tail = Tail(files, printed.append)
    tail.read()
    with files["zebra"].open("a") as stream:
        stream.write("more\n")
    tail.read()
    assert printed == ["==> bgpd <==", "bgpd starts", "\n==> zebra <==", "zebra starts", "more"]


def test_follow_ends_with_its_node(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("last words\n")

    def gone(text: str) -> None:
        assert text == "last words"
        log.unlink()

    Tail({"bgpd": log}, gone).follow()


def test_plain_progress_has_a_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        for event in (Step("links"), Awaited("routes", ("leaf1: route to x",), 1), Step("links", 0.25)):
            display(event)
    assert capsys.readouterr() == ("", "  links 250 ms\n")
    assert display.steps == {"links": 0.25}


def test_plain_progress_says_what_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testbed.cli.display, "PATIENCE", 0.0)
    with Display() as display:
        display(Step("convergence"))
        display(Awaited("routes", ("leaf1: route to x",), 4))
    assert capsys.readouterr().err == "  convergence: routes 3 of 4\n  awaiting leaf1: route to x\n"


def test_silent_progress_only_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(silent=True) as display:
        display(Step("links", 0.5))
    assert capsys.readouterr() == ("", "")
    assert display.steps == {"links": 0.5}


def test_ssh_uses_the_labs_files_alone() -> None:
    argv = client("edge", Path("/run/lab 1"), ("python", "-m", "x", "100%"), ("uptime", "-p"))
    assert argv[:3] == ("/usr/bin/ssh", "-F", "none")
    options = dict(option.split("=", 1) for option in argv[4:-4:2])
    assert options["UserKnownHostsFile"] == "/run/lab 1/known_hosts"
    assert options["IdentityFile"] == "/run/lab 1/ssh"
    assert (options["StrictHostKeyChecking"], options["GlobalKnownHostsFile"]) == ("yes", "/dev/null")
    assert shlex.split(options["ProxyCommand"]) == ["python", "-m", "x", "100%%", *SERVER]
    assert argv[-4:] == ("root@edge", "--", "uptime", "-p")
    assert client("edge", Path("/x"), ())[-1] == "root@edge"


BIRD_16 = """\
name     proto    table    state  since       info
static1  Static   master   up     10:38:49
  Routes:         3 imported, 0 exported, 3 preferred
Node_a   BGP      master   up     10:38:50    Established
  Routes:         19 imported, 3 exported, 15 preferred
  BGP state:          Established
Mesh_b   BGP      master   start  2026-11-20  Active        Socket: Connection refused
""".splitlines()
BIRD_2 = """\
Name       Proto      Table      State  Since         Info
node_c     BGP        ---        up     10:38:50.123  Established
  BGP state:          Established
  Channel ipv4
    Routes:         4 imported, 1 exported, 4 preferred
  Channel ipv6
    Routes:         2 imported, 0 exported, 2 preferred
""".splitlines()


def test_what_bird_says_of_its_sessions() -> None:
    noon = 12 * 3600
    found = parse_bird(BIRD_16, noon)
    assert sorted(found) == ["Mesh_b", "Node_a"]
    good, bad = found["Node_a"], found["Mesh_b"]
    assert (good.established, good.prefixes, good.uptime) == (True, 19, "01:21:10")
    assert (bad.state, bad.detail, bad.uptime) == ("Active", "Socket: Connection refused", "since 2026-11-20")
    assert parse_bird(BIRD_16, 60)["Node_a"].uptime == "13:22:10", "midnight has passed since"
    assert parse_bird(BIRD_2, noon)["node_c"].prefixes == 6
