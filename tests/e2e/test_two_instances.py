"""The same lab twice at once, with the same addresses: neither sees the other."""

from __future__ import annotations

import pytest
from conftest import EDGE, assert_flows, own_name, pids, running

from testbed.session import compiled

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]


def test_two_instances(edge):
    assert_flows(edge)
    before = pids(edge)
    with running(compiled(EDGE, own_name("edge2"))) as second:
        assert second.plan.nodes == edge.plan.nodes
        own = pids(second)
        assert own.keys() == before.keys()
        assert not set(own.values()) & set(before.values())
        assert_flows(second)
        assert_flows(edge)
    assert not second.exists
    assert pids(edge) == before
    assert_flows(edge)
