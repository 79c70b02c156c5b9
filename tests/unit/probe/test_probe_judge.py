"""What passes, what fails, and in which words."""

from __future__ import annotations

import pytest

from testbed.plan import Flow
from testbed.probe.judge import judge
from testbed.probe.result import Answer

FLOW = {"name": "f", "source": "client", "address": "10.0.0.1", "port": 80}
OK = Answer("ok", "10.0.0.1 port 80 answered")


def verdict(flow: dict, answer: dict, path=()):
    found = {"outcome": "ok", "detail": "10.0.0.1 port 80 answered", "status": 200}
    return judge(Flow(**{**FLOW, "protocol": "http", **flow}), Answer(**{**found, **answer}), path)


PASSES = {
    "nothing but the outcome is checked": ({}, {"seen_as": "10.9.9.9", "answered_by": "any"}),
    "refused": ({"expect": "refused"}, {"outcome": "refused", "status": 0}),
    "timeout": ({"expect": "timeout"}, {"outcome": "timeout", "status": 0}),
    "reset": ({"expect": "reset"}, {"outcome": "reset", "status": 0}),
    "unreachable": ({"expect": "unreachable"}, {"outcome": "unreachable", "status": 0}),
    "contents are not looked at where none is expected": (
        {"expect": "refused", "seen_as": ("10.0.0.2",), "status": 200, "output": "x"},
        {"outcome": "refused", "status": 0},
    ),
    "seen as one of several": ({"seen_as": ("10.0.0.2", "10.0.0.3")}, {"seen_as": "10.0.0.3"}),
    "seen as IPv6, spelt otherwise": ({"seen_as": ("fd00:0:0::0001",)}, {"seen_as": "fd00::1"}),
    "seen as IPv4 mapped into IPv6": ({"seen_as": ("10.0.0.2",)}, {"seen_as": "::ffff:10.0.0.2"}),
    "answered by the pod": ({"answered_by": ("web-1", "web-2")}, {"answered_by": "web-2", "answered_on": "node1"}),
    "answered on the node": ({"answered_by": ("node1",)}, {"answered_by": "web-2", "answered_on": "node1"}),
    "forwarded for one of the chain": ({"forwarded_for": ("10.0.0.2",)}, {"forwarded_for": "10.0.0.9, 10.0.0.2"}),
    "status": ({"status": 503}, {"status": 503}),
    "redirect where no status is named": ({}, {"status": 302}),
    "output contained": ({"protocol": "ssh", "output": "FRR"}, {"output": "an FRRouting 10\n", "status": 0}),
    "one of the addresses": (
        {"protocol": "dns", "query": "web.lab", "answer": "10.0.0.7"},
        {"output": "10.0.0.6 10.0.0.7", "status": 0},
    ),
}


@pytest.mark.parametrize(("flow", "answer"), PASSES.values(), ids=PASSES)
def test_passes(flow, answer):
    found = verdict(flow, answer)
    assert found.passed
    assert found.reasons == ()


FAILS = {
    "timeout instead of an answer": (
        {},
        {"outcome": "timeout", "detail": "10.0.0.1 port 80 did not answer"},
        "expected an answer, but 10.0.0.1 port 80 did not answer",
    ),
    "answer instead of a drop": ({"expect": "timeout"}, {}, "expected no answer, but 10.0.0.1 port 80 answered"),
    "drop instead of a refusal": (
        {"expect": "refused"},
        {"outcome": "timeout", "detail": "10.0.0.1 port 80 did not answer"},
        "expected to be refused, but 10.0.0.1 port 80 did not answer",
    ),
    "refused instead of unreachable": (
        {"expect": "unreachable"},
        {"outcome": "refused", "detail": "it refused"},
        "expected to be told that it is unreachable, but it refused",
    ),
    "an error is never what was expected": (
        {},
        {"outcome": "error", "detail": "10.0.0.1 did not let root in"},
        "expected an answer, but 10.0.0.1 did not let root in",
    ),
    "seen as another": (
        {"seen_as": ("10.0.0.2", "10.0.0.3")},
        {"seen_as": "10.0.0.4"},
        "expected the server to see 10.0.0.2 or 10.0.0.3 as its client, but it saw 10.0.0.4",
    ),
    "not said as whom": (
        {"seen_as": ("10.0.0.2",)},
        {},
        "expected the server to see 10.0.0.2 as its client, but it did not say whom it saw",
    ),
    "answered by another": (
        {"answered_by": ("web-1", "node1")},
        {"answered_by": "web-2", "answered_on": "node2"},
        "expected web-1 or node1 to answer, but web-2 on node2 did",
    ),
    "answered by another host": (
        {"answered_by": ("a",)},
        {"answered_by": "b", "answered_on": "b"},
        "expected a to answer, but b did",
    ),
    "not said by whom": ({"answered_by": ("a",)}, {}, "expected a to answer, but the server did not say who it is"),
    "forwarded for another": (
        {"forwarded_for": ("10.0.0.2",)},
        {"forwarded_for": "10.0.0.20, 110.0.0.2"},
        "expected X-Forwarded-For to hold 10.0.0.2, but it held '10.0.0.20, 110.0.0.2'",
    ),
    "not forwarded": (
        {"forwarded_for": ("10.0.0.2",)},
        {},
        "expected X-Forwarded-For to hold 10.0.0.2, but the backend got no such header, or did not say",
    ),
    "other status": ({"status": 200}, {"status": 503}, "expected HTTP status 200, but it was 503"),
    "error status where none is named": ({}, {"status": 404}, "expected an HTTP status below 400, but it was 404"),
    "other output": (
        {"protocol": "ssh", "output": "up"},
        {"output": "down"},
        "expected the output to contain 'up', but it was 'down'",
    ),
    "other address": (
        {"protocol": "dns", "query": "web.lab", "answer": "10.0.0.7"},
        {"output": "10.0.0.70"},
        "expected web.lab to have the address 10.0.0.7, but it has 10.0.0.70",
    ),
}


@pytest.mark.parametrize(("flow", "answer", "reason"), FAILS.values(), ids=FAILS)
def test_fails(flow, answer, reason):
    found = verdict(flow, answer)
    assert not found.passed
    assert found.reasons == (reason,)


def test_all_reasons_are_told_at_once():
    found = verdict({"seen_as": ("10.0.0.2",), "status": 200, "via": (("leaf1", None),)}, {"status": 500})
    assert len(found.reasons) == 3


@pytest.mark.parametrize("expect", ["ok", "timeout"])
@pytest.mark.parametrize(
    ("via", "not_via", "path", "reasons"),
    [
        ((("leaf1", "red"),), (("leaf2", None),), (("leaf1", "red"),), []),
        ((("leaf1", "red"),), (), (), ["expected the packets to go by leaf1 (VRF red), but none did"]),
        ((("leaf1", "red"),), (), (("leaf1", None),), ["expected the packets to go by leaf1 (VRF red), but none did"]),
        ((), (("leaf2", None),), (("leaf2", None),), ["expected no packet to go by leaf2, but at least one did"]),
        ((), (("leaf2", "red"),), (("leaf2", None),), []),
    ],
)
def test_path_is_judged_whatever_the_outcome(expect, via, not_via, path, reasons):
    found = verdict({"expect": expect, "via": via, "not_via": not_via}, {"outcome": expect}, path)
    assert list(found.reasons) == reasons
    assert found.path == path
