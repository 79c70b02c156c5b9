"""Routes leaked from one VRF of a router to another, by BGP (FRR: `import vrf`, filtered by prefix).

The route in the other VRF leads out of an interface of the first, which only VRF devices allow: they share a network
namespace. FRR imports what is in the first VRF's BGP table, so both VRFs are BGP instances, if need be without a
neighbour; what was imported is not imported again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

from testbed.compile.bgp import Routing, router_key
from testbed.compile.propagation import Key, propagate
from testbed.compile.topology import Topology
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.lab import Lab, Leak, Router


@dataclass(frozen=True)
class Import:
    """What one VRF takes from another, in one family (4 or 6)."""

    source: str
    to: str
    family: int
    prefixes: tuple[str, ...]


def leaking(lab: Lab) -> Iterator[tuple[str, Router, int, Leak]]:
    """(router, its model, number of the leak, leak) of every leak of a lab."""
    for name, node in lab.nodes.items():
        if isinstance(node, Router):
            for index, leak in enumerate(node.leaks):
                yield name, node, index, leak


def leak_problems(lab: Lab, topology: Topology) -> Iterator[Problem]:
    """What is wrong with leaks by themselves."""
    for name, node, index, leak in leaking(lab):
        place = node.origin.at("leaks", index)
        if node.bgp is None:
            yield Problem(f"{name} leaks routes by BGP, and speaks none", place, "add bgp: {asn: NUMBER}")
        if not topology.vrf_tables:
            message = f"{name} leaks routes between VRFs, which network namespaces (the VRF driver netns) cannot do"
            yield Problem(message, place, "on a kernel with VRF devices: vrfDriver: device, or --vrf-driver device")
        if leak.source == leak.to:
            yield Problem(f"{name} leaks from VRF {leak.to} to itself", node.origin.at("leaks", index, "to"))
        own = topology.vrfs(name)
        for field, vrf in (("from", leak.source), ("to", leak.to)):
            if vrf not in own:
                yield Problem(f"{name} has no VRF {vrf!r}", node.origin.at("leaks", index, field), suggest(vrf, own))


def imports(node: Router) -> list[Import]:
    """A router's leaks, each pair of VRFs and family once, its prefixes in order of appearance."""
    found: dict[tuple[str, str, int], dict[str, None]] = {}
    for leak in node.leaks:
        for prefix in leak.prefixes:
            key = leak.source, leak.to, ip_network(prefix).version
            found.setdefault(key, {})[prefix] = None
    return [Import(*key, tuple(prefixes)) for key, prefixes in found.items()]


def add_instances(lab: Lab, topology: Topology, routing: Routing) -> None:
    """Make BGP instances of the VRFs that leak or are leaked to, and of the default one.

    FRR wants the default instance for leaks, and refuses to let it go with the last of them ("Dependent VRF instances
    exist"); so all routers of a lab with VRF devices have it.
    """
    for name, node in lab.nodes.items():
        if isinstance(node, Router) and node.bgp and topology.vrf_tables:
            routing.neighbours.setdefault((name, None), [])
    for name, _, _, leak in leaking(lab):
        for vrf in (leak.source, leak.to):
            routing.neighbours.setdefault((name, vrf), [])


def add_leaked(lab: Lab, routing: Routing) -> list[Problem]:
    """Note which routes are leaked where (`Routing.leaked`), and have speakers pass on what is their router's own.

    A leaked route keeps the AS path it came with. What the router originates has an empty one and goes on to any
    neighbour; of what it has learned, only the router itself is expected to have it.

    Returns:
        Prefixes that the first VRF never has a route to, or the second has of its own.
    """
    learned = propagate(tuple(routing.speakers.values()), routing.sessions)
    added: dict[Key, set[str]] = {}
    problems = []
    for name, node, index, leak in leaking(lab):
        source, to = router_key(name, leak.source), router_key(name, leak.to)
        own = routing.speakers[source].originates
        for number, prefix in enumerate(leak.prefixes):
            if prefix not in own | learned[source].keys():
                place = node.origin.at("leaks", index, "prefixes", number)
                message = f"{name} leaks {prefix} from VRF {leak.source}, where BGP never has a route to it"
                problems.append(Problem(message, place, _alike(prefix, own | learned[source].keys())))
            elif prefix in routing.speakers[to].originates:
                place = node.origin.at("leaks", index, "prefixes", number)
                message = f"{name} leaks {prefix} into VRF {leak.to}, which has a link or route of its own there"
                problems.append(Problem(message, place, "its own would be used"))
            elif prefix in own:
                added.setdefault(to, set()).add(prefix)
            routing.leaked.setdefault(to, set()).add(prefix)
    for key, prefixes in added.items():
        speaker = routing.speakers[key]
        originates, uneven = speaker.originates | prefixes, speaker.uneven | prefixes
        routing.speakers[key] = replace(speaker, originates=originates, uneven=uneven)
    return problems


def _alike(prefix: str, known: Iterable[str]) -> str:
    """A hint: prefixes there are that hold this one, or are in it; a leak is of just the prefixes it names."""
    wanted = ip_network(prefix)
    found = [text for text in sorted(known) if ip_network(text).version == wanted.version]
    near = [text for text in found if ip_network(text).overlaps(wanted) and ip_network(text).prefixlen]
    return f"it has {' and '.join(near[:3])}" if near else suggest(prefix, found)
