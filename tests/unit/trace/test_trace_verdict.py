"""Verdicts drawn from hand-made cases: each kind of cause, and that the graver or earlier one is named."""

# ruff: noqa: E501 - a case a line

from __future__ import annotations

import dataclasses

import pytest
from trace_frames import ACK, ICMP, RST, SYN, TCP, UDP, frame, icmp, ipv4, tcp, udp, vxlan

from testbed.plan import FlowStep
from testbed.trace.case import Case
from testbed.trace.context import Context, Fault
from testbed.trace.evidence import HopFacts, NextHop, Scene
from testbed.trace.journeys import Question
from testbed.trace.map import Map
from testbed.trace.packet import Frame
from testbed.trace.routing import Decision
from testbed.trace.steps import unmet
from testbed.trace.verdict import explain
from testbed.trace.walk import walk

C, R, S = "10.0.1.2", "10.0.1.1", "10.0.2.2"
LAB = Map(
    peers={
        ("c", "eth0"): ("r", "in0"),
        ("r", "in0"): ("c", "eth0"),
        ("r", "out0"): ("s", "eth0"),
        ("s", "eth0"): ("r", "out0"),
    },
    vrfs={("c", "eth0"): None, ("r", "in0"): "red", ("r", "out0"): "red", ("s", "eth0"): None},
    addresses={("c", None): frozenset({C}), ("r", "red"): frozenset({R}), ("s", None): frozenset({S})},
    forwarders=frozenset({"r"}),
)
ASKED = ipv4(C, S, TCP, tcp(4000, 80, 500, 0, SYN))
PASSED = ipv4(C, S, TCP, tcp(4000, 80, 500, 0, SYN), ttl=63)
RESET = ipv4(S, C, TCP, tcp(80, 4000, 0, 501, RST | ACK), ident=0)
THERE = [
    frame(0, "c", "eth0", "out", ASKED),
    frame(1, "r", "in0", "in", ASKED, vrf="red"),
    frame(2, "r", "out0", "out", PASSED, vrf="red"),
    frame(3, "s", "eth0", "in", PASSED),
]


def case(frames: list[Frame], scene: Scene | None, context: Context = Context()) -> Case:  # noqa: B008 - frozen
    found = walk(frames, Question("tcp", 500, "c", S, 80), LAB)
    facts = tuple(HopFacts(Decision("x")) for _ in found.forward.hops) if found.forward else ()
    return Case(found, LAB, context, facts, (), found.lost or found.forward, scene, "nobody answered")


AT_R, AT_S = Scene("r", "red", destination=S), Scene("s", None, destination=S)
NO_ROUTE = Decision(error="Network is unreachable")
SESSION = Fault("session", "r", "red", "r: BGP to x (10.9.9.9) in VRF red: Active")
DEAD = Fault("process", "x", None, "x: bgpd has ended")


@pytest.mark.parametrize(
    ("frames", "scene", "kind", "node", "words"),
    [
        (THERE[:2], {"denied": ("filter FORWARD", "-A FORWARD -j DROP")}, "policy", "r", "dropped the request in chain"),
        (THERE[:2], {"denied": ("broken f", "tcp dport 80 reject")}, "reject", "r", "rejected the request"),
        (THERE[:2], {"denied": ("filter K", '--comment "a/b has no endpoints" -j REJECT')}, "no-endpoints", "r", "a/b"),
        (THERE[:2], {"denied": ("filter K", '--comment "a/b has no local endpoints" -j DROP')}, "no-local-endpoint", "r", "a/b"),
        (THERE[:2], {"denied": ("filter K", "--ctstate INVALID -j DROP")}, "conntrack-invalid", "r", "INVALID"),
        (THERE[:2], {"unresolved": (S,)}, "unresolved", "r", "s did not answer who has 10.0.2.2"),
        (THERE[:2], {"unresolved": ("10.0.2.9",)}, "unresolved", "r", "nobody in the lab has its next hop 10.0.2.9"),
        (
            THERE[:2],
            {"settings": {"net/ipv4/conf/in0/rp_filter": "1"}, "counted": {"TcpExt.IPReversePathFilter": 2}},
            "rp-filter",
            "r",
            "way back to 10.0.1.2 is not by in0",
        ),
        (THERE[:2], {"route": NO_ROUTE}, "no-route", "r", "r (VRF red) has no route to 10.0.2.2"),
        (
            THERE[:2],
            {"route": Decision(error="Invalid argument"), "best_kind": "blackhole", "best": "blackhole 10.0.2.0/24"},
            "blackhole",
            "r",
            "a blackhole route drops it (blackhole 10.0.2.0/24)",
        ),
        (
            THERE[:2],
            {"route": Decision(error="No route to host"), "settings": {"net/ipv4/conf/in0/forwarding": "0"}},
            "forwarding-off",
            "r",
            "does not forward",
        ),
        (THERE[:3], {"peer_links": {"out0": (30, True)}}, "mtu", "s", "takes at most 30 bytes"),
        (THERE[:3], {"peer_links": {"out0": (1500, False)}}, "link-down", "s", "s's eth0 is down or gone"),
        (THERE[:2], {"route": Decision("x", (("", "out0"),)), "links": {"out0": (20, True)}}, "mtu", "r", "MTU of out0, 20"),
        (THERE[:2], {}, "unknown", "r", "nothing found says why"),
    ],
)  # fmt: skip
def test_stopped_on_its_way(frames, scene, kind, node, words):
    cause = explain(case(frames, dataclasses.replace(AT_R, **scene)))
    assert (cause.kind, cause.node) == (kind, node), cause.sentence
    assert words in cause.sentence


def test_nothing_was_sent():
    assert explain(case([], None)).kind == "not-sent"
    denied = explain(case([], Scene("c", None, denied=("filter OUTPUT", "drop"))))
    assert (denied.kind, denied.node) == ("policy", "c")


def test_refused_for_want_of_a_listener():
    refused = [
        *THERE,
        frame(9, "s", "eth0", "out", RESET),
        frame(10, "r", "out0", "in", RESET, vrf="red"),
        frame(11, "r", "in0", "out", RESET[:8] + b"\x3f" + RESET[9:], vrf="red"),
        frame(12, "c", "eth0", "in", RESET[:8] + b"\x3f" + RESET[9:]),
    ]
    cause = explain(case(refused, dataclasses.replace(AT_S, listening=False)))
    assert (cause.kind, cause.node) == ("no-listener", "s")
    assert "nothing listens on port 80" in cause.sentence
    rejected = explain(case(refused, dataclasses.replace(AT_S, listening=False, denied=("filter INPUT", "reject"))))
    assert rejected.kind == "reject"


def test_no_way_back_and_no_answer():
    back = Context(way_back=NO_ROUTE)
    assert "no route back" in explain(case(THERE, dataclasses.replace(AT_S, listening=True), back)).sentence
    mute = explain(case(THERE, dataclasses.replace(AT_S, listening=True), Context(way_back=Decision("x"))))
    assert (mute.kind, mute.node) == ("no-answer", "s")


def test_translation_that_is_missing_on_the_way_is_to_blame():
    lost = Fault("rules", "r", "red", "r: chain postrouting has 0 rules, and 1 are planned")
    cause = explain(case(THERE, AT_S, Context((lost,), way_back=NO_ROUTE)))
    assert (cause.kind, cause.node) == ("nat-missing", "r")
    assert cause.sentence.endswith(lost.text)


@pytest.mark.parametrize(
    ("faults", "kind", "node"),
    [((SESSION,), "bgp-session", "r"), ((SESSION, DEAD), "process", "x"), ((), "no-route", "r")],
)
def test_what_took_the_route_away_is_to_blame(faults, kind, node):
    cause = explain(case(THERE[:2], dataclasses.replace(AT_R, route=NO_ROUTE), Context(faults)))
    assert (cause.kind, cause.node) == (kind, node)
    absent = Context(faults, absent=((("r", "red"), "10.0.2.0/24"),))
    cause = explain(case(THERE[:2], dataclasses.replace(AT_R, route=NO_ROUTE), absent))
    assert "BGP should have brought 10.0.2.0/24" in cause.sentence


def test_rule_that_came_too_late_is_told():
    """A node between two networks; the reply gets the source that a rule names when it has been routed already."""
    ends = {("n", "eth0"): ("a", "x"), ("n", "eth1"): ("b", "x")}
    peers = {
        **ends,
        **{peer: own for own, peer in ends.items()},
        ("n", "cali"): ("p", "eth0"),
        ("p", "eth0"): ("n", "cali"),
    }
    vrfs = {("a", "x"): "red", ("b", "x"): "blue", ("n", "eth0"): None, ("n", "eth1"): None}
    lab = Map(peers, vrfs, {("p", None): frozenset({S})})
    asked, there = ipv4(C, "3.3.3.3", TCP, tcp(1, 80, 500, 0, SYN)), ipv4(C, S, TCP, tcp(1, 80, 500, 0, SYN))
    reply = tcp(80, 1, 9, 501, SYN | ACK)
    frames = [
        frame(0, "n", "eth1", "in", asked),
        frame(1, "n", "cali", "out", there),
        frame(2, "p", "eth0", "in", there),
        frame(3, "p", "eth0", "out", ipv4(S, C, TCP, reply)),
        frame(4, "n", "cali", "in", ipv4(S, C, TCP, reply)),
        frame(5, "n", "eth0", "out", ipv4("3.3.3.3", C, TCP, reply)),
    ]
    found = walk(frames, Question("tcp", 500, "c", "3.3.3.3", 80), lab)
    routed = HopFacts(Decision("default", (("10.9.9.1", "eth0"),)), too_late=("1000: from 3.3.3.3 lookup 101",))
    cause = explain(Case(found, lab, Context(), (), (HopFacts(), routed), found.back, None))
    assert (cause.kind, cause.node) == ("wrong-vrf", "n")
    assert (
        cause.sentence
        == "the reply from 10.0.2.2 left n by eth0 (VRF red) by table main's default; the client is in VRF blue"
    )
    assert (
        "n: rule 1000: from 3.3.3.3 lookup 101 did not match: the source was 10.0.2.2 when it was routed, 3.3.3.3 later"
        in cause.evidence
    )


def test_ttl():
    error = ipv4(R, C, ICMP, icmp(11, 0, 0, ASKED))
    cause = explain(case([*THERE[:2], frame(5, "r", "in0", "out", error, vrf="red")], AT_R))
    assert (cause.kind, cause.node) == ("ttl", "r")


def test_frame_for_another_station():
    stranger = frame(3, "s", "eth0", "other", PASSED)
    cause = explain(case([*THERE[:3], stranger], dataclasses.replace(AT_R, peer_links={"out0": (1500, True)})))
    assert (cause.kind, cause.node) == ("wrong-neighbour", "r")
    assert "s got the frame and ignored it" in cause.sentence


def test_connection_without_an_answer():
    """The server's kernel accepts; its program says nothing to what was asked."""

    def there(time: int, data: bytes) -> list[Frame]:
        return [
            frame(time, "c", "eth0", "out", data),
            frame(time + 1, "r", "in0", "in", data, vrf="red"),
            frame(time + 2, "r", "out0", "out", data, vrf="red"),
            frame(time + 3, "s", "eth0", "in", data),
        ]

    accepted = ipv4(S, C, TCP, tcp(80, 4000, 9, 501, SYN | ACK), ident=0)
    back = [
        frame(10, "s", "eth0", "out", accepted),
        frame(11, "r", "out0", "in", accepted, vrf="red"),
        frame(12, "r", "in0", "out", accepted, vrf="red"),
        frame(13, "c", "eth0", "in", accepted),
    ]
    asked = ipv4(C, S, TCP, tcp(4000, 80, 501, 10, ACK, b"GET /"), ident=8)
    cause = explain(case([*THERE, *back, *there(20, asked)], dataclasses.replace(AT_S, listening=True)))
    assert (cause.kind, cause.node) == ("no-answer", "s")
    assert "accepted the connection" in cause.sentence


def test_rule_that_refuses():
    refused = Decision(kind="blackhole", rule="10: from 10.0.1.0/24 blackhole", error="Invalid argument")
    cause = explain(case(THERE[:2], dataclasses.replace(AT_R, route=refused)))
    assert (cause.kind, cause.node) == ("blackhole", "r")
    assert "rule 10: from 10.0.1.0/24 blackhole" in cause.sentence


def test_mtu_told_by_icmp():
    error = ipv4(R, C, ICMP, icmp(3, 4, 1300, ASKED))
    cause = explain(case([*THERE[:2], frame(5, "r", "in0", "out", error, vrf="red")], AT_R))
    assert cause.kind == "mtu"
    assert "next link's MTU is 1300" in cause.sentence


def test_evidence_is_told():
    scene = dataclasses.replace(AT_R, route=NO_ROUTE, counted={"IpExt.InNoRoutes": 3})
    evidence = explain(case(THERE[:2], scene, Context((SESSION,)))).evidence
    assert "r (VRF red): Network is unreachable" in evidence
    assert "r (VRF red) counted IpExt.InNoRoutes: 3 more" in evidence
    assert f"not as planned: {SESSION.text}" in evidence


def test_steps():
    found = walk(THERE, Question("tcp", 500, "c", S, 80), LAB)
    good = (
        FlowStep("c", leaves="red"),
        FlowStep("r", vrf="red", enters="in0", source=(C,)),
        FlowStep("s", destination=(S,)),
    )
    assert unmet(found, good) == []
    assert unmet(found, (FlowStep("s"), FlowStep("r"))) == ["step 2: the request did not pass r after s"]
    assert unmet(found, (FlowStep("r", vrf="blue"),)) == ["step 1: at r, it was in VRF red, not in VRF blue"]
    assert unmet(found, (FlowStep("s", reply=True),)) == ["step 1: the reply did not pass s"]


def test_lost_in_a_tunnel():
    """It was put into the tunnel's interface, which knew no peer for it."""
    lab = dataclasses.replace(LAB, tunnels=frozenset({("r", "tun0")}))
    frames = [*THERE[:2], frame(3, "r", "tun0", "out", PASSED, vrf="red")]
    lost = Fault("tunnel", "r", "red", "r: tun0 lacks its planned peer 10.0.0.2")
    found = case(frames, AT_R, Context((lost,)))
    cause = explain(dataclasses.replace(found, lab=lab))
    assert (cause.kind, cause.node) == ("tunnel", "r")
    assert cause.sentence.endswith(f"into the tunnel tun0, and sent nothing on; {lost.text}")
    assert explain(found).kind != "tunnel"


def test_the_network_that_carries_a_tunnel_is_no_wrong_one():
    """A node between two networks sends by the one, in a tunnel, what is for the other."""
    peers = {("n", "eth0"): ("a", "x"), ("n", "eth1"): ("b", "x"), ("s", "eth0"): ("b", "y")}
    vrfs = {("a", "x"): "red", ("b", "x"): "blue", ("b", "y"): "blue", ("n", "eth0"): None, ("n", "eth1"): None}
    vrfs[("s", "eth0")] = None
    lab = Map(peers | {peer: own for own, peer in peers.items()}, vrfs, {("s", None): frozenset({S})})

    def left(packet: bytes) -> str:
        frames = [frame(0, "n", "cali", "in", ASKED), frame(1, "n", "eth0", "out", packet)]
        found = walk(frames, Question("tcp", 500, "c", S, 80), lab)
        return explain(Case(found, lab, Context(), (HopFacts(Decision("x")),), (), found.forward, None)).kind

    assert left(PASSED) == "wrong-vrf"
    assert left(ipv4("1.1.1.1", "2.2.2.2", UDP, udp(5, 14789, vxlan(200, PASSED)))) == "unknown"


HOP = NextHop(S, "out0", "s", ("REACHABLE",), "02:00:00:00:00:05", frozenset({"02:00:00:00:00:05"}), "s")
FAILED = dataclasses.replace(HOP, states=("FAILED",), noted="", holder="")
EXTRA = Fault(
    "extra-address", "r", "red", "r: out0 has the address 10.0.0.1/8, which is not planned", "10.0.0.1/8", "out0"
)
LOST = Fault("address", "s", None, "s: eth0 lacks its planned address 10.0.2.2/24", "10.0.2.2/24", "eth0")
DOWN = Fault("interface", "s", None, "s: eth0 is down", interface="eth0")
OTHER = Fault("interface", "s", None, "s: eth9 is down", interface="eth9")
UNPLUGGED = Fault("port", "r", "red", "r (VRF red): out0 is not a port of br0, as planned", interface="out0")
ARP_OFF = Fault("setting", "s", None, "s: net/ipv4/conf/eth0/proxy_arp is 0, and 1 is planned", interface="eth0")
RULES = Fault("rules", "r", "red", "r: chain c has 0 rules, and 1 are planned")


@pytest.mark.parametrize(
    ("frames", "scene", "faults", "kind", "node", "words"),
    [
        # Whom it was to be handed to: the reason, where one is known, comes before the silence.
        (THERE[:2], {"next_hop": FAILED}, (), "unresolved", "r", "s did not answer who has 10.0.2.2"),
        (THERE[:2], {"next_hop": FAILED}, (EXTRA,), "unresolved", "r", "has the address 10.0.0.1/8, which is not planned"),
        (THERE[:2], {"next_hop": FAILED}, (ARP_OFF,), "unresolved", "r", "proxy_arp is 0, and 1 is planned"),
        (THERE[:2], {"next_hop": FAILED}, (LOST,), "address-missing", "s", "lacks its planned address"),
        (THERE[:2], {"next_hop": FAILED}, (OTHER, LOST, DOWN), "link-down", "s", "s: eth0 is down"),
        (THERE[:3], {"next_hop": HOP}, (UNPLUGGED,), "bridge-port", "r", "not a port of br0"),
        (THERE[:2], {"next_hop": dataclasses.replace(FAILED, dropped=("f i", "arp drop"))}, (), "policy", "s", "s dropped the question who has 10.0.2.2, in chain f i: arp drop"),
        (THERE[:3], {"next_hop": dataclasses.replace(HOP, noted="02:00:00:00:00:99", holder="")}, (), "wrong-neighbour", "r", "which nobody there has"),
        (THERE[:3], {"next_hop": dataclasses.replace(HOP, noted="02:00:00:00:00:99", holder="x")}, (), "wrong-neighbour", "r", "which is x's; s has 02:00:00:00:00:05"),
        (THERE[:2], {"handed": dataclasses.replace(HOP, noted="02:00:00:00:00:99", holder="")}, (), "wrong-neighbour", "c", "02:00:00:00:00:99"),
        (THERE[:3], {"next_hop": HOP, "peer_links": {"out0": (1500, True)}}, (), "unknown", "r", "nothing found says why"),
        # Queues, reverse paths, IPv6 that is not forwarded, rules that are gone.
        (THERE[:2], {"discarded": (("out0", "tbf", 2),)}, (), "queue", "r", "r (VRF red) dropped the request at out0: its queueing discipline tbf counted 2 more drops"),
        (THERE[:3], {"discarded": (("out0", "tbf", 2),), "peer_links": {"out0": (1500, True)}}, (), "unknown", "r", ""),
        (THERE[:2], {"settings": {"net/ipv4/conf/in0/rp_filter": "2"}, "counted": {"TcpExt.IPReversePathFilter": 1}}, (), "rp-filter", "r", "rp_filter is loose, and there is no way back to 10.0.1.2 at all"),
        (THERE[:2], {"settings": {"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/in0/rp_filter": "2"}, "counted": {"TcpExt.IPReversePathFilter": 1}}, (), "rp-filter", "r", "loose"),
        (THERE[:2], {"settings": {"net/ipv4/conf/in0/rp_filter": "0"}, "counted": {"TcpExt.IPReversePathFilter": 1}}, (), "unknown", "r", ""),
        (THERE[:2], {"route": Decision("x"), "settings": {"net/ipv6/conf/all/forwarding": "0"}}, (), "forwarding-off", "r", "net/ipv6/conf/all/forwarding = 0"),
        (THERE[:2], {"route": Decision("x", kind="local"), "settings": {"net/ipv6/conf/all/forwarding": "0"}}, (), "unknown", "r", ""),
        (THERE[:2], {}, (RULES,), "nat-missing", "r", "did not pass on the request to 10.0.2.2: r: chain c has 0 rules"),
        # The ends.
        (THERE, {"listening": True, "counted": {"TcpExt.ListenOverflows": 1}}, (), "no-answer", "s", "the queue of connections that its program has not accepted yet is full"),
        (THERE, {"listening": True, "discarded": (("eth0", "tbf", 1),)}, (), "queue", "s", "s dropped an answer at eth0"),
        (THERE, {"listening": False, "listeners": ("127.0.0.1",)}, (), "no-listener", "s", "what has the port listens at 127.0.0.1 alone"),
    ],
)  # fmt: skip
def test_what_lies_around_the_last_place(frames, scene, faults, kind, node, words):
    place = AT_S if frames is THERE else AT_R
    cause = explain(case(frames, dataclasses.replace(place, **scene), Context(faults)))
    assert (cause.kind, cause.node) == (kind, node), cause.sentence
    assert words in cause.sentence, cause.sentence


@pytest.mark.parametrize(
    ("scene", "faults", "kind", "node", "words"),
    [
        ({"next_hop": FAILED}, (), "unresolved", "c", "c sent nothing: s did not answer who has 10.0.2.2"),
        ({"next_hop": dataclasses.replace(FAILED, interface="eth0", owner="r"), "discarded": (("eth0", "tbf", 1),)}, (), "queue", "c", "c dropped the request at eth0"),
        ({"route": NO_ROUTE}, (Fault("route", "c", None, "c lacks its planned route 0.0.0.0/0"),), "no-route", "c", "it has no route to 10.0.2.2; c lacks its planned route 0.0.0.0/0"),
        ({}, (), "not-sent", "c", "nobody answered"),
    ],
)  # fmt: skip
def test_why_nothing_was_sent(scene, faults, kind, node, words):
    cause = explain(case([], dataclasses.replace(Scene("c", None, destination=S), **scene), Context(faults)))
    assert (cause.kind, cause.node) == (kind, node), cause.sentence
    assert words in cause.sentence, cause.sentence


def test_end_of_a_tunnel_that_does_not_fit():
    cause = explain(_with_tunnel(dataclasses.replace(AT_S, tunnel="has VNI 11 on v, and the packet has VNI 10")))
    assert (cause.kind, cause.node) == ("tunnel", "s")
    assert (
        "in a tunnel (vxlan 10 10.0.2.1 → 10.0.2.2), but has VNI 11 on v, and the packet has VNI 10" in cause.sentence
    )


def _with_tunnel(scene: Scene) -> Case:
    found = case(THERE, scene)
    assert found.path is not None
    last = dataclasses.replace(found.path.last, tunnels_in=("vxlan 10 10.0.2.1 → 10.0.2.2",))
    return dataclasses.replace(found, path=dataclasses.replace(found.path, hops=(*found.path.hops[:-1], last)))


SNAT, BALANCED = "198.51.100.9", "3.3.3.3"
REPLY = tcp(80, 4000, 9, 501, SYN | ACK)


def test_source_that_nobody_has():
    """r gives the request a source; s has no route to it."""
    given = ipv4(SNAT, S, TCP, tcp(4000, 80, 500, 0, SYN), ttl=63)
    frames = [
        *THERE[:2],
        frame(2, "r", "out0", "out", given, vrf="red"),
        frame(3, "s", "eth0", "in", given),
        frame(4, "s", "eth0", "out", ipv4(S, SNAT, TCP, REPLY)),
        frame(5, "r", "out0", "in", ipv4(S, SNAT, TCP, REPLY), vrf="red"),
    ]
    scene = dataclasses.replace(AT_R, route=NO_ROUTE, destination=SNAT)
    cause = explain(case(frames, scene))
    assert (cause.kind, cause.node) == ("wrong-nat", "r")
    assert cause.sentence.startswith(
        "r (VRF red) gave the request the source 198.51.100.9, which nobody in the lab has"
    )


def translated(back: list[Frame]) -> Case:
    """c asks a Service's address, which r makes s's, with a source of its own; then what came back."""
    asked = ipv4(C, BALANCED, TCP, tcp(4000, 80, 500, 0, SYN))
    sent = ipv4(R, S, TCP, tcp(5000, 80, 500, 0, SYN), ttl=63)
    frames = [
        frame(0, "c", "eth0", "out", asked),
        frame(1, "r", "in0", "in", asked, vrf="red"),
        frame(2, "r", "out0", "out", sent, vrf="red"),
        frame(3, "s", "eth0", "in", sent),
        *back,
    ]
    found = walk(frames, Question("tcp", 500, "c", BALANCED, 80), LAB)
    facts = tuple(HopFacts(Decision("x")) for _ in found.forward.hops) if found.forward else ()
    path = found.lost or found.back or found.forward
    assert path is not None
    return Case(found, LAB, Context(), facts, (), path, Scene(*path.last.place), "nobody answered")


def test_reply_that_the_translating_node_takes_for_its_own():
    data = tcp(80, 5000, 9, 501, SYN | ACK)
    frames = [
        frame(4, "s", "eth0", "out", ipv4(S, R, TCP, data)),
        frame(5, "r", "out0", "in", ipv4(S, R, TCP, data), vrf="red"),
    ]
    cause = explain(translated(frames))
    assert (cause.kind, cause.node) == ("nat-missing", "r")
    assert "took the reply for its own" in cause.sentence


def test_reply_from_another_address_than_was_asked():
    frames = [
        frame(4, "s", "eth0", "out", ipv4(S, C, TCP, REPLY)),
        frame(5, "c", "eth0", "in", ipv4(S, C, TCP, REPLY)),
    ]
    cause = explain(translated(frames))
    assert (cause.kind, cause.node) == ("nat-missing", "r")
    assert cause.sentence.startswith("the reply reached c from 10.0.2.2, and not from 3.3.3.3, which it had asked")


def test_address_that_two_have():
    reply = ipv4(S, C, TCP, REPLY)
    there = [*THERE, frame(4, "s", "eth0", "out", reply), frame(5, "x", "eth0", "in", reply)]
    twice = Fault(
        "extra-address", "x", None, "x: eth0 has the address 10.0.1.2/24, which is not planned", "10.0.1.2/24"
    )
    cause = explain(case(there, Scene("x", None, destination=C), Context((twice,))))
    assert (cause.kind, cause.node) == ("duplicate-address", "x"), cause.sentence
    assert "and it is c's" in cause.sentence


def test_echoes_that_are_ignored():
    asked = ipv4(C, S, ICMP, icmp(8, 0, 7 << 16, (500).to_bytes(4, "big")))
    found = walk(
        [frame(0, "c", "eth0", "out", asked), frame(1, "s", "eth0", "in", asked)], Question("icmp", 500, "c", S), LAB
    )
    scene = dataclasses.replace(AT_S, settings={"net/ipv4/icmp_echo_ignore_all": "1"})
    cause = explain(Case(found, LAB, Context(), (), (), found.forward, scene, "nobody answered"))
    assert (cause.kind, cause.node) == ("setting", "s")


def test_address_that_is_missing_at_the_place_without_a_route():
    fault = Fault("address", "r", "red", "r: out0 lacks its planned address 10.0.2.1/24", "10.0.2.1/24", "out0")
    six = dataclasses.replace(fault, prefix="fd00::1/64")
    scene = dataclasses.replace(AT_R, route=NO_ROUTE)
    assert explain(case(THERE[:2], scene, Context((fault,)))).kind == "address-missing"
    assert explain(case(THERE[:2], scene, Context((six,)))).kind == "no-route"
