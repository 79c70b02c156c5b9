"""Many flows at a time: order, callbacks, what could not be asked, and what is imported when."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from probe_servers import HostSockets, answering, closed_port

from testbed.errors import NoSuchNodeError
from testbed.probe.flows import ask, lanes, probe_for, run, warm_up

HEAVY = {"paramiko", "httpx", "httpcore", "dns"}


class OneNode(HostSockets):
    def socket(self, node, vrf, family, kind, protocol=0):
        if node != "here":
            raise NoSuchNodeError(f"no node {node} runs")
        return super().socket(node, vrf, family, kind, protocol)


def test_verdicts_are_in_order_and_told_as_they_come(sockets, flow):
    with answering(lambda _: None) as silent:
        flows = [
            flow("udp", name="drop", port=silent, expect="timeout", timeout=0.4),
            flow("http", name="web", answered_by=("web-1",), seen_as=("127.0.0.1",)),
            flow("tcp", name="closed", port=closed_port(), expect="refused"),
            flow("http", name="wrong", answered_by=("web-2",)),
        ]
        told = []
        threads = set()

        def on_verdict(verdict):
            told.append(verdict.flow.name)
            threads.add(threading.current_thread())

        verdicts = run(flows, sockets, on_verdict=on_verdict)
    assert [verdict.flow.name for verdict in verdicts] == ["drop", "web", "closed", "wrong"]
    assert [verdict.passed for verdict in verdicts] == [True, True, True, False]
    assert verdicts[3].reasons == ("expected web-2 to answer, but web-1 on node7 did",)
    assert sorted(told) == ["closed", "drop", "web", "wrong"]
    assert told[-1] == "drop"
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize(("parallel", "least"), [(8, 0.3), (2, 1.2)])
def test_flows_run_side_by_side(sockets, flow, parallel, least):
    with answering(lambda _: None) as silent:
        flows = [flow("udp", name=str(n), port=silent, expect="timeout", timeout=0.3) for n in range(8)]
        begin = time.monotonic()
        verdicts = run(flows, sockets, parallel=parallel)
    assert all(verdict.passed for verdict in verdicts)
    assert least <= time.monotonic() - begin < 8 * 0.3


def test_flows_that_icmp_errors_may_answer_share_a_lane_by_source(flow):
    flows = [
        flow("tcp", expect="refused"),
        flow("tcp"),
        flow("udp", expect="unreachable"),
        flow("udp", expect="unreachable", source="there"),
        flow("tcp", expect="timeout"),
    ]
    assert lanes(flows) == [[0, 2], [1], [3], [4]]


def test_logins_share_eight_lanes(flow):
    flows = [flow("http"), *(flow("ssh") for _ in range(20)), flow("ssh", expect="refused")]
    groups = lanes(flows)
    assert len(groups) == 1 + 8 + 1
    assert sorted(index for group in groups for index in group) == list(range(22))
    assert groups[1] == [1, 9, 17]


def test_lane_is_told_flow_by_flow(sockets, flow):
    flows = [flow("tcp", name=str(n), port=closed_port(), expect="refused") for n in range(5)]
    told = []
    verdicts = run(flows, sockets, on_verdict=lambda verdict: told.append(verdict.flow.name))
    assert told == ["0", "1", "2", "3", "4"]
    assert all(verdict.passed for verdict in verdicts)


def test_defect_in_a_probe_is_raised(flow):
    class Broken(HostSockets):
        def socket(self, node, vrf, family, kind, protocol=0):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([flow("tcp"), flow("udp")], Broken())


def test_no_flows(sockets):
    assert run([], sockets) == []


def test_node_that_does_not_run_fails_its_flow_alone(flow):
    flows = [flow("tcp", source="gone", expect="timeout", timeout=0.1), flow("tcp")]
    first, second = run(flows, OneNode())
    assert (first.passed, first.reasons) == (False, ("the question could not be asked: no node gone runs",))
    assert (first.answer.outcome, second.passed) == ("error", True)


def test_place_that_does_not_run_fails_its_flow(flow):
    verdict = ask(flow("tcp", via=(("gone", None),)), OneNode())
    assert verdict.reasons == ("the question could not be asked: no node gone runs",)


def test_callback_that_fails_ends_the_run(sockets, flow):
    def on_verdict(verdict):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([flow("tcp")] * 5, sockets, on_verdict=on_verdict, parallel=1)


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp", "http", "ssh", "dns"])
def test_every_protocol_has_a_probe(protocol):
    assert callable(probe_for(protocol))
    warm_up([protocol])


@pytest.mark.parametrize(
    ("protocols", "imported"),
    [((), set()), (("tcp", "udp", "icmp"), set()), (("ssh",), {"paramiko"}), (("http",), {"httpx", "httpcore"})],
)
def test_libraries_are_imported_only_when_wanted(protocols, imported):
    code = f"import sys; from testbed.probe.flows import warm_up; warm_up({protocols!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == imported
