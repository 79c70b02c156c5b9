"""What breaks is seen within two seconds, what should survive does, and `up` brings back what is gone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from conftest import EDGE, assert_flows, pids

from testbed.session import Session, compiled
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

SEEN = 2.0  # seconds within which `status` must say what is wrong
REACTED = 15.0  # seconds that routing has to find another way: more than BGP's hold time of 9 s
# No packet of these needs leaf2, or n3 behind it: their ends are on pe1, pe2 and leaf1, which has links to all.
WITHOUT_LEAF2 = (
    "ssh-from-amf",
    "ssh-from-ops",
    "pod-to-internet",
    "pod-to-sbi",
    "pod-to-service-near",
    "pod-to-pod",
    "node-mgmt-from-ops",
    "smf-from-amf",
)


@pytest.fixture
def lab(edge) -> Iterator[Session]:
    """The lab with all flows passing; `up` mends it after the test, and all pass again."""
    assert edge.status().problems == ()
    assert_flows(edge)
    yield edge
    edge.up(compiled(EDGE, edge.name))
    assert edge.status().problems == ()
    assert_flows(edge)


def soon(condition: Callable[[], bool], seconds: float = SEEN) -> bool:
    return until(condition, Deadline(seconds))


def said(session: Session, problem: str) -> bool:
    return problem in session.status().problems


def passing(session: Session, *flows: str) -> bool:
    return all(verdict.passed for verdict in session.test(flows))


def test_a_router_loses_its_bgpd(lab):
    for name in ("ssh", "client"):
        assert lab.node(name).parent == "n1", "the flows below are chosen for pods that are not behind leaf2"
    before = pids(lab)
    assert lab.runtime.signal("leaf2", "bgpd", signal.SIGKILL)
    assert soon(lambda: said(lab, "leaf2: bgpd was ended by signal 9")), lab.status().problems
    assert lab.nodes()["leaf2"].processes["bgpd"].status == -signal.SIGKILL
    assert soon(lambda: not passing(lab, "pod-to-service-far"), REACTED), "the fault has no effect at all"
    assert soon(lambda: passing(lab, *WITHOUT_LEAF2), REACTED), failures(lab, WITHOUT_LEAF2)
    assert passing(lab, *WITHOUT_LEAF2)  # and it stays so

    assert not lab.up(compiled(EDGE, lab.name))
    after = pids(lab)
    assert after["leaf2: bgpd"] != before["leaf2: bgpd"]
    assert after | {"leaf2: bgpd": before["leaf2: bgpd"]} == before
    assert_flows(lab)


def failures(session: Session, flows: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(verdict.flow.name, verdict.reasons) for verdict in session.test(flows) if not verdict.passed]


def test_a_link_is_cut(lab):
    """leaf1 to spine1 in mgmt; what went there goes by spine2."""
    before = pids(lab)
    spine1, spine2 = (address_of(lab, spine, "eth0") for spine in ("spine1", "spine2"))
    assert ways_to_far(lab) == {spine1, spine2}, "the link that is to be cut carries nothing"
    lab.runtime.run("leaf1", "mgmt", ("ip", "link", "set", "eth0", "down"))
    assert soon(lambda: said(lab, "leaf1: eth0 (VRF mgmt): down")), lab.status().problems
    assert soon(lambda: said(lab, "spine1: eth0 (VRF mgmt): no carrier")), lab.status().problems
    assert soon(lambda: ways_to_far(lab) == {spine2}, REACTED), ways_to_far(lab)
    assert soon(lambda: passing(lab, *names_of_flows(lab)), REACTED), failures(lab, names_of_flows(lab))
    assert_flows(lab)  # spine2 carries all that the lab declares, and goes on doing so

    assert not lab.up(compiled(EDGE, lab.name))
    assert pids(lab) == before
    assert lab.status().problems == ()
    assert soon(lambda: ways_to_far(lab) == {spine1, spine2}, REACTED), ways_to_far(lab)
    assert_flows(lab)


def address_of(session: Session, node: str, interface: str) -> str:
    entry = next(entry for entry in session.plan.node(node).interfaces if entry.name == interface)
    return entry.addresses[0].partition("/")[0]


def ways_to_far(session: Session) -> set[str]:
    """The next hops of leaf1 for the pod that pod-to-service-far ends at, behind leaf2."""
    far = address_of(session, session.node("far").name, "eth0")
    routes = json.loads(session.runtime.run("leaf1", "mgmt", ("ip", "-j", "route", "show", "to", "match", far)))
    route = max(routes, key=lambda entry: int(entry["dst"].replace("default", "/0").partition("/")[2] or 32))
    return {hop["gateway"] for hop in route.get("nexthops", [route])}


def names_of_flows(session: Session) -> tuple[str, ...]:
    return tuple(flow.name for flow in session.plan.flows)


def test_a_pod_loses_its_process(lab):
    before = pids(lab)
    first, second = [name for name in lab.nodes() if name.startswith("web-")]
    assert soon(lambda: answers(lab) == {first, second}, 10), "only one replica ever answers"
    assert lab.runtime.signal(first, "web", signal.SIGKILL)
    assert soon(lambda: said(lab, f"{first}: web was ended by signal 9")), lab.status().problems
    assert answers(lab) == {second}
    assert_flows(lab)

    assert not lab.up(compiled(EDGE, lab.name))
    after = pids(lab)
    assert after[f"{first}: web"] != before[f"{first}: web"]
    assert after | {f"{first}: web": before[f"{first}: web"]} == before
    assert soon(lambda: answers(lab) == {first, second}, 20), "the restored replica is never asked again"


def answers(session: Session) -> set[str]:
    """Who answers ten requests through the ingress; every request must be answered."""
    verdicts = [session.test(["ingress-host"])[0] for _ in range(10)]
    assert all(verdict.passed for verdict in verdicts), [verdict.reasons for verdict in verdicts]
    return {verdict.answer.answered_by for verdict in verdicts}


@pytest.mark.parametrize("node", ["amf", "pe1", "leaf1", "n2"])
def test_a_node_dies(lab, node):
    """A host, a router with NAT, a leaf with half of the cluster behind it, a Kubernetes node with its pods."""
    before = pids(lab)
    family = {name for name, state in lab.nodes().items() if node in (name, state.parent)}
    own = [pid for name, pid in before.items() if name.partition(":")[0] in family]
    os.kill(before[node], signal.SIGKILL)
    assert soon(lambda: said(lab, f"{node}: gone")), lab.status().problems
    assert soon(lambda: not family & lab.nodes().keys())
    assert soon(lambda: not any(alive(pid) for pid in own))

    lab.up(compiled(EDGE, lab.name))
    after = pids(lab)
    assert after.keys() == before.keys()
    assert not {after[name] for name in after if name.partition(":")[0] in family} & set(own)
    rest = {name: pid for name, pid in before.items() if name.partition(":")[0] not in family}
    assert {name: after[name] for name in rest} == rest
    assert lab.status().problems == ()
    assert_flows(lab)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
