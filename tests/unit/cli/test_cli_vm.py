"""`testbed vm`: what its options become. Nothing is booted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from testbed.cli.main import app
from testbed.errors import UnsupportedError
from testbed.runtime import engine
from testbed.vm import kernels, kvm, machine
from testbed.vm.kernels import Kernel


class Booted:
    """What machine.boot was given, and the status it is to return."""

    def __init__(self) -> None:
        self.status = 0
        self.machine: Any = None
        self.request: Any = None
        self.timeout = -1.0
        self.image: Any = None

    def boot(self, one: Any, request: Any, *, timeout: float, image: Any) -> int:
        self.machine, self.request, self.timeout, self.image = one, request, timeout, image
        return self.status


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Booted:
    found = Booted()
    monkeypatch.setattr(machine, "boot", found.boot)
    monkeypatch.setattr(kvm, "demand", lambda: None)
    monkeypatch.setattr(kvm, "answer", lambda: kvm.Kvm(True))
    monkeypatch.setattr(kernels, "find", lambda wanted: Kernel(Path("/boot/vmlinuz"), wanted or "6.1"))
    monkeypatch.setattr("testbed.cli.vm.need_root", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARRIED", "1")
    monkeypatch.delenv("TESTBED_PATIENCE", raising=False)
    return found


def vm(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["vm", *arguments])


def test_without_options(booted: Booted, tmp_path: Path):
    done = vm("--", "ls", "-l", "--all")
    assert done.exit_code == 0, done.output
    assert booted.request.argv == ("ls", "-l", "--all")
    assert (booted.request.folder, booted.request.shared) == (str(tmp_path), (str(tmp_path),))
    assert booted.request.environment["CARRIED"] == "1"
    assert "TESTBED_PATIENCE" not in booted.request.environment
    assert (booted.request.terminal, booted.request.docker) == (None, False)
    assert (booted.machine.kernel.version, booted.machine.memory, booted.machine.kvm) == ("6.1", "4G", True)
    assert 1 <= booted.machine.processors <= 4
    assert (booted.timeout, booted.image) == (0, None)
    assert "Linux 6.1 (KVM)" in done.stderr


def test_options(booted: Booted, tmp_path: Path):
    options = ("--kernel", "6.9", "--memory", "2G", "--cpus", "1", "--network", "--timeout", "5", "--emulate")
    done = vm(*options, "--write", "/srv", "--", "true")
    assert done.exit_code == 0, done.output
    one = booted.machine
    assert (one.kernel.version, one.memory, one.processors, one.kvm, one.network) == ("6.9", "2G", 1, False, True)
    assert booted.request.shared == (str(tmp_path), "/srv")
    assert booted.request.environment["TESTBED_PATIENCE"] == machine.EMULATED
    assert booted.timeout == 5
    assert "Linux 6.9 (emulated: --emulate)" in done.stderr


def test_the_status_is_the_commands(booted: Booted):
    booted.status = 7
    assert vm("--", "false").exit_code == 7
    booted.status = machine.TIMED_OUT
    done = vm("--timeout", "5", "--", "false")
    assert (done.exit_code, "did not end in 5 s" in done.stderr) == (124, True)


def test_an_engine_without_an_image_to_take_along(booted: Booted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    done = vm("--docker", "--", "true")
    assert (done.exit_code, booted.request.docker, booted.image) == (0, True, None)
    assert "no engine here has the image testbed/node:latest" in done.stderr
    assert "DOCKER_HOST" not in booted.request.environment
    assert not engine.answers()


def test_what_is_missing_is_said(booted: Booted, monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise UnsupportedError("QEMU is not installed: apt install qemu-system-x86")

    monkeypatch.setattr(kvm, "demand", refuse)
    done = vm("--", "true")
    assert (done.exit_code, booted.request) == (3, None)
    assert "apt install qemu-system-x86" in done.stderr
