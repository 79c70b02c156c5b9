"""The fabrics that the benchmarks build."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from testbed.plan import Plan
from testbed.session import compiled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[(4, 16), (6, 44), (1, 2)], ids=["20 routers", "50 routers", "3 routers"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    return found


@pytest.fixture
def plan(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.fabric import Fabric, lab_text

    path = tmp_path / "lab.yaml"
    path.write_text(lab_text(Fabric(*size)))
    return compiled(str(path))


def test_every_leaf_has_a_link_to_every_spine(plan: Plan, size: tuple[int, int]) -> None:
    spines, leaves = size
    assert Counter(node.name.rstrip("0123456789") for node in plan.nodes) == {"spine": spines, "leaf": leaves}
    assert {frozenset((link.a.node, link.b.node)) for link in plan.links} == {
        frozenset((f"leaf{leaf}", f"spine{spine}")) for leaf in range(1, leaves + 1) for spine in range(1, spines + 1)
    }
    assert len(plan.links) == spines * leaves
    assert len(plan.sessions) == 2 * len(plan.links)


def test_an_as_for_each_leaf_and_one_for_all_spines(plan: Plan, size: tuple[int, int]) -> None:
    numbers = {}
    for node in plan.nodes:
        (config,) = [str(file.content) for file in node.files if file.path == "/etc/frr/bgpd.conf"]
        (numbers[node.name],) = {line.split()[2] for line in config.splitlines() if line.startswith("router bgp ")}
    leaves = [number for name, number in numbers.items() if name.startswith("leaf")]
    spines = {number for name, number in numbers.items() if name.startswith("spine")}
    assert len(set(leaves)) == size[1]
    assert len(spines) == 1
    assert spines.isdisjoint(leaves)


def test_every_router_learns_every_leaf(plan: Plan) -> None:
    loopbacks = {
        node.name: address
        for node in plan.nodes
        for interface in node.interfaces
        if interface.kind == "loopback"
        for address in interface.addresses
    }
    expected = {(route.node, route.prefix) for route in plan.routes}
    for leaf, prefix in loopbacks.items():
        if leaf.startswith("leaf"):
            assert {node for node, learned in expected if learned == prefix} == set(loopbacks) - {leaf}


def test_ipv4_only(plan: Plan) -> None:
    assert not [
        address for node in plan.nodes for entry in node.interfaces for address in entry.addresses if ":" in address
    ]
