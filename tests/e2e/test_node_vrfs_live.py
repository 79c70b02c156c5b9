"""A Service that is reached through a VRF device of the nodes: what each return path does, and where packets go."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import LABS
from e2e_matrix import (
    ANSWERED,
    REPLY,
    REQUEST,
    Changing,
    blackholed,
    capture,
    changing,
    checking,
    concerning_the_client,
)

from testbed.report.matrix import wrong

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns", "vrf")]

LAB = str(LABS / "node-vrfs")


@pytest.fixture(scope="module")
def lab() -> Iterator[Changing]:
    with changing(LAB, "node-vrfs") as found:
        yield found


def test_every_cell(lab):
    results = lab.run()
    assert len(results) == 3 * 7
    assert [cell.not_run for cell in results if cell.not_run] == []
    assert all(len(cell.verdicts) == 2 for cell in results)
    assert wrong(results) == []
    texts = {cell.text for cell in results}
    assert texts >= {"\N{EN DASH}", "client", "n1 eth0"}, "the cells are all alike"


@pytest.mark.parametrize("mode", ["rule-pod-ip", "connmark"])
def test_request_and_reply_take_the_vrf(lab, mode):
    """Seen on both uplinks; and with a blackhole for a default route in the default instance it still works."""
    lab.enter(backend="pod-n1", returnPath=mode)
    enslaved = json.loads(lab.node("n1", "ip", "-json", "link", "show", "vrf", "vrf2"))
    assert [entry["ifname"] for entry in enslaved] == ["eth1"]
    with capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == ANSWERED
    assert concerning_the_client(second) == {REQUEST, REPLY}
    assert concerning_the_client(first) == set()
    with blackholed(lab):
        assert lab.outcomes() == ANSWERED


CHECKED = [
    ("static", "pod-n1"),
    ("rule-pod-ip", "pod-n1"),
    ("connmark", "pod-n1"),
    ("ctorigdst", "pod-n1"),
    ("connmark", "host-n1"),
]


@pytest.mark.parametrize(("mode", "backend"), CHECKED)
def test_the_source_check_lets_all_pass(lab, mode, backend):
    """Without VRF devices some of these combinations drop packets (test_vrf_return_path) and are refused."""
    lab.enter(backend=backend, returnPath=mode)
    assert lab.outcomes() == ANSWERED
    for check, valid_mark in ((1, 0), (1, 1), (2, 1)):
        with checking(lab, "n1", check, valid_mark):
            assert (check, valid_mark, lab.outcomes()) == (check, valid_mark, ANSWERED)
