"""A changed lab file is applied to the running lab: what it does not concern goes on, and loses no packet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from conftest import EDGE, assert_flows, pids
from e2e_changing import ChangingLab, as_shipped, brought_up
from e2e_traffic import Stream, stream

from testbed.deploy.frr_reload import Difference, difference
from testbed.plan.diff import PlanDiff
from testbed.session import Session
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

WEB = "manifests/web.yaml"
# The last link: interfaces are numbered in the order of the links, so one more after it renames none.
LAST_LINK = "  - {endpoints: [pe2, {node: smf, ipv4: 10.10.10.10}], vrf: sbi, ipv4: 10.10.10.0/24}\n"


class Changing(ChangingLab):
    """A running lab whose files the tests edit, and two streams through it to be watched."""

    def up_with_traffic(self) -> PlanDiff:
        """Apply the files while datagrams go from amf to smf, and across the fabric from one pod to another."""
        client, far = self.session.node("client").name, self.session.node("far").name
        address = address_of(self.session, far)
        with (
            stream(self.session, "amf", "smf", "10.10.10.10") as near,
            stream(self.session, client, far, address) as across,
        ):
            change = self.up()
        assert_lossless(near, across)
        return change


def assert_lossless(*streams: Stream) -> None:
    for one in streams:
        assert one.sent >= 20
        assert not one.lost, one.report()
        assert not one.refused, one.report()


def address_of(session: Session, node: str) -> str:
    return session.plan.node(node).interfaces[0].addresses[0].partition("/")[0]


@pytest.fixture(scope="module")
def changing(tmp_path_factory) -> Iterator[Changing]:
    with brought_up(Changing, EDGE, "change", tmp_path_factory.mktemp("lab") / "edge") as found:
        yield found


@pytest.fixture
def lab(changing) -> Iterator[Changing]:
    """The lab as labs/edge describes it, all flows passing; for the next test the files are put back."""
    with as_shipped(changing) as found:
        yield found


def test_replicas(lab):
    before = pids(lab.session)
    lab.edit(WEB, "replicas: 2", "replicas: 3")
    change = lab.up_with_traffic()
    [third] = [node.name for node in change.added]
    assert third.startswith("web-")
    after = pids(lab.session)
    assert {name: pid for name, pid in after.items() if name.partition(":")[0] != third} == before
    assert set(after) - set(before) == {third, f"{third}: web"}
    assert until(lambda: third in answering(lab.session), Deadline(10)), "no request ever came to the third replica"
    assert_flows(lab.session)

    lab.edit(WEB, "replicas: 3", "replicas: 2")
    change = lab.up_with_traffic()
    assert [node.name for node in change.removed] == [third]
    assert pids(lab.session) == before
    assert_flows(lab.session)
    assert not any(third in answering(lab.session) for _ in range(6))


def answering(session: Session) -> set[str]:
    """Who answers a few requests through the ingress."""
    return {session.test(["ingress-host"])[0].answer.answered_by for _ in range(3)}


def test_bgp_timers(lab):
    before = pids(lab.session)
    assert "timers 3 9" in running_configuration(lab.session, "leaf1")
    lab.edit("lab.yaml", "timers: {keepalive: 3, hold: 9, connect: 1}", "timers: {keepalive: 4, hold: 12, connect: 1}")
    change = lab.up_with_traffic()
    routers = {"spine1", "spine2", "leaf1", "leaf2", "pe1", "pe2"}
    assert {entry.new.name for entry in change.changed} == routers
    assert not change.added
    assert not change.removed
    assert pids(lab.session) == before
    for router in routers:
        configuration = running_configuration(lab.session, router)
        assert "timers 4 12" in configuration, router
        assert "timers 3 9" not in configuration, router
    assert_entered(lab.session, routers)
    assert_flows(lab.session)


def test_an_as_number(lab):
    """FRR forgets all that it knows of a neighbour whose AS number is taken away: the rest must be entered again."""
    before = pids(lab.session)
    own = neighbour_lines(lab.session, "leaf1", "pe2")
    assert "remote-as 65102" in own
    lab.edit("lab.yaml", "asn: 65102", "asn: 65103")
    lab.up()
    assert pids(lab.session) == before
    assert neighbour_lines(lab.session, "leaf1", "pe2") == own - {"remote-as 65102"} | {"remote-as 65103"}
    assert lab.session.status().problems == ()
    assert_entered(lab.session, ("leaf1", "leaf2", "pe2"))
    assert_flows(lab.session)


def running_configuration(session: Session, router: str) -> str:
    return session.runtime.run(router, None, ("/usr/bin/vtysh", "-d", "bgpd", "-c", "show running-config"))


def neighbour_lines(session: Session, router: str, neighbour: str) -> set[str]:
    """What a router is told of a neighbour in its VRFs, without its addresses."""
    lines = [line.split(maxsplit=2) for line in running_configuration(session, router).splitlines()]
    known = [(words[1], words[2]) for words in lines if len(words) == 3 and words[0] == "neighbor"]
    addresses = {address for address, setting in known if setting == f"description {neighbour}"}
    assert addresses
    return {setting for address, setting in known if address in addresses}


def assert_entered(session: Session, routers: Iterable[str]) -> None:
    """FRR's own tool finds nothing left to do, and did not have to do it itself, which takes long."""
    for router in routers:
        process = next(entry for entry in session.plan.node(router).processes if entry.name == "bgpd")
        assert difference(session.runtime, router, process) == Difference(), router
        assert not session.runtime.path(router, "/var/log/frr/frr-reload.log").exists(), router


def test_a_node_and_its_link(lab):
    before = pids(lab.session)
    lab.edit("lab.yaml", "  n1: {kind: kubernetes", "  extra: {kind: host, image: echo}\n  n1: {kind: kubernetes")
    link = "  - {endpoints: [pe2, extra], vrf: sbi, ipv4: 10.30.30.0/24}\n"
    lab.edit("lab.yaml", LAST_LINK, LAST_LINK + link)
    flow = "  - {name: extra-from-amf, from: amf, to: extra, protocol: tcp, port: 8080, via: [pe2], vrf: sbi}\n"
    lab.edit("lab.yaml", "flows:\n", "flows:\n" + flow)
    change = lab.up_with_traffic()
    assert [node.name for node in change.added] == ["extra"]
    after = pids(lab.session)
    assert {name: pid for name, pid in after.items() if not name.startswith("extra")} == before
    assert_flows(lab.session)
    assert any(flow.name == "extra-from-amf" for flow in lab.session.plan.flows)

    lab.edit("lab.yaml", "  extra: {kind: host, image: echo}\n", "")
    lab.edit("lab.yaml", link, "")
    lab.edit("lab.yaml", flow, "")
    change = lab.up_with_traffic()
    assert [node.name for node in change.removed] == ["extra"]
    assert pids(lab.session) == before
    interfaces = lab.session.runtime.run("pe2", "sbi", ("ip", "-o", "link"))
    planned = [entry for entry in lab.session.plan.node("pe2").interfaces if entry.vrf == "sbi"]
    assert len(interfaces.splitlines()) == len(planned) + 1  # lo
    assert_flows(lab.session)


def test_an_address(lab):
    before = pids(lab.session)
    lab.edit("lab.yaml", "{node: amf, ipv4: 10.20.20.20}", "{node: amf, ipv4: 10.20.20.30}")
    change = lab.up()
    assert "amf" in {entry.new.name for entry in change.changed}
    assert pids(lab.session) == before
    assert "10.20.20.30/24" in lab.session.runtime.run("amf", None, ("ip", "-o", "address"))
    assert "10.20.20.20/24" not in lab.session.runtime.run("amf", None, ("ip", "-o", "address"))
    assert_flows(lab.session)


def test_the_addresses_of_a_routers_link(lab):
    """All links get other subnets, so every router's addresses and BGP neighbours are other ones."""
    before = pids(lab.session)
    lab.edit("lab.yaml", "links: {ipv4: 172.20.0.0/16}", "links: {ipv4: 172.21.0.0/16}")
    lab.up()
    assert pids(lab.session) == before
    assert "172.20." not in lab.session.runtime.run("leaf1", "mgmt", ("ip", "-o", "address"))
    assert lab.session.status().problems == ()
    assert_entered(lab.session, ("spine1", "spine2", "leaf1", "leaf2", "pe1", "pe2"))
    assert_flows(lab.session)
