"""What the tests of runtimes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_engine import FakeEngine, engine_at

from testbed.runtime import containers, engine


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which labs keep their own, instead of /run/testbed."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(engine, "STATE", folder)
    monkeypatch.setattr(containers, "STATE", folder)
    monkeypatch.setattr("testbed.runtime.supervised.STATE", folder)
    return folder


@pytest.fixture
def fake_engine(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine, and an environment that means it."""
    with engine_at(tmp_path / "docker.sock") as fake:
        monkeypatch.setenv("DOCKER_HOST", fake.address)
        yield fake
