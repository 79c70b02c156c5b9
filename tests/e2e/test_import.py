"""Containerlab topologies on the netns runtime: one of our own words, and containerlab's own examples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from clab_topology import TOPOLOGY, written
from conftest import own_name, running
from e2e_clab import CONVERGED, await_reached, await_routes, checkout, kernel_routes, linux_only, run

from testbed.errors import CommandError, InputError, Problem
from testbed.events import Event, Told
from testbed.plan import Plan
from testbed.session import Session, compiled
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("topology")
    written(folder)
    return folder


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def lab(folder: Path, told: list[str]) -> Iterator[Session]:
    plan = compiled(str(folder / "own.clab.yml"), own_name("import"))

    def observer(event: Event) -> None:
        if isinstance(event, Told):
            told.append(event.text)

    with Session(plan.name) as session:
        try:
            session.up(plan, observer=observer)
            yield session
        finally:
            session.down()


def test_routes_are_learned_and_pings_pass(lab: Session) -> None:
    await_routes(lab, "R1", {"10.255.0.2", "10.2.0.0/24"})  # by OSPF, and by BGP between the loopbacks it brings
    await_routes(lab, "r2", {"10.255.0.1", "10.1.0.0/24"})
    protocols = {entry["dst"]: entry["protocol"] for entry in kernel_routes(lab, "R1")}
    assert (protocols["10.255.0.2"], protocols["10.2.0.0/24"]) == ("ospf", "bgp")
    await_reached(lab, "pc1", "10.2.0.2")
    with pytest.raises(CommandError):  # the control: what nobody has does not answer
        run(lab, "pc1", "ping", "-c", "1", "-W", "1", "10.2.0.99")
    run(lab, "pc2", "ping", "-c", "1", "10.2.0.3")  # through the bridge alone


def test_other_daemons_are_started_and_configured_too(lab: Session) -> None:
    assert {"isisd", "ospf6d"} <= lab.nodes()["R1"].processes.keys()
    said = ""

    def adjacent() -> bool:
        nonlocal said
        said = run(lab, "R1", "vtysh", "-c", "show isis neighbor")
        return re.search(r"\br2\b.*\bUp\b", said) is not None

    assert until(adjacent, Deadline(CONVERGED)), said


def test_names_and_aliases_are_known_where_addresses_are_stated(lab: Session) -> None:
    assert run(lab, "pc1", "getent", "hosts", "far.example").split()[:1] == ["10.2.0.2"]
    assert run(lab, "pc3", "getent", "hosts", "R1").split()[:1] == ["10.255.0.1"]
    with pytest.raises(CommandError):
        run(lab, "pc1", "getent", "hosts", "unheard-of.example")


def test_binds_are_copied_and_stay_in_the_node(lab: Session, folder: Path) -> None:
    assert run(lab, "pc1", "cat", "/srv/share/greeting") == "hello\n"
    assert run(lab, "pc1", "/srv/share/deep/run") == "ran\n"
    run(lab, "pc1", "sh", "-c", "echo changed > /srv/share/greeting")
    assert (folder / "share/greeting").read_text() == "hello\n"


def test_exec_lines_are_run_as_written_and_what_fails_is_told(lab: Session, told: list[str]) -> None:
    assert run(lab, "pc1", "cat", "/tmp/said") == "here green pc1\n"
    assert [text for text in told if " false in pc1 ended with status 1" in text] == told


def test_links_sysctls_and_the_machine_stay_as_they_should(lab: Session) -> None:
    link = json.loads(run(lab, "pc1", "ip", "-j", "link", "show", "eth1"))[0]
    assert (link["address"], link["mtu"]) == ("02:00:00:00:01:02", 1400)
    assert json.loads(run(lab, "pc2", "ip", "-j", "link", "show", "eth1"))[0]["mtu"] == 9500
    assert run(lab, "r2", "cat", "/proc/sys/net/ipv4/conf/eth1/arp_ignore") == "1\n"
    assert run(lab, "R1", "cat", "/proc/sys/net/ipv4/conf/eth1/arp_ignore") == "0\n"


def test_a_daemon_that_ended_is_started_and_configured_again(lab: Session) -> None:
    running_config = run(lab, "r2", "vtysh", "-c", "show running-config")
    lab.runtime.stop("r2", "bgpd")
    assert "router bgp 65000" in running_config
    assert "router bgp" not in run(lab, "r2", "vtysh", "-c", "show running-config")
    lab.up(lab.plan)
    assert run(lab, "r2", "vtysh", "-c", "show running-config") == running_config


def test_a_node_whose_link_is_lost_gets_its_addresses_again(lab: Session) -> None:
    before = {name: node.pid for name, node in lab.nodes().items()}
    run(lab, "pc2", "ip", "link", "delete", "eth1")
    lab.up(lab.plan)
    assert "10.2.0.2/24" in run(lab, "pc2", "ip", "-br", "address", "show", "eth1")
    after = {name: node.pid for name, node in lab.nodes().items()}
    assert {name for name in after if after[name] != before[name]} == {"pc2"}


def test_a_changed_exec_line_makes_its_node_anew_and_no_other(lab: Session, folder: Path) -> None:
    before = {name: node.pid for name, node in lab.nodes().items()}
    changed = folder / "changed.clab.yml"
    changed.write_text(TOPOLOGY.replace("10.2.0.3/24", "10.2.0.4/24"))
    plan = compiled(str(changed), lab.name)
    assert [entry.new.name for entry in lab.diff(plan).changed if entry.recreated] == ["pc3"]
    lab.up(plan)
    after = {name: node.pid for name, node in lab.nodes().items()}
    assert {name for name in after if after[name] != before[name]} == {"pc3"}
    run(lab, "pc2", "ping", "-c", "1", "10.2.0.4")


# --- containerlab's own -----------------------------------------------------------------------------------------------


def example(path: str, name: str) -> Plan:
    return compiled(path, own_name(name))


def test_containerlabs_frr_example(request: pytest.FixtureRequest) -> None:
    """lab-examples/frr01: three FRR routers with OSPF, three hosts with exec lines."""
    examples = checkout(request)
    with running(example(str(examples / "lab-examples/frr01/frr01.clab.yml"), "frr01")) as lab:
        for number in (1, 2, 3):
            others = {f"192.168.1{other}.0/24" for other in (1, 2, 3) if other != number}
            await_routes(lab, f"router{number}", others, seconds=120.0)  # OSPF waits 40 s before it elects (RFC 2328)
        for target in ("192.168.12.2", "192.168.13.2"):
            await_reached(lab, "PC1", target)
        for number, entry in ((1, "192.168.12.0/24"), (2, "192.168.13.0/24")):
            found = {route["dst"]: route["protocol"] for route in kernel_routes(lab, f"router{number}")}
            assert found[entry] == "ospf"


def test_containerlabs_topologies_of_linux_nodes(request: pytest.FixtureRequest) -> None:
    """Every topology of linux nodes in the checkout comes up, or is refused with file and line."""
    examples = checkout(request)
    files = linux_only(examples)
    assert files
    for number, path in enumerate(files):
        problems = _problems(path, f"clab{number}")
        assert all(problem.position for problem in problems), path


def _problems(path: Path, name: str) -> Sequence[Problem]:
    """Why a topology is refused; nothing when it came up, and all of it ran."""
    try:
        plan = example(str(path), name)
    except InputError as error:
        return error.problems
    with running(plan) as lab:
        assert not lab.status().problems, path
    return ()
