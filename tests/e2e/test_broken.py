"""Broken labs: the explanation of a failed flow names the true cause and node."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from conftest import EDGE, own_name, running
from e2e_breaking import Broken, assert_named, carry_out
from e2e_broken import BROKEN

from testbed.plan import Flow
from testbed.probe.result import Verdict
from testbed.session import Session, compiled
from testbed.trace.tracer import Trace
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

REACTED = 25.0  # seconds that routing has to notice: more than BGP's hold time of 9 s, twice


@pytest.fixture(scope="module")
def lab() -> Iterator[Session]:
    """labs/edge, for these tests alone: they break it."""
    with running(compiled(EDGE, own_name("broken"))) as session:
        yield session


def names(session: Session) -> dict[str, str]:
    """What the commands of the table may name: addresses of pods, their interfaces on the node, Services."""
    plan = session.plan
    found = {}
    for node in plan.nodes:
        if node.kind != "pod":
            continue
        short = "near" if node.name.startswith("echo-") and node.parent == "n1" else node.name.partition("-")[0]
        if short == "echo":
            continue
        found[short] = node.interfaces[0].addresses[0].partition("/")[0] if node.interfaces[0].addresses else ""
        found[f"{short}-pod"] = node.name
        for link in plan.links:
            for one, other in ((link.a, link.b), (link.b, link.a)):
                if one.node == node.name:
                    found[f"cali:{short}"] = other.interface
        for interface in node.interfaces:
            if interface.addresses and interface.name == "eth0":
                found[short] = interface.addresses[0].partition("/")[0]
    found |= {f"service:{entry.name}": entry.cluster_ips[0] for entry in plan.services if entry.cluster_ips}
    return found


def flow_of(session: Session, broken: Broken) -> Flow:
    if broken.flow == "no-endpoints":
        client = session.node("client").name
        return Flow("no-endpoints", client, "10.96.0.1", "tcp", 443, "Service kubernetes", expect="refused")
    return session.chosen([broken.flow])[0]


def mended(session: Session, broken: Broken) -> None:
    carry_out(session, broken.undo, names(session))
    if broken.wait:
        session.up(compiled(EDGE, session.name))


def explained(session: Session, broken: Broken) -> Trace[Verdict]:
    flow = flow_of(session, broken)
    if broken.wait:
        assert until(lambda: not session.test([flow.name])[0].passed, Deadline(REACTED)), "the fault has no effect"
    return session.trace(flow)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda entry: entry.name)
def test_the_cause_is_named(lab: Session, broken: Broken) -> None:
    flow = flow_of(lab, broken)
    if flow.expect == "ok":
        assert until(lambda: lab.trace(flow).answer.passed, Deadline(REACTED)), (
            "the flow fails before anything is broken"
        )
    try:
        carry_out(lab, broken.do, names(lab))
        trace = explained(lab, broken)
    finally:
        mended(lab, broken)
    assert trace.answer.answer.outcome != "ok", "the fault has no effect"
    assert_named(trace.cause, broken, names(lab))


def test_what_cannot_be_explained_says_so(lab: Session) -> None:
    """A flow that is answered has no cause."""
    trace = lab.trace(dataclasses.replace(lab.chosen(["smf-from-amf"])[0]))
    assert trace.answer.passed
    assert trace.cause is None
