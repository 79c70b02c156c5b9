"""Whether this machine has what the docker runtime needs: an engine and its set-up, and the image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from testbed.errors import UnsupportedError
from testbed.runtime import engine, image
from testbed.runtime.doctor import Finding
from testbed.runtime.image_build import MMDEBSTRAP

COPYING = ("vfs",)  # storage drivers that copy the whole image for every container


def examine() -> list[Finding]:
    """Look at the engine of the environment; where none answers, that is all there is to say. Changes nothing."""
    where = engine.address()
    try:
        facts = engine.ask(where, "/info")
        state = image.state(where)
        there = image.found(where)
    except UnsupportedError as error:
        advice = f"{error}; start it, or apt install docker.io"
        return [_finding("Docker engine", "--runtime docker", works=False, advice=advice)]
    return [*_engine(where, facts), _image(state, there), _builder()]


def _finding(name: str, purpose: str, *, works: bool = True, detail: str = "", advice: str = "") -> Finding:
    return Finding(name, "docker", works, False, purpose, detail, "" if works else advice)


def _engine(where: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    yield _finding("Docker engine", "--runtime docker", detail=f"{facts['ServerVersion']}, {where}")
    version = facts.get("CgroupVersion", "1")
    yield _finding("cgroups", "containers", detail=f"version {version}, by {facts['CgroupDriver']}")
    driver = facts["Driver"]
    yield _finding(
        "storage driver",
        "a node's file system",
        works=driver not in COPYING,
        detail=driver,
        advice=f"{driver} copies the image for every node: have the engine use overlay2 (dockerd --storage-driver)",
    )
    rootless = any(option.startswith("name=rootless") for option in facts.get("SecurityOptions") or ())
    yield _finding(
        "root's engine",
        "nodes mount file systems",
        works=not rootless,
        advice="a rootless engine may not do what nodes need: have DOCKER_HOST name root's",
    )


def _image(state: image.State, there: image.Image | None) -> Finding:
    advice = f"the image is {state}: `testbed image build` makes it, as does the first `testbed up --runtime docker`"
    detail = f"{there.size / 1e6:.0f} MB, from {there.source}" if there else ""
    return _finding(image.NAME, "every node", works=state == "present", detail=detail, advice=advice)


def _builder() -> Finding:
    there = os.access(MMDEBSTRAP, os.X_OK)
    return _finding("mmdebstrap", "the image without a registry", works=there, advice="apt install mmdebstrap")
