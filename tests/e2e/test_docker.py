"""The docker runtime: the same lab files, the same verdicts, and nothing left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_edge
from conftest import EDGE, TWO_ROUTERS, assert_flows, own_name, running
from e2e_host import Facts, differences, now, remains, snapshot
from test_killed_up import TESTBED, kill_at_random_instants

from testbed.errors import DeployError, InputError
from testbed.plan import Node, Plan, Process
from testbed.probe.result import Verdict
from testbed.runtime import engine, image, image_build
from testbed.runtime.supervised import STATE
from testbed.session import Session, compiled
from testbed.session import running as running_labs
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.docker, pytest.mark.testbed_needs("netns", "docker")]

SMALL = """\
apiVersion: testbed/v1
name: small
nodes:
  r1: {kind: router}
  h1: {kind: host}
  h2: {kind: host}
links:
  - {endpoints: [r1, h1]}
  - {endpoints: [r1, h2]}
flows:
  - {name: ping, from: h1, to: h2, protocol: icmp, via: [r1]}
"""


@pytest.fixture(scope="session")
def docker_edge() -> Iterator[Session]:
    """labs/edge in containers, for all tests that leave it as they found it."""
    with running(compiled(EDGE, own_name("docker")), "docker") as session:
        yield session


def docker_facts() -> Facts:
    """What a Docker engine has that a lab of this run could have left there; others may use the engine meanwhile."""
    where = engine.address()
    mine = own_name("").rpartition("-")[2]  # in the names of all its labs, and so of their containers
    volumes = engine.ask(where, "/volumes")["Volumes"] or []
    return {
        "containers": {f"{entry.name} {entry.id}" for entry in engine.containers(where) if f"-{mine}-" in entry.name},
        "networks": {f"{entry['Name']} {entry['Id']}" for entry in engine.ask(where, "/networks")},
        "volumes": {entry["Name"] for entry in volumes},
        "images": {entry["Id"] for entry in engine.ask(where, "/images/json?all=1")},
        "sysctls": set(),
    }


# --- the same network -------------------------------------------------------------------------------------------------


def test_the_verdict_table_is_that_of_netns(edge, docker_edge):
    assert docker_edge.plan.nodes == edge.plan.nodes
    expected, found = (table(session) for session in (edge, docker_edge))
    assert found.keys() == expected.keys()
    assert len(found) >= 18
    for flow, cells in expected.items():
        for heading, cell in cells.items():
            assert found[flow][heading] == cell, (flow, heading)
        assert cells["passed"] is True, (flow, cells["reasons"])


def table(session: Session) -> dict[str, dict[str, object]]:
    plan = session.plan
    return {verdict.flow.name: row(plan, verdict) for verdict in session.test()}


def row(plan: Plan, verdict: Verdict) -> dict[str, object]:
    """A row of the table of verdicts, and more; where the network may choose (ECMP, a Service), what it chose from."""
    flow, answer = verdict.flow, verdict.answer
    return {
        "from": flow.source,
        "to": flow.target,
        "address": f"{flow.protocol} {flow.address} {flow.port}",
        "expected": flow.expect,
        "found": answer.outcome,
        "server saw": chosen(answer.seen_as, flow.seen_as) or kind_of(plan, answer.seen_as),
        "answered by": chosen(answer.answered_by, flow.answered_by) or answer.answered_by.rpartition("-")[0],
        "forwarded for": answer.forwarded_for,
        "status": answer.status,
        "path": verdict.path,
        "passed": verdict.passed,
        "reasons": verdict.reasons,
    }


def chosen(one: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    return choices if one in choices else ()


def kind_of(plan: Plan, address: str) -> str:
    """The kind of node that has an address; the address itself when no node has it."""
    for node in plan.nodes:
        for interface in node.interfaces:
            if address in [text.partition("/")[0] for text in interface.addresses]:
                return node.kind
    return address


@pytest.mark.parametrize(
    "check",
    [
        test_edge.test_addresses_are_as_planned,
        test_edge.test_routes_are_as_planned,
        test_edge.test_rules_are_as_planned,
        test_edge.test_up_again_changes_nothing,
    ],
)
def test_the_kernel_is_as_planned(docker_edge, check):
    check(docker_edge)


def test_both_runtimes_side_by_side(edge, docker_edge):
    """The same addresses twice on one machine; neither sees the other."""
    assert {edge.name, docker_edge.name} <= set(running_labs())
    assert (edge.runtime.name, docker_edge.runtime.name) == ("netns", "docker")
    assert_flows(docker_edge)
    assert_flows(edge)


# --- found without being told -----------------------------------------------------------------------------------------


def test_commands_find_the_runtime_by_themselves(docker_edge):
    name = docker_edge.name
    labs = json.loads(testbed("list", "--json"))["labs"]
    assert [(lab["runtime"], lab["nodes"], lab["pods"]) for lab in labs if lab["name"] == name] == [("docker", 13, 9)]
    assert testbed("exec", "leaf1", "--lab", name, "--", "hostname") == "leaf1\n"
    assert "10.10.10.10" in testbed("exec", "pe2", "--lab", name, "--vrf", "sbi", "--", "ip", "neighbour")
    assert testbed("exec", "client", "--lab", name, "--", "cat", "/etc/hostname").startswith("client-")
    assert testbed("ssh", "n1", "--lab", name, "--", "uname", "-n") == "n1\n"
    assert "BGP" in testbed("exec", "leaf1", "--lab", name, "--", "vtysh", "-c", "show bgp vrf sbi summary")
    assert testbed("logs", "n1", "bird", "--lab", name)
    assert "all is as planned" in testbed("status", name)


def testbed(*arguments: str) -> str:
    done = subprocess.run([*TESTBED, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


testbed.__test__ = False


def test_another_runtime_is_refused_by_name(docker_edge):
    with (
        Session(docker_edge.name, "netns") as other,
        pytest.raises(InputError, match=f"lab {docker_edge.name} runs on the runtime docker, not on netns"),
    ):
        other.up(docker_edge.plan)
    assert docker_edge.status().problems == ()


def test_a_node_shows_nothing_of_the_host(docker_edge):
    """Of /proc/sys only net/ can be written, no device of the host is there, and no capability reaches the host."""
    inside = (
        "sh",
        "-c",
        "for key in kernel/hostname vm/swappiness; do cat /proc/sys/$key >/proc/sys/$key && echo $key; done; true",
    )
    assert docker_edge.runtime.run("leaf1", None, inside) == ""
    forward = ("sh", "-c", "cat /proc/sys/net/ipv4/ip_forward >/proc/sys/net/ipv4/ip_forward && echo written")
    assert docker_edge.runtime.run("leaf1", None, forward) == "written\n"
    devices = docker_edge.runtime.run("leaf1", None, ("find", "/dev", "-type", "b")).split()
    assert devices == []
    status = docker_edge.runtime.path("leaf1", "/proc/1/status").read_text()
    bounding = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)
    for module, rawio, boot, time in [(16, 17, 22, 25)]:  # capabilities(7), by number
        assert not bounding & (1 << module | 1 << rawio | 1 << boot | 1 << time)
    assert bounding & 1 << 12, "CAP_NET_ADMIN: the mask is read as it is meant"


# --- what happens to containers ---------------------------------------------------------------------------------------


def test_what_others_do_to_containers_is_noticed_and_undone(docker_edge):
    import docker

    client = docker.DockerClient(base_url=engine.address())
    container = {
        node: client.containers.get(f"{docker_edge.name}-{node}") for node in ("leaf1", "spine1", "n2", "ops", "amf")
    }
    assert docker_edge.status().problems == ()
    # A lab that starts now must not keep alive what goes with a container: its mount namespace is a copy of the host's.
    with running(compiled(TWO_ROUTERS, own_name("beside"))) as beside:
        container["leaf1"].restart()
        container["n2"].kill()
        container["spine1"].pause()
        container["ops"].stop()
        container["amf"].remove(force=True)
        # The kernel takes down a network namespace, with its ends of links, a moment after all have let go of it.
        lost = {"eth0 (VRF mgmt): missing", "eth1 (VRF sbi): missing"}
        assert until(lambda: lost <= set(faults_of(docker_edge)["pe1"]), Deadline(5))
        faults = faults_of(docker_edge)
        assert faults["leaf1"] == ("its container was started anew, without the node",)
        assert faults["n2"] == ("its container is exited",)
        assert faults["spine1"] == ("its container is paused",)
        assert faults["ops"] == ("its container is exited",)
        assert faults["amf"] == ("its container is gone",)
        pods = [node.name for node in docker_edge.plan.nodes if node.parent == "n2"]
        assert [faults[pod] for pod in pods] == [("its container is exited",)] * 3
        assert_flows(beside)
    docker_edge.up(docker_edge.plan)
    assert docker_edge.status().problems == ()
    assert_flows(docker_edge)
    for node in ("leaf1", "spine1", "n2", "ops"):
        container[node].reload()
        assert container[node].status == "running", f"{node}: the container should have been used again"
    client.close()


def faults_of(session: Session) -> dict[str, tuple[str, ...]]:
    return {node.name: node.faults for node in session.status().nodes}


def test_a_change_is_applied_to_running_containers(tmp_path: Path):
    path = tmp_path / "lab.yaml"
    path.write_text(SMALL)
    before = docker_facts()
    name = own_name("small")
    with running(compiled(str(path), name), "docker") as session:
        ids = {node: entry.id for node, entry in engine.of_lab(name).items()}
        assert ids.keys() == {"r1", "h1", "h2"}
        path.write_text(
            SMALL.replace("  h2: {kind: host}\n", "  h3: {kind: host}\n")
            .replace("h2]", "h3]")
            .replace("to: h2", "to: h3")
        )
        change = session.up(compiled(str(path), name))
        assert [node.name for node in change.added] == ["h3"]
        now_there = {node: entry.id for node, entry in engine.of_lab(name).items()}
        assert now_there.keys() == {"r1", "h1", "h3"}
        assert (now_there["r1"], now_there["h1"]) == (ids["r1"], ids["h1"])
        assert session.status().problems == ()
        assert_flows(session)
    assert differences(before, docker_facts()) == []


# --- nothing is left --------------------------------------------------------------------------------------------------


def test_up_and_down_leave_nothing():
    name = own_name("gone")
    since, before, engine_before = now(), snapshot(), docker_facts()
    with running(compiled(TWO_ROUTERS, name), "docker") as session:
        assert_flows(session)
        assert len(docker_facts()["containers"] - engine_before["containers"]) == 4
        assert remains(name, since), "a lab that runs is not seen: the check below would prove nothing"
        kept = {
            kind: before[kind] for kind in before if kind not in ("mounts", "files in /etc")
        }  # the engine's own mounts
        assert differences(kept, {kind: snapshot()[kind] for kind in kept}) == []
    assert remains(name, since) == []
    assert differences(before, snapshot()) == []
    assert differences(engine_before, docker_facts()) == []


def assert_nothing_left_by_an_up_that_fails(runtime: str, facts: Callable[[], Facts]) -> None:
    """An `up` on a runtime, one of whose programs does not exist.

    Args:
        facts: what may be left, as `differences` compares it.
    """
    name = own_name("fails")
    before = facts()
    plan = Plan(name, nodes=(Node("a", "host"), Node("b", "host", processes=(Process("no", ("/no/such/program",)),))))
    with Session(name, runtime) as session:
        with pytest.raises(DeployError, match="/no/such/program"):
            session.up(plan)
        assert not session.exists
    assert differences(before, facts()) == []
    assert not (STATE / name).exists()


def test_an_up_that_fails_leaves_nothing():
    assert_nothing_left_by_an_up_that_fails("docker", docker_facts)


@pytest.mark.parametrize(("lab", "instants"), [(TWO_ROUTERS, 10), (EDGE, 2)], ids=["two-routers", "edge"])
def test_killed_at_random_instants(lab, instants, record_property):
    before = docker_facts()
    kill_at_random_instants(lab, instants, record_property, "--runtime", "docker")
    assert differences(before, docker_facts()) == []


def test_a_container_of_somebody_else_is_refused_by_name_and_left_alone():
    import docker

    name = own_name("taken")
    client = docker.DockerClient(base_url=engine.address())
    other = client.containers.create(image.NAME, ["true"], name=f"{name}-r2")
    try:
        before = docker_facts()
        with (
            Session(name, "docker") as session,
            pytest.raises(DeployError, match=f"there is a container {name}-r2 of somebody else"),
        ):
            session.up(compiled(TWO_ROUTERS, name))
        assert differences(before, docker_facts()) == []
    finally:
        other.remove()
        client.close()


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_image_is_there_and_is_not_built_again(docker_edge):
    where = engine.address()
    assert image.state(where) == "present"
    told = []
    before = docker_facts()
    there = image_build.build(where, told.append)
    assert told == [], "nothing was to be done"
    assert there.hash == image.recipe().hash
    assert there.size < 250e6
    assert differences(before, docker_facts()) == []
