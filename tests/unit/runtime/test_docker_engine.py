"""Finding labs on a Docker engine: by their labels, without the SDK, and whatever the engine says."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from docker_engine import FakeEngine, engine_at

import testbed.session
from testbed.errors import DeployError, InputError, NoSuchLabError, NoSuchNodeError, UnsupportedError
from testbed.plan import Node, Plan
from testbed.runtime import engine
from testbed.runtime.client import Supervisor
from testbed.runtime.containers import CREATING
from testbed.runtime.docker import DockerRuntime
from testbed.session import Session


def test_the_sdk_is_not_imported_where_no_container_is_made() -> None:
    program = (
        "import sys, testbed.session as s; s.running(); s.runtime_of('nosuchlab'); s.Session('nosuchlab').exists;"
        "print(*sorted({'docker', 'requests', 'http.client'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_labs_are_found_by_label(fake_engine: FakeEngine) -> None:
    fake_engine.add("edge-r1", lab="edge", node="r1")
    fake_engine.add("edge-r2", "exited", lab="edge", node="r2")
    fake_engine.add("other-r1", lab="other", node="r1")
    fake_engine.add("postgres", image="postgres:16")
    assert engine.labs() == ["edge", "other"]
    assert {node: entry.state for node, entry in engine.of_lab("edge").items()} == {"r1": "running", "r2": "exited"}
    assert engine.runtime("edge") == "docker"
    assert engine.runtime("postgres") == ""
    assert [entry.name for entry in engine.containers(fake_engine.address)] == [
        "edge-r1",
        "edge-r2",
        "other-r1",
        "postgres",
    ]


def test_a_container_that_is_being_removed_has_no_name(fake_engine: FakeEngine) -> None:
    fake_engine.add("edge-r1", lab="edge", node="r1")
    fake_engine.containers[0]["Names"] = []
    assert engine.labs() == []


def test_a_lab_on_another_engine_is_found_by_its_folder(fake_engine: FakeEngine, state: Path, tmp_path: Path) -> None:
    with engine_at(tmp_path / "other.sock") as other:
        other.add("far-r1", lab="far", node="r1")
        assert engine.labs() == []
        (state / "far").mkdir()
        (state / "far" / engine.HOME).write_text(other.address)
        (state / "far" / engine.KIND).write_text("docker")
        assert engine.labs() == ["far"]
        assert engine.home("far") == other.address
        assert engine.home("edge") == fake_engine.address
    assert engine.labs() == []  # that engine has ended
    assert engine.runtime("far") == "docker"
    with pytest.raises(UnsupportedError, match=r"no Docker engine answers at .*other\.sock"):
        engine.of_lab("far")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "unix:///nonexistent/docker.sock",
            "no Docker engine answers at unix:///nonexistent/docker.sock: No such file",
        ),
        (
            "tcp://192.0.2.1:2375",
            "DOCKER_HOST is tcp://192.0.2.1:2375: containers are wired on this machine, use unix://",
        ),
        ("ssh://me@there", "use unix://PATH"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    assert not engine.answers()
    with pytest.raises(UnsupportedError, match=message):
        engine.ask(engine.address(), "/info")


def test_what_an_engine_answers(fake_engine: FakeEngine) -> None:
    fake_engine.put("/info", {"ServerVersion": "1"})
    fake_engine.put("/broken", {"message": "out of order"}, 500)
    fake_engine.answers["/garbage"] = (200, b"<html>")
    where = fake_engine.address
    assert engine.ask(where, "/info") == {"ServerVersion": "1"}
    assert engine.ask(where, "/nothing") is None
    with pytest.raises(UnsupportedError, match="refused /broken: out of order"):
        engine.ask(where, "/broken")
    with pytest.raises(UnsupportedError, match="no Docker engine answers"):
        engine.ask(where, "/garbage")
    assert engine.answers()


def test_without_an_address_it_is_the_usual_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert engine.address() == "unix:///var/run/docker.sock"


# --- the runtime of a lab ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_netns_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.runtime.netns._supervised", lambda: iter([]))


@pytest.mark.usefixtures("no_netns_labs")
def test_a_session_finds_the_runtime_by_itself(fake_engine: FakeEngine) -> None:
    fake_engine.add("edge-r1", lab="edge", node="r1")
    assert testbed.session.running() == ["edge"]
    assert Session("edge").runtime.name == "docker"
    assert Session("edge").exists
    assert Session("other").runtime.name == "netns"
    assert Session("other", "docker").runtime.name == "docker"


@pytest.mark.usefixtures("no_netns_labs")
def test_up_on_another_runtime_is_refused_by_name(fake_engine: FakeEngine) -> None:
    fake_engine.add("edge-r1", lab="edge", node="r1")
    with pytest.raises(InputError, match="lab edge runs on the runtime docker, not on netns"):
        Session("edge", "netns").up(Plan("edge"))


def test_an_up_on_docker_is_refused_where_the_lab_runs_on_netns(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.runtime.netns._supervised", lambda: iter([(1, "edge")]))
    with pytest.raises(InputError, match="lab edge runs on the runtime netns, not on docker"):
        Session("edge", "docker").up(Plan("edge"))


# --- containers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, r"of somebody else \(its image is nginx\)"), ({"lab": "edge-a", "node": "r1"}, "of lab edge-a")],
)
def test_a_name_that_is_taken_is_refused(
    fake_engine: FakeEngine, state: Path, labels: dict[str, str], whose: str
) -> None:
    fake_engine.add("edge-a-r1", image="nginx", **labels)
    (state / "edge").mkdir()
    with pytest.raises(DeployError, match=f"there is a container edge-a-r1 {whose}: run the lab under another --name"):
        DockerRuntime("edge").create([Node("a-r1", "host")], {}, Plan("edge"))
    assert not (state / "edge" / CREATING).exists(), "nothing was asked for"


def test_why_a_node_does_not_run(fake_engine: FakeEngine) -> None:
    for name, container in (("r1", "running"), ("r2", "paused"), ("r3", "exited")):
        fake_engine.add(f"edge-{name}", container, lab="edge", node=name)
        fake_engine.put(f"/containers/id-edge-{name}/json", {"State": {"Pid": 0}})
    runtime = DockerRuntime("edge")
    assert runtime.state() == {}
    assert [runtime.absence(node) for node in ("r1", "r2", "r3", "r4")] == [
        "its container was started anew, without the node",
        "its container is paused",
        "its container is exited",
        "its container is gone",
    ]
    for node in ("r1", "r2", "pod"):
        with pytest.raises(NoSuchNodeError, match=f"node {node} does not run"):
            runtime.supervisor(node)


def test_an_engine_that_is_gone_keeps_the_folder(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    (state / "edge").mkdir()
    (state / "edge" / engine.HOME).write_text("unix:///gone/docker.sock")
    with pytest.raises(UnsupportedError, match=r"at unix:///gone/docker.sock: .* gone for good, remove .*/edge\)"):
        DockerRuntime("edge").destroy()
    assert (state / "edge").exists()


def test_a_supervisor_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """As that of a paused container: its socket accepts, and nobody reads."""
    path = tmp_path / "supervisor.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        supervisor = Supervisor(path, "edge, node r1", timeout=0.1)
        assert supervisor.connect()
        with pytest.raises(NoSuchLabError, match="edge, node r1"):
            supervisor.ask("state")
        supervisor.close()
