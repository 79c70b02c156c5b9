"""The walk of one flow is the same on netns, on docker and with VRF devices, but for what those differ in.

What differs:
- times, and the source ports that a client or a masquerading node chose;
- of equal paths (leaf to spine), which one was taken: the kernel chooses by the ports, too;
- with VRF devices, the number of the table that routed in a VRF (a namespace has `main` and `local`); that a packet is
  also seen on the VRF's own device where it is sent by it; and what the kernel says where a VRF has no route: the end
  of its table is a route of type unreachable, "No route to host", and not "Network is unreachable".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from conftest import EDGE, own_name
from test_vrf_drivers import up

from testbed.probe.result import Verdict
from testbed.session import Session, compiled
from testbed.trace.evidence import HopFacts
from testbed.trace.packet import Ends
from testbed.trace.tracer import Trace
from testbed.trace.walk import Hop, Path

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

OTHERS = [
    pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.testbed_needs("docker")]),
    pytest.param("device", marks=pytest.mark.testbed_needs("vrf")),
]
FLOWS = (
    "ssh-from-smf",
    "ssh-from-ops",
    "ssh-from-amf",
    "pod-to-pod",
    "pod-to-service-far",
    "pod-to-internet",
    "node-mgmt-from-ops",
    "node-mgmt-from-amf",
    "smf-from-ops",
)
SPINE = re.compile(r"spine\d")

Row = Mapping[str, Any]
Traces = Mapping[str, Trace[Verdict]]


def traced(session: Session) -> Traces:
    return {name: session.trace(session.chosen([name])[0]) for name in FLOWS}


@pytest.fixture(scope="module")
def plain() -> Iterator[Traces]:
    """On netns, VRFs as namespaces."""
    with up(compiled(EDGE, own_name("alike"), vrf_driver="netns")) as session:
        yield traced(session)


@pytest.fixture(scope="module", params=OTHERS)
def other(request) -> Iterator[Traces]:
    driver, runtime = ("device", "netns") if request.param == "device" else ("netns", "docker")
    name = own_name(f"alike-{request.param}")
    with up(compiled(EDGE, name, runtime=runtime, vrf_driver=driver), runtime) as session:
        assert (session.runtime.name, session.plan.vrf_driver) == (runtime, driver)
        yield traced(session)


@pytest.mark.parametrize("name", FLOWS)
def test_the_same_walk(plain, other, name):
    assert plain[name].answer.passed, plain[name].answer.reasons
    assert other[name].answer.passed, other[name].answer.reasons
    assert plain[name].recording.dropped == other[name].recording.dropped == {}
    assert rows(other[name]) == rows(plain[name])
    assert causes(other[name]) == causes(plain[name])


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_else_differs(plain, other, name):
    """Of all that is known of a hop, only what the beginning of this file names, before anything is made alike."""
    here, there = ((trace.walk.forward, trace.walk.back) for trace in (plain[name], other[name]))
    devices = bool(other[name].lab.tables)
    allowed = {"time", "since", "arrived", "left", *(["through"] if devices else [])}
    for one, two in zip(here, there, strict=True):
        for a, b in zip(one.hops if one else (), two.hops if two else (), strict=True):
            fields = {
                field.name for field in dataclasses.fields(Hop) if getattr(a, field.name) != getattr(b, field.name)
            }
            equal_paths = "spine" in a.node or any("spine" in at for at in beside(plain[name], a))
            assert fields <= allowed | ({"node", "interface_in", "interface_out"} if equal_paths else set())
            assert addresses(a.arrived) == addresses(b.arrived)
            assert addresses(a.left) == addresses(b.left)
            assert not devices or set(b.through) - set(a.through) <= {b.vrf}


def test_tables_differ_with_devices(plain, other):
    """In a VRF, a namespace has table main or local where a device has one of its own; elsewhere they are the same."""
    seen = set()
    for name in FLOWS:
        tables = other[name].lab.tables
        for (hop, facts), (_, known) in zip(hops(other[name]), hops(plain[name]), strict=True):
            if not facts.route or not known.route:
                continue
            seen.add(hop.place in tables)
            if hop.place not in tables:
                found = facts.route.table, facts.route.rule, facts.route.error
                assert found == (known.route.table, known.route.rule, known.route.error)
            elif known.route.error:
                assert (known.route.error, facts.route.error) == ("Network is unreachable", "No route to host")
            else:
                assert known.route.table in ("main", "local")
                assert facts.route.table == str(tables[hop.place])
    assert seen == ({False, True} if other[FLOWS[0]].lab.tables else {False})


def test_what_is_compared_tells_flows_apart(plain):
    """Else two walks could be alike because nothing is left of them."""
    found = [rows(plain[name]) for name in FLOWS]
    assert all(found.count(entry) == 1 for entry in found)
    assert any("dnat" in row["changes"] and any("KUBE-SVC" in text for text in row["rewrites"]) for row in found[4])


# --- what is compared -------------------------------------------------------------------------------------------------


def rows(trace: Trace[Verdict]) -> list[Row]:
    """The hops of request and reply, without what differs from run to run."""
    ports = chosen_ports(trace.walk.forward)
    return [row(trace, hop, facts, ports) for hop, facts in hops(trace)]


def hops(trace: Trace[Verdict]) -> Iterator[tuple[Hop, HopFacts]]:
    for path, facts in ((trace.walk.forward, trace.forward), (trace.walk.back, trace.back)):
        yield from zip(path.hops if path else (), facts, strict=True)


def chosen_ports(path: Path | None) -> dict[int, str]:
    """The source ports of a request, in the order in which it had them."""
    found: dict[int, str] = {}
    for hop in path.hops if path else ():
        for ends in (hop.arrived, hop.left):
            if ends and ends.source_port:
                found.setdefault(ends.source_port, f"port{len(found)}")
    return found


def row(trace: Trace[Verdict], hop: Hop, facts: HopFacts, ports: Mapping[int, str]) -> Row:
    def alike(text: str) -> str:
        return re.sub(r":(\d+)", lambda match: f":{ports.get(int(match[1]), match[1])}", text)

    equal_paths = SPINE.fullmatch(hop.node) is not None
    route = facts.route
    return {
        "node": SPINE.sub("spine", hop.node),
        "vrf": hop.vrf,
        "in": interface(trace, hop, hop.interface_in),
        "out": interface(trace, hop, hop.interface_out),
        "networks": (hop.network_in, hop.network_out),
        "arrived": alike(str(hop.arrived)),
        "left": alike(str(hop.left)),
        "ttl": (hop.ttl_in, hop.ttl_out),
        "tunnels": (hop.tunnels_in, hop.tunnels_out),
        "pieces": (hop.fragments_in, hop.fragments_out),
        "changes": hop.changes,
        "rewrites": tuple(alike(text) for text in facts.rewrites),
        "connection": alike(facts.connection),
        "route": (route.to, route.kind, route.mark, route.protocol, bool(route.error)) if route else None,
        "ways": tuple(sorted(route.ways)) if route and not equal_paths else (),
    }


def interface(trace: Trace[Verdict], hop: Hop, name: str) -> str:
    """An interface; of those that lead to equal paths, or come from them, only that."""
    peer = trace.lab.peers.get((hop.node, name), ("", ""))[0]
    return "to a spine" if SPINE.fullmatch(peer) else name


def beside(trace: Trace[Verdict], hop: Hop) -> list[str]:
    return [trace.lab.peers.get((hop.node, name), ("", ""))[0] for name in (hop.interface_in, hop.interface_out)]


def addresses(ends: Ends | None) -> tuple[str, str] | None:
    return (ends.source, ends.destination) if ends else None


def causes(trace: Trace[Verdict]) -> tuple[str, str, str | None] | None:
    return (trace.cause.kind, trace.cause.node, trace.cause.vrf) if trace.cause else None
