"""Nodes of a user's own images on the docker runtime: in a containerlab topology, and in a lab file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clab_topology import TOPOLOGY, written
from conftest import assert_flows, own_name, running
from e2e_clab import await_reached, await_routes, kernel_routes, run
from e2e_images import client, images

from testbed.errors import CommandError, DeployError, NoSuchNodeError, TestbedError, UnsupportedError
from testbed.runtime import engine
from testbed.session import Session, compiled

pytestmark = [pytest.mark.live, pytest.mark.docker, pytest.mark.testbed_needs("netns", "docker")]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[str, str]]:
    with images(own_name("image")) as found:
        yield found


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory, made: tuple[str, str]) -> str:
    box, frr = made
    text = TOPOLOGY.replace("registry.example/frrouting/frr:10.5.1", frr).replace("alpine:${ALPINE:=3}", box)
    text = text.replace("nicolaka/netshoot", box).replace("image: alpine", f"image: {box}")
    folder = tmp_path_factory.mktemp("images")
    file = written(folder, text)
    (folder / "own.testbed.yaml").write_text(f"images: [{{names: [{frr.partition(':')[0]}], capabilities: [frr]}}]\n")
    return file


@pytest.fixture(scope="module")
def lab(topology: str) -> Iterator[Session]:
    with running(compiled(topology, own_name("images"), "docker"), "docker") as session:
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
        assert docker.containers.get(f"{lab.name}-pc1").exec_run("env").output.count(b"COLOUR=green") == 1


def test_programs_of_the_image_are_the_images_own(lab: Session) -> None:
    with pytest.raises(DeployError, match="runs an image of its own"):
        lab.runtime.stop("R1", "bgpd")
    with pytest.raises(NoSuchNodeError, match=f"docker logs {lab.name}-R1"):
        lab.log_files("R1", "bgpd")


def test_a_restarted_container_is_noticed_and_wired_again(lab: Session) -> None:
    with client() as docker:
        docker.containers.get(f"{lab.name}-pc2").restart(timeout=1)
    assert [text for text in lab.status().problems if text.startswith("pc2: ")] == [
        "pc2: its container was started anew, without the node"
    ]
    lab.up(lab.plan)
    assert not lab.status().problems
    await_reached(lab, "pc2", "10.2.0.3")


LAB = """\
apiVersion: testbed/v1
name: mixed
images:
  - {{names: [{frr_name}], capabilities: [frr]}}
nodes:
  r1: {{kind: router, image: "{frr}", bgp: {{asn: 65001}}}}
  r2: {{kind: router, bgp: {{asn: 65002}}, routes: [{{to: 198.51.100.0/24, via: h2}}]}}
  h1: {{kind: host, image: "{box}", container: true, env: {{COLOUR: blue}}}}
  h2: {{kind: host}}
links:
  - {{endpoints: [r1, r2], bgp: true}}
  - {{endpoints: [h1, r1]}}
  - {{endpoints: [h2, r2]}}
flows:
  - {{name: there, from: h1, to: h2, protocol: icmp, via: [r1, r2]}}
  - {{name: back, from: h2, to: h1, protocol: icmp, via: [r2, r1]}}
"""


def test_a_lab_files_router_and_host_of_their_own_images(tmp_path: Path, made: tuple[str, str]) -> None:
    box, frr = made
    file = tmp_path / "lab.yaml"
    file.write_text(LAB.format(box=box, frr=frr, frr_name=frr.partition(":")[0]))
    plan = compiled(str(file), own_name("mixed"), "docker")
    assert {(session.node, session.daemon) for session in plan.sessions} == {("r1", "frr"), ("r2", "frr")}
    with running(plan, "docker") as lab:
        found = {node: entry.image for node, entry in engine.of_lab(lab.name).items()}
        assert (found["r1"], found["h1"]) == (frr, box)
        assert found["r2"] == found["h2"] == "testbed/node:latest"
        assert_flows(lab)
        assert "bgp" in {route["protocol"] for route in kernel_routes(lab, "r1")}
        assert not lab.status().problems


def test_an_image_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.clab.yml"
    image = "localhost:1/nobody/has-this:1"
    file.write_text(f"name: x\ntopology: {{nodes: {{a: {{kind: linux, image: '{image}'}}}}}}\n")
    plan = compiled(str(file), own_name("none"), "docker")
    with Session(plan.name, "docker") as session:
        with pytest.raises((UnsupportedError, DeployError), match=f"a: the image {image} is not on the Docker engine"):
            session.up(plan)
        assert not session.exists


def test_an_image_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path, made: tuple[str, str]) -> None:
    file = tmp_path / "ends.clab.yml"
    file.write_text(f"name: x\ntopology: {{nodes: {{a: {{kind: linux, image: '{made[0]}', cmd: cat /nothing}}}}}}\n")
    plan = compiled(str(file), own_name("ends"), "docker")
    with Session(plan.name, "docker") as session:
        with pytest.raises(TestbedError, match=r"a: its container|node a is not running"):
            session.up(plan)
        assert not session.exists
