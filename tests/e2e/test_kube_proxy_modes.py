"""kube-proxy's modes: the same answers in each, the kernel's state as planned, and nothing left of the mode before."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pytest
from conftest import EDGE, assert_flows, own_name, running

from testbed.deploy import balancer, needs
from testbed.errors import UnsupportedError
from testbed.plan import Node, Plan, Ruleset
from testbed.pytest_plugin.capabilities import not_run
from testbed.session import Session, compiled

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

SERVICES = Path(__file__).parent / "labs" / "services"
TIMEOUT = 120


NEEDS_IPVS = pytest.mark.testbed_needs("ipvs", "ipset", "dummy")
MODES = ["iptables", "nftables", pytest.param("ipvs", marks=NEEDS_IPVS)]
CHANGES = [
    pytest.param(*change, marks=[NEEDS_IPVS] if "ipvs" in change else [])
    for change in permutations(("iptables", "nftables", "ipvs"), 2)
]


@dataclass
class Changing:
    """A running lab whose mode and manifests the tests change."""

    session: Session
    folder: Path

    def plan(self, mode: str) -> Plan:
        """The lab as its files are now, in a mode."""
        path = self.folder / "lab.yaml"
        lines = path.read_text().splitlines(keepends=True)
        assert sum("kubeProxyMode:" in line for line in lines) == 1
        path.write_text("".join(f"  kubeProxyMode: {mode}\n" if "kubeProxyMode:" in line else line for line in lines))
        return compiled(str(self.folder), self.session.name)

    def up(self, mode: str) -> None:
        self.session.up(self.plan(mode), timeout=TIMEOUT)


@pytest.fixture(scope="module")
def running_lab(tmp_path_factory) -> Iterator[Changing]:
    folder = tmp_path_factory.mktemp("lab") / "services"
    shutil.copytree(SERVICES, folder)
    with Session(own_name("modes")) as session:
        try:
            yield Changing(session, folder)
        finally:
            session.down()


@pytest.fixture
def lab(running_lab) -> Iterator[Changing]:
    """The lab as its folder in this repository describes it; for the next test the files are put back."""
    originals = {path: path.read_bytes() for path in running_lab.folder.rglob("*.yaml")}
    yield running_lab
    for path, content in originals.items():
        path.write_bytes(content)


def test_nftables_answers_as_iptables_does_in_the_edge_lab(tmp_path):
    """The flows are those of labs/edge, which test_edge asks in mode iptables."""
    folder = tmp_path / "edge"
    shutil.copytree(EDGE, folder)
    text = (folder / "lab.yaml").read_text()
    assert text.count("kubeProxyMode: iptables") == 1
    (folder / "lab.yaml").write_text(text.replace("kubeProxyMode: iptables", "kubeProxyMode: nftables"))
    with running(compiled(str(folder), own_name("edge-nft"))) as session:
        assert_flows(session)
        for name in ("n1", "n2", "n3"):
            assert_as_planned(session, session.plan.node(name), "nftables")


@pytest.mark.parametrize(("before", "mode"), CHANGES)
def test_a_running_lab_changes_its_mode(lab, before, mode):
    lab.up(before)
    lab.up(mode)
    assert_flows(lab.session)
    for name in ("n1", "n2"):
        assert_as_planned(lab.session, lab.session.plan.node(name), mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_change_of_services_keeps_connections(lab, mode):
    """A connection by a node port to a pod of the other node goes on while one Service goes and another comes.

    Not by a load balancer's address: the router may send its packets to another node at any time.
    """
    lab.up(mode)
    manifest = lab.folder / "manifests" / "services.yaml"
    with lab.session.runtime.socket("client", None, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((node_address(lab.session, "n2"), 30080))
        first = answer(client)
        text = manifest.read_text()
        assert text.count("{name: spare}") == 1
        manifest.write_text(text.replace("{name: spare}", "{name: renamed}"))
        lab.up(mode)
        assert {entry.name for entry in lab.session.plan.services} >= {"cluster", "renamed"}
        second = answer(client)
    assert first["pod"] == second["pod"] == "echo"
    assert first["peer"] == second["peer"]
    for name in ("n1", "n2"):
        assert_as_planned(lab.session, lab.session.plan.node(name), mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_change_of_services_keeps_the_endpoint_of_a_client(lab, mode):
    """sessionAffinity: ClientIP. Two endpoints, so a client that was forgotten would be found out in some change.

    By node port, for each node remembers clients of its own, and the router may send them now here, now there.
    """
    lab.up(mode)
    manifest = lab.folder / "manifests" / "services.yaml"
    text = manifest.read_text()
    pods = {pod_behind(lab.session)}
    for number in range(5):
        manifest.write_text(text.replace("{name: spare}", f"{{name: spare-{number}}}"))
        lab.up(mode)
        pods |= {pod_behind(lab.session) for _ in range(2)}
    assert len(pods) == 1


def test_a_change_of_mode_keeps_connections(lab):
    """Between iptables and nftables, where connection tracking alone translates what is established."""
    lab.up("iptables")
    with lab.session.runtime.socket("client", None, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((node_address(lab.session, "n2"), 30080))
        peers = [answer(client)["peer"]]
        for mode in ("nftables", "iptables"):
            lab.up(mode)
            peers.append(answer(client)["peer"])
    assert len(set(peers)) == 1


def test_a_kernel_without_ipvs_is_refused_before_anything_is_made(tmp_path):
    folder = tmp_path / "services"
    shutil.copytree(SERVICES, folder)
    text = (folder / "lab.yaml").read_text()
    (folder / "lab.yaml").write_text(text.replace("kubeProxyMode: iptables", "kubeProxyMode: ipvs"))
    plan = compiled(str(folder), own_name("refused"))
    with Session(plan.name) as session:
        try:
            needs.refuse(plan)
        except UnsupportedError:
            with pytest.raises(UnsupportedError, match=r"mode ipvs needs .*\(testbed vm\)"):
                session.up(plan)
            assert not session.exists
            assert not session.directory.exists()
        else:
            pytest.skip("this kernel has IPVS")


def test_sets_change_by_difference_and_go_with_the_rules_that_name_them(request):
    """The part of mode ipvs that kernels without IPVS can do as well."""
    kind = "hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12"
    named = "*nat\n-A PREROUTING -m set --match-set {} dst,dst -j ACCEPT\nCOMMIT\n"

    def plan(sets: dict[str, list[str]]) -> Plan:
        text = "".join(f"create {name} {kind}\n" for name in sets)
        text += "".join(f"add {name} {entry}\n" for name, held in sets.items() for entry in held)
        rules = "".join(named.format(name) for name in sets)
        rulesets = (Ruleset("sets", "ipset", text), Ruleset("iptables", "iptables-restore", rules))
        return Plan(name, nodes=(Node("n1", "host", rulesets=rulesets if sets else ()),))

    name = own_name("sets")
    first = plan({"A": ["10.0.0.1,tcp:80", "10.0.0.2,tcp:80"], "B": ["10.0.0.1,udp:53"]})
    try:
        needs.refuse(first)
    except UnsupportedError as error:
        not_run(request.config, "kernel", str(error))
    with running(first) as session:
        assert held(session) == {"A": {"10.0.0.1,tcp:80", "10.0.0.2,tcp:80"}, "B": {"10.0.0.1,udp:53"}}
        session.up(plan({"A": ["10.0.0.2,tcp:80", "10.0.0.3,sctp:80"], "C": []}))
        assert held(session) == {"A": {"10.0.0.2,tcp:80", "10.0.0.3,sctp:80"}, "C": set()}
        session.up(plan({}))
        assert held(session) == {}


# What a node has


def held(session: Session) -> dict[str, set[str]]:
    """The sets of node n1 and what they hold, as the kernel says."""
    lines = [line.split() for line in session.runtime.run("n1", None, ("ipset", "save")).splitlines()]
    found: dict[str, set[str]] = {words[1]: set() for words in lines if words[0] == "create"}
    for words in lines:
        if words[0] == "add":
            found[words[1]].add(words[2])
    return found


def node_address(session: Session, node: str) -> str:
    return session.plan.node(node).interfaces[0].addresses[0].partition("/")[0]


def pod_behind(session: Session) -> str:
    """Who answers the client at node n1, at the node port of Service `both`."""
    with session.runtime.socket("client", None, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((node_address(session, "n1"), 30082))
        return str(answer(client)["pod"])


def answer(client: socket.socket) -> dict:
    """What the echo program says to a line."""
    client.sendall(b"hello\n")
    return json.loads(client.makefile("rb").readline())


def assert_as_planned(session: Session, node: Node, mode: str) -> None:
    """What kube-proxy makes in this mode is there, and nothing of the other modes."""
    rules = run(session, node, "iptables-save")
    assert ("KUBE-SVC-" in rules) is (mode == "iptables")
    assert ("KUBE-IPVS-FILTER" in rules) is (mode == "ipvs")
    assert ("KUBE-" in rules) is (mode != "nftables")
    assert ("ct_state_invalid_dropped_pkts" in run(session, node, "nfacct", "list")) is (mode == "iptables")
    assert ("table ip kube-proxy" in run(session, node, "nft", "list", "tables")) is (mode == "nftables")
    links = json.loads(run(session, node, "ip", "-j", "address", "show"))
    dummies = {entry["ifname"]: entry for entry in links if entry["ifname"] == "kube-ipvs0"}
    assert bool(dummies) is (mode == "ipvs")
    texts = {entry.tool: entry.text for entry in node.rulesets}
    if not has_ipvs():
        return
    sets, servers = run(session, node, "ipset", "save"), run(session, node, "ipvsadm", "--save", "--numeric")
    if mode != "ipvs":
        assert (sets, servers) == ("", "")
        return
    assert balancer.sets_to_add(texts["ipset"], sets) == balancer.sets_to_remove(texts["ipset"], sets) == ""
    assert balancer.servers_to_change(texts["ipvs"], servers) == ""
    assert servers.count("-A ") >= 10
    (device,) = dummies.values()
    assert "UP" not in device["flags"]
    assert "NOARP" in device["flags"]
    planned = next(entry for entry in node.interfaces if entry.name == "kube-ipvs0")
    assert sorted(entry["local"] for entry in device["addr_info"]) == sorted(a.split("/")[0] for a in planned.addresses)


def run(session: Session, node: Node, *argv: str) -> str:
    return session.runtime.run(node.name, None, argv)


def has_ipvs() -> bool:
    from testbed.runtime import kernel

    return bool(kernel.try_all({"ipvs": kernel.ipvs})["ipvs"].works)
