"""Egress services, live: whom the server sees, what stays as it was, and that no packet leaves with another source."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from conftest import LABS, assert_flows
from e2e_changing import ChangingLab, as_shipped, brought_up
from e2e_traffic import PERIOD, stream

from testbed.plan import MAIN_TABLE
from testbed.session import Session
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

BALANCED, SERVER, PORT = "3.3.3.3", "10.10.10.10", 8080
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
NODES = ("n1", "n2")
EGRESS = "manifests/20-egress.yaml"
ETH_P_ALL, ETH_P_IP, PACKET_OUTGOING = 0x0003, 0x0800, 4  # linux/if_ether.h, linux/if_packet.h
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h


class Changing(ChangingLab):
    """A running lab whose files the tests edit."""

    def exclude(self, node: str) -> None:
        self.edit(
            "lab.yaml", f"{node}: {{kind: kubernetes}}", f'{node}: {{kind: kubernetes, labels: {{{EXCLUDED}: ""}}}}'
        )

    def delete(self) -> None:
        """Take the EgressService out of the manifests."""
        path = self.folder / EGRESS
        path.write_text(path.read_text().partition("---")[0])

    @property
    def translator(self) -> str:
        """The one node that announces the Service."""
        [service] = [entry for entry in self.session.plan.services if entry.name == "app"]
        [node] = service.announced_by
        return node

    def pod(self, node: str, name: str = "app-") -> str:
        [found] = [entry for entry in self.session.plan.nodes if entry.parent == node and entry.name.startswith(name)]
        return found.name

    def address(self, node: str) -> str:
        return self.session.plan.node(node).interfaces[0].addresses[0].partition("/")[0]

    def mac(self, node: str, interface: str) -> str:
        [link] = json.loads(self.session.runtime.run(node, None, ("/usr/sbin/ip", "-j", "link", "show", interface)))
        return str(link["address"])


@pytest.fixture(scope="module")
def changing(tmp_path_factory) -> Iterator[Changing]:
    with brought_up(Changing, str(LABS / "egress"), "egress", tmp_path_factory.mktemp("lab") / "egress") as found:
        yield found


@pytest.fixture
def lab(changing) -> Iterator[Changing]:
    """The lab as labs/egress describes it, all flows passing; for the next test the files are put back."""
    with as_shipped(changing) as found:
        yield found


# --- what is on the wires ---------------------------------------------------------------------------------------------


class Sent(NamedTuple):
    """A packet that left a node by an uplink: to which station, its addresses, and the data of a datagram."""

    node: str
    interface: str
    station: str
    source: str
    destination: str
    data: str = ""


@dataclass
class Capture:
    packets: list[Sent] = field(default_factory=list)

    def to(self, destination: str) -> list[Sent]:
        return [packet for packet in self.packets if packet.destination == destination]


@contextlib.contextmanager
def capture(session: Session) -> Iterator[Capture]:
    """Every IPv4 packet that leaves a node by eth0 or eth1, for the length of the block; none is missed."""
    found, stop = Capture(), threading.Event()
    with contextlib.ExitStack() as stack:
        taps = {}
        for node in NODES:
            tap = session.runtime.socket(node, None, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            taps[node] = stack.enter_context(tap)
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
            tap.setblocking(False)
        thread = threading.Thread(target=_collect, args=(taps, found, stop))
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()
        for node, tap in taps.items():
            _read(node, tap, found)
            dropped = struct.unpack("=II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
            assert not dropped, f"{dropped} packets of {node} were not captured"


def _collect(taps: dict[str, socket.socket], found: Capture, stop: threading.Event) -> None:
    while not stop.wait(PERIOD):
        for node, tap in taps.items():
            _read(node, tap, found)


def _read(node: str, tap: socket.socket, found: Capture) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, (interface, protocol, kind, *_) = tap.recvfrom(128)
            if kind == PACKET_OUTGOING and protocol == ETH_P_IP and interface in ("eth0", "eth1"):
                source, destination = (str(ipaddress.IPv4Address(frame[at : at + 4])) for at in (26, 30))
                data = frame[42:].decode(errors="replace") if frame[23] == socket.IPPROTO_UDP else ""
                found.packets.append(Sent(node, interface, frame[:6].hex(":"), source, destination, data))


def assert_no_wrong_source(lab: Changing, found: Capture) -> None:
    """What is for the server went to r2 with the Service's address, or, as it was, from node to node."""
    assert found.to(SERVER), "nothing was captured"
    stations = {(node, name): lab.mac(node, name) for node in NODES for name in ("eth0", "eth1")}
    pods = {lab.address(lab.pod(node)) for node in NODES}
    for packet in found.to(SERVER):
        to_router = packet.station not in stations.values()
        translated = to_router and (packet.interface, packet.source) == ("eth1", BALANCED)
        [other] = (node for node in NODES if node != packet.node)
        to_node = (packet.interface, packet.station) == ("eth0", stations[other, "eth0"])
        handed_over = to_node and packet.source in pods
        assert translated or handed_over, packet
    wrong = [packet for packet in found.packets if BALANCED in packet and packet.interface == "eth0"]
    assert not wrong, f"the Service's address in VRF mgmt: {wrong[:5]}"


@dataclass
class Conversation:
    """Numbered questions of one socket to the server, and the answers: when they came, whom the server saw."""

    sent: int = 0
    answered: list[float] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)

    @property
    def gap(self) -> float:
        """Seconds, the longest without an answer."""
        return max(b - a for a, b in zip(self.answered, self.answered[1:], strict=False))

    def report(self, pod: str) -> str:
        return f"{pod}: {self.sent - len(self.answered)} of {self.sent} unanswered, {self.gap:.2f} s without an answer"


@contextlib.contextmanager
def talking(session: Session, source: str) -> Iterator[Conversation]:
    """Ask the server about 100 times a second from one port, answered or not, for the length of the block."""
    talk, stop = Conversation(), threading.Event()
    with session.runtime.socket(source, None, socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect((SERVER, PORT))
        asker.setblocking(False)
        thread = threading.Thread(target=_talk, args=(source, talk, asker, stop))
        thread.start()
        try:
            yield talk
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def conversation(session: Session, source: str) -> Iterator[Conversation]:
    """The same, where the server must answer before the block and after it."""
    with talking(session, source) as talk:
        assert until(lambda: len(talk.answered) >= 10, Deadline(5)), f"{source} had no answers at all"
        yield talk
        before = len(talk.answered)
        assert until(lambda: len(talk.answered) >= before + 10, Deadline(30)), talk.report(source)


def _talk(name: str, talk: Conversation, asker: socket.socket, stop: threading.Event) -> None:
    while not stop.wait(PERIOD):
        with contextlib.suppress(OSError):  # an ICMP error that came for an earlier one
            asker.send(name.encode())
        talk.sent += 1
        with contextlib.suppress(OSError):
            while True:
                talk.peers.add(json.loads(asker.recv(4096))["peer"])
                talk.answered.append(time.monotonic())


# --- tests ------------------------------------------------------------------------------------------------------------


def test_the_server_sees_the_service(lab):
    with capture(lab.session) as found:
        assert_flows(lab.session, [name for name in flows(lab) if name != "other-pod-into-sbi"])
    assert_no_wrong_source(lab, found)
    assert {packet.node for packet in found.to(SERVER) if packet.source == BALANCED} == {lab.translator}
    # The other node's pods were handed over; pods that are none of the Service's left by mgmt with a node's address.
    assert {packet.source for packet in found.to(SERVER) if packet.interface == "eth0"} == {
        lab.address(lab.pod(node)) for node in NODES if node != lab.translator
    }
    by_way = {(packet.interface, packet.source) for packet in found.to("10.20.20.20")}
    assert by_way == {("eth0", "172.16.1.3"), ("eth1", BALANCED)}  # the latter is the flow not-into-mgmt


def test_a_walk_names_the_rule_on_both_nodes(lab):
    """On n2 main's default route leaves by the same interface, to another node."""
    trace = lab.session.trace(lab.session.chosen(["tcp-n2"])[0])
    routes = {hop.node: str(facts.route) for hop, facts in zip(trace.walk.request.hops, trace.forward, strict=True)}
    rule = "by rule 801: from all fwmark 0x1/0xff lookup 201"
    assert routes["n2"] == f"table 201: default via 172.16.1.2 dev eth0 (static), {rule}"
    assert routes["n1"] == f"table 201: default via 172.16.2.1 dev eth1 (static), {rule}"


def test_tables_and_rules_are_the_planned_ones(lab):
    for name in NODES:
        node = lab.session.plan.node(name)
        rules = json.loads(lab.session.runtime.run(name, None, ("/usr/sbin/ip", "-j", "-4", "rule")))
        live = {(rule["priority"], rule.get("fwmark"), rule.get("fwmask"), rule["table"]) for rule in rules}
        planned = {(rule.priority, hex(rule.fwmark), hex(rule.fwmask), str(rule.table)) for rule in node.rules}
        assert {rule for rule in live if rule[0] not in (0, 32766, 32767)} == planned
        for table in {route.table for route in node.routes} - {MAIN_TABLE}:
            argv = ("/usr/sbin/ip", "-j", "-4", "route", "show", "table", str(table))
            live = {
                (route["dst"], route.get("gateway", ""))
                for route in json.loads(lab.session.runtime.run(name, None, argv))
            }
            assert live == {(r.to.replace("0.0.0.0/0", "default"), r.via) for r in node.routes if r.table == table}


def test_failover_under_traffic(lab, record_testsuite_property):
    old = lab.translator
    pods = {node: lab.pod(node) for node in NODES}
    lab.exclude(old)
    with (
        capture(lab.session) as found,
        conversation(lab.session, pods["n1"]) as first,
        conversation(lab.session, pods["n2"]) as second,
        stream(lab.session, pods["n1"], "server", SERVER, 9001) as one_way,
        stream(lab.session, pods["n2"], "server", SERVER, 9002) as other_way,
    ):
        started = len(found.packets)
        lab.up()
        done = len(found.packets)
    new = lab.translator
    assert new != old
    assert_no_wrong_source(lab, found)
    assert {packet.node for packet in found.packets[:started] if packet.source == BALANCED} == {old}
    assert {packet.node for packet in found.packets[done:] if packet.source == BALANCED} == {new}
    assert first.peers == second.peers == {BALANCED}
    for name, text in (
        ("n1", first.report(pods["n1"])),
        ("n2", second.report(pods["n2"])),
        ("n1 one way", one_way.report()),
        ("n2 one way", other_way.report()),
        ("packets to the server", f"{len(found.to(SERVER))}, all with the right source"),
    ):
        record_testsuite_property(f"egress failover: {name}", text)  # the figures, in the JUnit report
    seen = {verdict.flow.name: verdict.answer.seen_as for verdict in lab.session.test(["tcp-n1", "tcp-n2"])}
    assert seen == {"tcp-n1": BALANCED, "tcp-n2": BALANCED}
    by_the_first = ("tcp-n1", "tcp-n2", "not-into-mgmt")  # what they say of their way is of the first node
    assert_flows(lab.session, [name for name in flows(lab) if name not in by_the_first])


def flows(lab: Changing) -> list[str]:
    return [flow.name for flow in lab.session.plan.flows]


def test_without_it_pods_leave_by_the_default_route(lab):
    """The positive control of the captures, too: both other ways are seen when they are taken."""
    pods = [lab.pod(node) for node in NODES]
    lab.delete()
    with capture(lab.session) as during, contextlib.ExitStack() as stack:
        for pod in pods:
            stack.enter_context(talking(lab.session, pod))
        lab.up()
        assert until(lambda: during.packets[-1:] and len(by_mgmt(during)) >= 20, Deadline(5)), "nothing took mgmt"
    assert not [packet for packet in during.packets if BALANCED in packet and packet.interface == "eth0"]
    assert {packet.source for packet in by_mgmt(during)} == {"172.16.1.2", "172.16.1.3"}
    assert "testbed-egress" not in lab.session.runtime.run("n1", None, ("/usr/sbin/nft", "list", "tables"))
    assert {verdict.flow.name: verdict.answer.outcome for verdict in lab.session.test(["tcp-n1", "not-into-mgmt"])} == {
        "tcp-n1": "unreachable",
        "not-into-mgmt": "ok",
    }


def by_mgmt(found: Capture) -> list[Sent]:
    return [packet for packet in found.to(SERVER) if packet.source.startswith("172.16.1.")]


def test_when_it_comes_what_was_open_leaves_rightly_or_not_at_all(lab):
    """A socket that sent before has a connection that was translated to a node's address."""
    text = (lab.folder / EGRESS).read_text()
    lab.delete()
    lab.up()
    with contextlib.ExitStack() as stack:
        for node in NODES:
            stack.enter_context(talking(lab.session, lab.pod(node)))
        with capture(lab.session) as before:
            assert until(lambda: len(by_mgmt(before)) >= 20, Deadline(5)), "nothing took mgmt"
        (lab.folder / EGRESS).write_text(text)
        with capture(lab.session) as during:
            lab.up()
        with capture(lab.session) as after:
            assert until(lambda: len(after.to(SERVER)) >= 100, Deadline(5)), "what was open is dropped for ever"
    assert_no_wrong_source(lab, after)
    for node in NODES:
        own = Capture([packet for packet in during.packets if packet.data == lab.pod(node)])
        as_before = [packet for packet in by_mgmt(own) if packet.node == node]
        assert as_before
        assert_no_wrong_source(lab, Capture([packet for packet in own.packets if packet not in as_before]))


def test_each_node_for_its_own_pods(lab):
    lab.edit(EGRESS, "sourceIPBy: LoadBalancerIP", "sourceIPBy: Network")
    lab.up()
    verdicts = lab.session.test(["tcp-n1", "udp-n2", "east-west", "other-pod", "ingress"])
    assert {verdict.flow.name: (verdict.answer.outcome, verdict.answer.seen_as) for verdict in verdicts[:2]} == {
        "tcp-n1": ("ok", "172.16.2.2"),
        "udp-n2": ("ok", "172.16.2.3"),
    }
    assert not [verdict.reasons for verdict in verdicts[2:] if verdict.reasons]


@pytest.mark.parametrize(
    "mode", ["nftables", pytest.param("ipvs", marks=pytest.mark.testbed_needs("ipvs", "ipset", "dummy"))]
)
def test_other_modes_of_kube_proxy(lab, mode):
    lab.edit("lab.yaml", "  defaultRoute: mgmt\n", f"  defaultRoute: mgmt\n  kubeProxyMode: {mode}\n")
    lab.up()
    lab.session.forget_connections()  # those of the other mode
    assert_flows(lab.session)
