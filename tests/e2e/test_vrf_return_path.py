"""The return path, live: the truth tables, where each packet goes, the kernel's tables as planned, the source check."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from conftest import LABS, own_name

from testbed.cli.matrix import compiled, run_cells
from testbed.events import ignore
from testbed.load.cells import Cell
from testbed.load.matrix import Variants
from testbed.plan import MAIN_TABLE, Node, Plan
from testbed.pytest_plugin.capabilities import not_run
from testbed.report.matrix import CellResult, wrong
from testbed.session import Session

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

LAB, HOST_LAB = str(LABS / "vrf-return-path"), str(LABS / "vrf-host")
MODES = ("none", "static", "rule-lb-ip", "rule-pod-ip", "connmark", "connmark-both", "ctorigdst")
KERNELS_OWN_RULES = (0, 32766, 32767)
PACKET_OUTGOING = 4  # linux/if_packet.h
ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800  # linux/if_ether.h; packets that leave are shown to the first alone
LONG = 120  # seconds until a cell must be ready
CLIENT, BALANCED = "10.10.10.10", "3.3.3.3"


@dataclass
class Changing:
    """A running lab, changed from cell to cell."""

    session: Session
    variants: Variants

    def enter(self, **values: str) -> None:
        """Give the lab the form of the first cell with these values."""
        cell = self.variants.cells({axis: [value] for axis, value in values.items()})[0]
        self.session.switch(self.compiled(cell), timeout=LONG)

    def run(self, **values: str) -> list[CellResult]:
        """What is found in the cells with these values, several of an axis separated by commas."""
        cells = self.variants.cells({axis: value.split(",") for axis, value in values.items()})
        return list(run_cells(self.session, [(cell, self.compiled(cell)) for cell in cells], LONG, ignore))

    def compiled(self, cell: Cell) -> Plan:
        return compiled(self.variants, cell, self.session.name, runtime=self.session.runtime.name)

    def node(self, name: str, *argv: str) -> str:
        return self.session.runtime.run(name, None, argv)

    def outcomes(self) -> dict[str, str]:
        return {verdict.flow.name: verdict.answer.outcome for verdict in self.session.test()}


@contextlib.contextmanager
def changing(lab: str, topic: str, runtime: str = "") -> Iterator[Changing]:
    with Session(own_name(topic), runtime) as session:
        try:
            yield Changing(session, Variants(lab))
        finally:
            session.down()


@pytest.fixture(scope="module")
def lab() -> Iterator[Changing]:
    with changing(LAB, "return") as found:
        yield found


@pytest.fixture(scope="module")
def hosts() -> Iterator[Changing]:
    with changing(HOST_LAB, "host") as found:
        yield found


# --- the truth tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
def test_every_cell(lab, mode, request):
    results = lab.run(kubeProxyMode=mode)
    assert len(results) == 2 * 3 * len(MODES)
    if reasons := [cell.not_run for cell in results if cell.not_run]:
        not_run(request.config, "kernel", reasons[0])
    assert all(len(cell.verdicts) == 2 for cell in results)
    assert wrong(results) == []
    texts = {cell.text for cell in results}
    assert texts >= {"\N{EN DASH}", "client", "n1 eth1", "n1 eth0", "client / \N{EN DASH}"}, "the cells are all alike"


def test_every_cell_of_plain_hosts(hosts):
    results = hosts.run()
    assert [cell.name for cell in results] == ["none", "static", "rule-own-ip", "connmark"]
    assert wrong(results) == []


@pytest.mark.docker
@pytest.mark.testbed_needs("docker")
def test_a_row_in_containers():
    some = "none,rule-lb-ip,rule-pod-ip,connmark"
    with changing(LAB, "return-docker", "docker") as lab:
        results = lab.run(kubeProxyMode="nftables", externalTrafficPolicy="Cluster", backend="pod-n1", returnPath=some)
        assert len(results) == 4
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


class Seen(NamedTuple):
    """A packet on an interface: whether it left by it, its source and destination."""

    out: bool
    source: str
    destination: str


@contextlib.contextmanager
def capture(session: Session, node: str, interface: str) -> Iterator[list[Seen]]:
    """What passes an interface of a node; complete when the block has ended."""
    seen: list[Seen] = []
    with session.runtime.socket(node, None, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as tap:
        tap.bind((interface, ETH_P_ALL))
        # Before it was bound it may have seen other interfaces.
        drain(tap)
        yield seen
        seen += drain(tap)


def drain(tap: socket.socket) -> list[Seen]:
    found = []
    tap.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            data, (_, protocol, kind, *_) = tap.recvfrom(65535)
            if protocol != ETH_P_IP:
                continue
            addresses = [str(ipaddress.IPv4Address(data[at : at + 4])) for at in (12, 16)]
            found.append(Seen(kind == PACKET_OUTGOING, *addresses))
    return found


REQUEST, REPLY = Seen(False, CLIENT, BALANCED), Seen(True, BALANCED, CLIENT)


def concerning_the_client(seen: list[Seen]) -> set[Seen]:
    return {packet for packet in seen if CLIENT in (packet.source, packet.destination)}


@pytest.mark.parametrize("mode", ["static", "rule-pod-ip", "connmark", "ctorigdst"])
def test_request_and_reply_take_the_same_uplink(lab, mode):
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Local", backend="pod-n1", returnPath=mode)
    with capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == {"tcp": "ok", "udp": "ok"}
    assert concerning_the_client(second) == {REQUEST, REPLY}
    assert concerning_the_client(first) == set()


@pytest.mark.parametrize("mode", ["none", "rule-lb-ip"])
def test_the_reply_is_lost_by_the_default_route(lab, mode):
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Local", backend="pod-n1", returnPath=mode)
    with capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == {"tcp": "timeout", "udp": "timeout"}
    assert concerning_the_client(second) == {REQUEST}
    assert concerning_the_client(first) == {REPLY}


@pytest.mark.parametrize("backend", ["pod-n1", "host-n1"])
def test_the_other_vrf_is_not_needed(lab, backend):
    """With the link to VRF1 down on r1's side it still works; and, for a pod, with a blackhole for a default route."""
    lab.enter(kubeProxyMode="iptables", externalTrafficPolicy="Cluster", backend=backend, returnPath="connmark")
    assert lab.outcomes() == {"tcp": "ok", "udp": "ok"}
    bridge = next(entry.name for entry in lab.session.plan.node("r1").interfaces if entry.kind == "bridge")
    r1 = lab.session.runtime
    try:
        r1.run("r1", "vrf1", ("ip", "link", "set", bridge, "down"))
        assert lab.outcomes() == {"tcp": "ok", "udp": "ok"}
    finally:
        r1.run("r1", "vrf1", ("ip", "link", "set", bridge, "up"))
    if backend == "host-n1":
        return  # a socket's first route comes before OUTPUT, where the mark is: a blackhole there is an error at once
    try:
        lab.node("n1", "ip", "route", "replace", "blackhole", "default")
        assert lab.outcomes() == {"tcp": "ok", "udp": "ok"}
    finally:
        lab.node("n1", "ip", "route", "replace", "default", "via", "172.16.1.1", "dev", "eth0")


# --- the source check -------------------------------------------------------------------------------------------------

ANSWERED, LOST = {"tcp": "ok", "udp": "ok"}, {"tcp": "timeout", "udp": "timeout"}
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


@contextlib.contextmanager
def checking(lab: Changing, node: str, check: int, valid_mark: int) -> Iterator[None]:
    settings = {"net.ipv4.conf.all.rp_filter": check, "net.ipv4.conf.all.src_valid_mark": valid_mark}
    try:
        for key, value in settings.items():
            lab.node(node, "/usr/sbin/sysctl", "-w", f"{key}={value}")
        lab.session.forget_connections()
        yield
    finally:
        for key in settings:
            lab.node(node, "/usr/sbin/sysctl", "-w", f"{key}=0")


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
