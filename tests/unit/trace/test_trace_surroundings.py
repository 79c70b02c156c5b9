"""What is read around a packet's last place: neighbours, sockets, tunnels, queues, counters, tables of routes."""

# ruff: noqa: E501 - a case a line

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from testbed.plan import BgpSession, Interface, Node, Plan
from testbed.trace.announced import withheld
from testbed.trace.context import Fault
from testbed.trace.counters import more_drops, queue_drops
from testbed.trace.deviations import deviations
from testbed.trace.inquire import Inquiry
from testbed.trace.map import Map
from testbed.trace.neighbours import next_hop
from testbed.trace.routing import Decision, held_by
from testbed.trace.sockets import bound, takes
from testbed.trace.tunnels import far_end

# r has a bridge with ports p1 (towards a) and p2 (towards b), and a link to s.
SEGMENT = Map(
    peers={
        ("r", "p1"): ("a", "eth0"), ("a", "eth0"): ("r", "p1"),
        ("r", "p2"): ("b", "eth0"), ("b", "eth0"): ("r", "p2"),
        ("r", "out"): ("s", "eth0"), ("s", "eth0"): ("r", "out"),
    },
    vrfs=dict.fromkeys((("r", "p1"), ("r", "p2"), ("r", "br0"), ("r", "out"), ("a", "eth0"), ("b", "eth0"), ("s", "eth0"))),
    addresses={("r", None): frozenset({"10.1.0.1"}), ("a", None): frozenset({"10.1.0.2"}), ("b", None): frozenset({"10.1.0.3"})},
    bridges={("r", "p1"): "br0", ("r", "p2"): "br0"},
)  # fmt: skip
MACS = {
    ("r", "br0"): "02:00:00:00:00:0f", ("r", "p1"): "02:00:00:00:00:01", ("r", "p2"): "02:00:00:00:00:02",
    ("r", "out"): "02:00:00:00:00:03", ("a", "eth0"): "02:00:00:00:00:0a", ("b", "eth0"): "02:00:00:00:00:0b",
    ("s", "eth0"): "02:00:00:00:00:05",
}  # fmt: skip


class Told:
    """Answers by the words of a command; "[]" to what it does not know."""

    def __init__(self, answers: dict[tuple[str, str], object]) -> None:
        self.answers = answers

    def run(self, node: str, vrf: str | None, argv: Sequence[str]) -> str:
        words = " ".join(argv)
        return next(
            (json.dumps(answer) for (of, part), answer in self.answers.items() if of == node and part in words), "[]"
        )

    def network(self, node: str, vrf: str | None) -> int:
        raise OSError("nothing to ask")


def links(node: str) -> list[dict[str, object]]:
    return [{"ifname": name, "address": mac} for (of, name), mac in MACS.items() if of == node]


@pytest.mark.parametrize(
    ("port", "others"),
    [
        (("r", "br0"), {("r", "p1"), ("r", "p2"), ("a", "eth0"), ("b", "eth0")}),
        (("a", "eth0"), {("r", "p1"), ("r", "br0"), ("r", "p2"), ("b", "eth0")}),
        (("r", "out"), {("s", "eth0")}),
        (("r", "lo"), set()),
    ],
)
def test_segment(port, others):
    assert SEGMENT.segment(port) == others


@pytest.mark.parametrize(
    ("place", "way", "entry", "owner", "holder", "unanswered"),
    [
        ("r", ("", "br0"), {"lladdr": MACS["a", "eth0"], "state": ["REACHABLE"]}, "a", "a", False),
        ("r", ("", "br0"), {"lladdr": MACS["b", "eth0"], "state": ["PERMANENT"]}, "a", "b", False),
        ("r", ("", "br0"), {"lladdr": "02:99:00:00:00:00", "state": ["PERMANENT"]}, "a", "", False),
        ("r", ("", "br0"), {"state": ["FAILED"]}, "a", "", True),
        ("a", ("10.1.0.1", "eth0"), {"lladdr": MACS["r", "br0"], "state": ["STALE"]}, "r", "r", False),
        ("r", ("fe80::5", "out"), {"lladdr": MACS["s", "eth0"], "state": ["STALE"]}, "s", "s", False),
        ("r", ("10.1.0.99", "br0"), {"state": ["INCOMPLETE"]}, "", "", True),
    ],
)
def test_next_hop(place, way, entry, owner, holder, unanswered):
    answers = {(node, "ip -j link"): links(node) for node in ("r", "a", "b", "s")} | {(place, "neigh"): [entry]}
    found = next_hop(Inquiry(Told(answers), SEGMENT, 4), (place, None), Decision(ways=(way,)), "10.1.0.2")
    assert found is not None
    assert (found.owner, found.holder, found.unanswered) == (owner, holder, unanswered)
    assert found.real == ({MACS[owner, "br0" if owner == "r" else "eth0"]} if owner else frozenset())


def test_what_is_not_routed_on_has_no_next_hop():
    inquiry = Inquiry(Told({}), SEGMENT, 4)
    assert next_hop(inquiry, ("r", None), Decision(error="No route to host"), "10.1.0.2") is None
    assert next_hop(inquiry, ("r", None), Decision(kind="local", ways=(("", "lo"),)), "10.1.0.1") is None


SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0200010A:1F90 0100010A:8000 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3
   3: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 0 0 0 4
   4: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 0 0 0 5
"""


@pytest.mark.parametrize(
    ("port", "address", "fits", "listens"),
    [
        (8080, "10.1.0.2", False, ["127.0.0.1"]),
        (8080, "127.0.0.1", True, ["127.0.0.1"]),
        (22, "10.1.0.2", True, ["0.0.0.0"]),
        (22, "fd00::1", False, ["0.0.0.0"]),
        (53, "fd00::1", True, ["::"]),
        (53, "10.1.0.2", True, ["::"]),
        (80, "10.1.0.2", False, ["127.0.0.1"]),
        (81, "10.1.0.2", False, []),
    ],
)
def test_sockets(port, address, fits, listens):
    found = list(bound(SOCKETS.splitlines(), port, listening=True))
    assert [str(entry) for entry in found] == listens
    assert takes(found, address) == fits


def vxlan(**data: object) -> dict[str, object]:
    return {
        "ifname": "v",
        "flags": ["UP"],
        "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 10, "port": 4789} | data},
    }


@pytest.mark.parametrize(
    ("links", "wrong"),
    [
        ([vxlan()], ""),
        ([vxlan(id=11), vxlan()], ""),
        ([vxlan(id=11)], "has VNI 11 on v, and the packet has VNI 10"),
        ([vxlan(external=True, id=0)], ""),
        ([vxlan(port=8472)], "takes in VXLAN on port 8472 (v), and the packet came to another"),
        ([vxlan() | {"flags": []}], "has its VXLAN interface v down"),
        ([{"ifname": "eth0"}], "has no interface that takes in VXLAN"),
    ],
)
def test_far_end_of_a_tunnel(links, wrong):
    assert far_end("vxlan 10 10.0.0.1 → 10.0.0.2", links) == wrong


def test_far_end_of_ipip():
    end = {"ifname": "t", "flags": ["UP"], "linkinfo": {"info_kind": "ipip", "info_data": {"remote": "10.0.0.9"}}}
    assert far_end("ipip 10.0.0.1 → 10.0.0.2", [end]) == (
        "takes in IPIP from 10.0.0.9 alone (t), and the packet came from 10.0.0.1"
    )
    end["linkinfo"]["info_data"]["remote"] = "any"
    assert far_end("ipip 10.0.0.1 → 10.0.0.2", [end]) == ""


def test_drops_of_queues():
    before = queue_drops([{"kind": "tbf", "dev": "eth0", "drops": 3}, {"kind": "noqueue", "dev": "lo", "drops": 0}])
    after = queue_drops(
        [
            {"kind": "tbf", "dev": "eth0", "drops": 5},
            {"kind": "clsact", "dev": "eth1", "drops": 1},
            {"kind": "noqueue", "dev": "lo"},
        ]
    )
    assert more_drops(before, after) == (("eth0", "tbf", 2), ("eth1", "clsact", 1))
    assert more_drops(after, after) == ()


LOCAL, MAIN = {"priority": 0, "src": "all", "table": "255"}, {"priority": 32766, "src": "all", "table": "254"}
OWN = {"priority": 10, "src": "10.1.0.0", "srclen": 16, "table": "999"}
LINK, AWAY = {"dst": "10.2.0.0/16", "dev": "eth0"}, {"type": "blackhole", "dst": "default", "table": "999"}


@pytest.mark.parametrize(
    ("rules", "routes", "source", "held"),
    [
        ((LOCAL, OWN, MAIN), (LINK, AWAY), "10.1.0.2", (AWAY, "10: from 10.1.0.0/16 lookup 999")),
        ((LOCAL, OWN, MAIN), (LINK, AWAY), "10.3.0.2", (LINK, "")),
        ((LOCAL, OWN, MAIN), (LINK,), "10.1.0.2", (LINK, "")),
        ((LOCAL, {**MAIN, "suppress_prefixlen": 16}), (LINK,), "10.1.0.2", (None, "")),
        (
            (LOCAL, MAIN),
            ({"dst": "10.2.0.2", "type": "local", "table": "local"}, LINK),
            "10.1.0.2",
            ({"dst": "10.2.0.2", "type": "local", "table": "local"}, ""),
        ),
        ((LOCAL, MAIN), (), "10.1.0.2", (None, "")),
    ],
)
def test_the_route_that_holds_a_packet(rules, routes, source, held):
    assert held_by(rules, routes, 0, "eth1", source, "10.2.0.2") == held


def plan(nodes: tuple[Node, ...], sessions: tuple[BgpSession, ...] = ()) -> Plan:
    return Plan("lab", nodes=nodes, links=(), sessions=sessions)


def address(text: str, **more: object) -> dict[str, object]:
    local, _, length = text.partition("/")
    return {
        "local": local,
        "prefixlen": int(length),
        "family": "inet6" if ":" in local else "inet",
        "scope": "global",
    } | more


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ({"addr_info": [address("10.1.0.2/24"), address("fd01::2/64"), address("fe80::1/64", scope="link")]}, []),
        (
            {"addr_info": [address("10.1.0.2/8"), address("fd01::2/64")]},
            [("address", "10.1.0.2/24"), ("extra-address", "10.1.0.2/8")],
        ),
        ({"addr_info": [address("10.1.0.2/24")], "mtu": 1000}, [("address", "fd01::2/64")]),
        ({"addr_info": [address("10.1.0.2/24"), address("fd01::2/64"), address("fd01::9/64", dynamic=True)]}, []),
    ],
)
def test_addresses_that_are_not_as_planned(link, found):
    node = Node("a", "host", interfaces=(Interface("eth0", addresses=("10.1.0.2/24", "fd01::2/64")),))
    told = Told({("a", "ip -j addr"): [{"ifname": "eth0", "flags": ["UP"]} | link]})
    faults = deviations(told, plan((node,)), [("a", None)])
    assert [(fault.kind, fault.prefix) for fault in faults] == found
    assert all(fault.interface == "eth0" for fault in faults)
    assert ("with an MTU of 1000, less than 1280, it has no IPv6" in "".join(fault.text for fault in faults)) == (
        "mtu" in link
    )


def test_port_that_is_not_in_its_bridge():
    node = Node(
        "r",
        "router",
        interfaces=(Interface("br0", "bridge"), Interface("p1", master="br0"), Interface("p2", master="br0")),
    )
    told = Told({("r", "ip -j addr"): [{"ifname": "br0"}, {"ifname": "p1", "master": "br0"}, {"ifname": "p2"}]})
    assert deviations(told, plan((node,)), [("r", None)]) == (
        Fault("port", "r", None, "r: p2 is not a port of br0, as planned", interface="p2"),
    )


ROUTERS = Map(
    addresses={
        ("r1", None): frozenset({"10.0.0.1"}),
        ("r2", None): frozenset({"10.0.0.2", "10.0.1.2"}),
        ("r3", None): frozenset({"10.0.1.3"}),
    }
)
SESSIONS = tuple(
    BgpSession(node, None, peer, "", "frr", "")
    for node, peer in (("r1", "10.0.0.2"), ("r2", "10.0.0.1"), ("r2", "10.0.1.3"), ("r3", "10.0.1.2"))
)  # fmt: skip


@pytest.mark.parametrize(
    ("tables", "node", "words"),
    [
        (
            {"r2": {"paths": [{}], "advertisedTo": {"10.0.1.3": {}}}},
            "r2",
            "r2 has 10.9.0.0/16 and does not announce it to r1 (10.0.0.1)",
        ),
        (
            {"r2": {"paths": [{}], "advertisedTo": {"10.0.0.1": {}}}},
            "r1",
            "r1 does not take 10.9.0.0/16, which r2 announces to it",
        ),
        ({"r2": {}, "r3": {"paths": [{}]}}, "r3", "r3 has 10.9.0.0/16 and does not announce it to r2 (10.0.1.2)"),
        ({"r2": {}, "r3": {}}, None, ""),
    ],
)
def test_who_keeps_a_route_back(tables, node, words):
    told = Told({(name, "show bgp ipv4 unicast 10.9.0.0/16 json"): table for name, table in tables.items()})
    found = withheld(told, plan((), SESSIONS), ROUTERS, [(("r1", None), "10.9.0.0/16")])
    assert [(fault.node, fault.text) for fault in found] == ([(node, words)] if node else [])
