"""What a walk knows of devices: VRFs are no bridges, and each has a table of its own; tunnels have peers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from testbed.plan import LAST_METRIC, Endpoint, ExpectedRoute, Interface, Link, Node, Plan, Tunnel, TunnelPeer
from testbed.trace.deviations import absent, deviations, reached
from testbed.trace.inquire import Inquiry
from testbed.trace.map import Map
from testbed.trace.packet import Ends
from testbed.trace.walk import Hop

R1 = Node(
    "r1",
    "router",
    vrfs=("red",),
    interfaces=(
        Interface("red", "vrf", "red", table=10100),
        Interface("br0", "bridge", "red", ("10.0.0.1/24",), master="red"),
        Interface("port1", "veth", "red", master="br0"),
        Interface("eth1", "veth", "red", ("10.0.1.1/31",), master="red"),
        Interface("eth2", "veth", None, ("10.9.0.1/31",)),
    ),
)
PLAN = Plan("two", nodes=(R1, Node("h1", "host", interfaces=(Interface("eth0"),))))
LINKED = Plan("two", nodes=PLAN.nodes, links=(Link(Endpoint("r1", "port1"), Endpoint("h1", "eth0")),))
RED = ("r1", "red")


class Told:
    """A runtime whose kernel says what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Sequence[dict]) -> None:
        self.answer, self.asked = answer, []

    def run(self, node: str, vrf: str | None, argv: Sequence[str]) -> str:
        self.asked.append((node, vrf, " ".join(argv)))
        return json.dumps(self.answer if "rule" not in argv else [])


def hop(entered: str, left: str) -> Hop:
    ends = Ends("10.0.0.2", "10.0.1.0", 1, 2)
    return Hop("r1", "red", entered, left, ends if entered else None, ends if left else None, 64, 63, 0)


def test_only_ports_of_bridges_have_a_bridge():
    lab = Map.of(LINKED)
    assert lab.bridges == {("r1", "port1"): "br0"}
    assert lab.tables == {RED: 10100}
    inquiry = Inquiry(Told([]), lab, 4)
    assert inquiry.incoming(hop("port1", "eth1")) == "br0"
    assert inquiry.outgoing(hop("port1", "eth1")) == "eth1"
    assert Map.of(Plan("none", nodes=(Node("r1", "router", vrfs=("red",)),))).tables == {}


def test_routes_are_asked_of_the_vrf():
    runtime = Told([{"dst": "10.0.1.0/31", "dev": "eth1", "table": "10100"}])
    inquiry = Inquiry(runtime, Map.of(LINKED), 4)
    ends = Ends("10.0.0.1", "10.0.1.0", 1, 2)
    assert inquiry.route(RED, ends, 6, "", 0).table == "10100"
    assert " from 10.0.0.1 vrf red " in runtime.asked[0][2]
    inquiry.route(RED, ends, 6, "br0", 0)
    assert " from 10.0.0.1 iif br0 " in runtime.asked[-2][2] + runtime.asked[-1][2]
    inquiry.route(("r1", None), ends, 6, "", 0)
    assert "vrf" not in runtime.asked[-1][2]
    inquiry.best_route(RED, "10.0.1.0")
    assert runtime.asked[-1][2] == "ip -j -4 route show vrf red match 10.0.1.0"
    inquiry.best_route(("r1", None), "10.0.1.0")
    assert runtime.asked[-1][2] == "ip -j -4 route show match 10.0.1.0"


def test_the_end_of_a_table_is_no_route():
    end = {"type": "unreachable", "dst": "default", "metric": LAST_METRIC}
    assert Inquiry(Told([end]), Map.of(LINKED), 4).best_route(RED, "10.8.0.1") is None
    stated = {"type": "unreachable", "dst": "10.8.0.0/16"}
    assert Inquiry(Told([end, stated]), Map.of(LINKED), 4).best_route(RED, "10.8.0.1") == stated


def test_routes_of_another_table_are_not_there():
    listed = [
        {"dst": "10.1.0.0/16", "table": "10100"},
        {"type": "unreachable", "dst": "default", "table": "10100", "metric": LAST_METRIC},
        {"dst": "10.2.0.0/16", "table": "10200"},
        {"dst": "10.3.0.0/16"},
    ]
    assert reached(listed, 10100) == {"10.1.0.0/16"}
    assert reached(listed, 254) == {"10.3.0.0/16"}


def test_what_bgp_should_have_brought_into_a_vrf():
    """A route of another VRF is none of this one's, and the end of the table no default route."""
    wanted = tuple(ExpectedRoute("r1", "red", prefix, 10100) for prefix in ("10.1.0.0/16", "10.2.0.0/16", "0.0.0.0/0"))
    plan = Plan("two", nodes=PLAN.nodes, routes=wanted)
    runtime = Told(
        [
            {"dst": "10.1.0.0/16", "table": "10100"},
            {"dst": "10.2.0.0/16", "table": "10200"},
            {"type": "unreachable", "dst": "default", "table": "10100"},
        ]
    )
    assert absent(runtime, plan, [RED]) == ((RED, "10.2.0.0/16"), (RED, "0.0.0.0/0"))


MAC = "02:00:0a:00:00:02"
TUNNEL = Interface("tun0", "vxlan", tunnel=Tunnel(200, "10.0.0.1", 14789, (TunnelPeer("10.0.0.2", MAC),)))


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        ({"dst": "10.0.0.2", "lladdr": MAC, "mac": MAC}, False),
        ({"dst": "10.0.0.2", "lladdr": MAC, "mac": "02:00:00:00:00:09"}, True),
        ({"dst": "10.0.0.3", "lladdr": MAC, "mac": MAC}, True),
        ({"dst": "10.0.0.2", "mac": MAC}, True),
    ],
)
def test_a_peer_that_the_kernel_does_not_have(known: dict, missing: bool):
    plan = Plan("one", nodes=(Node("n1", "kubernetes", interfaces=(TUNNEL,)),))
    runtime = Told([known])
    found = deviations(runtime, plan, [("n1", None)])
    text = f"n1: tun0 lacks its planned peer 10.0.0.2 (MAC {MAC})"
    assert [(fault.kind, fault.text) for fault in found] == ([("tunnel", text)] if missing else [])
    assert [argv for _, _, argv in runtime.asked] == ["ip -j -4 neigh show dev tun0", "bridge -j fdb show dev tun0"]
    assert Map.of(plan).tunnels == {("n1", "tun0")}
