"""The walks that article 4 describes, step by step in labs/edge, and what stands around them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from typer.testing import CliRunner

from testbed import run
from testbed.cli.main import app
from testbed.plan import FlowStep
from testbed.report.pcapng import notes, pcapng
from testbed.report.picture import drawing
from testbed.report.sequence import sequence
from testbed.report.walks import walk_lines
from testbed.session import Session
from testbed.trace import capture
from testbed.trace.steps import unmet
from testbed.trace.walk import Path, Walk

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]


def walked(session: Session, name: str) -> Walk:
    trace = session.trace(session.chosen([name])[0])
    assert trace.answer.passed, trace.answer.reasons
    assert not trace.walk.dropped
    return trace.walk


def names(path: Path) -> list[str]:
    """The places of a path, pods by their workload."""
    return [hop.node.partition("-")[0] for hop in path.hops]


def address(session: Session, name: str) -> str:
    return session.plan.node(session.node(name).name).interfaces[0].addresses[0].partition("/")[0]


def test_pod_to_pod_on_one_node(edge):
    """Pod, the node's namespace by the veth pair, the other pod; the same way back; no address changes."""
    walk = walked(edge, "pod-to-pod-near")
    assert names(walk.request) == ["client", "n1", "echo"]
    assert names(walk.reply) == ["echo", "n1", "client"]
    assert not any(hop.changes for path in (walk.request, walk.reply) for hop in path.hops)
    client, node, echo = walk.request.hops
    assert node.interface_in.startswith("cali")
    assert node.interface_out.startswith("cali")
    assert node.interface_in != node.interface_out
    assert client.ends == node.ends == echo.ends
    assert (client.ttl_out, echo.ttl_in) == (64, 63)


def test_pod_to_pod_on_another_node(edge):
    """By the nodes' uplinks and the leaf that joins them; no address changes (the first demand on a pod network)."""
    walk = walked(edge, "pod-to-pod")
    walk.passes("client").then("n1").then("leaf1", vrf="mgmt").then("n2").then("echo")
    walk.leaves("n1", interface="eth0", vrf="mgmt")
    walk.enters("n2", interface="eth0", vrf="mgmt")
    walk.avoids("leaf1", vrf="sbi")
    walk.reply.passes("echo").then("n2").then("n1").then("client")
    assert walk.request.first.ends == walk.request.last.ends
    assert walk.request.first.ends == walk.reply.last.ends.reverse


def test_pod_to_service_and_back(edge):
    """DNAT in the client's node, the pod's address on the way; on the way back the Service's address again."""
    walk = walked(edge, "pod-to-service-far")
    far, service = address(edge, "far"), next(entry for entry in edge.plan.services if entry.name == "echo-far")
    assert walk.dnat_at("n1") == f"{far}:8080"
    assert walk.request.first.ends.destination == service.cluster_ips[0]
    walk.passes("n1").then("leaf1", "mgmt").then("leaf2", "mgmt").then("n3").then("far")
    assert walk.reply.snat_at("n1") == f"{service.cluster_ips[0]}:80"
    assert walk.reply.first.ends.source == far
    assert walk.reply.last.ends == walk.request.first.ends.reverse


def test_pod_to_service_near(edge):
    walk = walked(edge, "pod-to-service-near")
    assert names(walk.request) == ["client", "n1", "echo"]
    assert walk.dnat_at("n1").endswith(":8080")
    walk.avoids("leaf1")


def test_reply_leaves_by_the_vrf_its_request_came_by(edge):
    """Two clients with one address, in two VRFs."""
    for name, vrf, interface in (("ssh-from-smf", "sbi", "eth1"), ("ssh-from-ops", "mgmt", "eth0")):
        walk = walked(edge, name)
        walk.enters("n1", vrf=vrf)
        walk.reply.leaves("n1", interface=interface, vrf=vrf)
        assert walk.dnat_at("n1").endswith(":22")
        assert walk.snat_at("n1") == ""


def test_two_translations_on_the_way_out(edge):
    walk = walked(edge, "pod-to-internet")
    assert walk.snat_at("n1").startswith("172.16.1.2:")
    assert walk.snat_at("pe1").startswith("203.0.113.1:")
    walk.reply.passes("internet").then("pe1").then("n1").then("client")


def test_a_false_claim_fails_and_tells_the_way(edge):
    walk = walked(edge, "pod-to-pod-near")
    with pytest.raises(AssertionError, match=r"expected it to pass leaf1; the packet went by client.*n1.*echo"):
        walk.passes("leaf1")
    with pytest.raises(AssertionError, match=r"expected it to leave n1 VRF sbi, but it was by cali"):
        walk.leaves("n1", vrf="sbi")


def test_rules_and_routes_are_told(edge):
    trace = edge.trace(edge.chosen(["ssh-from-amf"])[0])
    text = "\n".join(walk_lines(trace))
    assert "KUBE-SERVICES → KUBE-EXT-" in text
    assert "KUBE-SVL-" in text
    assert "(Service default/ssh)" in text
    assert "table 101: default via 172.17.1.1 dev eth1" in text
    assert "by rule 1001: from all fwmark 0x100/0xf00 lookup 101" in text
    assert "captured" in text
    assert "none lost" in text


def test_steps_of_the_lab_file_are_taken_and_wrong_ones_told(edge):
    flow = edge.chosen(["pod-to-service-far"])[0]
    assert len(flow.steps) == 9
    walk = walked(edge, "pod-to-service-far")
    assert unmet(walk, flow.steps) == []
    wrong = (FlowStep("n1", leaves="eth1"), FlowStep("pe1"), dataclasses.replace(flow.steps[1], port=80))
    assert unmet(walk, wrong) == [
        "step 1: at n1, it went out by eth0 (VRF mgmt); not by eth1",
        "step 2: the request did not pass pe1",
        "step 3: at n1, its destination port was 8080, not 80",
    ]


def test_every_packet_of_many_requests_is_followed(edge):
    """At probe rates nothing is lost, and every request's walk is the whole way."""
    flow = edge.chosen(["pod-to-service-far"])[0]
    ways = set()
    for _ in range(20):
        trace = edge._tracer().trace(flow, plain=True)
        assert not trace.recording.dropped
        assert trace.answer.passed, trace.answer.reasons
        assert trace.walk.forward.delivered
        assert trace.walk.back.delivered
        ways.add(tuple(hop.node for hop in trace.walk.forward.hops if hop.node.startswith("spine")))
    assert ways <= {("spine1",), ("spine2",)}


def test_lost_packets_are_counted_and_shown(edge, monkeypatch):
    """With room for one packet or two, most of a login does not fit."""
    monkeypatch.setattr(capture, "BUFFER", 4096)
    trace = edge.trace(edge.chosen(["ssh-from-amf"])[0])
    assert trace.answer.passed
    assert trace.walk.dropped
    assert "the walk may have gaps" in walk_lines(trace)[-1]


def test_on_the_command_line(edge, tmp_path):
    told = CliRunner().invoke(app, ["trace", "smf-from-ops", edge.name, "--json"])
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout)
    assert data["cause"]["kind"] == "no-listener"
    assert [hop["node"] for hop in data["request"]["hops"]] == ["ops"]
    file = tmp_path / "walk.pcapng"
    argv = ["trace", edge.name, "--from", "client", "--to", "service/echo-far", "--protocol", "http"]
    told = CliRunner().invoke(app, [*argv, "--pcapng", str(file)])
    assert told.exit_code == 0, told.output
    assert "DNAT" in told.stdout
    assert file.stat().st_size > 1000
    assert CliRunner().invoke(app, ["trace", edge.name, "--from", "client"]).exit_code == 2


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_wireshark_reads_the_capture(edge, tmp_path):
    trace = edge.trace(edge.chosen(["ssh-from-amf"])[0])
    frames = trace.recording.frames
    file = tmp_path / "walk.pcapng"
    file.write_bytes(pcapng(frames, notes(frames, trace.walk.question), "ssh-from-amf"))
    fields = ("frame.interface_name", "frame.comment", "ip.src", "tcp.flags.syn", "_ws.malformed")
    argv = ["tshark", "-r", str(file), "-T", "json", *(word for field in fields for word in ("-e", field))]
    found = [packet["_source"]["layers"] for packet in json.loads(run.run(argv))]
    assert len(found) == len(frames)
    assert {"amf:eth0", "pe2/sbi:eth4", "leaf1/sbi:br1"} <= {entry["frame.interface_name"][0] for entry in found}
    comments = [entry["frame.comment"][0] for entry in found if "frame.comment" in entry]
    assert "request at pe2, VRF sbi, in eth4" in comments
    assert not any("_ws.malformed" in entry for entry in found)


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_sequence_diagram(edge):
    trace = edge.trace(edge.chosen(["pod-to-service-far"])[0])
    text = drawing(sequence(trace))
    assert text.startswith("<?xml")
    assert "DNAT" in text
    for name in ("leaf1 (VRF mgmt)", "n3"):
        assert f">{name}</text>" in text
