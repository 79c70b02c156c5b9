"""A container's first process: found, ended a moment ago, or on another machine."""

from __future__ import annotations

import os
import subprocess

import pytest
from docker_engine import FakeEngine

from testbed.errors import NoSuchNodeError, UnsupportedError
from testbed.runtime import docker
from testbed.runtime.docker import DockerRuntime


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def running_as(fake: FakeEngine, *pids: int) -> None:
    """The engine says one number after the other; the last one for good."""
    left = list(pids)

    def answer(target: str) -> tuple[int, bytes]:
        fake.put("/containers/c1/json", {"State": {"Pid": left.pop(0) if len(left) > 1 else left[0]}})
        return plain(target)

    plain, fake.answer = fake.answer, answer  # type: ignore[method-assign]


def test_a_process_that_runs(fake_engine: FakeEngine):
    running_as(fake_engine, os.getpid())
    assert DockerRuntime("lab")._process("n1", "c1") == os.getpid()


def test_the_engine_has_not_yet_noticed_that_it_has_ended(fake_engine: FakeEngine):
    gone = ended()
    running_as(fake_engine, gone, gone, 0)
    with pytest.raises(NoSuchNodeError, match="node n1 does not run"):
        DockerRuntime("lab")._process("n1", "c1")


def test_it_has_been_started_anew(fake_engine: FakeEngine):
    running_as(fake_engine, ended(), os.getpid())
    assert DockerRuntime("lab")._process("n1", "c1") == os.getpid()


def test_it_has_been_removed(fake_engine: FakeEngine):
    with pytest.raises(NoSuchNodeError):
        DockerRuntime("lab")._process("n1", "c1")


def test_it_goes_on_where_it_cannot_be_seen(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(docker, "NOTICE", 0.1)
    running_as(fake_engine, ended())
    with pytest.raises(UnsupportedError, match="runs its containers on another machine"):
        DockerRuntime("lab")._process("n1", "c1")
