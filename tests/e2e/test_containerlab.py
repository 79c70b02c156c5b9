"""The containerlab runtime: the same verdicts, a lab like any other of containerlab's, and nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_edge
import test_in_place
from conftest import EDGE, TWO_ROUTERS, assert_flows, own_name, running
from e2e_host import Facts, differences, now, remains, snapshot
from test_clab_topologies import write_all
from test_docker import assert_nothing_left_by_an_up_that_fails, docker_facts, faults_of, table, testbed
from test_killed_up import TESTBED, kill_at_random_instants

from testbed import run
from testbed.errors import CommandError, DeployError
from testbed.export import clab_topology
from testbed.export.containerlab import links_between
from testbed.runtime import clab, engine, image
from testbed.session import Session, compiled
from testbed.session import running as running_labs
from testbed.wait import Deadline, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.containerlab,
    pytest.mark.testbed_needs("netns", "docker", "containerlab"),
]

PLACES = ("/tmp/.clab", "/run/netns", "/run/lock", "/etc/ssh/ssh_config.d")  # where containerlab writes


@pytest.fixture(scope="session")
def clab_edge() -> Iterator[Session]:
    """labs/edge made by containerlab, for all tests that leave it as they found it."""
    with running(compiled(EDGE, own_name("clab")), "containerlab") as session:
        yield session


def facts() -> Facts:
    """What a host and its engine have that containerlab could have left there."""
    found = docker_facts()
    found["files"] = {str(path) for place in PLACES for path in Path(place).rglob("*")}
    found["hosts"] = set(Path("/etc/hosts").read_text().splitlines())
    found["links"] = set(run.run(("ip", "-o", "link")).splitlines())
    return found


def containerlab(*arguments: str) -> str:
    """What the program prints, run as a user runs it."""
    environment = {**run.ENVIRONMENT, "CLAB_VERSION_CHECK": "disable", "DOCKER_HOST": engine.address()}
    return run.run([clab.program(), *arguments], env=environment)


# --- the same network -------------------------------------------------------------------------------------------------


def test_the_verdict_table_is_that_of_netns(edge, clab_edge):
    assert clab_edge.plan.nodes == edge.plan.nodes
    expected, found = (table(session) for session in (edge, clab_edge))
    assert found.keys() == expected.keys()
    assert len(found) >= 18
    for flow, cells in expected.items():
        for heading, cell in cells.items():
            assert found[flow][heading] == cell, (flow, heading)
        assert cells["passed"] is True, (flow, cells["reasons"])


@pytest.mark.parametrize(
    "check",
    [
        test_edge.test_addresses_are_as_planned,
        test_edge.test_routes_are_as_planned,
        test_edge.test_rules_are_as_planned,
        test_edge.test_up_again_changes_nothing,
    ],
)
def test_the_kernel_is_as_planned(clab_edge, check):
    check(clab_edge)


def test_every_link_has_the_mtu_it_has_elsewhere(edge, clab_edge):
    """containerlab's own default is 9500."""
    for session in (edge, clab_edge):
        assert mtus(session) == {1500}


def mtus(session: Session) -> set[int]:
    return {
        link["mtu"]
        for node in session.plan.nodes
        for vrf in (None, *node.vrfs)
        for link in json.loads(session.runtime.run(node.name, vrf, ("ip", "-j", "link")))
        if link["ifname"] in {entry.name for entry in node.interfaces if entry.kind in ("veth", "bridge")}
    }


# --- a lab of containerlab's ------------------------------------------------------------------------------------------


def test_containerlab_shows_it(clab_edge):
    found = clab.inspect(clab_edge.name, engine.address())
    nodes = sorted(node.name for node in clab_edge.plan.nodes if not node.parent)
    assert [container.name for container in found] == [f"clab-{clab_edge.name}-{node}" for node in nodes]
    assert {(entry.lab, entry.kind, entry.image, entry.state) for entry in found} == {
        (clab_edge.name, "linux", image.NAME, "running")
    }
    assert clab_edge.name in json.loads(containerlab("inspect", "--all", "--format", "json"))
    with pytest.raises(CommandError, match=r"inspect --name nosuchlab .*ended with status 1: [\s\S]*not found"):
        clab.inspect("nosuchlab", engine.address())


@pytest.mark.parametrize(("option", "suffix"), [("--mermaid", "mermaid"), ("--dot", "dot")])
def test_containerlab_draws_it(clab_edge, option, suffix):
    topology = clab_edge.runtime.topology
    containerlab("graph", option, "--topo", str(topology))
    [drawing] = topology.parent.glob(f"clab-{clab_edge.name}/graph/*.{suffix}")
    text = drawing.read_text()
    assert all(node.name in text for node in clab_edge.plan.nodes if not node.parent)
    assert text.count("--") >= len(links_between(clab_edge.plan))


def test_containerlab_runs_commands_in_it(clab_edge):
    text = containerlab("exec", "--name", clab_edge.name, "--cmd", "hostname", "--format", "json")
    answers = {name: results[0] for name, results in json.loads(text).items()}
    expected = {f"clab-{clab_edge.name}-{node.name}": node.name for node in clab_edge.plan.nodes if not node.parent}
    assert {name: answer["stdout"].strip() for name, answer in answers.items()} == expected
    assert {answer["return-code"] for answer in answers.values()} == {0}


def test_commands_find_the_runtime_by_themselves(clab_edge):
    name = clab_edge.name
    assert name in running_labs()
    labs = json.loads(testbed("list", "--json"))["labs"]
    assert [(lab["runtime"], lab["nodes"], lab["pods"]) for lab in labs if lab["name"] == name] == [
        ("containerlab", 13, 9)
    ]
    assert testbed("exec", "leaf1", "--lab", name, "--", "hostname") == "leaf1\n"
    assert "10.10.10.10" in testbed("exec", "pe2", "--lab", name, "--vrf", "sbi", "--", "ip", "neighbour")
    assert testbed("ssh", "n1", "--lab", name, "--", "uname", "-n") == "n1\n"
    assert testbed("logs", "n1", "bird", "--lab", name)
    assert "all is as planned" in testbed("status", name)


# --- what happens to containers, and what changes ---------------------------------------------------------------------


def test_what_others_do_to_containers_is_noticed_and_undone(clab_edge):
    import docker

    client = docker.DockerClient(base_url=engine.address())
    container = {node: client.containers.get(f"clab-{clab_edge.name}-{node}") for node in ("leaf1", "n2", "amf")}
    assert clab_edge.status().problems == ()
    container["leaf1"].restart(timeout=0)
    container["n2"].kill()
    container["amf"].remove(force=True)
    lost = {"eth0 (VRF mgmt): missing", "eth1 (VRF sbi): missing"}
    assert until(lambda: lost <= set(faults_of(clab_edge)["pe1"]), Deadline(5))
    faults = faults_of(clab_edge)
    assert faults["leaf1"] == ("its container was started anew, without the node",)
    assert faults["n2"] == ("its container is exited",)
    assert faults["amf"] == ("its container is gone",)
    clab_edge.up(clab_edge.plan, timeout=120)
    assert clab_edge.status().problems == ()
    assert_flows(clab_edge)
    for node in ("leaf1", "n2"):
        container[node].reload()
        assert container[node].status == "running", f"{node}: the container should have been used again"
    client.close()


def test_a_node_is_added_and_taken_away_while_packets_pass(tmp_path: Path):
    """containerlab adds a container and its link, and leaves those alone that were moved into VRFs."""
    folder = tmp_path / "edge"
    shutil.copytree(EDGE, folder)
    with Session(own_name("change"), "containerlab") as session:
        try:
            session.up(compiled(str(folder), session.name), timeout=120)
            test_in_place.test_a_node_and_its_link(test_in_place.Changing(session, folder))
        finally:
            session.down()


def test_labs_that_start_at_once_do_not_disturb_each_other():
    names = [own_name(f"at-once-{number}") for number in range(2)]
    sessions = [Session(name, "containerlab") for name in names]
    errors: list[Exception] = []

    def start(session: Session) -> None:
        try:
            session.up(compiled(TWO_ROUTERS, session.name), timeout=120)
        except Exception as error:  # shown below
            errors.append(error)

    threads = [threading.Thread(target=start, args=(session,)) for session in sessions]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        for session in sessions:
            assert_flows(session)
    finally:
        for session in sessions:
            session.down()
            session.close()


# --- nothing is left --------------------------------------------------------------------------------------------------


def test_up_and_down_leave_nothing():
    name = own_name("gone")
    since, before, host = now(), facts(), snapshot()
    with running(compiled(TWO_ROUTERS, name), "containerlab") as session:
        assert_flows(session)
        there = facts()
        assert len(there.pop("containers") - before["containers"]) == 4
        assert differences({kind: before[kind] for kind in there}, there) == []
        assert remains(name, since), "a lab that runs is not seen: the check below would prove nothing"
    assert remains(name, since) == []
    assert differences(host, snapshot()) == []
    assert differences(before, facts()) == []


def test_an_up_that_fails_leaves_nothing():
    assert_nothing_left_by_an_up_that_fails("containerlab", facts)


@pytest.mark.parametrize(("lab", "instants"), [(TWO_ROUTERS, 10), (EDGE, 2)], ids=["two-routers", "edge"])
def test_killed_at_random_instants(lab, instants, record_property):
    before = facts()
    kill_at_random_instants(lab, instants, record_property, "--runtime", "containerlab", "--timeout", "120")
    assert differences(before, facts()) == []


def test_down_ends_a_containerlab_that_outlived_its_up():
    """`up` is killed, and the containerlab that it started goes on: `down` does not leave it to make containers."""
    name = own_name("orphan")
    before = facts()
    argv = [*TESTBED, "up", TWO_ROUTERS, "--name", name, "--runtime", "containerlab"]
    started = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: bool(working_on(name)), Deadline(60)), "containerlab was never seen at work"
        started.kill()
        started.wait()
        assert working_on(name), "it ended by itself: nothing is proven"
    finally:
        testbed("down", name)
    assert working_on(name) == []
    assert differences(before, facts()) == []


def working_on(lab: str) -> list[int]:
    return [pid for pid, argv in clab.processes.running() if argv[0].endswith(clab.PROGRAM) and lab in " ".join(argv)]


# --- what is not ours -------------------------------------------------------------------------------------------------


def test_a_lab_of_somebody_else_is_refused_by_name_and_left_alone():
    """containerlab would take a lab of that name for this one, and end the nodes that this one has not."""
    import docker

    name = own_name("taken")
    client = docker.DockerClient(base_url=engine.address())
    other = client.containers.create(image.NAME, ["true"], name=f"theirs-{name}", labels={"containerlab": name})
    try:
        before = facts()
        with (
            Session(name, "containerlab") as session,
            pytest.raises(DeployError, match=f"runs a lab {name} of somebody else .container theirs-{name}"),
        ):
            session.up(compiled(TWO_ROUTERS, name))
        assert differences(before, facts()) == []
    finally:
        other.remove()
        client.close()


# --- a topology to take away ------------------------------------------------------------------------------------------


def test_an_exported_lab_runs_without_testbed(tmp_path: Path):
    """containerlab alone makes it, with everything that is in it; it is ended by containerlab, too."""
    name = own_name("taken-away")
    write_all(tmp_path, clab_topology.render(compiled(TWO_ROUTERS, name)))
    topology = tmp_path / f"{name}.clab.yml"
    before = facts()
    with clab.alone() as held:
        try:
            made = clab.deploy(topology, engine.address(), held)
            assert [entry.name for entry in made] == [f"clab-{name}-{node}" for node in ("h1", "h2", "r1", "r2")]
            for address in ("10.0.0.5", "fd00::5"):
                assert until(lambda address=address: reached(name, address), Deadline(30)), address
            assert not reached(name, "10.0.0.77"), "everything is reached: nothing is proven"
            request = "exec 3<>/dev/tcp/10.0.0.5/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
            assert '"hostname": "h2"' in inside(name, "h1", "bash", "-c", request)
        finally:
            clab.destroy(topology, engine.address(), held)
    assert differences(before, facts()) == []


def inside(lab: str, node: str, *argv: str) -> str:
    import docker

    client = docker.DockerClient(base_url=engine.address())
    try:
        return client.containers.get(f"clab-{lab}-{node}").exec_run(list(argv)).output.decode()
    finally:
        client.close()


def reached(lab: str, address: str) -> bool:
    return " 0% packet loss" in inside(lab, "h1", "ping", "-c", "1", "-W", "1", address)
