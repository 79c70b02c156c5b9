"""FRR routers: what their daemons are told, and that FRR takes it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lab_texts
import pytest

from testbed.load.lab import load
from testbed.plan import Interface, Link, Node, Plan

FRR = Path("/usr/lib/frr")

ROUTER = """
    vrfs: [red]
    nodes:
      r1:
        kind: router
        bgp: {asn: 65001, routerId: 192.0.2.1, maximumPaths: 2}
        routes:
          - {to: 10.8.0.0/16, via: h1}
          - {to: 10.9.0.0/16, via: 10.3.0.9, vrf: red}
          - {to: "fd09::/48", via: h1}
        nat: [{outside: h1}, {outside: h2, vrf: red}]
        sysctls: {net.ipv4.tcp_syncookies: 0}
      r2: {kind: router, bgp: {asn: 65002, transit: false}}
      h1: {kind: host}
      h2: {kind: host}
    links:
      - {endpoints: [r1, r2], ipv4: 10.1.0.0/24, bgp: true}
      - {endpoints: [r1, h1], ipv4: 10.2.0.0/24, ipv6: "fd02::/64"}
      - {endpoints: [r1, h2], vrf: red, ipv4: 10.3.0.0/24, mtu: 1400}
      - {endpoints: [r1, r2], vrf: red, ipv4: 10.4.0.0/24, bgp: true}
"""


@pytest.fixture(scope="module")
def r1() -> Node:
    return lab_texts.compiled(ROUTER).node("r1")


def test_interfaces(r1: Node) -> None:
    assert r1.vrfs == ("red",)
    assert r1.interfaces == (
        Interface("lo", "loopback", None, ("10.255.0.1/32",)),
        Interface("eth0", addresses=("10.1.0.1/24",)),
        Interface("eth1", addresses=("10.2.0.1/24", "fd02::1/64")),
        Interface("eth2", vrf="red", addresses=("10.3.0.1/24",), mtu=1400),
        Interface("eth3", vrf="red", addresses=("10.4.0.1/24",)),
    )


def test_static_routes(r1: Node) -> None:
    assert lab_texts.file(r1, "/etc/frr/staticd.conf").splitlines()[2:] == [
        "ip route 10.8.0.0/16 10.2.0.2",
        "ipv6 route fd09::/48 fd02::2",
        "vrf red",
        " ip route 10.9.0.0/16 10.3.0.9",
        "exit-vrf",
    ]


def test_bgp(r1: Node) -> None:
    text = lab_texts.file(r1, "/etc/frr/bgpd.conf")
    assert [line.strip() for line in text.splitlines() if "router" in line or "neighbor" in line] == [
        "router bgp 65001",
        "bgp router-id 192.0.2.1",
        "neighbor 10.1.0.2 remote-as 65002",
        "neighbor 10.1.0.2 description r2",
        "neighbor 10.1.0.2 timers 3 9",
        "neighbor 10.1.0.2 timers connect 1",
        "neighbor 10.1.0.2 activate",
        "router bgp 65001 vrf red",
        "bgp router-id 192.0.2.1",
        "neighbor 10.4.0.2 remote-as 65002",
        "neighbor 10.4.0.2 description r2",
        "neighbor 10.4.0.2 timers 3 9",
        "neighbor 10.4.0.2 timers connect 1",
        "neighbor 10.4.0.2 activate",
    ]
    assert "maximum-paths 2" in text
    assert "own" not in text


def test_no_transit() -> None:
    text = lab_texts.file(lab_texts.compiled(ROUTER).node("r2"), "/etc/frr/bgpd.conf")
    assert "bgp as-path access-list own seq 5 permit ^$" in text
    assert text.count("filter-list own out") == 2


def test_nat_in_each_routing_instance(r1: Node) -> None:
    assert [(entry.name, entry.tool, entry.vrf) for entry in r1.rulesets] == [
        ("ip testbed-nat", "nft", None),
        ("ip testbed-nat", "nft", "red"),
    ]
    assert r1.rulesets[0].text == (
        "table ip testbed-nat\ndelete table ip testbed-nat\ntable ip testbed-nat {\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        '    oifname "eth1" masquerade\n'
        "  }\n}\n"
    )
    assert 'oifname "eth2" masquerade' in r1.rulesets[1].text


def test_nat_by_every_link_to_the_outside() -> None:
    plan = lab_texts.compiled("""
        nodes: {r1: {kind: router, nat: [{outside: h1}, {outside: h1}]}, h1: {kind: host}}
        links: [{endpoints: [r1, h1]}, {endpoints: [r1, h1]}]
    """)
    [ruleset] = plan.node("r1").rulesets
    assert ruleset.text.count("masquerade") == 2
    assert '"eth0"' in ruleset.text
    assert '"eth1"' in ruleset.text


def test_programs(r1: Node) -> None:
    assert [process.name for process in r1.processes] == ["zebra", "staticd", "bgpd"]
    zebra, _, bgpd = r1.processes
    assert zebra.argv[-1] == "-n"  # its VRFs are network namespaces
    assert bgpd.after == ("zebra",)
    assert bgpd.files == ("/etc/frr/bgpd.conf",)
    assert ("net/ipv4/tcp_syncookies", "0") in r1.sysctls


@pytest.mark.parametrize(
    ("facts", "programs"),
    [
        ("", ["zebra"]),
        ("bgp: {asn: 65001}", ["zebra", "bgpd"]),
        ("routes: [{to: 10.9.0.0/16, via: h1}]", ["zebra", "staticd"]),
    ],
)
def test_only_the_daemons_that_are_needed(facts: str, programs: list[str]) -> None:
    text = f"nodes: {{r1: {{kind: router, {facts}}}, h1: {{kind: host}}}}\nlinks: [{{endpoints: [r1, h1]}}]"
    node = lab_texts.compiled(text).node("r1")
    assert [process.name for process in node.processes] == programs
    assert "-n" not in node.processes[0].argv


def test_a_segment_is_a_bridge_with_a_port_for_each_other_end() -> None:
    plan = lab_texts.compiled("""
        nodes: {r1: {kind: router}, h1: {kind: host}, h2: {kind: host}}
        links: [{endpoints: [r1, h1, h2], ipv4: 10.1.0.0/24, mtu: 9000}]
    """)
    assert plan.node("r1").interfaces[1:] == (
        Interface("br0", "bridge", None, ("10.1.0.1/24",), mtu=9000),
        Interface("eth0", mtu=9000, master="br0"),
        Interface("eth1", mtu=9000, master="br0"),
    )
    assert [(link.a.interface, link.b.node) for link in plan.links] == [("eth0", "h1"), ("eth1", "h2")]


def test_every_link_ends_at_interfaces_that_exist_and_every_veth_has_one_link() -> None:
    plan = plan_of("edge")
    veths = {(node.name, entry.name) for node in plan.nodes for entry in node.interfaces if entry.kind == "veth"}
    used = [(end.node, end.interface) for link in plan.links for end in ends(link)]
    assert len(used) > 50
    assert len(used) == len(set(used))
    assert set(used) == veths


def ends(link: Link) -> tuple[object, ...]:
    return link.a, link.b


def plan_of(name: str) -> Plan:
    loaded = load(name)
    return lab_texts.compile_lab(loaded.lab, loaded.manifests, loaded.images)


# --- FRR itself -------------------------------------------------------------------------------------------------------


def complaints(daemon: str, config: Path) -> list[str]:
    """What a daemon says against a configuration. Its status is 0 whatever it finds."""
    done = subprocess.run([FRR / daemon, "-C", "-f", config], capture_output=True, text=True, timeout=10, check=False)
    said = (done.stdout + done.stderr).splitlines()
    found = [line for line in said if "on config line" in line or "configuration file" in line]
    return found + ([f"status {done.returncode}"] if done.returncode else [])


def frr_files(plan: Plan) -> dict[str, str]:
    """NODE-DAEMON → text, for every FRR daemon of a lab."""
    return {
        f"{node.name}-{process.name}": lab_texts.file(node, process.files[0])
        for node in plan.nodes
        for process in node.processes
        if process.argv[0].startswith(str(FRR))
    }


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that FRR's daemons can read once they are no longer root; pytest's own they cannot."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


needs_frr = pytest.mark.skipif(
    os.geteuid() != 0 or not (FRR / "bgpd").exists(), reason="needs FRR, whose daemons check a file as root only"
)


@needs_frr
@pytest.mark.parametrize(("name", "least"), [("edge", 19), ("two-routers", 4)])
def test_frr_accepts_every_configuration_of_a_lab(name: str, least: int, folder: Path) -> None:
    files = frr_files(plan_of(name))
    assert len(files) >= least
    for title, text in files.items():
        path = folder / f"{title}.conf"
        path.write_text(text)
        assert complaints(title.rpartition("-")[2], path) == [], title


@needs_frr
def test_frr_accepts_all_that_a_lab_can_state(folder: Path) -> None:
    for title, text in frr_files(lab_texts.compiled(ROUTER)).items():
        path = folder / f"{title}.conf"
        path.write_text(text)
        assert complaints(title.rpartition("-")[2], path) == [], title


@needs_frr
def test_frr_would_have_complained(folder: Path) -> None:
    path = folder / "bgpd.conf"
    path.write_text("router bgp 65001\n neighbor 10.0.0.1 remote-as nobody\n")
    assert len(complaints("bgpd", path)) == 1
