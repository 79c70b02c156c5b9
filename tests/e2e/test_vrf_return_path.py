"""The return path, live: the truth tables, where each packet goes, the kernel's tables as planned, the source check.

In namespaces and in containers alike.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from conftest import LABS
from e2e_matrix import (
    ANSWERED,
    LOST,
    REPLY,
    REQUEST,
    Changing,
    blackholed,
    capture,
    changing,
    checking,
    concerning_the_client,
    several,
    side_by_side,
)

from testbed.plan import MAIN_TABLE, Node
from testbed.pytest_plugin.capabilities import not_run
from testbed.report.matrix import CellResult, wrong

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

LAB, HOST_LAB = str(LABS / "vrf-return-path"), str(LABS / "vrf-host")
MODES = ("none", "static", "rule-lb-ip", "rule-pod-ip", "connmark", "connmark-both", "ctorigdst")
KERNELS_OWN_RULES = (0, 32766, 32767)
RUNTIMES = ["netns", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.testbed_needs("docker")])]


@pytest.fixture(scope="module", params=RUNTIMES)
def lab(request) -> Iterator[Changing]:
    with changing(LAB, f"return-{request.param}", request.param) as found:
        yield found


@pytest.fixture(scope="module")
def ipvs() -> Iterator[dict[str, Changing]]:
    """A lab for each policy."""
    with several(LAB, {policy: f"ipvs-{policy.lower()}" for policy in ("Cluster", "Local")}, "netns") as found:
        yield found


@pytest.fixture(scope="module", params=RUNTIMES)
def hosts(request) -> Iterator[Changing]:
    with changing(HOST_LAB, f"host-{request.param}", request.param) as found:
        yield found


# --- the truth tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_every_cell(lab, mode, request):
    assert_every_cell(lab.run(kubeProxyMode=mode), request.config)


@pytest.mark.testbed_needs("ipvs", "ipset", "dummy")
def test_every_cell_of_mode_ipvs(ipvs, request):
    assert_every_cell(side_by_side(ipvs, "externalTrafficPolicy", kubeProxyMode="ipvs"), request.config)


def assert_every_cell(results: list[CellResult], config: pytest.Config) -> None:
    """All cells of a mode of kube-proxy were run, each flow of each as the lab file says."""
    assert len(results) == 2 * 3 * len(MODES)
    if reasons := [cell.not_run for cell in results if cell.not_run]:
        not_run(config, "kernel", reasons[0])
    assert all(len(cell.verdicts) == 2 for cell in results)
    assert wrong(results) == []
    texts = {cell.text for cell in results}
    assert texts >= {"\N{EN DASH}", "client", "n1 eth1", "n1 eth0", "client / \N{EN DASH}"}, "the cells are all alike"


def test_every_cell_of_plain_hosts(hosts):
    results = hosts.run()
    assert [cell.name for cell in results] == ["none", "static", "rule-own-ip", "connmark"]
    assert wrong(results) == []


# --- what the kernel has ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["pod-n1", "host-n1"])
@pytest.mark.parametrize("mode", MODES)
def test_tables_and_rules_are_as_planned(lab, mode, backend):
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Cluster", backend=backend, returnPath=mode)
    for node in ("n1", "n2"):
        assert_as_planned(lab, lab.session.plan.node(node))


@pytest.mark.parametrize("mode", ["none", "static", "rule-own-ip", "connmark"])
def test_tables_and_rules_of_hosts_are_as_planned(hosts, mode):
    hosts.enter(returnPath=mode)
    for node in ("linux", "server"):
        assert_as_planned(hosts, hosts.session.plan.node(node))


def assert_as_planned(lab: Changing, node: Node) -> None:
    """The rules, all tables but `local` and `main`, and of `main` the default route and the static ones."""
    rules = json.loads(lab.node(node.name, "ip", "-json", "rule"))
    live = sorted(rule_facts(rule) for rule in rules if rule["priority"] not in KERNELS_OWN_RULES)
    assert live == sorted(
        (entry.priority, entry.source or "all", entry.destination, entry.fwmark, entry.fwmask, entry.table)
        for entry in node.rules
    )
    routes = json.loads(lab.node(node.name, "ip", "-json", "route", "show", "table", "all"))
    found = {route_facts(route) for route in routes if route.get("type", "unicast") == "unicast"}
    wanted = {(route.table, route.to, route.via, route.dev) for route in node.routes}
    assert wanted <= found
    beside_main = {facts for facts in found if facts[0] != MAIN_TABLE}
    assert beside_main == {facts for facts in wanted if facts[0] != MAIN_TABLE}
    assert [facts for facts in found if facts[:2] == (MAIN_TABLE, "0.0.0.0/0")] == [
        facts for facts in wanted if facts[:2] == (MAIN_TABLE, "0.0.0.0/0")
    ]
    tables = lab.node(node.name, "/usr/sbin/nft", "list", "tables")
    assert ("table ip testbed-return-path" in tables) is any("testbed-return-path" in r.name for r in node.rulesets)


def rule_facts(rule: dict) -> tuple:
    mark = int(rule.get("fwmark", "0"), 16)
    mask = int(rule.get("fwmask", "0xffffffff"), 16) if mark else 0
    source = f"{rule['src']}/{rule.get('srclen', 32)}" if rule["src"] != "all" else "all"
    to = f"{rule['dst']}/{rule.get('dstlen', 32)}" if "dst" in rule else ""
    table = {"main": MAIN_TABLE}.get(rule["table"]) or int(rule["table"])
    return rule["priority"], source, to, mark, mask, table


def route_facts(route: dict) -> tuple:
    to = "0.0.0.0/0" if route["dst"] == "default" else route["dst"]
    if ":" not in to and "/" not in to:
        to += "/32"
    table = route.get("table", MAIN_TABLE)
    return (int(table) if str(table).isdigit() else table), to, route.get("gateway", ""), route["dev"]


# --- where the packets go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["static", "rule-pod-ip", "connmark", "ctorigdst"])
def test_request_and_reply_take_the_same_uplink(lab, mode):
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Local", backend="pod-n1", returnPath=mode)
    with capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == ANSWERED
    assert concerning_the_client(second) == {REQUEST, REPLY}
    assert concerning_the_client(first) == set()


@pytest.mark.testbed_needs("ipvs", "ipset", "dummy")
@pytest.mark.parametrize("mode", ["rule-lb-ip", "connmark"])
def test_with_ipvs_request_and_reply_take_the_same_uplink(ipvs, mode):
    """Also with the link to VRF1 down on r1's side."""
    lab = ipvs["Local"]
    lab.enter(kubeProxyMode="ipvs", externalTrafficPolicy="Local", backend="pod-n1", returnPath=mode)
    with vrf1_down(lab), capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == ANSWERED
    assert concerning_the_client(second) == {REQUEST, REPLY}
    assert concerning_the_client(first) == set()


@contextlib.contextmanager
def vrf1_down(lab: Changing) -> Iterator[None]:
    """For the length of the block r1's end of the link into VRF1, by which n1's default route leads, is down."""
    bridge = next(entry.name for entry in lab.session.plan.node("r1").interfaces if entry.kind == "bridge")
    try:
        lab.session.runtime.run("r1", "vrf1", ("ip", "link", "set", bridge, "down"))
        yield
    finally:
        lab.session.runtime.run("r1", "vrf1", ("ip", "link", "set", bridge, "up"))


@pytest.mark.parametrize("mode", ["none", "rule-lb-ip"])
def test_the_reply_is_lost_by_the_default_route(lab, mode):
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Local", backend="pod-n1", returnPath=mode)
    with capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == LOST
    assert concerning_the_client(second) == {REQUEST}
    assert concerning_the_client(first) == {REPLY}


@pytest.mark.parametrize("backend", ["pod-n1", "host-n1"])
def test_the_other_vrf_is_not_needed(lab, backend):
    """With the link to VRF1 down on r1's side it still works; and, for a pod, with a blackhole for a default route."""
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Cluster", backend=backend, returnPath="connmark")
    assert lab.outcomes() == ANSWERED
    with vrf1_down(lab):
        assert lab.outcomes() == ANSWERED
    if backend == "host-n1":
        return  # a socket's first route comes before OUTPUT, where the mark is: a blackhole there is an error at once
    with blackholed(lab):
        assert lab.outcomes() == ANSWERED


# --- the source check -------------------------------------------------------------------------------------------------

# (mode, rp_filter, src_valid_mark, what comes of it); those that are lost are refused by the compiler, see
# tests/unit/compile/test_return_path_checks.py.
CHECKED = [
    ("static", 1, 0, ANSWERED),
    ("static", 1, 1, ANSWERED),
    ("rule-pod-ip", 1, 0, ANSWERED),
    ("rule-pod-ip", 2, 1, ANSWERED),
    ("connmark", 1, 0, LOST),
    ("connmark", 2, 0, ANSWERED),
    ("connmark", 2, 1, LOST),
    ("connmark", 0, 1, ANSWERED),
    ("ctorigdst", 1, 0, LOST),
    ("ctorigdst", 2, 0, ANSWERED),
    ("ctorigdst", 2, 1, LOST),
]


@pytest.mark.parametrize(("mode", "check", "valid_mark", "expected"), CHECKED)
def test_the_source_check(lab, mode, check, valid_mark, expected):
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Local", backend="pod-n1", returnPath=mode)
    assert lab.outcomes() == ANSWERED
    with checking(lab, "n1", check, valid_mark):
        assert lab.outcomes() == expected


def test_the_source_check_drops_requests_whose_replies_would_be_lost(lab):
    """With rule-lb-ip no answer comes anyway: with the check no request gets to the pod, without it one does."""
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Local", backend="pod-n1", returnPath="rule-lb-ip")
    cali = next(entry.name for entry in lab.session.plan.node("n1").interfaces if entry.name.startswith("cali"))
    with capture(lab.session, "n1", cali) as passed:
        assert lab.outcomes() == LOST
    assert any(packet.out for packet in passed)
    with checking(lab, "n1", 1, 0), capture(lab.session, "n1", cali) as passed:
        assert lab.outcomes() == LOST
    assert not any(packet.out for packet in passed)


@pytest.mark.parametrize(
    ("mode", "check", "tcp"), [("rule-own-ip", 1, "ok"), ("connmark", 2, "ok"), ("connmark", 1, "timeout")]
)
def test_the_source_check_of_a_host(hosts, mode, check, tcp):
    hosts.enter(returnPath=mode)
    assert hosts.outcomes()["tcp"] == "ok"
    with checking(hosts, "server", check, 1):
        assert hosts.outcomes()["tcp"] == tcp
