"""Which of the kernel's answers is taken for the decision about a packet, by where the packet went."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trace_frames import ACK, SYN, TCP, UDP, frame, ipv4, tcp, udp, vxlan

from testbed.trace.inquire import Inquiry
from testbed.trace.journeys import Question
from testbed.trace.map import Map
from testbed.trace.walk import Path, walk

POD, BALANCED, CLIENT = "192.168.1.1", "3.3.3.3", "10.10.10.10"
FIRST = {"dst": "default", "gateway": "172.16.1.1", "dev": "eth0"}
SECOND = {"dst": "default", "gateway": "172.16.2.1", "dev": "eth1", "table": "101"}
BY_BALANCED = {"priority": 1001, "src": BALANCED, "table": "101"}
BY_POD = {"priority": 1001, "src": "192.168.0.0", "srclen": 16, "table": "101"}


class Kernel:
    """A node with a default route and a rule with a table of its own; connections are not tracked."""

    def __init__(self, rule: dict, second_from: str) -> None:
        self.rule, self.second_from = rule, second_from

    def run(self, node: str, vrf: str | None, argv: Sequence[str]) -> str:
        if "rule" in argv:
            return json.dumps([self.rule, {"priority": 32766, "src": "all", "table": "254"}])
        if "get" in argv:
            return json.dumps([SECOND if argv[argv.index("from") + 1] == self.second_from else FIRST])
        return "[]"

    def socket(self, *_: object) -> None:
        raise OSError("nothing to ask")


def reply(out: str) -> Path:
    """A reply that got a load balancer's address as its source in n1, and left it by an interface."""
    data = tcp(22, 4000, 9, 501, SYN | ACK)
    frames = [
        frame(0, "n1", "cali", "in", ipv4(POD, CLIENT, TCP, data)),
        frame(1, "n1", out, "out", ipv4(BALANCED, CLIENT, TCP, data, ttl=63)),
    ]
    found = walk(frames, Question("tcp", 500, "client", BALANCED, 22), Map()).back
    assert found is not None
    return found


def test_routed_before_it_was_translated_back():
    """kube-proxy's modes iptables and nftables: the rule by the address it gets later is too late."""
    facts = Inquiry(Kernel(BY_BALANCED, BALANCED), Map(), 4).facts(reply("eth0"))[0]
    assert str(facts.route) == "table main: default via 172.16.1.1 dev eth0"
    assert facts.too_late == ("1001: from 3.3.3.3 lookup 101",)


def test_routed_again_after_it_was_translated_back():
    """Mode ipvs: the rule by that address decides, and is not too late."""
    facts = Inquiry(Kernel(BY_BALANCED, BALANCED), Map(), 4).facts(reply("eth1"))[0]
    assert facts.route.again == BALANCED
    assert str(facts.route).endswith("by rule 1001: from 3.3.3.3 lookup 101, routed again as from 3.3.3.3")
    assert facts.too_late == ()


def test_a_rule_for_pods_decides_at_once_where_it_is_routed_once():
    facts = Inquiry(Kernel(BY_POD, POD), Map(), 4).facts(reply("eth1"))[0]
    assert (facts.route.table, facts.route.again) == ("101", "")
    again = Inquiry(Kernel(BY_POD, POD), Map(), 4).facts(reply("eth0"))[0]
    assert (again.route.table, again.route.again) == ("main", BALANCED)


SERVER, NEAR, FAR = "10.10.10.10", "172.16.3.2", "172.16.1.2"


class Fabric:
    """A node n3 that puts what has a mark into a tunnel to n1, and a router r1 between them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def run(self, node: str, vrf: str | None, argv: Sequence[str]) -> str:
        if "rule" in argv:
            marked = {"priority": 801, "src": "all", "fwmark": "0x1", "fwmask": "0xff", "table": "201"}
            return json.dumps([marked, {"priority": 32766, "src": "all", "table": "254"}])
        if "get" not in argv:
            return "[]"
        self.asked.append((node, " ".join(argv[argv.index("fibmatch") + 1 :])))
        if node == "r1":
            return json.dumps([{"dst": "172.16.1.0/24", "dev": "eth1"}])
        if node == "n3" and "mark" not in argv:
            return json.dumps([{"dst": "default", "gateway": "172.16.3.1", "dev": "eth0"}])
        gateway, dev = (FAR, "tun0") if node == "n3" else ("172.16.2.1", "eth1")
        return json.dumps([{"dst": "default", "gateway": gateway, "dev": dev, "table": "201"}])

    def socket(self, *_: object) -> None:
        raise OSError("nothing to ask")


def test_a_tunnel():
    """Who puts a packet into it or takes it out is asked about the packet, who passes it on about the one around it."""

    def inner(ttl: int, source: str = POD) -> bytes:
        return ipv4(source, SERVER, TCP, tcp(4000, 80, 500, 0, SYN), ttl=ttl)

    def outer(ttl: int) -> bytes:
        return ipv4(NEAR, FAR, UDP, udp(5, 14789, vxlan(200, inner(63))), ttl=ttl)

    frames = [
        frame(0, "n3", "cali", "in", inner(64)),
        frame(1, "n3", "tun0", "out", inner(63)),
        frame(2, "n3", "eth0", "out", outer(64)),
        frame(3, "r1", "eth3", "in", outer(64)),
        frame(4, "r1", "eth1", "out", outer(63)),
        frame(5, "n1", "eth0", "in", outer(63)),
        frame(6, "n1", "tun0", "in", inner(63)),
        frame(7, "n1", "eth1", "out", inner(62, BALANCED)),
    ]
    ends = {("n3", "eth0"): ("r1", "eth3"), ("r1", "eth1"): ("n1", "eth0"), ("n1", "eth1"): ("r2", "eth1")}
    own = {("n1", None): frozenset({FAR}), ("r1", None): frozenset({"172.16.3.1"})}
    lab = Map(peers=ends | {peer: end for end, peer in ends.items()}, addresses=own)
    path = walk(frames, Question("tcp", 500, "pod", SERVER, 80), lab).forward
    assert path is not None
    assert [hop.changes for hop in path.hops] == [("encapsulated",), (), ("snat", "decapsulated")]
    fabric = Fabric()
    routes = [str(facts.route) for facts in Inquiry(fabric, lab, 4).facts(path)]
    assert routes[0].startswith(f"table 201: default via {FAR} dev tun0, by rule 801")
    assert routes[1:] == ["table main: 172.16.1.0/24 dev eth1", "table 201: default via 172.16.2.1 dev eth1"]
    asked = dict(fabric.asked)
    assert asked["r1"] == f"{FAR} from {NEAR} iif eth3 ipproto udp sport 5 dport 14789"
    assert asked["n1"].startswith(f"{SERVER} from {POD} iif tun0 ")
