"""containerlab topologies: golden files, what is refused, and how single things are said.

Golden files: tests/golden/export/containerlab; `pytest --update-golden` writes them anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

import testbed
from testbed.export import containerlab as export
from testbed.plan import (
    Endpoint,
    Interface,
    Link,
    Node,
    Plan,
)

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "export" / "containerlab-runtime"
PROGRAMS = Path(testbed.__file__).parent / "programs"
CONTAINER = export.Container(
    "image", "h", {"l": "1"}, {"s": "2"}, ["C"], [], cmd=["run", "a b"], binds=["/a:/b:ro"], tmpfs={"/t": "x"}
)


def links(*pairs: str, plan: Plan) -> list[dict[str, object]]:
    """The links of a topology of those "a:eth0 b:eth0"."""
    made = [Link(*(Endpoint(*end.split(":")) for end in pair.split())) for pair in pairs]
    text = export.topology(plan.name, {node.name: CONTAINER for node in plan.nodes}, made, plan)
    return yaml.safe_load(text)["topology"]["links"]


# --- golden -----------------------------------------------------------------------------------------------------------


def test_what_nodes_have_in_common_is_said_once() -> None:
    plan = Plan("lab", nodes=(Node("a", "host"), Node("b", "host")))
    other = export.Container(
        **{**{name: getattr(CONTAINER, name) for name in CONTAINER.__slots__}, "hostname": "other"}
    )
    found = yaml.safe_load(export.topology("lab", {"a": CONTAINER, "b": other}, [], plan))["topology"]
    assert found["nodes"] == {"a": {"kind": "linux", "hostname": "h"}, "b": {"kind": "linux", "hostname": "other"}}
    assert found["kinds"]["linux"] == {
        "image": "image",
        "image-pull-policy": "Never",
        "cmd": "run 'a b'",
        "network-mode": "none",
        "restart-policy": "no",
        "privileged": False,
        "cap-add": ["C"],
        "security-opts": [],
        "sysctls": {"s": "2"},
        "tmpfs": {"/t": "x"},
        "binds": ["/a:/b:ro"],
        "labels": {"l": "1"},
    }


@pytest.mark.parametrize(("a", "b", "mtu"), [(0, 0, 1500), (9000, 9000, 9000), (9000, 0, 1500), (1400, 1500, 1400)])
def test_a_link_has_the_mtu_of_its_ends(a: int, b: int, mtu: int) -> None:
    nodes = (
        Node("a", "host", interfaces=(Interface("eth0", mtu=a),)),
        Node("b", "host", interfaces=(Interface("eth1", mtu=b),)),
    )
    assert links("a:eth0 b:eth1", plan=Plan("lab", nodes=nodes)) == [{"endpoints": ["a:eth0", "b:eth1"], "mtu": mtu}]


def test_links_to_pods_are_not_containerlabs() -> None:
    wires = (
        Link(Endpoint("n1", "eth0"), Endpoint("r1", "eth0")),
        Link(Endpoint("n1", "cali1"), Endpoint("pod", "eth0")),
    )
    nodes = (Node("n1", "kubernetes"), Node("r1", "router"), Node("pod", "pod", parent="n1"))
    assert export.links_between(Plan("lab", nodes=nodes, links=wires)) == [wires[0]]


def test_what_containerlab_would_expand_is_escaped() -> None:
    """It takes the file for a template first, and then expands variables."""
    given = dataclasses.replace(CONTAINER, cmd=["run", "${HOME} {{ x }}"])
    text = export.topology("lab", {"a": given}, [], Plan("lab", nodes=(Node("a", "host"),)))
    assert "$${HOME}" in text
    assert "{{ x" not in text


def test_sysctls_that_interfaces_begin_with() -> None:
    given = (
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
    )
    assert export.interface_sysctls(given) == {
        "net.ipv4.conf.default.rp_filter": "0",
        "net.ipv6.conf.all.accept_dad": "0",
    }


# --- commands ---------------------------------------------------------------------------------------------------------
