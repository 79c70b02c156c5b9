"""Which of the kernel's answers is taken for the decision about a packet, by where the packet went."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trace_frames import ACK, SYN, TCP, frame, ipv4, tcp

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
