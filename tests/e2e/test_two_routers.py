"""The smallest lab of the project: up, its flows, down."""

from __future__ import annotations

import pytest
from conftest import TWO_ROUTERS, own_name

from testbed.errors import NoSuchLabError
from testbed.session import Session, compiled
from testbed.session import running as running_labs

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]


def test_up_flows_down():
    plan = compiled(TWO_ROUTERS, own_name("two"))
    with Session(plan.name) as session:
        try:
            change = session.up(plan)
            assert {node.name for node in change.added} == {"r1", "r2", "h1", "h2"}
            assert plan.name in running_labs()
            assert session.plan == plan
            verdicts = session.test()
            assert {entry.flow.name: entry.passed for entry in verdicts} == {"ping": True, "ping-v6": True, "tcp": True}
            assert session.status().problems == ()
        finally:
            assert session.down()
        assert not session.exists
        assert not session.directory.exists()
        assert plan.name not in running_labs()
        assert not session.down(), "there was something left to end"
        with pytest.raises(NoSuchLabError, match="not running"):
            session.nodes()
