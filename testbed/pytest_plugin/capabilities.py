"""What a machine must have for live tests. What is missing is said, and can be demanded."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

import pytest

from testbed.pytest_plugin import features

if TYPE_CHECKING:
    from testbed.plan import Plan

NOT_RUN = "not run: "
CHROMIUM = "/usr/bin/chromium"


@functools.cache
def _netns() -> str:
    """Tried, not assumed: root in a container may lack any of these."""
    from testbed.runtime import kernel

    trials = {
        "namespaces": kernel.namespaces,
        "overlay file systems": kernel.overlay,
        "sysctls of a namespace": kernel.sysctls,
        "veth links": kernel.VETH,
    }
    for name, answer in kernel.try_all(trials).items():
        if not answer.works:
            return f"labs need root and {name}: {answer.detail}"
    return ""


@functools.cache
def _docker() -> str:
    from testbed.runtime import engine

    where = engine.address()
    return "" if engine.answers(where) else f"no Docker engine answers at {where} (DOCKER_HOST)"


@functools.cache
def _containerlab() -> str:
    from testbed.runtime import clab

    return clab.missing() or _docker()


def _browser() -> str:
    return "" if os.access(CHROMIUM, os.X_OK) else f"no {CHROMIUM} (Debian: chromium)"


def _graphviz() -> str:
    from testbed.report.picture import GRAPHVIZ

    return "" if os.access(GRAPHVIZ, os.X_OK) else f"no {GRAPHVIZ} (Debian: graphviz)"


@functools.cache
def _kind() -> str:
    from testbed.model.lab import KIND_NODE_IMAGE
    from testbed.runtime import engine, kind_tool

    if reason := kind_tool.missing() or _docker():
        return reason
    if engine.ask(engine.address(), f"/images/{KIND_NODE_IMAGE}/json") is None:
        return f"the engine has no image {KIND_NODE_IMAGE} (docker pull)"
    return ""


@functools.cache
def _apiserver() -> str:
    absent = [name for name in ("etcd", "kube-apiserver") if shutil.which(name) is None]
    return f"not in PATH: {', '.join(absent)}" if absent else ""


# What can be found missing before any lab is known, by name; "" means that it is there.
_PROBES: Mapping[str, Callable[[], str]] = {
    "netns": _netns,
    "docker": _docker,
    "containerlab": _containerlab,
    "graphviz": _graphviz,
    "browser": _browser,
    "kind": _kind,
    "apiserver": _apiserver,
    "vm": features.machine,
    **features.PROBES,
}
# netns: privileges and kernel features that every lab needs; programs: those that a lab's nodes run; kernel: features
# that only some labs need, found missing when such a lab starts; docker: an engine, for the docker runtime;
# containerlab: the program, on a kernel that it runs on, and an engine; graphviz: pictures; browser: for tests of
# pages; kind: docker, kind, and the image of its nodes; apiserver: the API server of Kubernetes and its store, as
# programs; vm: what `testbed vm` needs; and single features of the kernel.
CAPABILITIES = ("netns", "programs", "kernel", *(name for name in _PROBES if name != "netns"))


def missing_programs(plan: Plan) -> str:
    """The programs of a lab that are not installed, as a reason not to run it; empty when none is missing."""
    from testbed.deploy.rulesets import LOADERS

    wanted = {LOADERS[entry.tool][0] for node in plan.nodes for entry in node.rulesets if entry.tool in LOADERS}
    for node in plan.nodes:
        wanted |= {process.argv[0] for process in node.processes} - {file.path for file in node.files}
    absent = sorted(path for path in wanted if not os.access(path, os.X_OK))
    return f"not installed: {', '.join(absent)} (`testbed doctor` says how to get them)" if absent else ""


def require(config: pytest.Config, capability: str) -> None:
    """Skip the current test, or fail it where that was demanded, when a capability is missing."""
    if capability not in _PROBES:
        raise pytest.UsageError(f"testbed_needs: no capability {capability!r} (choose from {', '.join(_PROBES)})")
    if reason := _PROBES[capability]():
        not_run(config, capability, reason)


def not_run(config: pytest.Config, capability: str, reason: str) -> NoReturn:
    """End the current test: it cannot be run here, for lack of this capability."""
    demanded = _names(config.getoption("--testbed-require"))
    if capability in demanded or "all" in demanded:
        pytest.fail(f"{NOT_RUN}{reason} (--testbed-require demands {capability})", pytrace=False)
    pytest.skip(f"{NOT_RUN}{reason}")


def unknown(demanded: str) -> str:
    """The first name in the value of --testbed-require that is no capability; empty when all are."""
    return next((name for name in _names(demanded) if name not in (*CAPABILITIES, "all")), "")


def _names(demanded: str) -> list[str]:
    return [name.strip() for name in demanded.split(",") if name.strip()]
