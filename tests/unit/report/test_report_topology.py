"""Topologies as texts that other programs read, and as pictures."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from report_samples import PLAN

from testbed.plan import Endpoint, Interface, Link, Node, Plan
from testbed.report import picture
from testbed.report.topology import dot, drawio, mermaid, topology

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "report"
graphviz = pytest.mark.testbed_needs("graphviz")


def node(name: str, kind, *interfaces: Interface, parent: str = "") -> Node:
    return Node(name, kind, parent=parent, interfaces=interfaces)


TWO_VRFS = Plan(
    "two",
    nodes=(
        node(
            "leaf",
            "router",
            Interface("eth0", vrf="mgmt", addresses=("10.0.0.0/31",)),
            Interface("eth1", vrf="sbi"),
            Interface("br0", "bridge", vrf="sbi", addresses=("10.9.0.1/24",)),
            Interface("eth2", vrf="sbi", master="br0"),
        ),
        node("spine", "router", Interface("eth0", vrf="mgmt"), Interface("eth1", vrf="sbi")),
        node("h<1>", "host", Interface("eth0", addresses=("10.9.0.2/24",))),
        node("n1", "kubernetes"),
        node("web-7d4b9c8f6d-bcdfg", "pod", parent="n1"),
    ),
    links=(
        Link(Endpoint("leaf", "eth0"), Endpoint("spine", "eth0")),
        Link(Endpoint("spine", "eth1"), Endpoint("leaf", "eth1")),
        Link(Endpoint("leaf", "eth2"), Endpoint("h<1>", "eth0")),
    ),
)


def test_cables_between_two_nodes_are_one_edge_that_names_its_vrfs():
    graph = topology(TWO_VRFS)
    assert [(cable.a, cable.b, cable.vrfs) for cable in graph.cables] == [
        ("leaf", "spine", ("mgmt", "sbi")),
        ("leaf", "h<1>", ("sbi",)),
    ]
    assert graph.cables[0].details[0] == "leaf:eth0 10.0.0.0/31 — spine:eth0 (VRF mgmt)"
    assert graph.cables[1].details == ("leaf:eth2 10.9.0.1/24 — h<1>:eth0 10.9.0.2/24 (VRF sbi)",)
    assert graph.vrfs == ("mgmt", "sbi")


def test_pods_stand_in_their_nodes_box_without_their_hashes():
    assert {box.name: box.pods for box in topology(TWO_VRFS).boxes} == {
        "leaf": (),
        "spine": (),
        "h<1>": (),
        "n1": ("web",),
    }


@pytest.mark.parametrize(("form", "make"), [("dot", dot), ("mermaid", mermaid)])
def test_text_is_as_it_was(form, make):
    golden = GOLDEN / f"topology.{form}"
    found = make(topology(TWO_VRFS))
    if os.environ.get("TESTBED_RENEW"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_a_path_is_emphasised_with_its_cables_and_no_others():
    lines = dot(topology(TWO_VRFS), ["h<1>", "leaf"]).splitlines()
    assert [line.split()[0] for line in lines if "on-path" in line] == ['"leaf"', '"h<1>"', '"leaf"']
    assert not any("on-path" in line for line in dot(topology(TWO_VRFS)).splitlines())


def test_drawio_places_nodes_where_graphviz_put_them():
    layout = {
        "bb": "0,0,200,100",
        "objects": [
            {"name": box.name, "pos": f"{50 * index},80", "width": "0.5", "height": "0.5"}
            for index, box in enumerate(topology(TWO_VRFS).boxes)
        ],
    }
    root = ElementTree.fromstring(drawio(topology(TWO_VRFS), layout))
    cells = {cell.get("id"): cell for cell in root.iter("mxCell")}
    assert cells["node-spine"].find("mxGeometry").attrib == {
        "x": "32",
        "y": "2",
        "width": "36",
        "height": "36",
        "as": "geometry",
    }
    assert (cells["cable-0"].get("source"), cells["cable-0"].get("target")) == ("node-leaf", "node-spine")
    assert cells["cable-0"].get("value") == "mgmt, sbi"
    assert cells["node-n1"].get("value") == "n1\nweb"


@graphviz
def test_a_picture_names_all_nodes_and_is_well_formed():
    root = ElementTree.fromstring(picture.svg(topology(TWO_VRFS)))
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"leaf", "spine", "h<1>", "n1", "web", "mgmt, sbi", "sbi"} <= words
    assert "prefers-color-scheme: dark" in picture.svg(topology(TWO_VRFS))
    assert "<style>" not in picture.svg(topology(TWO_VRFS), alone=False)


@graphviz
def test_drawio_of_a_whole_lab():
    assert ElementTree.fromstring(picture.drawio_file(topology(PLAN))).tag == "mxfile"


def test_without_graphviz_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(picture, "GRAPHVIZ", "/no/such/dot")
    with pytest.raises(picture.UnsupportedError, match="Debian: graphviz"):
        picture.svg(topology(TWO_VRFS))
