"""Nodes of a user's own images on the containerlab runtime: the verdicts of docker, and nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import own_name, running
from e2e_host import differences, now, remains, snapshot
from e2e_images import images, lab_file, topology_file
from test_containerlab import facts
from test_docker import table
from test_killed_up import kill_at_random_instants

from testbed.runtime import clab, engine
from testbed.runtime.supervised import STATE
from testbed.session import compiled

pytestmark = [
    pytest.mark.live,
    pytest.mark.containerlab,
    pytest.mark.testbed_needs("netns", "docker", "containerlab"),
]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[str, str]]:
    with images(own_name("image")) as found:
        yield found


def test_the_verdict_table_is_that_of_docker(tmp_path: Path, made: tuple[str, str]) -> None:
    """And containerlab shows each node with its image."""
    file = lab_file(tmp_path, made)
    tables = {}
    for runtime in ("docker", "containerlab"):
        with running(compiled(file, own_name(f"same-{runtime}"), runtime=runtime), runtime) as lab:
            tables[runtime] = table(lab)
            if runtime == "containerlab":
                shown = {entry.name: entry.image for entry in clab.inspect(lab.name, engine.address())}
                names = {node: f"clab-{lab.name}-{node}" for node in ("r1", "h1")}
    assert tables["containerlab"] == tables["docker"]
    assert [cells["passed"] for cells in tables["docker"].values()] == [True, True]
    assert (shown[names["h1"]], shown[names["r1"]]) == made


def test_up_and_down_leave_nothing(tmp_path: Path, made: tuple[str, str]) -> None:
    name = own_name("own-gone")
    since, before, host = now(), facts(), snapshot()
    with running(compiled(topology_file(tmp_path, made), name, runtime="containerlab"), "containerlab"):
        assert len(facts()["containers"] - before["containers"]) == 6
        assert (STATE / name / "files/R1").is_dir()
        assert remains(name, since), "a lab that runs is not seen: the check below would prove nothing"
    assert not (STATE / name).exists()
    assert remains(name, since) == []
    assert differences(host, snapshot()) == []
    assert differences(before, facts()) == []


def test_killed_at_random_instants(tmp_path: Path, made: tuple[str, str], record_property) -> None:
    before = facts()
    kill_at_random_instants(
        lab_file(tmp_path, made), 5, record_property, "--runtime", "containerlab", "--timeout", "120"
    )
    assert differences(before, facts()) == []
