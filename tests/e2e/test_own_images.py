"""Nodes of a user's own images on the container runtimes: in a containerlab topology, and in a lab file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import assert_flows, own_name, running
from e2e_clab import await_reached, await_routes, checkout, kernel_routes, run
from e2e_images import client, images, lab_file, topology_file, with_images

from testbed.errors import CommandError, DeployError, NoSuchNodeError, TestbedError, UnsupportedError
from testbed.runtime import engine
from testbed.session import Session, compiled
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns", "docker")]
RUNTIMES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("containerlab", marks=[pytest.mark.containerlab, pytest.mark.testbed_needs("containerlab")]),
]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[str, str]]:
    with images(own_name("image")) as found:
        yield found


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, made: tuple[str, str], runtime: str) -> Iterator[Session]:
    topology = topology_file(tmp_path_factory.mktemp("images"), made)
    with running(compiled(topology, own_name(f"images-{runtime}"), runtime=runtime), runtime) as session:
        yield session


def test_each_node_is_a_container_of_its_image(lab: Session, made: tuple[str, str]) -> None:
    box, frr = made
    found = {node: entry.image for node, entry in engine.of_lab(lab.name).items()}
    assert found == {"R1": frr, "r2": frr, "pc1": box, "pc2": box, "pc3": box, "lan": "testbed/node:latest"}


def test_the_image_starts_frr_with_the_files_it_was_given(lab: Session) -> None:
    assert {"zebra", "bgpd", "ospfd", "staticd", "watchfrr"} <= lab.nodes()["R1"].processes.keys()
    await_routes(lab, "R1", {"10.255.0.2", "10.2.0.0/24"})
    await_routes(lab, "r2", {"10.255.0.1", "10.1.0.0/24"})
    await_reached(lab, "pc1", "10.2.0.2")
    with pytest.raises(CommandError):
        run(lab, "pc1", "ping", "-c", "1", "-W", "1", "10.2.0.99")


def test_files_names_and_variables_reach_the_container(lab: Session) -> None:
    assert run(lab, "pc1", "cat", "/tmp/said") == "here green pc1\n"
    assert run(lab, "pc1", "cat", "/srv/share/greeting") == "hello\n"
    assert run(lab, "pc1", "/srv/share/deep/run") == "ran\n"
    assert "10.2.0.2 pc2 far.example\n" in run(lab, "pc1", "cat", "/etc/hosts")
    with client() as docker:
        assert docker.containers.get(container(lab, "pc1")).exec_run("env").output.count(b"COLOUR=green") == 1


def test_programs_of_the_image_are_the_images_own(lab: Session) -> None:
    with pytest.raises(DeployError, match="runs an image of its own"):
        lab.runtime.stop("R1", "bgpd")
    with pytest.raises(NoSuchNodeError, match=f"docker logs {container(lab, 'R1')}`"):
        lab.log_files("R1", "bgpd")


def test_a_restarted_container_is_noticed_and_wired_again(lab: Session) -> None:
    with client() as docker:
        docker.containers.get(container(lab, "pc2")).restart(timeout=1)
    assert [text for text in lab.status().problems if text.startswith("pc2: ")] == [
        "pc2: its container was started anew, without the node"
    ]
    lab.up(lab.plan)
    assert not lab.status().problems
    await_reached(lab, "pc2", "10.2.0.3")


def test_a_container_that_was_killed_is_started_again_with_its_files(lab: Session) -> None:
    with client() as docker:
        docker.containers.get(container(lab, "R1")).kill()
    assert until(lambda: "R1: its container is exited" in lab.status().problems, Deadline(10))
    lab.up(lab.plan)
    assert not lab.status().problems
    await_routes(lab, "R1", {"10.255.0.2", "10.2.0.0/24"})
    await_reached(lab, "pc1", "10.2.0.2")


def container(lab: Session, node: str) -> str:
    """What the container of a node is called."""
    return engine.of_lab(lab.name)[node].name


def test_a_lab_files_router_and_host_of_their_own_images(tmp_path: Path, made: tuple[str, str], runtime: str) -> None:
    box, frr = made
    plan = compiled(lab_file(tmp_path, made), own_name("mixed"), runtime=runtime)
    assert {(session.node, session.daemon) for session in plan.sessions} == {("r1", "frr"), ("r2", "frr")}
    with running(plan, runtime) as lab:
        found = {node: entry.image for node, entry in engine.of_lab(lab.name).items()}
        assert (found["r1"], found["h1"]) == (frr, box)
        assert found["r2"] == found["h2"] == "testbed/node:latest"
        assert_flows(lab)
        assert "bgp" in {route["protocol"] for route in kernel_routes(lab, "r1")}
        assert not lab.status().problems


def test_a_change_makes_its_container_anew_and_no_other(tmp_path: Path, made: tuple[str, str], runtime: str) -> None:
    name, file = own_name("anew"), Path(lab_file(tmp_path, made))
    with running(compiled(str(file), name, runtime=runtime), runtime) as lab:
        before = {node: entry.id for node, entry in engine.of_lab(name).items()}
        file.write_text(file.read_text().replace("blue", "red").replace("65001", "65003"))
        lab.up(compiled(str(file), name, runtime=runtime))
        after = {node: entry.id for node, entry in engine.of_lab(name).items()}
        assert {node for node in after if after[node] != before[node]} == {"r1", "h1"}
        assert_flows(lab)
        assert "65003" in run(lab, "r1", "cat", "/etc/frr/frr.conf")
        assert not lab.status().problems


WORDS = ("printf", "%s\\n", "a b", "$HOME ${X:-y} $$", "{{ .Name }}", 'it\'s "so"', "# no comment", "", "two\nlines")


def test_words_and_owners_are_as_they_were_written(tmp_path: Path, made: tuple[str, str], runtime: str) -> None:
    """What containerlab would expand or split in its file is said to it so that it does not."""
    file = tmp_path / "words.clab.yml"
    (tmp_path / "bound/empty").mkdir(parents=True)
    (tmp_path / "bound/frr.conf").write_text("! nothing\n")
    file.write_text(
        f"name: x\ntopology: {{nodes: {{a: {{kind: linux, image: {made[1]!r}, entrypoint: sleep infinity,"
        " binds: ['bound:/etc/frr/site'], env: {COLOUR: 'red $$HOME # {'}}}}\n"
    )
    plan = compiled(str(file), own_name("words"), runtime=runtime)
    [node] = plan.nodes
    said = replace(node, entrypoint=("sh", "-c", 'printf "%s|" "$@" > /said; exec sleep 9999', "sh"), cmd=WORDS)
    with running(replace(plan, nodes=(said,)), runtime) as lab:
        assert until(lambda: run(lab, "a", "cat", "/said") == "".join(f"{word}|" for word in WORDS), Deadline(10))
        with client() as docker:
            shown = docker.containers.get(container(lab, "a")).exec_run("env").output.decode()
        assert "COLOUR=red $HOME # {\r\n" in shown.replace("\n", "\r\n").replace("\r\r", "\r")
        listed = run(lab, "a", "stat", "-c", "%n %U %F", "/etc/frr/site/frr.conf", "/etc/frr/site/empty")
        assert listed == "/etc/frr/site/frr.conf frr regular file\n/etc/frr/site/empty frr directory\n"
        run(lab, "a", "test", "-e", "/etc/frr/support_bundle_commands.conf")  # the image's own are there, too


def test_an_image_that_cannot_be_had_is_named(tmp_path: Path, runtime: str) -> None:
    file = tmp_path / "none.clab.yml"
    image = "localhost:1/nobody/has-this:1"
    file.write_text(f"name: x\ntopology: {{nodes: {{a: {{kind: linux, image: '{image}'}}}}}}\n")
    plan = compiled(str(file), own_name("none"), runtime=runtime)
    with Session(plan.name, runtime) as session:
        with pytest.raises((UnsupportedError, DeployError), match=f"a: the image {image} is not on the Docker engine"):
            session.up(plan)
        assert not session.exists


def test_an_image_that_ends_at_once_is_told_with_its_last_words(
    tmp_path: Path, made: tuple[str, str], runtime: str
) -> None:
    file = tmp_path / "ends.clab.yml"
    file.write_text(f"name: x\ntopology: {{nodes: {{a: {{kind: linux, image: '{made[0]}', cmd: cat /nothing}}}}}}\n")
    plan = compiled(str(file), own_name("ends"), runtime=runtime)
    with Session(plan.name, runtime) as session:
        with pytest.raises(TestbedError, match=r"a: its container|node a is not running"):
            session.up(plan)
        assert not session.exists


def test_containerlabs_frr_example(
    tmp_path: Path, made: tuple[str, str], runtime: str, request: pytest.FixtureRequest
) -> None:
    """lab-examples/frr01, but for the names of its images: routes are learned, pings pass."""
    folder = tmp_path / "frr01"
    shutil.copytree(checkout(request) / "lab-examples/frr01", folder)
    with_images(folder / "frr01.clab.yml", made)
    with running(compiled(str(folder / "frr01.clab.yml"), own_name("frr01"), runtime=runtime), runtime) as lab:
        assert {entry.image for entry in engine.of_lab(lab.name).values()} == set(made)
        for number in (1, 2, 3):
            others = {f"192.168.1{other}.0/24" for other in (1, 2, 3) if other != number}
            await_routes(lab, f"router{number}", others, seconds=120.0)  # OSPF waits 40 s before it elects (RFC 2328)
        for target in ("192.168.12.2", "192.168.13.2"):
            await_reached(lab, "PC1", target)
        with pytest.raises(CommandError):  # the control: what nobody has does not answer
            run(lab, "PC1", "ping", "-c", "1", "-W", "1", "192.168.13.99")
