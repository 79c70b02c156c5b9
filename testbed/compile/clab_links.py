"""The links of a containerlab topology: interfaces of nodes, ports of bridges, cables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed import plan
from testbed.compile.clab_keys import KeyCheck
from testbed.errors import Position, Problem
from testbed.load.clab import LoadedClab
from testbed.load.explain import suggest
from testbed.model.clab import ClabLink

MTU = 9500  # constants.DefaultLinkMTU of containerlab
SPECIAL = ("host", "mgmt-net", "macvlan", "dummy")  # words that stand for a node in the brief format
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_TYPES = ("brief", "veth", "veth-stitch")


@dataclass(frozen=True)
class _End:
    """One end of a link as it was written."""

    node: str
    interface: str
    at: Position | None
    mac: str = ""


@dataclass
class Cabling:
    """What the links make of the nodes.

    Args:
        interfaces: node → its interfaces, in the order of the file; a bridge comes before its ports.
    """

    interfaces: dict[str, list[plan.Interface]] = field(default_factory=dict)
    links: list[plan.Link] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def bridge_name(name: str) -> str:
    """The name of the device: `br0|ns1` is the bridge br0 in the namespace of ns1."""
    return name.partition("|")[0]


def cabling(loaded: LoadedClab, kinds: Mapping[str, str], owners: Mapping[str, str], keys: KeyCheck) -> Cabling:
    """All links.

    Args:
        kinds: node → its kind.
        owners: bridge → the node whose namespace it is in: itself, a node of its own, or another.
    """
    made = Cabling({name: [] for name in kinds})
    for name, owner in owners.items():
        made.interfaces[owner].append(plan.Interface(bridge_name(name), "bridge"))
    taken: dict[tuple[str, str], Position | None] = {}
    for number, link in enumerate(loaded.file.topology.links):
        ends = _ends(link, made.problems, keys, number)
        checked = [end for end in ends if _right(end, kinds, loaded, made.problems)]
        for end in checked:
            place = (owners.get(end.node, end.node), end.interface)
            if place in taken:
                made.problems.append(Problem(f"the interface {end.node}:{end.interface} is in two links", end.at))
            taken[place] = end.at
        if len(checked) == 2:
            _connect(made, link.mtu or MTU, checked, kinds, owners)
    return made


def _connect(made: Cabling, mtu: int, ends: list[_End], kinds: Mapping[str, str], owners: Mapping[str, str]) -> None:
    points = []
    for end in ends:
        owner = owners.get(end.node, end.node)
        master = bridge_name(end.node) if kinds[end.node] == "bridge" else ""
        made.interfaces[owner].append(plan.Interface(end.interface, mac=end.mac, mtu=mtu, master=master))
        points.append(plan.Endpoint(owner, end.interface))
    made.links.append(plan.Link(points[0], points[1]))


def _ends(link: ClabLink, problems: list[Problem], keys: KeyCheck, number: int) -> list[_End]:
    """The two ends of a link; none, with a problem, for what is no link between two nodes."""
    kind = link.type.strip().lower()
    if kind not in _TYPES:
        hint = "links between nodes are: brief, veth" if kind else ""
        problems.append(Problem(f"links of the type {link.type!r} are not supported", link.origin.at("type"), hint))
        return []
    foreign = ("endpoint", "host_interface", "mode", "remote", "vni", "dst_port", "src_port")
    for name in foreign:
        if getattr(link, name):
            key = name.replace("_", "-")
            problems.append(Problem(f"a link of the type {kind} has no {key}", link.origin.at(key)))
    if len(link.endpoints) != 2:
        message = f"a link has two endpoints, and this has {len(link.endpoints)}"
        problems.append(Problem(message, link.origin.at("endpoints")))
        return []
    for word in ("vars", "labels"):
        if getattr(link, word):
            keys.note(f"link {number + 1}", f"{word} have no effect: they are for templates and drawings")
    stated = [*link.endpoints, link]
    if any(getattr(entry, word, ()) for entry in stated for word in ("ipv4", "ipv6")):
        keys.note(
            f"link {number + 1}", "ipv4 and ipv6 have no effect: containerlab sets them on other kinds than linux"
        )
    if kind == "veth-stitch":
        keys.note(f"link {number + 1}", "veth-stitch is a plain link here: its ends can be captured inside the nodes")
    found = [_end(link, index, problems) for index in range(2)]
    return [end for end in found if end is not None]


def _end(link: ClabLink, index: int, problems: list[Problem]) -> _End | None:
    at, written = link.origin.at("endpoints", index), link.endpoints[index]
    if isinstance(written, str):
        node, colon, interface = written.partition(":")
        if not colon or not node or not interface:
            problems.append(Problem(f"{written!r} is no end of a link", at, "write NODE:INTERFACE"))
            return None
        end = _End(node, interface, at)
    else:
        end = _End(written.node, written.interface, at, written.mac)
    if end.mac and not _MAC.fullmatch(end.mac):
        problems.append(Problem(f"{end.node}:{end.interface}: {end.mac!r} is no hardware address", at))
    return end


def _right(end: _End, kinds: Mapping[str, str], loaded: LoadedClab, problems: list[Problem]) -> bool:
    """Whether the end is one of a node, under a name that an interface can have."""
    if end.node not in kinds:
        if end.node in SPECIAL:
            message = f"a link to {end.node!r} is not supported: nothing of this machine is connected to a lab"
            problems.append(Problem(message, end.at))
        else:
            problems.append(Problem(f"no node {end.node!r}", end.at, suggest(end.node, kinds)))
        return False
    if not _INTERFACE.fullmatch(end.interface) or end.interface in (".", "..", "lo", "all", "default"):
        message = f"{end.interface!r} is no name of an interface: at most 15 characters, no space, slash or colon"
        problems.append(Problem(f"{end.node}: {message}", end.at))
        return False
    node = next(node for node in loaded.nodes if node.name == end.node)
    if end.interface == "eth0" and kinds[end.node] == "linux" and node.settings.one("network_mode") != "none":
        hint = "name it eth1, or set network-mode: none"
        problems.append(Problem(f"{end.node}: eth0 is the interface of the management network", end.at, hint))
        return False
    return True
