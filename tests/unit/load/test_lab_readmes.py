"""The truth tables in the READMEs of labs are the ones their matrices assert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.load.cells import Cell, cells, row_of
from testbed.load.matrix import Variants
from testbed.load.shipped import labs_folder
from testbed.model.matrix import Matrix

Table = dict[tuple[str, str], str]
"""(first column, heading) → cell."""
Rows = dict[str, tuple[str, ...]]
"""First column → the values of the axes that it stands for."""

ROWS: Rows = {
    "Cluster, pod on n1": ("Cluster", "pod-n1"),
    "Cluster, pod on n2": ("Cluster", "pod-n2"),
    "Cluster, hostNetwork on n1": ("Cluster", "host-n1"),
    "Local, pod on n1": ("Local", "pod-n1"),
    "Local, pod on n2": ("Local", "pod-n2"),
    "Local, hostNetwork on n1": ("Local", "host-n1"),
}
NODE_VRFS_ROWS: Rows = {
    "pod on n1": ("pod-n1",),
    "pod on n2": ("pod-n2",),
    "hostNetwork on n1": ("host-n1",),
}
ADDRESSES = {"vrf1": "n1 eth0", "vrf2": "n1 eth1"}


def tables(lab: str) -> list[Table]:
    """The tables of a README, in order."""
    found: list[Table] = []
    heads: list[str] = []
    for line in Path(labs_folder(), lab, "README.md").read_text().splitlines():
        fields = [field.strip() for field in line.strip("|").split("|")]
        if not line.startswith("|"):
            heads = []
        elif not heads:
            heads = fields
            found.append({})
        elif set(fields[0]) != {"-"}:
            found[-1] |= {(fields[0], head): cell for head, cell in zip(heads[1:], fields[1:], strict=True)}
    return found


def told(fields: dict[str, Any]) -> str:
    """An expectation as the tables have it."""
    seen = fields.get("seenAs")
    if seen is None:
        assert fields["expect"] in ("timeout", "reset")
        return "–"
    return ADDRESSES[seen["vrf"]] if isinstance(seen, dict) else seen


def outcome(matrix: Matrix, cell: Cell) -> str:
    """What the matrix expects in a cell, over TCP and UDP, as the tables have it."""
    found = row_of(matrix, cell)
    assert found
    texts = [told(found[1].flows[flow]) for flow in ("tcp", "udp")]
    return texts[0] if texts[0] == texts[1] else " / ".join(texts)


@pytest.mark.parametrize(("table", "modes"), [(0, ("iptables", "nftables")), (1, ("ipvs",))])
@pytest.mark.parametrize(
    ("lab", "rows", "axes", "size"),
    [
        pytest.param("vrf-return-path", ROWS, ("externalTrafficPolicy", "backend"), 42, id="vrf-return-path"),
        pytest.param("node-vrfs", NODE_VRFS_ROWS, ("backend",), 21, id="node-vrfs"),
    ],
)
def test_tables_by_mode_of_kube_proxy(
    lab: str, rows: Rows, axes: tuple[str, ...], size: int, table: int, modes: tuple[str, ...]
) -> None:
    matrix = Variants(str(labs_folder() / lab)).matrix
    known = tables(lab)[table]
    names = {key: text for text, key in rows.items()}
    compared = 0
    for cell in cells(matrix):
        values = dict(cell.values)
        if values["kubeProxyMode"] not in modes:
            continue
        row = names[tuple(values[axis] for axis in axes)]
        assert known[row, values["returnPath"]] == outcome(matrix, cell), cell.name
        compared += 1
    assert compared == len(known) * len(modes) == size * len(modes)


@pytest.mark.parametrize("table", [0, 1], ids=["English", "Chinese"])
def test_vrf_host(table: int) -> None:
    matrix = Variants(str(labs_folder() / "vrf-host")).matrix
    cells_found = list(tables("vrf-host")[table].values())
    expected = []
    for flow in matrix.flows:
        for cell in cells(matrix):
            found = row_of(matrix, cell)
            assert found
            expected.append(told(found[1].flows[flow]))
    assert [text.strip("*") for text in cells_found] == expected
    assert len(expected) == 16
