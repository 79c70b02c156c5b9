"""A Service that is reached through a VRF device of the nodes: what each return path does, and where packets go."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from conftest import LABS
from e2e_matrix import (
    ANSWERED,
    LOST,
    REPLY,
    REQUEST,
    Changing,
    blackholed,
    capture,
    checking,
    concerning_the_client,
    several,
    side_by_side,
)

from testbed.report.matrix import wrong

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns", "vrf")]

LAB = str(LABS / "node-vrfs")
MODES = ("iptables", "nftables", "ipvs")
needs_ipvs = pytest.mark.testbed_needs("ipvs", "ipset", "dummy")


@pytest.fixture(scope="module")
def labs() -> Iterator[dict[str, Changing]]:
    """A lab for each mode of kube-proxy."""
    with several(LAB, {mode: f"node-vrfs-{mode}" for mode in MODES}) as found:
        yield found


@pytest.fixture(scope="module")
def lab(labs) -> Changing:
    return labs["nftables"]


@needs_ipvs
def test_every_cell(labs):
    results = side_by_side(labs, "kubeProxyMode")
    assert len(results) == len(MODES) * 3 * 7
    assert [cell.not_run for cell in results if cell.not_run] == []
    assert all(len(cell.verdicts) == 2 for cell in results)
    assert wrong(results) == []
    texts = {cell.text for cell in results}
    assert texts >= {"\N{EN DASH}", "client", "n1 eth0"}, "the cells are all alike"


IPVS = pytest.param("ipvs", "rule-pod-ip", marks=needs_ipvs)


@pytest.mark.parametrize(("proxy", "mode"), [("nftables", "rule-pod-ip"), ("nftables", "connmark"), IPVS])
def test_request_and_reply_take_the_vrf(labs, proxy, mode):
    """Seen on both uplinks; and with a blackhole for a default route in the default instance it still works."""
    lab = labs[proxy]
    lab.enter(kubeProxyMode=proxy, backend="pod-n1", returnPath=mode)
    enslaved = json.loads(lab.node("n1", "ip", "-json", "link", "show", "vrf", "vrf2"))
    assert [entry["ifname"] for entry in enslaved] == ["eth1"]
    with capture(lab.session, "n1", "eth0") as first, capture(lab.session, "n1", "eth1") as second:
        assert lab.outcomes() == ANSWERED
    assert concerning_the_client(second) == {REQUEST, REPLY}
    assert concerning_the_client(first) == set()
    with blackholed(lab):
        assert lab.outcomes() == ANSWERED


@needs_ipvs
@pytest.mark.parametrize(("proxy", "found"), [("nftables", ANSWERED), ("ipvs", LOST)])
def test_ipvs_routes_again_in_the_vrf(labs, proxy, found):
    """The rule for pods has led the reply to an interface of the VRF; the second look-up, which only IPVS makes, is one
    in the VRF's own table. So it takes the default route there, too."""
    lab = labs[proxy]
    lab.enter(kubeProxyMode=proxy, backend="pod-n1", returnPath="rule-pod-ip")
    assert lab.outcomes() == ANSWERED
    with without_the_default_of_the_vrf(lab):
        assert lab.outcomes() == found


@contextlib.contextmanager
def without_the_default_of_the_vrf(lab: Changing) -> Iterator[None]:
    route = ("default", "via", "172.16.2.1", "dev", "eth1", "vrf", "vrf2", "proto", "static")
    try:
        lab.node("n1", "ip", "route", "del", *route)
        lab.session.forget_connections()
        yield
    finally:
        lab.node("n1", "ip", "route", "replace", *route)


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
    lab.enter(kubeProxyMode="nftables", backend=backend, returnPath=mode)
    assert lab.outcomes() == ANSWERED
    for check, valid_mark in ((1, 0), (1, 1), (2, 1)):
        with checking(lab, "n1", check, valid_mark):
            assert (check, valid_mark, lab.outcomes()) == (check, valid_mark, ANSWERED)
