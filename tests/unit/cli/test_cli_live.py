"""The commands on a live lab, as a user runs them: processes, streams, signals, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.session import Session, known
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

NAME = f"cli-{os.getpid()}"
LAB = """\
apiVersion: testbed/v1
name: cli
vrfs: [blue]
vrfDriver: netns
nodes:
  r1: {kind: router, bgp: {asn: 65001}}
  r2: {kind: router, bgp: {asn: 65002}}
  h1: {kind: host, image: echo}
links:
  - {endpoints: [r1, r2], vrfs: [blue], bgp: true}
  - {endpoints: [r1, h1], vrf: blue}
flows:
  - {name: ping, from: h1, to: {node: r2, vrf: blue}, protocol: icmp}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "testbed.cli", *arguments]


def call(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("lab")
    (path / "lab.yaml").write_text(LAB)
    return str(path)


@pytest.fixture(scope="module")
def lab(folder: str) -> Iterator[str]:
    try:
        up = call("up", folder, "--name", NAME)
        assert (up.returncode, up.stdout.splitlines()[-1].partition(",")[0]) == (0, f"{NAME} is up: 3 nodes"), up.stderr
        yield NAME
    finally:
        down = call("down", NAME)
        assert (down.returncode, down.stdout.partition(",")[0]) == (0, f"{NAME} is down")
        assert NAME not in known()


@pytest.fixture
def restored(lab: str, folder: str) -> Iterator[str]:
    """The lab, made whole again by `up` after the test has broken something."""
    yield lab
    assert call("up", folder, "--name", lab).returncode == 0
    assert call("status", lab).returncode == 0


def test_status_of_a_lab_that_is_as_planned(lab: str) -> None:
    found = call("status", lab)
    assert (found.returncode, found.stdout.splitlines()[-1]) == (
        0,
        f"{lab}: all is as planned; 3 nodes, 4 BGP sessions, 1 of 1 flows were as expected",
    )


def test_exec_is_inside(lab: str) -> None:
    assert call("exec", "r1", "--lab", lab, "hostname").stdout == "r1\n"
    assert call("exec", "r1", "--lab", lab, "--", "sh", "-c", "echo no >&2; exit 42").returncode == 42
    assert call("exec", "h1", "--lab", lab, "cat", text="a line\n").stdout == "a line\n"
    assert call("exec", "h1", "--lab", lab, "--", "sh", "-c", "kill -9 $$").returncode == 137
    default, blue = (
        call("exec", "r1", "--lab", lab, *vrf, "--", "ip", "-br", "link").stdout for vrf in ((), ("--vrf", "blue"))
    )
    assert ("eth0" in default, "eth0" in blue) == (False, True)
    red = call("exec", "r1", "--lab", lab, "--vrf", "red", "true")
    assert (red.returncode, red.stderr) == (5, "error: r1 has no VRF red\n")


@pytest.mark.parametrize("node", ["r1", "h1"])
def test_ssh_into_nodes_that_run_no_sshd(lab: str, node: str) -> None:
    own = Path.home() / ".ssh"
    before = sorted(own.iterdir()) if own.is_dir() else None
    found = call("ssh", node, "--lab", lab, "--", "hostname; exit 7")
    assert (found.returncode, found.stdout, found.stderr) == (7, f"{node}\n", "")
    assert (sorted(own.iterdir()) if own.is_dir() else None) == before


def test_ssh_believes_only_the_labs_own_host_key(lab: str) -> None:
    with Session(lab) as session:
        host, client = session.directory / "ssh-host.pub", session.directory / "ssh.pub"
    assert call("ssh", "h1", "--lab", lab, "--", "true").returncode == 0
    right = host.read_text()
    try:
        host.write_text(client.read_text())
        found = call("ssh", "h1", "--lab", lab, "--", "true")
    finally:
        host.write_text(right)
    assert found.returncode == 255
    assert "Host key verification failed" in found.stderr


def test_logs_are_followed(lab: str) -> None:
    assert "BGP" in call("logs", "r1", "bgpd", "--lab", lab).stdout
    with subprocess.Popen(command("logs", "h1", "-f", "--lab", lab), stdout=subprocess.PIPE, text=True) as follower:
        call("exec", "h1", "--lab", lab, "--", "sh", "-c", "echo a new line >>/var/log/testbed/echo.log")
        assert follower.stdout is not None
        assert any(line == "a new line\n" for line in follower.stdout)
        follower.send_signal(signal.SIGINT)
    assert follower.returncode == 130


def test_list_and_diff(lab: str, folder: str) -> None:
    listed = json.loads(call("list", "--json").stdout)["labs"]
    assert [(entry["whole"], entry["nodes"]) for entry in listed if entry["name"] == lab] == [(True, 3)]
    assert call("diff", folder, "--name", lab).returncode == 0


def test_status_names_what_is_broken(restored: str) -> None:
    call("exec", "r1", "--lab", restored, "--", "pkill", "-9", "bgpd")
    call("exec", "r2", "--lab", restored, "--vrf", "blue", "--", "ip", "link", "set", "dev", "eth0", "down")
    found = call("status", restored, "--json")
    assert found.returncode == 1
    problems = json.loads(found.stdout)["problems"]
    assert {
        "r1: eth0 (VRF blue): no carrier",
        "r1: bgpd was ended by signal 9",
        "r2: eth0 (VRF blue): down",
    } <= set(problems)
    assert any(problem.startswith("r1: BGP to r2") for problem in problems)


def test_a_node_that_is_killed_is_gone_with_its_links(restored: str) -> None:
    with Session(restored) as session:
        os.kill(session.nodes()["h1"].pid, signal.SIGKILL)

    def problems() -> tuple[str, ...]:
        with Session(restored) as session:  # a fresh one each time: what it opens of a node keeps that alive
            return session.status().problems

    expected = ("r1: eth1 (VRF blue): missing", "h1: gone")
    until(lambda: problems() == expected, Deadline(5))
    assert problems() == expected
    assert call("status", restored).returncode == 1


def test_programs_get_no_descriptors_of_other_nodes(lab: str) -> None:
    with Session(lab) as session:
        pid = session.nodes()["h1"].processes["echo"].pid
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert links
    assert [link for link in links if link.startswith(("net:", "mnt:", "pid:"))] == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_up_leaves_nothing(folder: str, number: signal.Signals, status: int) -> None:
    name = f"{NAME}-{status}"
    with subprocess.Popen(command("up", folder, "--name", name), stderr=subprocess.PIPE, text=True) as going:
        assert going.stderr is not None
        assert any("links" in line for line in going.stderr)
        going.send_signal(number)
        going.communicate(timeout=30)
    assert going.returncode == status
    assert name not in known()


def test_doctor_changes_nothing_and_says_what_it_found() -> None:
    def host() -> tuple[object, ...]:
        outputs = (("ip", "-br", "link"), ("sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"))
        texts = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in outputs]
        return (*texts, Path("/tmp").stat().st_dev)

    before = host()
    found = call("doctor", "--json")
    assert host() == before
    facts = json.loads(found.stdout)
    assert found.returncode == (0 if facts["ok"] else 1)
    by_name = {entry["name"]: entry for entry in facts["findings"]}
    assert by_name["namespaces"]["works"], "this very test has used them"
    assert by_name["veth"]["works"]
    missing = [entry for entry in facts["findings"] if not entry["works"]]
    assert all(entry["advice"] for entry in missing)
