"""What the doctor says of a Docker engine."""

from __future__ import annotations

import pytest
from docker_engine import FakeEngine

from testbed.runtime import docker_doctor, image
from testbed.runtime.doctor import Finding

INFO = {
    "ServerVersion": "28.0.1",
    "CgroupVersion": "2",
    "CgroupDriver": "systemd",
    "Driver": "overlay2",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"],
}


def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in docker_doctor.examine()}


def test_without_an_engine_there_is_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    (finding,) = docker_doctor.examine()
    assert (finding.name, finding.works, finding.fatal) == ("Docker engine", False, False)
    assert "no Docker engine answers at unix:///nonexistent/docker.sock" in finding.advice
    assert "apt install docker.io" in finding.advice


def test_an_engine_that_has_everything(fake_engine: FakeEngine) -> None:
    fake_engine.put("/info", INFO)
    labels = {image.HASH: image.recipe().hash, image.SOURCE: "registry"}
    fake_engine.put(f"/images/{image.NAME}/json", {"Id": "1", "Size": 153_000_000, "Config": {"Labels": labels}})
    found = findings()
    assert found["Docker engine"].detail == f"28.0.1, {fake_engine.address}"
    assert found["cgroups"].detail == "version 2, by systemd"
    assert found["storage driver"].works
    assert found["root's engine"].works
    assert (found[image.NAME].works, found[image.NAME].detail) == (True, "153 MB, from registry")
    assert not any(finding.fatal for finding in found.values())


def test_what_is_wrong_says_what_to_do(fake_engine: FakeEngine) -> None:
    fake_engine.put("/info", INFO | {"Driver": "vfs", "SecurityOptions": ["name=rootless"]})
    found = findings()
    assert (found["storage driver"].works, "overlay2" in found["storage driver"].advice) == (False, True)
    assert (found["root's engine"].works, "DOCKER_HOST" in found["root's engine"].advice) == (False, True)
    assert found[image.NAME].advice.startswith("the image is missing: `testbed image build` makes it")
