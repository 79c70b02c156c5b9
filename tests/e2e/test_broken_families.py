"""Broken labs, by UDP, ICMP, DNS and IPv6 flows: the explanation of a failed one names the true cause and node."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import own_name, running
from e2e_breaking import Broken, assert_named, carry_out
from e2e_broken_families import FAMILIES, SERVICES

from testbed.plan import Flow
from testbed.session import Session, compiled
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

LABS = Path(__file__).parent / "labs"
REACTED = 25.0  # seconds that routing has to notice
PATIENCE = 0.4  # seconds that a broken flow is waited for: one that is expected to be answered gets more


@pytest.fixture(scope="module")
def families() -> Iterator[Session]:
    """The lab "families", for these tests alone: they break it."""
    with running(compiled(str(LABS / "families"), own_name("broken-families"))) as session:
        yield session


@pytest.fixture(scope="module")
def services() -> Iterator[Session]:
    """The lab "services", for these tests alone: they break it."""
    with running(compiled(str(LABS / "services"), own_name("broken-services"))) as session:
        yield session


def names(session: Session) -> dict[str, str]:
    """What the commands of the tables may name."""
    found = {}
    for link in session.plan.links:
        for one, other in ((link.a, link.b), (link.b, link.a)):
            found[f"port:{one.node}-{other.node}"] = one.interface
    for node in session.plan.nodes:
        if node.kind == "host":
            address = session.runtime.run(node.name, None, ("cat", "/sys/class/net/eth0/address"))
            found[f"mac:{node.name}"] = address.strip()
        if node.kind == "kubernetes":
            rules = session.runtime.run(node.name, None, ("iptables-save", "-t", "nat")).splitlines()
            if rule := next((line for line in rules if re.match(r"-A KUBE-SEP-.* -p udp .*DNAT", line)), ""):
                found[f"sep:{node.name}"] = rule.removeprefix("-A ")
                wrong = re.sub(r"--to-destination \S+", "--to-destination 192.168.40.177:8080", rule)
                found[f"wrong:{node.name}"] = wrong.removeprefix("-A ")
    return found


def answered(session: Session, flow: Flow) -> bool:
    return session.test([flow.name])[0].passed


def check(session: Session, lab: str, broken: Broken) -> None:
    """Break the lab, have the flow explained, and mend it."""
    flow = session.chosen([broken.flow])[0]
    known = names(session)
    assert until(lambda: answered(session, flow), Deadline(REACTED)), "the flow is not answered as it should be before"
    carry_out(session, broken.do, known)
    try:
        if broken.wait:
            assert until(lambda: not answered(session, flow), Deadline(REACTED)), "the fault has no effect"
        trace = session.trace(dataclasses.replace(flow, expect="timeout", timeout=PATIENCE))
    finally:
        carry_out(session, broken.undo, known)
        if broken.wait:
            session.up(compiled(str(LABS / lab), session.name))
    assert trace.answer.answer.outcome != "ok", "the fault has no effect"
    assert_named(trace.cause, broken, known)


@pytest.mark.parametrize("broken", FAMILIES, ids=lambda entry: entry.name)
def test_the_cause_is_named(families: Session, broken: Broken) -> None:
    check(families, "families", broken)


@pytest.mark.parametrize("broken", SERVICES, ids=lambda entry: entry.name)
def test_the_cause_of_a_service_is_named(services: Session, broken: Broken) -> None:
    check(services, "services", broken)
