"""A node of the cluster that has ended: what the others do then, and what stays as it is."""

from __future__ import annotations

import lab_texts
import pytest
from test_egress import LAB, announced_by, manifests

from testbed.errors import InputError
from testbed.plan import Plan, Service


def service(plan: Plan, name: str = "app") -> Service:
    return next(entry for entry in plan.services if entry.name == name)


@pytest.fixture(scope="module")
def whole() -> Plan:
    return lab_texts.compiled(LAB, manifests())


@pytest.fixture(scope="module")
def without_n1() -> Plan:
    return lab_texts.compiled(LAB, manifests(), not_ready=["n1"])


def test_another_node_translates(whole: Plan, without_n1: Plan) -> None:
    assert (announced_by(whole), announced_by(without_n1)) == (("n1",), ("n2",))
    table = next(entry.text for entry in without_n1.node("n2").rulesets if entry.name == "ip testbed-egress")
    assert "snat to 3.3.3.3" in table


def test_its_pods_leave_their_services_and_stay_where_they_are(whole: Plan, without_n1: Plan) -> None:
    lost = set(service(whole).endpoints) - set(service(without_n1).endpoints)
    [pod] = [node for node in whole.nodes if node.parent == "n1"]
    assert lost == {f"{pod.interfaces[0].addresses[0].partition('/')[0]}:8080"}
    assert [(node.name, node.parent) for node in whole.nodes] == [(node.name, node.parent) for node in without_n1.nodes]


def test_nobody_waits_for_it(whole: Plan, without_n1: Plan) -> None:
    assert {entry.peer_name for entry in whole.sessions} >= {"n1", "n2", "n3"}
    assert not [entry for entry in without_n1.sessions if "n1" in (entry.node, entry.peer_name)]
    assert {entry.node for entry in without_n1.routes} == {entry.node for entry in whole.routes} - {"n1"}
    assert {entry.prefix for entry in without_n1.routes} < {entry.prefix for entry in whole.routes}


def test_routers_go_on_with_it_as_a_neighbour(whole: Plan, without_n1: Plan) -> None:
    assert whole.node("r2") == without_n1.node("r2")


def test_addresses_and_names_are_the_same(whole: Plan, without_n1: Plan) -> None:
    assert [(node.name, node.interfaces) for node in whole.nodes] == [
        (node.name, node.interfaces) for node in without_n1.nodes
    ]
    assert whole.links == without_n1.links


def test_what_is_there_of_it(without_n1: Plan) -> None:
    present = without_n1.present()
    changed = [node.name for node in without_n1.nodes if node not in present.nodes and node.kind == "router"]
    assert changed == ["r1", "r2"]  # they have lost a port
    assert {node.name for node in without_n1.nodes} - {node.name for node in present.nodes} == {
        node.name for node in without_n1.nodes if "n1" in (node.name, node.parent)
    }
    assert not [link for link in present.links if "n1" in (link.a.node, link.b.node)]
    ends = {(end.node, end.interface) for link in present.links for end in (link.a, link.b)}
    veths = {(node.name, entry.name) for node in present.nodes for entry in node.interfaces if entry.kind == "veth"}
    assert veths == ends


def test_all_is_present_while_all_are_ready(whole: Plan) -> None:
    assert whole.present() is whole


def test_without_a_node_that_can_it_is_refused() -> None:
    with pytest.raises(InputError, match="n1: it is not ready; n2: it is not ready"):
        lab_texts.compiled(LAB, manifests(), not_ready=["n1", "n2"])


def test_without_egress_services_nothing_is_refused() -> None:
    plan = lab_texts.compiled(LAB, manifests(egress=""), not_ready=["n1", "n2", "n3"])
    assert service(plan).endpoints == ()
    assert announced_by(plan) == ()
