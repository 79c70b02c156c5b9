"""labs/edge: every flow as declared, a second `up` that changes nothing, and the kernel's state as planned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from conftest import EDGE, assert_flows, own_name, pids, running

from testbed.deploy.rulesets import load
from testbed.plan import Node, Plan, Route
from testbed.session import Session, compiled

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]


def test_every_flow_is_as_declared(edge):
    verdicts = edge.test()
    assert len(verdicts) == len(edge.plan.flows) >= 18
    assert not [(entry.flow.name, entry.reasons) for entry in verdicts if not entry.passed]
    assert [(entry.flow, entry.passed) for entry in edge.last_verdicts()] == [
        (entry.flow.name, True) for entry in verdicts
    ]


def test_nothing_is_amiss(edge):
    status = edge.status()
    assert len(status.sessions) >= 40
    assert status.problems == ()


def test_up_again_changes_nothing(edge):
    before = pids(edge)
    assert len(before) > 40
    assert not edge.up(compiled(EDGE, edge.name))
    assert pids(edge) == before
    assert_flows(edge, ["ssh-from-amf", "smf-from-ops"])


ROUTE_TYPES = {"1": "unicast", "6": "blackhole", "7": "unreachable", "8": "prohibit"}
LOCAL_TABLE = 255
RTPROT_STATIC = "4"  # what `up` puts in; a routing daemon's own static routes have another (rtnetlink(7))


# --- the kernel's state against the Plan ------------------------------------------------------------------------------


def test_addresses_are_as_planned(edge):
    for node, vrf in places(edge.plan):
        planned = {(entry.name, text) for entry in held(node.interfaces, node, vrf) for text in entry.addresses}
        found = {
            (link["ifname"], f"{entry['local']}/{entry['prefixlen']}")
            for link in json.loads(edge.runtime.run(node.name, vrf, ("ip", "-j", "address")))
            for entry in link["addr_info"]
            if entry["scope"] == "global"
        }
        assert found == planned, (node.name, vrf)


def test_routes_are_as_planned(edge):
    checked = 0
    for node, vrf in places(edge.plan):
        planned = {described(entry) for entry in held(node.routes, node, vrf) if ":" not in entry.to}
        answer = edge.runtime.run(node.name, vrf, ("ip", "-N", "-j", "route", "show", "table", "all"))
        found = {live(entry) for entry in json.loads(answer) if entry["protocol"] == RTPROT_STATIC}
        assert found == planned, (node.name, vrf)
        checked += len(planned)
    assert checked > 20


def test_routes_by_bgp_have_as_many_next_hops_as_planned(edge):
    """Here all of them are certain: the kernels have no fewer, and no more."""
    planned: dict[tuple[str, str | None, int], dict[str, int]] = {}
    for route in edge.plan.routes:
        planned.setdefault((route.node, route.vrf, route.table), {})[route.prefix] = route.next_hops
    for (node, vrf, table), wanted in planned.items():
        answer = json.loads(edge.runtime.run(node, vrf, ("ip", "-N", "-j", "route", "show", "table", str(table))))
        found = {live(entry)[0]: len(entry.get("nexthops", [entry])) for entry in answer}
        assert {prefix: found.get(prefix) for prefix in wanted} == wanted, (node, vrf)
    assert len([route for route in edge.plan.routes if route.next_hops > 1]) > 30


def test_rules_are_as_planned(edge):
    checked = 0
    for node, vrf in places(edge.plan):
        planned = {
            (entry.priority, entry.table, entry.fwmark, entry.fwmask)
            for entry in held(node.rules, node, vrf)
            if entry.family == 4 and entry.table != LOCAL_TABLE
        }
        answer = json.loads(edge.runtime.run(node.name, vrf, ("ip", "-j", "rule")))
        found = {
            (entry["priority"], int(entry["table"]), int(entry.get("fwmark", "0"), 0), int(entry.get("fwmask", "0"), 0))
            for entry in answer
            if entry.get("table", "local") not in ("local", "main", "default")  # the kernel's own for VRFs names none
        }
        assert found == planned, (node.name, vrf)
        checked += len(planned)
    assert checked >= 3


def test_rulesets_are_as_planned(edge):
    """What the kernel shows is what it makes of the planned text in an empty namespace."""
    checked = 0
    with running(Plan(own_name("scratch"), nodes=(Node("scratch", "host"),))) as scratch:
        for node, vrf in places(edge.plan):
            planned = held(node.rulesets, node, vrf)
            scratch.runtime.run("scratch", None, ("nft", "flush", "ruleset"))
            load(scratch.runtime, Node("scratch", "host", rulesets=tuple(replace(e, vrf=None) for e in planned)), None)
            expected, found = listing(scratch, "scratch", None), listing(edge, node.name, vrf)
            assert found == expected, (node.name, vrf)
            assert bool(planned) == bool(found), (node.name, vrf)
            checked += len(planned)
    assert checked >= 10


def places(plan: Plan) -> list[tuple[Node, str | None]]:
    """Every network namespace of every node and pod."""
    return [(node, vrf) for node in plan.nodes for vrf in (None, *node.vrf_namespaces)]


def held(entries: Iterable[Any], node: Node, vrf: str | None) -> list[Any]:
    """Those interfaces, routes and so on of a node that are in one of its namespaces."""
    return [entry for entry in entries if vrf == (entry.vrf if entry.vrf in node.vrf_namespaces else None)]


def described(route: Route) -> tuple[str, str, str, str, int, str]:
    return str(ip_network(route.to)), route.via, route.dev, str(route.table), route.metric, route.kind


def live(entry: dict) -> tuple[str, str, str, str, int, str]:
    to = "0.0.0.0/0" if entry["dst"] == "default" else entry["dst"]
    return (
        str(ip_network(to)),
        entry.get("gateway", ""),
        entry.get("dev", ""),
        entry.get("table", "254"),
        entry.get("metric", 0),
        ROUTE_TYPES[entry.get("type", "1")],
    )


def listing(session: Session, node: str, vrf: str | None) -> list[str]:
    """All rulesets without counters, in an order of their own."""
    tables = session.runtime.run(node, vrf, ("nft", "--stateless", "list", "ruleset"))
    rules = session.runtime.run(node, vrf, ("iptables-save",))
    lines = [line.partition("[")[0] for line in rules.splitlines() if not line.startswith("#")]
    return sorted([*tables.splitlines(), *lines])
