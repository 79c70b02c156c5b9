"""What a cluster did when a node ended, as lines and as data."""

from __future__ import annotations

from dataclasses import replace

from testbed.deploy.watch import Reaction
from testbed.plan import Plan, Service
from testbed.report.reactions import reaction_data, reaction_lines

APP = Service("app", "default", "LoadBalancer", ("10.96.0.9",), ("80/TCP",), ("3.3.3.3",), ("a:80", "b:80"), ("n1",))
OTHER = replace(APP, name="other", announced_by=("n2",))
BEFORE = Plan("lab", services=(APP, OTHER))
AFTER = Plan("lab", services=(replace(APP, endpoints=("b:80",), announced_by=("n2",)), OTHER), not_ready=("n1",))


def test_what_changed_for_services() -> None:
    assert reaction_lines(Reaction(("n1",), BEFORE, AFTER, 0.25)) == [
        "n1 has ended: not ready",
        "  Service default/app: announced by n2, before by n1",
        "  Service default/app: 1 endpoint less, 1 left",
        "  applied in 250 ms",
    ]


def test_nobody_announces() -> None:
    after = replace(AFTER, services=(replace(APP, announced_by=()), OTHER))
    lines = reaction_lines(Reaction(("n1", "n2"), BEFORE, after, 0.25))
    assert lines[:2] == [
        "n1, n2 have ended: not ready",
        "  Service default/app: announced by nobody, before by n1",
    ]


def test_nothing_was_changed() -> None:
    assert reaction_lines(Reaction(("n1",), BEFORE, BEFORE, 0.1, "a.yaml:3:1: no node can\nanother")) == [
        "n1 has ended: not ready",
        "  a.yaml:3:1: no node can",
        "  another",
        "  nothing was changed",
    ]


def test_data() -> None:
    found = reaction_data(Reaction(("n1",), BEFORE, AFTER, 0.25))
    assert found["ended"] == ["n1"]
    assert found["services"][0] == {
        "namespace": "default",
        "name": "app",
        "endpoints": ["b:80"],
        "announcedBy": ["n2"],
    }
