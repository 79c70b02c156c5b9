"""The walks that article 0 describes, step by step in labs/vrf-return-path: ssh by a load balancer's address and back,
the reply that is lost, and what a pod opens by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

import pytest
from conftest import LABS
from e2e_matrix import BALANCED, CLIENT, Changing, changing

from testbed.probe.result import Verdict
from testbed.session import compiled
from testbed.trace.packet import Ends
from testbed.trace.tracer import Trace
from testbed.trace.walk import Hop, Path

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

LAB = str(LABS / "vrf-return-path")
POD = "192.168.1.1"
NODE = {"vrf1": "172.16.1.2", "vrf2": "172.16.2.2"}  # n1's addresses
GATEWAY = {"vrf1": "172.16.1.1", "vrf2": "172.16.2.1"}
EGRESS_PORT = 8080


@pytest.fixture(scope="module")
def lab() -> Iterator[Changing]:
    with changing(LAB, "walks") as found:
        yield found


def enter(lab: Changing, return_path: str, policy: str = "Local", mode: str = "iptables") -> None:
    """With policy Local the client's address stays, as in the article."""
    lab.enter(kubeProxyMode=mode, externalTrafficPolicy=policy, backend="pod-n1", returnPath=return_path)


def ssh(lab: Changing) -> Trace[Verdict]:
    """`ssh 3.3.3.3`, which the matrix leaves out; whatever comes of it is told by its walk."""
    flow = next(flow for flow in compiled(LAB).flows if flow.name == "ssh")
    return lab.session.trace(dataclasses.replace(flow, seen_as=(), steps=(), via=(), not_via=()))


def names(path: Path) -> list[str]:
    return [hop.node.partition("-")[0] for hop in path.hops]


def at(path: Path, node: str) -> Hop:
    return next(hop for hop in path.hops if hop.node.partition("-")[0] == node)


# --- the four steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_path", ["connmark", "static", "rule-pod-ip"])
def test_the_four_steps(lab, return_path):
    enter(lab, return_path)
    trace = ssh(lab)
    assert trace.answer.passed, trace.answer.reasons
    assert trace.answer.answer.output.strip() == "hello"
    assert not trace.walk.dropped
    request, reply = trace.walk.request, trace.walk.reply
    port = request.first.ends.source_port

    # 1. The client sends from its own address to 3.3.3.3.
    assert names(request) == ["client", "r2", "n1", "ssh"]
    assert request.first.left == Ends(CLIENT, BALANCED, port, 22)
    assert at(request, "r2").left == request.first.left
    trace.walk.passes("r2", vrf="vrf2")
    trace.walk.avoids("r1")

    # 2. The node rewrites the destination to the pod's address, and leaves the source.
    node = at(request, "n1")
    assert (node.interface_in, node.network_in) == ("eth1", "vrf2")
    assert node.arrived == request.first.left
    assert node.left == Ends(CLIENT, POD, port, 22)
    assert node.changes == ("dnat",)
    assert request.last.arrived == node.left
    assert request.delivered

    # 3. The pod answers from its own address to the client's.
    assert names(reply) == ["ssh", "n1", "r2", "client"]
    assert reply.first.left == Ends(POD, CLIENT, 22, port)

    # 4. The node makes the source 3.3.3.3 again, and sends it out by the VRF that the request came by.
    node = at(reply, "n1")
    assert node.left == Ends(BALANCED, CLIENT, 22, port)
    assert node.changes == ("snat",)
    trace.walk.reply.leaves("n1", interface="eth1", vrf="vrf2")
    trace.walk.reply.avoids("r1")
    assert reply.last.arrived == request.first.left.reverse
    assert reply.delivered
    assert [hop.ttl_out or hop.ttl_in for hop in reply.hops] == [64, 63, 62, 62]


def test_the_steps_with_masquerading(lab):
    """Policy Cluster: in step 2 the source becomes the node's, by which the pod answers in step 3."""
    enter(lab, "connmark", "Cluster")
    walk = ssh(lab).walk
    assert walk.dnat_at("n1") == f"{POD}:22"
    masqueraded = walk.snat_at("n1")
    assert masqueraded.startswith(f"{NODE['vrf2']}:")
    assert walk.reply.first.ends.destination == NODE["vrf2"]
    assert walk.reply.snat_at("n1") == f"{BALANCED}:22"
    assert walk.reply.dnat_at("n1") == f"{CLIENT}:{walk.request.first.ends.source_port}"


@pytest.mark.parametrize(
    ("return_path", "table", "rule"),
    [
        ("static", "main", ""),
        ("rule-pod-ip", "101", "from 192.168"),
        ("connmark", "101", "fwmark 0x100/0xf00"),
    ],
)
def test_what_routed_the_reply(lab, return_path, table, rule):
    enter(lab, return_path)
    trace = ssh(lab)
    hops = [hop.node for hop in trace.walk.reply.hops]
    route = trace.back[hops.index("n1")].route
    assert (route.table, route.ways) == (table, ((GATEWAY["vrf2"], "eth1"),))
    assert rule in route.rule
    assert route.to == ("10.10.10.0/24" if return_path == "static" else "default")


@pytest.mark.testbed_needs("ipvs", "ipset", "dummy")
@pytest.mark.parametrize("return_path", ["rule-lb-ip", "rule-pod-ip"])
def test_ipvs_routes_the_reply_again(lab, return_path):
    """It gives the reply its source in FORWARD: a rule by the load balancer's address decides, one by the pod's does
    not."""
    enter(lab, "connmark", mode="ipvs")
    assert ssh(lab).answer.passed
    enter(lab, return_path, mode="ipvs")
    trace = ssh(lab)
    works = return_path == "rule-lb-ip"
    assert trace.answer.answer.outcome == ("ok" if works else "timeout")
    assert names(trace.walk.request) == ["client", "r2", "n1", "ssh"]
    assert trace.walk.dnat_at("n1") == f"{POD}:22"
    trace.walk.reply.leaves("n1", interface="eth1" if works else "eth0", vrf="vrf2" if works else "vrf1")
    assert trace.walk.reply.snat_at("n1") == f"{BALANCED}:22"
    hops = [hop.node for hop in trace.walk.reply.hops]
    route = trace.back[hops.index("n1")].route
    assert (route.table, route.again) == ("101" if works else "main", BALANCED)
    if not works:
        assert (trace.cause.kind, trace.cause.node) == ("wrong-vrf", "n1")


# --- the reply that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_path", ["none", "rule-lb-ip"])
def test_the_reply_that_is_lost(lab, return_path):
    """Steps 1 to 3 as ever. In step 4 the node gives the reply its source and sends it into the other VRF."""
    enter(lab, "connmark")
    assert ssh(lab).answer.passed, "the flow fails before its way back is taken away"
    enter(lab, return_path)
    trace = ssh(lab)
    assert trace.answer.answer.outcome == "timeout"
    request, reply = trace.walk.request, trace.walk.reply
    assert request.delivered
    assert names(request) == ["client", "r2", "n1", "ssh"]
    assert names(reply) == ["ssh", "n1", "r1"]
    assert not reply.delivered
    trace.walk.reply.leaves("n1", interface="eth0", vrf="vrf1")
    assert at(reply, "n1").changes == ("snat",)
    assert reply.last.arrived == request.first.ends.reverse
    cause = trace.cause
    assert (cause.kind, cause.node) == ("wrong-vrf", "n1")
    assert cause.sentence == (
        f"the reply from {POD} left n1 by eth0 (VRF vrf1) by table main's default; the client is in VRF vrf2"
    )
    told = "\n".join(cause.evidence)
    assert f"n1: table main: default via {GATEWAY['vrf1']} dev eth0" in told
    assert "r1 (VRF vrf1): Network is unreachable" in told
    late = f"from {BALANCED} lookup 101 did not match: the source was {POD} when it was routed, {BALANCED} later"
    assert (late in told) is (return_path == "rule-lb-ip")


# --- what a pod opens by itself ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(lab: Changing) -> Iterator[socket.socket]:
    """A server in the client's network."""
    with lab.session.runtime.socket("client", None, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((CLIENT, EGRESS_PORT))
        server.listen()
        server.setblocking(False)
        yield server


def egress(lab: Changing) -> Trace[Verdict]:
    """A connection that the pod opens to the client."""
    return lab.session.trace(lab.session.question("ssh", CLIENT, "tcp", EGRESS_PORT))


@pytest.mark.parametrize(("return_path", "table"), [("static", "main"), ("rule-pod-ip", "101")])
def test_egress_with_a_route(lab, return_path, table):
    """By a route to the client's network, or a rule for pods: the server sees n1's address on that link."""
    enter(lab, return_path)
    with listening(lab) as server:
        trace = egress(lab)
        connection, (seen, port) = server.accept()
        connection.close()
    assert trace.answer.passed, trace.answer.reasons
    walk = trace.walk
    assert names(walk.request) == ["ssh", "n1", "r2", "client"]
    assert seen == NODE["vrf2"]
    assert walk.snat_at("n1") == f"{seen}:{port}"
    assert walk.dnat_at("n1") == ""
    walk.leaves("n1", interface="eth1", vrf="vrf2")
    assert (trace.forward[1].route.table, trace.forward[1].route.ways) == (table, ((GATEWAY["vrf2"], "eth1"),))
    walk.reply.passes("client").then("r2", "vrf2").then("n1").then("ssh")
    assert walk.reply.last.ends == walk.request.first.ends.reverse


@pytest.mark.parametrize("return_path", ["none", "rule-lb-ip", "connmark"])
def test_egress_by_the_default_route(lab, return_path):
    """What is done for replies does nothing for it: it goes into VRF1, with n1's address there, and is lost."""
    enter(lab, return_path)
    with listening(lab) as server:
        trace = egress(lab)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert trace.answer.answer.outcome in ("unreachable", "timeout")
    walk = trace.walk
    assert names(walk.request) == ["ssh", "n1", "r1"]
    walk.leaves("n1", interface="eth0", vrf="vrf1")
    assert walk.snat_at("n1").startswith(f"{NODE['vrf1']}:")
    assert not walk.request.delivered
    assert (trace.cause.kind, trace.cause.node) == ("wrong-vrf", "n1")
    assert trace.cause.sentence == (
        f"the request from {POD} left n1 by eth0 (VRF vrf1) by table main's default; {CLIENT} is in VRF vrf2"
    )
