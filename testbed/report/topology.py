"""A Plan's topology as a graph, and as the texts that Graphviz and draw.io read.

Cables between the same two nodes are one edge, which names their VRFs. Pods stand in their node's box.
Sources: the DOT language and the attribute reference of Graphviz; the mxGraph model that draw.io stores.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from xml.etree import ElementTree

from testbed.plan import Interface, Link, Plan

POINTS = 72.0  # to an inch, Graphviz' unit of width and height
VRF_COLOURS = 6  # as many as the style sheet has; more VRFs begin again
# The hashes after the name of a Deployment's pod (SafeEncodeString in k8s.io/apimachinery/pkg/util/rand).
_HASHES = re.compile(r"(-[bcdfghjklmnpqrstvwxz2456789]{5,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}$")
_STYLES = {"router": "rounded=1", "host": "rounded=0", "kubernetes": "rounded=0;align=center;verticalAlign=middle"}


@dataclass(frozen=True, slots=True)
class Box:
    """A node, and the pods on it."""

    name: str
    kind: str
    pods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cable:
    """All links between two nodes.

    Args:
        vrfs: the routing instances they are in, "" for the default one.
        details: one line for each link: interfaces, VRF, addresses.
    """

    a: str
    b: str
    vrfs: tuple[str, ...]
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """What a picture of a lab shows."""

    name: str
    boxes: tuple[Box, ...]
    cables: tuple[Cable, ...]

    @property
    def vrfs(self) -> tuple[str, ...]:
        """The VRFs in the order in which they first appear."""
        return tuple(dict.fromkeys(vrf for cable in self.cables for vrf in cable.vrfs if vrf))


def topology(plan: Plan) -> Topology:
    """The graph of a Plan: its nodes (pods inside theirs) and the cables between them."""
    pods: dict[str, list[str]] = {}
    for node in plan.nodes:
        if node.parent:
            pods.setdefault(node.parent, []).append(_HASHES.sub("", node.hostname or node.name))
    boxes = tuple(
        Box(node.name, node.kind, tuple(sorted(pods.get(node.name, ())))) for node in plan.nodes if not node.parent
    )
    return Topology(plan.name, boxes, tuple(_cables(plan)))


def _cables(plan: Plan) -> Iterator[Cable]:
    names = {node.name for node in plan.nodes if not node.parent}
    interfaces = {(node.name, entry.name): entry for node in plan.nodes for entry in node.interfaces}
    between: dict[tuple[str, str], list[Link]] = {}
    for link in plan.links:
        if link.a.node in names and link.b.node in names:
            key = min((link.a.node, link.b.node), (link.b.node, link.a.node))
            between.setdefault(key, []).append(link)
    for links in between.values():
        vrfs = dict.fromkeys(_vrf(interfaces, link) for link in links)
        details = tuple(_detail(interfaces, link) for link in links)
        yield Cable(links[0].a.node, links[0].b.node, tuple(vrfs), details)


def _vrf(interfaces: Mapping[tuple[str, str], Interface], link: Link) -> str:
    ends = (interfaces[end.node, end.interface] for end in (link.a, link.b))
    return next((entry.vrf for entry in ends if entry.vrf), "")


def _detail(interfaces: Mapping[tuple[str, str], Interface], link: Link) -> str:
    ends = []
    for end in (link.a, link.b):
        entry = interfaces[end.node, end.interface]
        bridge = interfaces.get((end.node, entry.master))
        addresses = " ".join((bridge or entry).addresses)
        ends.append(f"{end.node}:{end.interface}" + (f" {addresses}" if addresses else ""))
    vrf = _vrf(interfaces, link)
    return " — ".join(ends) + (f" (VRF {vrf})" if vrf else "")


# --- DOT --------------------------------------------------------------------------------------------------------------


def dot(graph: Topology, path: Sequence[str] = ()) -> str:
    """The graph in the DOT language.

    Args:
        path: nodes in the order in which a packet passed them; they and the cables between them are emphasised.
    """
    steps = {frozenset(pair) for pair in itertools.pairwise(path)}
    lines = [
        f"graph {quoted(graph.name)} {{",
        '  graph [bgcolor="transparent", nodesep=0.35, ranksep=0.6, tooltip=" "]',
        '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11, margin="0.14,0.08", height=0.4]',
        '  edge [fontname="sans-serif", fontsize=9]',
    ]
    for box in graph.boxes:
        chosen = " on-path" if box.name in path else ""
        corners = "rounded" if box.kind == "router" else "solid"
        lines.append(
            f"  {quoted(box.name)} [label={_label(box)}, style={corners}, "
            f'class="{box.kind}{chosen}", tooltip={quoted(f"{box.kind} {box.name}")}]'
        )
    heights = _heights(graph)
    for cable in graph.cables:
        ends = sorted((cable.a, cable.b), key=lambda name: -heights.get(name, 0))
        lines.append(f"  {quoted(ends[0])} -- {quoted(ends[1])} [{_facts(graph, cable, frozenset(ends) in steps)}]")
    return "\n".join([*lines, "}", ""])


def _heights(graph: Topology) -> dict[str, int]:
    """How many cables each node is away from the nearest end system: spines are drawn above leaves, hosts below."""
    heights = {box.name: 0 for box in graph.boxes if box.kind != "router"}
    reached = list(heights)
    for name in reached:  # grows on the way: breadth first
        for cable in graph.cables:
            if name in (cable.a, cable.b):
                other = cable.b if name == cable.a else cable.a
                if other not in heights:
                    heights[other] = heights[name] + 1
                    reached.append(other)
    return heights


def _facts(graph: Topology, cable: Cable, chosen: bool) -> str:
    named = [vrf for vrf in cable.vrfs if vrf]
    colour = f"vrf{graph.vrfs.index(named[0]) % VRF_COLOURS}" if len(cable.vrfs) == 1 and named else "several"
    words = f"{colour} on-path" if chosen else colour
    facts = [f'class="{words}"', f"tooltip={quoted(chr(10).join(cable.details))}"]
    if named:
        facts.append(f"label={quoted(', '.join(named))}")
    return ", ".join(facts)


def quoted(text: str) -> str:
    """A text as a quoted string of the DOT language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _label(box: Box) -> str:
    """Graphviz' HTML-like label: the name, and below it the pods."""
    if not box.pods:
        return quoted(box.name)
    rows = "".join(f'<br/><font point-size="9">{escape(pod)}</font>' for pod in box.pods)
    return f"<<b>{escape(box.name)}</b>{rows}>"


# --- Mermaid ----------------------------------------------------------------------------------------------------------


def mermaid(graph: Topology) -> str:
    """The graph as a Mermaid flowchart."""
    shapes = {"router": ("([", "])"), "kubernetes": ("[[", "]]")}
    lines = ["flowchart TD"]
    idents = {box.name: f"n{index}" for index, box in enumerate(graph.boxes)}
    for box in graph.boxes:
        left, right = shapes.get(box.kind, ("[", "]"))
        lines.append(f'  {idents[box.name]}{left}"{"<br/>".join((box.name, *box.pods))}"{right}')
    for cable in graph.cables:
        named = ", ".join(vrf for vrf in cable.vrfs if vrf)
        label = f'|"{named}"|' if named else ""
        lines.append(f"  {idents[cable.a]} ---{label} {idents[cable.b]}")
    return "\n".join([*lines, ""])


# --- draw.io ----------------------------------------------------------------------------------------------------------


def drawio(graph: Topology, layout: Mapping[str, Any]) -> str:
    """The graph as a draw.io file.

    Args:
        layout: what Graphviz prints for `dot` with -Tjson: where each node is (points, from the lower left corner).
    """
    height = float(str(layout["bb"]).split(",")[3])
    file = ElementTree.Element("mxfile")
    diagram = ElementTree.SubElement(file, "diagram", {"name": graph.name})
    root = ElementTree.SubElement(ElementTree.SubElement(diagram, "mxGraphModel"), "root")
    ElementTree.SubElement(root, "mxCell", {"id": "0"})
    ElementTree.SubElement(root, "mxCell", {"id": "1", "parent": "0"})
    places = {entry["name"]: entry for entry in layout["objects"]}
    for box in graph.boxes:
        _vertex(root, box, places[box.name], height)
    for index, cable in enumerate(graph.cables):
        label = ", ".join(vrf for vrf in cable.vrfs if vrf)
        ends = {"source": f"node-{cable.a}", "target": f"node-{cable.b}"}
        cell = _cell(root, f"cable-{index}", label, "endArrow=none;html=0", {"edge": "1", **ends})
        ElementTree.SubElement(cell, "mxGeometry", {"relative": "1", "as": "geometry"})
    ElementTree.indent(file)
    return ElementTree.tostring(file, encoding="unicode") + "\n"


def _cell(root: ElementTree.Element, ident: str, value: str, style: str, more: dict[str, str]) -> ElementTree.Element:
    return ElementTree.SubElement(root, "mxCell", {"id": ident, "parent": "1", "value": value, "style": style, **more})


def _vertex(root: ElementTree.Element, box: Box, place: Mapping[str, Any], height: float) -> None:
    x, y = (float(part) for part in str(place["pos"]).split(","))
    wide, high = float(place["width"]) * POINTS, float(place["height"]) * POINTS
    style = f"{_STYLES.get(box.kind, 'rounded=0')};whiteSpace=wrap;html=0"
    cell = _cell(root, f"node-{box.name}", "\n".join((box.name, *box.pods)), style, {"vertex": "1"})
    at = {"x": x - wide / 2, "y": height - y - high / 2, "width": wide, "height": high}
    ElementTree.SubElement(cell, "mxGeometry", {key: f"{value:.0f}" for key, value in at.items()} | {"as": "geometry"})
