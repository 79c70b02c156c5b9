"""Routes leaked from VRF to VRF: what FRR is told, what readiness waits for, what is refused."""

from __future__ import annotations

from pathlib import Path

import lab_texts
import pytest
from test_routers import complaints, folder, frr_files, needs_frr  # noqa: F401 - a fixture
from test_vrf_devices import compiled

from testbed.errors import InputError
from testbed.plan import Plan

LAB = """
    vrfs: [red, blue, green]
    nodes:
      r1:
        kind: router
        bgp: {asn: 65001}
        nat: [{vrf: red, outside: h1}]
        leaks:
          - {from: red, to: blue, prefixes: [10.1.0.0/24]}
          - {from: blue, to: red, prefixes: [10.2.0.0/24, 10.3.0.0/24, "fd02::/64"]}
      r2: {kind: router, bgp: {asn: 65002}}
      h1: {kind: host}
      h2: {kind: host}
      h3: {kind: host}
      h4: {kind: host}
    links:
      - {endpoints: [r1, h1], vrf: red, ipv4: 10.1.0.0/24}
      - {endpoints: [r1, h2], vrf: blue, ipv4: 10.2.0.0/24, ipv6: "fd02::/64"}
      - {endpoints: [r1, r2], vrf: blue, ipv4: 10.4.0.0/24, bgp: true}
      - {endpoints: [r2, h3], vrf: blue, ipv4: 10.3.0.0/24}
      - {endpoints: [r1, h4], vrf: green, ipv4: 10.1.0.0/24}
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compiled(LAB)


def test_what_frr_imports(plan: Plan) -> None:
    text = lab_texts.file(plan.node("r1"), "/etc/frr/bgpd.conf")
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if "prefix-list" in line or "import" in line or line.startswith("router bgp")] == [
        "ip prefix-list leak-red-blue seq 1 permit 10.1.0.0/24",
        "ip prefix-list leak-blue-red seq 1 permit 10.2.0.0/24",
        "ip prefix-list leak-blue-red seq 2 permit 10.3.0.0/24",
        "ipv6 prefix-list leak-blue-red seq 1 permit fd02::/64",
        "match ip address prefix-list leak-red-blue",
        "match ip address prefix-list leak-blue-red",
        "match ipv6 address prefix-list leak-blue-red",
        "router bgp 65001",
        "router bgp 65001 vrf blue",
        "import vrf route-map leaks-blue-ipv4",
        "import vrf red",
        "router bgp 65001 vrf red",
        "import vrf route-map leaks-red-ipv4",
        "import vrf blue",
        "import vrf route-map leaks-red-ipv6",
        "import vrf blue",
    ]
    assert "import" not in lab_texts.file(plan.node("r2"), "/etc/frr/bgpd.conf")


@needs_frr
def test_frr_accepts_it(plan: Plan, folder: Path) -> None:  # noqa: F811
    for title, text in frr_files(plan).items():
        path = folder / f"{title}.conf"
        path.write_text(text)
        assert complaints(title.rpartition("-")[2], path) == [], title


def test_what_readiness_waits_for(plan: Plan) -> None:
    found = {(entry.node, entry.vrf, entry.prefix) for entry in plan.routes}
    assert {("r1", "red", "10.2.0.0/24"), ("r1", "red", "10.3.0.0/24"), ("r1", "blue", "10.1.0.0/24")} <= found
    assert ("r1", "red", "fd02::/64") in found
    assert ("r2", "blue", "10.1.0.0/24") in found, "what r1 originates in red goes on to its neighbour in blue"
    assert not [entry for entry in found if entry[1] == "green"]


def test_leaking_vrfs_share_a_zone_of_connections(plan: Plan) -> None:
    zones = plan.node("r1").rulesets[0].text
    numbers = {line.rpartition(" ")[2] for line in zones.splitlines() if "ct zone set" in line}
    assert zones.count("ct zone set") == 6
    assert len(numbers) == 2, "one for red and blue, one for green"


def test_a_router_that_could_leak_has_the_default_instance() -> None:
    """FRR wants it for the first leak, and does not let it go with the last."""
    alone = compiled("""
        vrfs: [red]
        nodes: {r1: {kind: router, bgp: {asn: 65001}}, r2: {kind: router, bgp: {asn: 65002}}}
        links: [{endpoints: [r1, r2], vrf: red, bgp: true}]
    """)
    text = lab_texts.file(alone.node("r1"), "/etc/frr/bgpd.conf")
    lines = [line for line in text.splitlines() if line.startswith("router bgp")]
    assert lines == ["router bgp 65001", "router bgp 65001 vrf red"]


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ("bgp: {asn: 65001}\n", "\n", ["r1 leaks routes by BGP, and speaks none"]),
        ("to: blue", "to: red", ["r1 leaks from VRF red to itself"]),
        ("from: red", "from: pink", ["r1 has no VRF 'pink'"]),
        (
            "[10.1.0.0/24]",
            "[10.1.0.0/25]",
            ["r1 leaks 10.1.0.0/25 from VRF red, where BGP never has a route to it"],
        ),
        (
            "to: blue, prefixes: [10.1.0.0/24]",
            "to: green, prefixes: [10.1.0.0/24]",
            ["r1 leaks 10.1.0.0/24 into VRF green, which has a link or route of its own there"],
        ),
    ],
)
def test_what_cannot_be_is_refused(old: str, new: str, messages: list[str]) -> None:
    text = LAB.replace(old, new, 1)
    assert text != LAB
    if "speaks none" in messages[0]:
        text = text.replace(", bgp: true", "")
    with pytest.raises(InputError) as error:
        compiled(text)
    found = [problem for problem in error.value.problems if "leaks" in problem.message or "VRF" in problem.message]
    assert list(dict.fromkeys(problem.message for problem in found))[: len(messages)] == messages
    assert all(problem.position for problem in found)


def test_namespaces_cannot_leak() -> None:
    with pytest.raises(InputError, match="network namespaces \\(the VRF driver netns\\) cannot do"):
        compiled(LAB, "netns")
