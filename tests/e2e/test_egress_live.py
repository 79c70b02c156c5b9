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

from testbed.plan import MAIN_TABLE, Tunnel
from testbed.report.walks import walk_lines
from testbed.session import Session
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns", "vxlan")]

BALANCED, SERVER, PORT = "3.3.3.3", "10.10.10.10", 8080
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
NODES = ("n1", "n2", "n3")
LINKED = {"n1": ("n2",), "n2": ("n1",), "n3": ()}  # who hands over to whom by a link; all others by the tunnel
TUNNEL, TUNNEL_PORT = "testbed-egress", 14789
BY_MGMT = {"n1": "172.16.1.2", "n2": "172.16.1.3", "n3": "172.16.3.2"}
EGRESS = "manifests/20-egress.yaml"
ETH_P_ALL, ETH_P_IP, PACKET_OUTGOING = 0x0003, 0x0800, 4  # linux/if_ether.h, linux/if_packet.h
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14  # linux/in.h
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h


class Changing(ChangingLab):
    """A running lab whose files the tests edit."""

    def exclude(self, node: str) -> None:
        self.edit(
            "lab.yaml",
            f"{node}: {{kind: kubernetes, labels: {{",
            f'{node}: {{kind: kubernetes, labels: {{{EXCLUDED}: "", ',
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
        [link] = self.ask(node, "ip", "-j", "link", "show", interface)
        return str(link["address"])

    def ask(self, node: str, program: str, *words: str) -> list[dict]:
        """What a program of iproute2 says in a node."""
        return json.loads(self.session.runtime.run(node, None, (f"/usr/sbin/{program}", *words)))


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
    """A packet that left a node by an uplink: to which station, its addresses, and the data of a datagram.

    Of one in a tunnel the addresses are its own; `carried` are those of the packet around it.
    """

    node: str
    interface: str
    station: str
    source: str
    destination: str
    data: str = ""
    carried: tuple[str, str] | None = None


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
            frame, (interface, protocol, kind, *_) = tap.recvfrom(192)
            if kind == PACKET_OUTGOING and protocol == ETH_P_IP and interface in ("eth0", "eth1"):
                found.packets.append(_sent(node, interface, frame))


def _sent(node: str, interface: str, frame: bytes) -> Sent:
    station, carried = frame[:6].hex(":"), None
    if frame[23] == socket.IPPROTO_UDP and frame[36:38] == TUNNEL_PORT.to_bytes(2, "big"):
        carried = _addresses(frame)
        frame = frame[50:]  # behind IPv4, UDP and VXLAN headers (RFC 7348)
    data = frame[42:].decode(errors="replace") if frame[23] == socket.IPPROTO_UDP else ""
    return Sent(node, interface, station, *_addresses(frame), data, carried)


def _addresses(frame: bytes) -> tuple[str, str]:
    source, destination = (str(ipaddress.IPv4Address(frame[at : at + 4])) for at in (26, 30))
    return source, destination


def assert_no_wrong_source(lab: Changing, found: Capture) -> None:
    """What is for the server went to r2 with the Service's address, or, as it was, from node to node: on the link that
    both have, else in the tunnel."""
    assert found.to(SERVER), "nothing was captured"
    stations = {(node, name): lab.mac(node, name) for node in NODES for name in ("eth0", "eth1")}
    pods = {lab.address(lab.pod(node)) for node in NODES}
    for packet in found.to(SERVER):
        to_router = packet.station not in stations.values()
        translated = to_router and (packet.interface, packet.source, packet.carried) == ("eth1", BALANCED, None)
        by_link = [stations[other, "eth0"] for other in LINKED[packet.node]]
        handed_over = packet.carried is None and packet.station in by_link
        afar = [other for other in NODES if other not in (packet.node, *LINKED[packet.node])]
        tunnelled = packet.carried in [(BY_MGMT[packet.node], BY_MGMT[other]) for other in afar] and to_router
        as_it_was = packet.interface == "eth0" and packet.source in pods
        assert translated or (as_it_was and (handed_over or tunnelled)), packet
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
    # The other nodes' pods were handed over; pods that are none of the Service's left by mgmt with a node's address.
    assert {(packet.source, packet.carried) for packet in found.to(SERVER) if packet.interface == "eth0"} == {
        (lab.address(lab.pod("n2")), None),
        (lab.address(lab.pod("n3")), (BY_MGMT["n3"], BY_MGMT["n1"])),
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


def test_a_walk_goes_into_the_tunnel_and_out_of_it(lab):
    trace = lab.session.trace(lab.session.chosen(["tcp-n3"])[0])
    hops = {
        hop.node: (hop, str(facts.route)) for hop, facts in zip(trace.walk.request.hops, trace.forward, strict=True)
    }
    rule = "by rule 801: from all fwmark 0x1/0xff lookup 201"
    inside = (f"vxlan 200 {BY_MGMT['n3']} → {BY_MGMT['n1']}",)
    hop, route = hops["n3"]
    assert (hop.changes, hop.through, hop.tunnels_out) == (("encapsulated",), (TUNNEL,), inside)
    assert route == f"table 201: default via {BY_MGMT['n1']} dev {TUNNEL} (static), {rule}"
    hop, route = hops["r1"]
    assert (hop.changes, hop.tunnels_in, hop.tunnels_out) == ((), inside, inside)
    assert route == "table main: 172.16.1.0/24 dev br0 (kernel)"  # of what is around the packet
    hop, route = hops["n1"]
    assert (hop.changes, hop.through, hop.tunnels_in) == (("snat", "decapsulated"), (TUNNEL,), inside)
    assert route == f"table 201: default via 172.16.2.1 dev eth1 (static), {rule}"
    assert not [hop.node for hop in trace.walk.reply.hops if hop.tunnels_in or hop.tunnels_out]
    told = [line.split()[1] for line in walk_lines(trace) if f" in {inside[0]}" in line]
    assert told == ["n3", "r1"]
    [line] = [line for line in walk_lines(trace) if f" out of {inside[0]}" in line]
    assert line.split()[1] == "n1"


def test_a_peer_that_is_lost_is_named_and_comes_back(lab):
    [peer] = tunnel_of(lab, "n3").peers
    lab.session.runtime.run("n3", None, ("/usr/sbin/bridge", "fdb", "del", peer.mac, "dev", TUNNEL))
    trace = lab.session.trace(lab.session.chosen(["tcp-n3"])[0])
    assert trace.cause is not None
    assert (trace.cause.kind, trace.cause.node) == ("tunnel", "n3"), trace.cause.sentence
    assert f"{TUNNEL} lacks its planned peer {peer.address}" in trace.cause.sentence
    lab.up()
    assert_flows(lab.session, ["tcp-n3"])


def tunnel_of(lab: Changing, node: str) -> Tunnel:
    [found] = [entry.tunnel for entry in lab.session.plan.node(node).interfaces if entry.kind == "vxlan"]
    assert found is not None
    return found


def test_strict_source_check_of_the_node(lab):
    """The tunnel's interface has a check of its own, and an address, without which a loose one drops as well."""
    strict = "sysctls: {net.ipv4.conf.all.rp_filter: 1, net.ipv4.conf.eth1.rp_filter: 2}"
    lab.edit("lab.yaml", "n1: {kind: kubernetes, ", f"n1: {{kind: kubernetes, {strict}, ")
    lab.up()
    assert_flows(lab.session, ["tcp-n3", "udp-n3", "icmp-n3"])
    setting = ("/usr/sbin/sysctl", "-q", "-w", f"net.ipv4.conf.{TUNNEL}.rp_filter=0")
    lab.session.runtime.run("n1", None, setting)  # then that of all counts
    [verdict] = lab.session.test(["udp-n3"])
    assert verdict.answer.outcome == "timeout"


def test_packets_larger_than_the_tunnel_takes(lab):
    """Those that may not be fragmented are smaller soon, for the sender is told; others arrive in pieces."""
    pod = lab.pod("n3")
    with capture(lab.session) as found:
        with lab.session.runtime.socket(pod, None, socket.AF_INET, socket.SOCK_STREAM) as asker:
            asker.settimeout(10)
            asker.connect((SERVER, PORT))
            body = bytes(300_000)
            head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            asker.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: asker.recv(65536), b""))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["peer"] == BALANCED
        with lab.session.runtime.socket(pod, None, socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(10)
            asker.connect((SERVER, PORT))
            asker.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            asker.send(bytes(4000))
            assert json.loads(asker.recv(4096))["peer"] == BALANCED
            asker.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            asker.send(bytes(1450 - 28))
            assert json.loads(asker.recv(4096))["peer"] == BALANCED
            with pytest.raises(OSError, match="Message too long"):
                asker.send(bytes(1451 - 28))
            assert asker.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1450
    assert_no_wrong_source(lab, found)
    assert {packet.carried for packet in found.to(SERVER) if packet.node == "n3"} == {(BY_MGMT["n3"], BY_MGMT["n1"])}


def test_what_else_comes_out_of_the_tunnel_is_dropped(lab):
    """Whoever can reach the port could send packets of pods that are none of the Service's."""
    [peer] = tunnel_of(lab, "n3").peers
    other = lab.address(lab.pod("n2", "other-"))
    with (
        capture(lab.session) as found,
        lab.session.runtime.socket("n3", None, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for source, text in ((other, "stranger"), (lab.address(lab.pod("n3")), "pod")):
            sender.sendto(in_vxlan(peer.mac, datagram(source, text)), (peer.address, TUNNEL_PORT))
        assert until(lambda: [packet for packet in translated(found) if packet.data == "pod"], Deadline(5)), (
            found.packets
        )
    assert {(packet.node, packet.source) for packet in translated(found)} == {("n1", BALANCED)}
    assert not [packet for packet in found.packets if packet.data == "stranger" and packet.carried is None]


def translated(found: Capture) -> list[Sent]:
    return [packet for packet in found.to(SERVER) if packet.interface == "eth1"]


def in_vxlan(mac: str, packet: bytes) -> bytes:
    """What is sent to a VXLAN device that has this address (RFC 7348)."""
    ethernet = bytes.fromhex(mac.replace(":", "")) + bytes(6) + ETH_P_IP.to_bytes(2, "big")
    return struct.pack("!BxxxI", 0x08, 200 << 8) + ethernet + packet


def datagram(source: str, text: str) -> bytes:
    """A datagram for the server, as an IPv4 packet."""
    addresses = socket.inet_aton(source) + socket.inet_aton(SERVER)
    head = struct.pack("!BxHHHBBxx", 0x45, 28 + len(text), 1, 0, 64, socket.IPPROTO_UDP) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checked = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return checked + struct.pack("!HHHH", 5000, 9999, 8 + len(text), 0) + text.encode()


def assert_tunnels_are_the_planned_ones(lab: Changing) -> None:
    for name in NODES:
        planned = [entry for entry in lab.session.plan.node(name).interfaces if entry.tunnel]
        links = lab.ask(name, "ip", "-d", "-j", "address", "show", "type", "vxlan")
        assert [link["ifname"] for link in links] == [entry.name for entry in planned], name
        for entry, link in zip(planned, links, strict=True):
            data, tunnel = link["linkinfo"]["info_data"], entry.tunnel
            assert tunnel is not None
            assert (data["id"], data["local"], data["port"], data["learning"]) == (
                tunnel.vni, tunnel.local, tunnel.port, False,
            )  # fmt: skip
            assert (link["mtu"], link["address"]) == (entry.mtu, entry.mac)
            own = [f"{found['local']}/{found['prefixlen']}" for found in link["addr_info"] if found["family"] == "inet"]
            assert tuple(own) == entry.addresses
            peers = {(peer.address, peer.mac) for peer in tunnel.peers}
            next_hops = lab.ask(name, "ip", "-j", "-4", "neigh", "show", "dev", entry.name)
            stations = lab.ask(name, "bridge", "-j", "fdb", "show", "dev", entry.name)
            assert {(found["dst"], found["lladdr"]) for found in next_hops} == peers
            assert {(found["dst"], found["mac"]) for found in stations} == peers


def test_tables_and_rules_are_the_planned_ones(lab):
    assert_tunnels_are_the_planned_ones(lab)
    for name in NODES:
        node = lab.session.plan.node(name)
        rules = lab.ask(name, "ip", "-j", "-4", "rule")
        live = {(rule["priority"], rule.get("fwmark"), rule.get("fwmask"), rule["table"]) for rule in rules}
        planned = {(rule.priority, hex(rule.fwmark), hex(rule.fwmask), str(rule.table)) for rule in node.rules}
        assert {rule for rule in live if rule[0] not in (0, 32766, 32767)} == planned
        for table in {route.table for route in node.routes} - {MAIN_TABLE}:
            routes = lab.ask(name, "ip", "-j", "-4", "route", "show", "table", str(table))
            live = {(route["dst"], route.get("gateway", "")) for route in routes}
            assert live == {(r.to.replace("0.0.0.0/0", "default"), r.via) for r in node.routes if r.table == table}


def test_failover_under_traffic(lab, record_testsuite_property):
    """To the other rack, and back from there to a node of the first: every end of the tunnel changes its part."""
    for new in ("n3", "n2"):
        old = lab.translator
        lab.exclude(old)
        for name, text in moved(lab, old, new):
            record_testsuite_property(
                f"egress failover from {old} to {new}: {name}", text
            )  # the figures, in the JUnit report
        assert_tunnels_are_the_planned_ones(lab)
        verdicts = lab.session.test(["tcp-n1", "udp-n1", "tcp-n2", "udp-n2", "tcp-n3", "udp-n3"])
        assert {verdict.answer.seen_as for verdict in verdicts} == {BALANCED}
        # What the others say of their way is of the first node.
        assert_flows(lab.session, ["icmp-n1", "icmp-n2", *flows(lab)[flows(lab).index("east-west") :]])


def moved(lab: Changing, old: str, new: str) -> list[tuple[str, str]]:
    """Have another node translate while every pod sends; returns figures of what was lost."""
    pods = {node: lab.pod(node) for node in NODES}
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(capture(lab.session))
        talks = {node: stack.enter_context(conversation(lab.session, pods[node])) for node in NODES}
        streams = {
            node: stack.enter_context(stream(lab.session, pods[node], "server", SERVER, 9000 + number))
            for number, node in enumerate(NODES)
        }
        started = len(found.packets)
        lab.up()
        done = len(found.packets)
    assert lab.translator == new
    assert_no_wrong_source(lab, found)
    assert {packet.node for packet in found.packets[:started] if packet.source == BALANCED} == {old}
    assert {packet.node for packet in found.packets[done:] if packet.source == BALANCED} == {new}
    assert [talk.peers for talk in talks.values()] == [{BALANCED}] * len(NODES)
    return [
        *((node, talk.report(pods[node])) for node, talk in talks.items()),
        *((f"{node} one way", one_way.report()) for node, one_way in streams.items()),
        ("packets to the server", f"{len(found.to(SERVER))}, all with the right source"),
    ]


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
        assert until(lambda: {packet.node for packet in by_mgmt(during)} == set(NODES), Deadline(5)), (
            "nothing took mgmt"
        )
    assert not [packet for packet in during.packets if BALANCED in packet and packet.interface == "eth0"]
    assert {packet.source for packet in by_mgmt(during)} == set(BY_MGMT.values())
    assert "testbed-egress" not in lab.session.runtime.run("n1", None, ("/usr/sbin/nft", "list", "tables"))
    assert_tunnels_are_the_planned_ones(lab)  # there is none
    assert {verdict.flow.name: verdict.answer.outcome for verdict in lab.session.test(["tcp-n1", "not-into-mgmt"])} == {
        "tcp-n1": "unreachable",
        "not-into-mgmt": "ok",
    }


def by_mgmt(found: Capture) -> list[Sent]:
    return [packet for packet in found.to(SERVER) if packet.source in BY_MGMT.values()]


def test_when_it_comes_what_was_open_leaves_rightly_or_not_at_all(lab):
    """A socket that sent before has a connection that was translated to a node's address."""
    text, pods = (lab.folder / EGRESS).read_text(), {node: lab.pod(node) for node in NODES}
    lab.delete()
    lab.up()
    with contextlib.ExitStack() as stack:
        for node in NODES:
            stack.enter_context(talking(lab.session, pods[node]))
        with capture(lab.session) as before:
            assert until(lambda: {packet.node for packet in by_mgmt(before)} == set(NODES), Deadline(5)), (
                "nothing took mgmt"
            )
        (lab.folder / EGRESS).write_text(text)
        with capture(lab.session) as during:
            lab.up()
        with capture(lab.session) as after:
            assert until(lambda: len(after.to(SERVER)) >= 150, Deadline(5)), "what was open is dropped for ever"
    assert_no_wrong_source(lab, after)
    for node, pod in pods.items():
        own = Capture([packet for packet in during.packets if packet.data == pod])
        as_before = [packet for packet in by_mgmt(own) if packet.node == node]
        assert as_before
        assert_no_wrong_source(lab, Capture([packet for packet in own.packets if packet not in as_before]))


def test_each_node_for_its_own_pods(lab):
    lab.edit(EGRESS, "sourceIPBy: LoadBalancerIP", "sourceIPBy: Network")
    lab.up()
    verdicts = lab.session.test(["tcp-n1", "udp-n2", "udp-n3", "east-west", "other-pod", "ingress"])
    assert {verdict.flow.name: (verdict.answer.outcome, verdict.answer.seen_as) for verdict in verdicts[:3]} == {
        "tcp-n1": ("ok", "172.16.2.2"),
        "udp-n2": ("ok", "172.16.2.3"),
        "udp-n3": ("ok", "172.16.4.2"),
    }
    assert not [verdict.reasons for verdict in verdicts[3:] if verdict.reasons]
    assert_tunnels_are_the_planned_ones(lab)  # there is none


@pytest.mark.parametrize(
    "mode", ["nftables", pytest.param("ipvs", marks=pytest.mark.testbed_needs("ipvs", "ipset", "dummy"))]
)
def test_other_modes_of_kube_proxy(lab, mode):
    lab.edit("lab.yaml", "  defaultRoute: mgmt\n", f"  defaultRoute: mgmt\n  kubeProxyMode: {mode}\n")
    lab.up()
    lab.session.forget_connections()  # those of the other mode
    assert_flows(lab.session)
