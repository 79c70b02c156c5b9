"""A thin wrapper of the program `kind` (kind.sigs.k8s.io): versions, clusters, images.

What it makes are containers of the engine, which are found by its labels; so nothing but these three is asked of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed import run
from testbed.errors import CommandError, UnsupportedError

OLDEST = (0, 27, 0)  # whose nodes know nftables and kubeadm v1beta4
CLUSTER = "io.x-k8s.kind.cluster"  # a label of its containers
ADVICE = "`go install sigs.k8s.io/kind@v0.32.0` builds it, or see kind.sigs.k8s.io"
IMAGE_TIME = 600.0  # seconds for one image to be loaded into all nodes


def missing() -> str:
    """Why kind cannot be used on this machine, and what to do; empty when it can."""
    for program, advice in (("kind", ADVICE), ("docker", "kind uses Docker's command line: apt install docker-cli")):
        if shutil.which(program) is None:
            return f"{program} is not installed: {advice}"
    try:
        found = version()
    except (CommandError, UnsupportedError) as error:
        return str(error)
    if found < OLDEST:
        wanted, there = (".".join(str(part) for part in entry) for entry in (OLDEST, found))
        return f"kind is of version {there}, and {wanted} is needed: {ADVICE}"
    return ""


def version() -> tuple[int, ...]:
    """The version of kind. Raises CommandError when it does not say one."""
    argv = (_program(), "version", "-q")
    text = run.run(argv, env=_environment("", ""))
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text.strip())
    if match is None:
        raise CommandError(argv, 0, text)
    return tuple(int(part) for part in match.groups())


def create(name: str, config: Path, kubeconfig: Path, *, engine: str, network: str, timeout: float) -> None:
    """Make a cluster; when it fails, kind removes what it has made.

    Args:
        config: file with its configuration. kubeconfig: file that is written for its clients.
        engine: address of the Docker engine. network: the engine's, for its nodes. timeout: seconds.

    Raises:
        CommandError: with kind's words.
    """
    argv = (_program(), "create", "cluster", "--name", name, "--config", str(config), "--kubeconfig", str(kubeconfig))
    run.run((*argv, "--wait", "0s"), env=_environment(engine, network), timeout=timeout)


def load(name: str, image: str, *, engine: str) -> None:
    """Put an image into every node of a cluster.

    Args:
        image: its name on the engine, or the absolute path of an archive of images.
    """
    what = "image-archive" if image.startswith("/") else "docker-image"
    run.run((_program(), "load", what, image, "--name", name), env=_environment(engine, ""), timeout=IMAGE_TIME)


def stop_creating(kubeconfig: Path) -> None:
    """End a `kind create cluster` that its `testbed up` has left behind; it is known by its kubeconfig."""
    for pid in _creating(str(kubeconfig)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _creating(kubeconfig: str) -> Iterator[int]:
    """The processes that make a cluster with this kubeconfig."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words[1:3] == ["create", "cluster"] and kubeconfig in words:
                    yield int(entry.name)


def _program() -> str:
    path = shutil.which("kind")
    if path is None:
        raise UnsupportedError(f"kind is not installed: {ADVICE}")
    return path


def _environment(engine: str, network: str) -> Mapping[str, str]:
    """kind is told all by its environment (kind v0.32.0, pkg/cluster/internal/providers/docker/provider.go).

    A network of the lab's own: the one it would make otherwise stays when its clusters have gone.
    """
    folders = dict.fromkeys(str(Path(path).parent) for name in ("docker", "kind") if (path := shutil.which(name)))
    found = dict(run.ENVIRONMENT) | {"KIND_EXPERIMENTAL_PROVIDER": "docker"}
    found["PATH"] = ":".join([*folders, found["PATH"]])
    if engine:
        found["DOCKER_HOST"] = engine
    if network:
        found["KIND_EXPERIMENTAL_DOCKER_NETWORK"] = network
    return found
