"""containerlab reads the topology files that are made for it: here and on kernels on which it makes no lab."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import EDGE, TWO_ROUTERS
from e2e_images import topology_file

from testbed.errors import CommandError, UnsupportedError
from testbed.export import clab_topology
from testbed.export import containerlab as export
from testbed.pytest_plugin.capabilities import not_run
from testbed.runtime import clab, clab_files, engine
from testbed.runtime.containerlab import ContainerlabRuntime
from testbed.session import compiled

pytestmark = [pytest.mark.live, pytest.mark.containerlab, pytest.mark.testbed_needs("docker")]


@pytest.fixture(autouse=True)
def program(request: pytest.FixtureRequest) -> str:
    try:
        return clab.program()
    except UnsupportedError as error:
        not_run(request.config, "containerlab", str(error))


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.mark.parametrize("lab", [EDGE, TWO_ROUTERS], ids=["edge", "two-routers"])
def test_the_topology_of_a_lab(lab, tmp_path):
    plan = compiled(lab, "valid")
    runtime = ContainerlabRuntime("valid")
    runtime.directory, runtime.topology = tmp_path, tmp_path / "valid.clab.yml"
    (tmp_path / "supervisor.py").touch()  # it is looked for
    runtime.write_topology(plan, export.links_between(plan))
    clab.validate(runtime.topology, engine.address())
    runtime.topology.write_text(runtime.topology.read_text().replace("  nodes:", "  nodez:", 1))
    with pytest.raises(CommandError, match="nodez"):
        clab.validate(runtime.topology, engine.address())


def test_the_topology_of_nodes_of_their_own_images(tmp_path):
    plan = compiled(topology_file(tmp_path, ("own/box:1", "own/frr:1")), "valid", runtime="containerlab")
    runtime = ContainerlabRuntime("valid")
    runtime.directory, runtime.topology = tmp_path, tmp_path / "valid.clab.yml"
    (tmp_path / "supervisor.py").touch()  # it is looked for, as what is bound is
    for node in plan.nodes:
        clab_files.write(tmp_path / "files" / node.name, node, {}, {})
    runtime.write_topology(plan, export.links_between(plan))
    clab.validate(runtime.topology, engine.address())
    (tmp_path / "files/R1/0").unlink()
    with pytest.raises(CommandError, match="files/R1/0"):
        clab.validate(runtime.topology, engine.address())


def test_a_topology_to_take_away(tmp_path):
    write_all(tmp_path, clab_topology.render(compiled(TWO_ROUTERS, "valid")))
    clab.validate(tmp_path / "valid.clab.yml", engine.address())
    (tmp_path / "r1/etc_frr_bgpd.conf").unlink()
    with pytest.raises(CommandError, match=r"etc_frr_bgpd\.conf"):
        clab.validate(tmp_path / "valid.clab.yml", engine.address())
