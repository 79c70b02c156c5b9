"""Sessions between routers, both ends from one statement."""

from __future__ import annotations

import lab_texts
import pytest

from testbed.compile import bgp
from testbed.plan import BgpSession

LINE = """
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      r2: {kind: router, bgp: {asn: 65002, timers: {keepalive: 10, hold: 30, connect: 5}}}
      r3: {kind: router}
      h1: {kind: host}
"""


def routing(text: str) -> bgp.Routing:
    made = lab_texts.lab(text)
    topology, problems = lab_texts.build_topology(made)
    assert problems == []
    return bgp.link_sessions(made, topology)


def facts(found: bgp.Routing) -> dict[tuple[str, str | None], list[tuple[str, int, str]]]:
    return {place: [(n.address, n.asn, n.name) for n in entries] for place, entries in found.neighbours.items()}


def test_both_ends_and_both_families() -> None:
    found = routing(
        LINE + "    links: [{endpoints: [r1, r2], bgp: true}, {endpoints: [r2, r3]}, {endpoints: [r1, h1]}]"
    )
    assert facts(found) == {
        ("r1", None): [("10.0.0.1", 65002, "r2"), ("fd00::1", 65002, "r2")],
        ("r2", None): [("10.0.0.0", 65001, "r1"), ("fd00::", 65001, "r1")],
    }
    assert [(entry.a[0], entry.b[0], entry.family) for entry in found.sessions] == [("r1", "r2", 4), ("r1", "r2", 6)]


def test_timers_are_each_routers_own() -> None:
    found = routing(
        "    bgp: {timers: {hold: 12, keepalive: 4}}\n" + LINE + "    links: [{endpoints: [r1, r2], bgp: true}]"
    )
    timers = {place[0]: entries[0].timers for place, entries in found.neighbours.items()}
    assert (timers["r1"].keepalive, timers["r1"].hold, timers["r1"].connect) == (4, 12, 1)
    assert (timers["r2"].keepalive, timers["r2"].hold, timers["r2"].connect) == (10, 30, 5)


@pytest.mark.parametrize(
    ("subnet", "families"), [("ipv4: 10.1.0.0/24", [4]), ("ipv6: 'fd01::/64'", [6]), ("mtu: 9000", [4, 6])]
)
def test_a_session_for_each_family_of_the_link(subnet: str, families: list[int]) -> None:
    found = routing(LINE + f"    links: [{{endpoints: [r1, r2], bgp: true, {subnet}}}]")
    assert [entry.family for entry in found.sessions] == families


def test_all_pairs_on_a_segment() -> None:
    text = """
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      r2: {kind: router, bgp: {asn: 65002}}
      r3: {kind: router, bgp: {asn: 65003}}
    links: [{endpoints: [r1, r2, r3], bgp: true, ipv4: 10.1.0.0/24}]
    """
    found = routing(text)
    assert [(entry.a[0], entry.b[0]) for entry in found.sessions] == [("r1", "r2"), ("r1", "r3"), ("r2", "r3")]
    assert facts(found)["r3", None] == [("10.1.0.1", 65001, "r1"), ("10.1.0.2", 65002, "r2")]


def test_vrfs_have_sessions_of_their_own() -> None:
    found = routing(
        "    vrfs: [red, blue]\n" + LINE + "    links: [{endpoints: [r1, r2], vrfs: [red, blue], bgp: true}]"
    )
    assert facts(found)["r1", "red"] == [("10.0.0.1", 65002, "r2"), ("fd00::1", 65002, "r2")]
    assert facts(found)["r1", "blue"] == [("10.0.0.3", 65002, "r2"), ("fd00::3", 65002, "r2")]
    assert ("r1", None) not in found.neighbours


def test_the_plan_expects_every_end() -> None:
    plan = lab_texts.compiled(LINE + "    links: [{endpoints: [r1, r2], bgp: true, ipv4: 10.1.0.0/24}]")
    assert plan.sessions == (
        BgpSession("r1", None, "10.1.0.2", "r2", "frr", "/run/frr/bgpd.vty"),
        BgpSession("r2", None, "10.1.0.1", "r1", "frr", "/run/frr/bgpd.vty"),
    )
    assert {(entry.node, entry.prefix) for entry in plan.routes} == {("r1", "10.255.0.2/32"), ("r2", "10.255.0.1/32")}


@pytest.mark.parametrize(
    ("redistribute", "originated"),
    [
        ("[connected, static]", {"10.1.0.0/24", "10.2.0.0/24", "10.255.0.1/32", "10.9.0.0/16"}),
        ("[connected]", {"10.1.0.0/24", "10.2.0.0/24", "10.255.0.1/32"}),
        ("[static]", {"10.9.0.0/16"}),
        ("[]", set()),
    ],
)
def test_what_a_router_originates(redistribute: str, originated: set[str]) -> None:
    plan = lab_texts.compiled(f"""
    nodes:
      r1:
        kind: router
        bgp: {{asn: 65001, redistribute: {redistribute}}}
        routes: [{{to: 10.9.0.0/16, via: h1}}]
      r2: {{kind: router, bgp: {{asn: 65002, redistribute: []}}}}
      h1: {{kind: host}}
    links:
      - {{endpoints: [r1, r2], bgp: true, ipv4: 10.1.0.0/24}}
      - {{endpoints: [r1, h1], ipv4: 10.2.0.0/24}}
    """)
    assert {entry.prefix for entry in plan.routes if entry.node == "r2"} == originated


FABRIC = """
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      s1: {kind: router, bgp: {asn: 65000}}
      s2: {kind: router, bgp: {asn: 65000}}
      s3: {kind: router, bgp: {asn: 65000}}
      r2: ROUTER
      h1: {kind: host}
    links:
      - {endpoints: [r1, s1], bgp: true, ipv4: 10.1.1.0/24}
      - {endpoints: [r1, s2], bgp: true, ipv4: 10.1.2.0/24}
      - {endpoints: [r1, s3], bgp: true, ipv4: 10.1.3.0/24}
      - {endpoints: [s1, r2], bgp: true, ipv4: 10.2.1.0/24}
      - {endpoints: [s2, r2], bgp: true, ipv4: 10.2.2.0/24}
      - {endpoints: [s3, r2], bgp: true, ipv4: 10.2.3.0/24}
      - {endpoints: [r1, h1], ipv4: 10.9.0.0/24}
"""


@pytest.mark.parametrize(
    ("router", "next_hops"),
    [
        pytest.param("{kind: router, bgp: {asn: 65002}}", 3, id="all spines"),
        pytest.param("{kind: router, bgp: {asn: 65002, maximumPaths: 2}}", 2, id="no more than it uses"),
        pytest.param("{kind: router, bgp: {asn: 65001}}", None, id="r1's AS, so it does not take them"),
        pytest.param(
            "{kind: router, bgp: {asn: 65002, redistribute: []}, routes: [{to: 10.9.0.0/24, via: s1}]}",
            1,
            id="a static route of its own, which it prefers",
        ),
    ],
)
def test_how_many_next_hops_a_route_will_have(router: str, next_hops: int | None) -> None:
    plan = lab_texts.compiled(FABRIC.replace("ROUTER", router))
    found = {(entry.node, entry.prefix): entry.next_hops for entry in plan.routes}
    assert found.get(("r2", "10.9.0.0/24")) == next_hops
    assert found["s1", "10.9.0.0/24"] == 1


def test_neighbours_of_one_address_are_told_apart_by_their_vrf() -> None:
    found = bgp.Routing()
    made = lab_texts.lab(LINE)
    one = bgp.Neighbour("10.1.0.2", 65009, "x", ("x", None, "frr"), "the first", made.bgp.timers)
    two = bgp.Neighbour("10.1.0.2", 65009, "y", ("y", None, "frr"), "the second", made.bgp.timers)
    assert found.connect("r1", "red", one) == []
    assert found.connect("r1", "blue", two) == []
    [problem] = found.connect("r1", "red", two)
    assert str(problem) == (
        "r1 would have two BGP neighbours with the address 10.1.0.2 in VRF red: the first and the second "
        "(peer with another address of the router, or in another VRF)"
    )
    assert found.neighbours["r1", "red"] == [one]
