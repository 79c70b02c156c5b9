"""VRFs as devices: the Plan of the same lab, with VRF devices instead of a namespace for each."""

from __future__ import annotations

from dataclasses import replace

import lab_texts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_routers import ROUTER

from testbed.compile import compile_lab, vrf_devices
from testbed.load.images import catalogue
from testbed.load.lab import load
from testbed.load.manifests import load_manifests
from testbed.model.images import Catalogue
from testbed.plan import ExpectedRoute, Interface, Node, Plan, Route, Rule, VrfDriver

IMAGES: Catalogue = catalogue()


def compiled(text: str, driver: VrfDriver = "device") -> Plan:
    return compile_lab(lab_texts.lab(text), load_manifests([]), IMAGES, vrf_driver=driver)


@pytest.fixture(scope="module")
def r1() -> Node:
    return compiled(ROUTER).node("r1")


def test_interfaces_are_enslaved(r1: Node) -> None:
    [red] = [entry for entry in r1.interfaces if entry.kind == "vrf"]
    assert red == Interface("red", "vrf", "red", table=red.table)
    assert r1.interfaces.index(red) == 1, "a device comes before those that it takes"
    assert {entry.name: (entry.vrf, entry.master) for entry in r1.interfaces} == {
        "lo": (None, ""),
        "red": ("red", ""),
        "eth0": (None, ""),
        "eth1": (None, ""),
        "eth2": ("red", "red"),
        "eth3": ("red", "red"),
    }
    assert (r1.vrf_devices, r1.vrf_namespaces) == (("red",), ())
    namespaces = compiled(ROUTER, "netns").node("r1")
    assert (namespaces.vrf_devices, namespaces.vrf_namespaces) == ((), ("red",))


def test_a_bridge_is_enslaved_and_its_ports_stay_its_own() -> None:
    plan = compiled("""
        vrfs: [red]
        nodes: {r1: {kind: router}, h1: {kind: host}, h2: {kind: host}}
        links: [{endpoints: [r1, h1, h2], vrf: red, ipv4: 10.1.0.0/24}]
    """)
    masters = {entry.name: entry.master for entry in plan.node("r1").interfaces}
    assert masters == {"lo": "", "red": "", "br0": "red", "eth0": "br0", "eth1": "br0"}
    assert plan.node("h1").vrfs == ()
    assert all(entry.master == "" for entry in plan.node("h1").interfaces)


def test_where_a_look_up_begins_and_ends(r1: Node) -> None:
    table = r1.interfaces[1].table
    assert r1.rules == (Rule(32765, 255, 4), Rule(32765, 255, 6))
    assert r1.routes == (
        Route("0.0.0.0/0", table=table, vrf="red", kind="unreachable", metric=4278198272),
        Route("::/0", table=table, vrf="red", kind="unreachable", metric=4278198272),
    )
    assert {key for key, _ in r1.sysctls if "l3mdev" in key} == {
        f"net/ipv4/{protocol}_l3mdev_accept" for protocol in ("tcp", "udp", "raw")
    }
    r2 = compiled("nodes: {r1: {kind: router}, r2: {kind: router}}\nlinks: [{endpoints: [r1, r2]}]").node("r2")
    assert (r2.rules, r2.routes) == ((), ())
    assert not [key for key, _ in r2.sysctls if "l3mdev" in key]


def test_rulesets_share_the_namespace_and_not_their_names(r1: Node) -> None:
    table = r1.interfaces[1].table
    assert [(entry.name, entry.vrf) for entry in r1.rulesets] == [
        ("ip testbed-vrf-zones", None),
        ("ip testbed-nat", None),
        ("ip testbed-nat-red", None),
    ]
    assert 'oifname "eth2" masquerade' in r1.rulesets[2].text
    zones = r1.rulesets[0].text
    assert "hook prerouting priority raw" in zones
    assert f'iifname {{ "red", "eth2", "eth3" }} ct zone set {table}' in zones
    assert f'oifname {{ "red", "eth2", "eth3" }} ct zone set {table}' in zones


def test_no_zones_where_no_connection_is_tracked() -> None:
    assert compiled(ROUTER).node("r2").rulesets == ()


def test_frr_has_the_same_configuration_and_no_option_for_namespaces() -> None:
    for name in ("r1", "r2"):
        device, namespaces = compiled(ROUTER).node(name), compiled(ROUTER, "netns").node(name)
        assert device.files == namespaces.files, "both speak BGP in the default instance, too"
        assert "-n" in namespaces.processes[0].argv
        assert "-n" not in device.processes[0].argv
        assert device.processes[1:] == namespaces.processes[1:]


def test_readiness_waits_for_routes_in_the_tables_of_the_vrfs() -> None:
    plan, other = compiled(ROUTER), compiled(ROUTER, "netns")
    tables = {entry.name: entry.table for entry in plan.node("r1").interfaces if entry.kind == "vrf"}
    assert ExpectedRoute("r1", None, "10.255.0.2/32") in plan.routes
    assert [entry for entry in plan.routes if entry.vrf] == [
        replace(entry, table=tables["red"]) for entry in other.routes if entry.vrf
    ]
    assert len([entry for entry in plan.routes if entry.vrf]) > 0
    assert plan.sessions == other.sessions


def test_the_drivers_differ_in_nothing_else() -> None:
    """labs/edge: the same nodes, links, addresses, programs, sessions and flows."""
    loaded = load("edge")
    netns, device = (
        compile_lab(loaded.lab, loaded.manifests, loaded.images, vrf_driver=driver) for driver in ("netns", "device")
    )
    assert (netns.vrf_driver, device.vrf_driver) == ("netns", "device")
    for field in ("links", "secrets", "sessions", "services", "flows"):
        assert getattr(netns, field) == getattr(device, field)
    for one, other in zip(netns.nodes, device.nodes, strict=True):
        if one.kind != "router":
            assert one == other
        own = [
            replace(entry, master=entry.master if entry.master not in one.vrfs else "") for entry in other.interfaces
        ]
        assert [entry for entry in own if entry.kind != "vrf"] == list(one.interfaces)


@given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,14}", fullmatch=True), unique=True, max_size=40))
def test_tables(names: list[str]) -> None:
    found = vrf_devices.tables(names)
    assert len(set(found.values())) == len(names)
    assert all(255 < table < 1 << 16 for table in found.values()), "a table's number is that of a zone, too"


def test_a_vrf_keeps_its_table_when_another_goes() -> None:
    assert vrf_devices.tables(["mgmt", "sbi"])["sbi"] == vrf_devices.tables(["sbi"])["sbi"]


def test_two_names_of_one_number() -> None:
    numbers: dict[int, str] = {}
    for index in range(100_000):
        name = f"v{index}"
        [number] = vrf_devices.tables([name]).values()
        if number in numbers:
            first = numbers[number]
            assert vrf_devices.tables([first, name]) == {first: number, name: number + 1}
            return
        numbers[number] = name
    pytest.fail("no two of many names had one number")


def test_an_interface_may_not_be_named_as_a_vrf() -> None:
    text = """
        vrfs: [red, eth1]
        nodes: {r1: {kind: router}, h1: {kind: host}}
        links:
          - {endpoints: [{node: r1, interface: red}, {node: h1, interface: red}], vrf: red}
          - {endpoints: [r1, h1], vrf: red}
          - {endpoints: [r1, h1], vrf: red}
    """
    assert lab_texts.messages(text) == ["r1: the interface red has the name of a VRF"]
    plan = compiled(text.replace("node: r1, interface: red", "node: r1"))
    assert [entry.name for entry in plan.node("r1").interfaces] == ["lo", "red", "eth0", "eth2", "eth3"]
