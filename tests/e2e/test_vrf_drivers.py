"""VRFs as network namespaces and as VRF devices: what is in one is not in another, and both drivers answer alike.

The tests with VRF devices are reported as not run where the kernel has none.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import EDGE, assert_flows, own_name, pids
from e2e_traffic import stream

from testbed.plan import Plan
from testbed.probe.result import Verdict
from testbed.session import Session, compiled
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]
NEEDS_VRF = pytest.mark.testbed_needs("vrf")
DRIVERS = [pytest.param("netns"), pytest.param("device", marks=NEEDS_VRF)]
LONG = 300.0  # seconds for a lab to be ready: an emulated machine takes its time
PORT = 8080

# The same addresses in both VRFs, to the clients' own; r1 translates what leaves red, and nothing of blue.
# The links of blue are the last, and state their addresses: taking them away renames and renumbers nothing of red.
TWO_VRFS = """
apiVersion: testbed/v1
name: two-vrfs
vrfs: [red, blue]
nodes:
  r1: {kind: router, bgp: {asn: 65001}, nat: [{vrf: red, outside: r2}]}
  r2: {kind: router, bgp: {asn: 65002}}
  red1: {kind: host}
  red2: {kind: host, image: echo}
  red3: {kind: host, image: echo}
  blue1: {kind: host}
  blue2: {kind: host, image: echo}
links:
  - {endpoints: [r1, r2], vrf: red, bgp: true, ipv4: 10.0.0.0/31}
  - {endpoints: [r1, {node: red1, ipv4: 10.1.0.10}], vrf: red, ipv4: 10.1.0.0/24}
  - {endpoints: [r2, {node: red2, ipv4: 10.2.0.10}], vrf: red, ipv4: 10.2.0.0/24}
  - {endpoints: [r2, red3], vrf: red, ipv4: 10.3.0.0/24}
  - {endpoints: [r1, r2], vrf: blue, bgp: true, ipv4: 10.0.0.0/31}
  - {endpoints: [r1, {node: blue1, ipv4: 10.1.0.10}], vrf: blue, ipv4: 10.1.0.0/24}
  - {endpoints: [r2, {node: blue2, ipv4: 10.2.0.10}], vrf: blue, ipv4: 10.2.0.0/24}
flows:
  - {name: red, from: red1, to: red2, protocol: http, port: 8080, seenAs: r1, answeredBy: red2, via: [r1, r2], vrf: red}
  - {name: red-only, from: red1, to: red3, protocol: http, port: 8080, answeredBy: red3}
  - {name: router-of-red, from: red1, to: {address: 10.1.0.1}, protocol: icmp}
"""
BLUE_FLOWS = """\
  - {name: blue, from: blue1, to: blue2, protocol: http, port: 8080, seenAs: blue1, answeredBy: blue2, via: [r1],
     vrf: blue}
  - {name: blue-not-red, from: blue1, to: blue2, protocol: icmp, notVia: [r1], vrf: red}
  - {name: red-only-from-blue, from: blue1, to: red3, protocol: icmp, expect: unreachable}
  - {name: default-instance-from-blue, from: blue1, to: {address: 10.255.0.1}, protocol: icmp, expect: unreachable}
  - {name: router-of-blue, from: blue1, to: {address: 10.1.0.1}, protocol: icmp}
"""


def without_blue(text: str) -> str:
    lines = [line for line in text.splitlines() if "blue1" not in line and "blue2" not in line]
    return "\n".join(line for line in lines if "vrf: blue" not in line).replace("[red, blue]", "[red]") + "\n"


@contextlib.contextmanager
def up(plan: Plan, runtime: str = "") -> Iterator[Session]:
    """The lab of a Plan, up for the length of the block."""
    with Session(plan.name, runtime) as session:
        try:
            session.up(plan, timeout=LONG)
            yield session
        finally:
            session.down()


class TwoVrfs:
    """The lab of two VRFs, up; and how to change it."""

    def __init__(self, session: Session, path: Path, driver: str) -> None:
        self.session, self.path, self.driver = session, path, driver

    def up(self, text: str) -> None:
        self.path.write_text(text)
        self.session.up(compiled(str(self.path), self.session.name, self.driver), timeout=LONG)


@pytest.fixture(scope="module", params=DRIVERS)
def two_vrfs(request, tmp_path_factory) -> Iterator[TwoVrfs]:
    path = tmp_path_factory.mktemp("lab") / "lab.yaml"
    with Session(own_name(f"vrfs-{request.param}")) as session:
        lab = TwoVrfs(session, path, request.param)
        try:
            lab.up(TWO_VRFS + BLUE_FLOWS)
            yield lab
        finally:
            session.down()


# --- both drivers -----------------------------------------------------------------------------------------------------


def test_the_same_addresses_in_two_vrfs(two_vrfs):
    """Also: the driver is the one that was asked for."""
    plan = two_vrfs.session.plan
    assert plan.vrf_driver == two_vrfs.driver
    assert plan.node("r1").vrf_devices == (("red", "blue") if two_vrfs.driver == "device" else ())
    assert_flows(two_vrfs.session)
    assert two_vrfs.session.status().problems == ()


def test_the_same_connection_in_two_vrfs_at_once(two_vrfs):
    """Addresses and ports alike: r1 tracks two connections, translates the one of red and leaves that of blue alone."""
    with ExitStack() as stack:
        clients = {}
        for node in ("red1", "blue1"):
            client = stack.enter_context(
                two_vrfs.session.runtime.socket(node, None, socket.AF_INET, socket.SOCK_STREAM)
            )
            client.settimeout(10)
            client.bind(("10.1.0.10", 5555))
            clients[node] = client
        for client in clients.values():
            client.connect(("10.2.0.10", PORT))
        answers = {node: ask(client) for node, client in clients.items()}
    assert {node: (answer["node"], answer["peer"]) for node, answer in answers.items()} == {
        "red1": ("red2", "10.0.0.0"),
        "blue1": ("blue2", "10.1.0.10"),
    }


def ask(client: socket.socket) -> dict:
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    received = b""
    while part := client.recv(65536):
        received += part
    return json.loads(received.partition(b"\r\n\r\n")[2])


CALL = (
    "import json, urllib.request; "
    "print(json.load(urllib.request.urlopen('http://10.2.0.10:8080/', timeout=10))['node'])"
)


def test_programs_in_a_vrf(two_vrfs):
    """What `testbed exec --vrf` and the plugin's nodes run has the VRF's network, whatever the driver."""
    runtime = two_vrfs.session.runtime
    for vrf in ("red", "blue"):
        assert runtime.run("r1", vrf, ("/usr/bin/python3", "-c", CALL)) == f"{vrf}2\n"
        with runtime.socket("r1", vrf, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(("10.2.0.10", PORT))
            assert ask(client)["node"] == f"{vrf}2"
    with (
        runtime.socket("r1", None, socket.AF_INET, socket.SOCK_STREAM) as client,
        pytest.raises(OSError, match="unreach"),
    ):
        client.connect(("10.2.0.10", PORT))


def test_deleting_a_vrf_flushes_only_its_own(two_vrfs):
    session = two_vrfs.session
    assert_flows(session)
    before, red = pids(session), routes(session, "red")
    assert len(red) >= 4
    with stream(session, "red1", "red2", "10.2.0.10") as traffic:
        two_vrfs.up(without_blue(TWO_VRFS))
    assert traffic.sent >= 20
    assert not traffic.lost, traffic.report()
    assert {"r1: bgpd", "r1: zebra"} <= set(before)
    assert pids(session) == {name: pid for name, pid in before.items() if not name.startswith("blue")}
    assert routes(session, "red") == red
    with pytest.raises(Exception, match="r1 has no VRF blue"):
        session.runtime.network("r1", "blue")
    assert "blue" not in everything(session)
    assert_flows(session)

    with stream(session, "red1", "red2", "10.2.0.10") as traffic:
        two_vrfs.up(TWO_VRFS + BLUE_FLOWS)
    assert not traffic.lost, traffic.report()
    after = pids(session)
    assert {name: pid for name, pid in after.items() if not name.startswith("blue")} == pids_without(before, "blue")
    assert routes(session, "red") == red
    assert_flows(session)


def pids_without(found: dict[str, int], beginning: str) -> dict[str, int]:
    return {name: pid for name, pid in found.items() if not name.startswith(beginning)}


def routes(session: Session, vrf: str) -> list[str]:
    """What FRR has chosen for a VRF of r1, as text that names neither tables nor ages."""
    answer = session.runtime.run("r1", None, ("vtysh", "-c", f"show ip route vrf {vrf} json"))
    return sorted(
        prefix for prefix, found in json.loads(answer).items() if any(entry.get("installed") for entry in found)
    )


def everything(session: Session) -> str:
    """All that r1's kernel and daemons have, as text."""
    run = session.runtime.run
    questions = [("ip", "link"), ("ip", "rule"), ("ip", "netns"), ("nft", "list", "ruleset")]
    questions += [("vtysh", "-c", "show running-config"), ("vtysh", "-c", "show bgp vrfs")]
    return "\n".join(run("r1", None, question) for question in questions)


# --- VRF devices ------------------------------------------------------------------------------------------------------


@NEEDS_VRF
def test_labs_edge_has_the_same_verdicts_with_both_drivers():
    """Cell by cell, and each as the lab file says. The labs run side by side, with the same addresses."""
    with ExitStack() as stack:
        cells = {}
        for driver in ("netns", "device"):
            plan = compiled(EDGE, own_name(driver), driver)
            session = stack.enter_context(up(plan))
            verdicts = session.test()
            cells[driver] = {verdict.flow.name: cell(verdict) for verdict in verdicts}
            wrong = [f"{driver}: {verdict.flow.name}: {reason}" for verdict in verdicts for reason in verdict.reasons]
            assert not wrong, "\n".join(wrong)
            assert len(verdicts) >= 18
    assert cells["device"] == cells["netns"]


def cell(verdict: Verdict) -> tuple[object, ...]:
    """What of a verdict must be the same each time. Which of several pods or nodes answers is not."""
    flow, answer = verdict.flow, verdict.answer
    one_client, one_server = len(flow.seen_as) == 1, len(flow.answered_by) == 1
    return (
        answer.outcome,
        verdict.passed,
        answer.status,
        answer.seen_as if one_client else "",
        answer.answered_by if one_server else "",
        verdict.path,
    )


@NEEDS_VRF
def test_what_is_planned_is_what_the_kernel_has(two_vrfs):
    if two_vrfs.driver != "device":
        pytest.skip("there are no VRF devices in this lab")
    run = two_vrfs.session.runtime.run
    r1 = two_vrfs.session.plan.node("r1")
    tables = {entry.name: entry.table for entry in r1.interfaces if entry.kind == "vrf"}
    devices = json.loads(run("r1", None, ("ip", "-j", "-d", "link", "show", "type", "vrf")))
    assert {entry["ifname"]: entry["linkinfo"]["info_data"]["table"] for entry in devices} == tables
    for family in ("-4", "-6"):
        rules = [line.split() for line in run("r1", None, ("ip", family, "rule")).splitlines()]
        assert [(rule[0], rule[-1]) for rule in rules][:2] == [("1000:", "[l3mdev-table]"), ("32765:", "local")]
    for vrf, table in tables.items():
        found = json.loads(run("r1", None, ("ip", "-j", "route", "show", "table", str(table))))
        [last] = [route for route in found if route["dst"] == "default"]
        assert (last["type"], last["metric"]) == ("unreachable", 4278198272)
        slaves = json.loads(run("r1", None, ("ip", "-j", "link", "show", "vrf", vrf)))
        assert {entry["ifname"] for entry in slaves} == {entry.name for entry in r1.interfaces if entry.master == vrf}


@NEEDS_VRF
def test_a_lost_vrf_device_is_noticed_and_restored(two_vrfs):
    if two_vrfs.driver != "device":
        pytest.skip("there are no VRF devices in this lab")
    session = two_vrfs.session
    assert_flows(session)
    session.runtime.run("r1", None, ("ip", "link", "delete", "dev", "red"))
    assert "r1: red (VRF red): missing" in session.status().problems
    two_vrfs.up(TWO_VRFS + BLUE_FLOWS)
    assert session.status().problems == ()
    assert_flows(session)


LEAKS = """
apiVersion: testbed/v1
name: leaks
vrfs: [red, blue, green]
nodes:
  r1:
    kind: router
    bgp: {asn: 65001}
    leaks:
      - {from: red, to: blue, prefixes: [10.1.0.0/24]}
      - {from: blue, to: red, prefixes: [10.2.0.0/24, 10.3.0.0/24]}
  r2: {kind: router, bgp: {asn: 65002}}
  red1: {kind: host, image: echo}
  blue1: {kind: host, image: echo}
  blue2: {kind: host, image: echo}
  blue3: {kind: host, image: echo}
  green1: {kind: host}
links:
  - {endpoints: [r1, red1], vrf: red, ipv4: 10.1.0.0/24}
  - {endpoints: [r1, blue1], vrf: blue, ipv4: 10.2.0.0/24}
  - {endpoints: [r1, r2], vrf: blue, bgp: true}
  - {endpoints: [r2, blue2], vrf: blue, ipv4: 10.3.0.0/24}
  - {endpoints: [r2, blue3], vrf: blue, ipv4: 10.4.0.0/24}
  - {endpoints: [r1, green1], vrf: green, ipv4: 10.1.0.0/24}
flows:
  - {name: red-to-blue, from: red1, to: blue1, protocol: http, port: 8080, seenAs: red1, via: [r1], vrf: red}
  - {name: blue-to-red, from: blue1, to: red1, protocol: http, port: 8080, seenAs: blue1}
  - {name: red-to-what-blue-learned, from: red1, to: blue2, protocol: http, port: 8080, seenAs: red1, via: [r2],
     vrf: blue}
  - {name: red-to-what-is-not-leaked, from: red1, to: blue3, protocol: icmp, expect: unreachable}
  - {name: blue3-is-there, from: blue1, to: blue3, protocol: icmp}
  - {name: green-has-nothing, from: green1, to: blue1, protocol: icmp, expect: unreachable}
  - {name: green-is-there, from: green1, to: {address: 10.1.0.1}, protocol: icmp}
"""


@NEEDS_VRF
def test_only_what_is_leaked_crosses(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(LEAKS)
    with up(compiled(str(path), own_name("leaks"), "device")) as session:
        assert_flows(session)
        assert session.status().problems == ()
        # Without its leak the way back is gone; the rest of both VRFs is as before.
        path.write_text(LEAKS.replace("      - {from: red, to: blue, prefixes: [10.1.0.0/24]}\n", ""))
        session.up(compiled(str(path), session.name, "device"), timeout=LONG)

        def gone() -> bool:
            [verdict] = session.test(["blue-to-red"])
            return verdict.answer.outcome == "unreachable"

        assert until(gone, Deadline(20))
        assert_flows(session, ["red-to-what-is-not-leaked", "blue3-is-there", "green-has-nothing", "green-is-there"])


@NEEDS_VRF
@pytest.mark.docker
@pytest.mark.testbed_needs("docker")
def test_vrf_devices_in_containers(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(TWO_VRFS + BLUE_FLOWS)
    with up(compiled(str(path), own_name("vrf-docker"), "device"), "docker") as session:
        assert_flows(session)
        assert session.status().problems == ()


# --- nodes of a cluster -----------------------------------------------------------------------------------------------


@NEEDS_VRF
def test_a_service_is_reached_and_answers_through_a_vrf_of_the_nodes(tmp_path):
    """labs/edge, its nodes' links into sbi in a VRF device, where MetalLB's sessions are; the same flows."""
    folder = tmp_path / "edge"
    shutil.copytree(EDGE, folder)
    replace(folder / "lab.yaml", "  defaultRoute: mgmt\n", "  defaultRoute: mgmt\n  nodeVrfs: [sbi]\n", 1)
    replace(folder / "manifests" / "metallb.yaml", "  myASN: 64513\n", "  vrf: sbi\n  myASN: 64513\n", 2)
    plan = compiled(str(folder), own_name("node-vrfs"), "device")
    with up(plan) as session:
        assert session.status().problems == ()
        own = [entry for entry in plan.sessions if entry.node == "n1" and entry.vrf == "sbi"]
        assert [entry.daemon for entry in own] == ["frr"], "MetalLB's session is in the VRF"
        enslaved = json.loads(session.runtime.run("n1", None, ("ip", "-j", "link", "show", "vrf", "sbi")))
        assert [entry["ifname"] for entry in enslaved] == ["eth1"]
        assert_flows(session)
        # Whatever the default instance knows of the client, the answer goes by the VRF.
        session.runtime.run("n1", None, ("ip", "route", "replace", "blackhole", "10.20.20.20/32"))
        assert_flows(session, ["ssh-from-amf"])


def replace(path: Path, old: str, new: str, times: int) -> None:
    text = path.read_text()
    assert text.count(old) == times
    path.write_text(text.replace(old, new))
