"""Runs containerlab: arguments in, dataclasses out. The program is the user's own, found on PATH.

Source: containerlab's documents, docs/cmd/{deploy,destroy,inspect,validate,version}.md.

What it does to a host besides making containers is kept from this one. It writes /etc/hosts, /etc/ssh/ssh_config.d,
/run/netns and /tmp/.clab, and makes every link in its own network namespace before it moves the ends to the nodes:
killed in between, it would leave them there. So where it changes something it is run in a mount namespace in which
these places are its own, and in a network namespace of its own; when it ends, however it ends, they are gone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from testbed import run as door
from testbed.errors import CommandError, DeployError, UnsupportedError
from testbed.runtime import lock, processes
from testbed.wait import Deadline

PROGRAM = "containerlab"
MINIMUM = (0, 78)  # the first whose `deploy` adds to a lab that runs
UNKNOWN = (0, 0, 0)  # built from source without a version: taken for new enough
MODULES = Path("/proc/modules")
SCHEME = "unix://"
LONG = 900.0  # seconds that it may take for a lab
HIDDEN = {"/run": "mode=755", "/tmp": "mode=1777"}  # noqa: S108 - places that are its own
HOSTS, SSH = "/etc/hosts", "/etc/ssh/ssh_config.d"
MS_NOSUID, MS_BIND, MS_REC, MS_PRIVATE = 2, 4096, 16384, 1 << 18  # Linux include/uapi/linux/mount.h


@dataclass(frozen=True, slots=True)
class Container:
    """A container as containerlab shows it; `state` in Docker's words, `topology`: the file it is from."""

    lab: str
    name: str
    id: str
    kind: str
    image: str
    state: str
    topology: str


def program() -> str:
    """Where containerlab is. Raises UnsupportedError when it is not on PATH."""
    found = shutil.which(PROGRAM)
    if not found:
        raise UnsupportedError(
            f"{PROGRAM} is not on PATH: install it (containerlab.dev/install), or use another --runtime"
        )
    return str(Path(found).resolve())


def version() -> str:
    """The program's version ("0.79.0"). Raises UnsupportedError or CommandError when it cannot be asked."""
    answer = _json([program(), "version", "--json"], _ask("version", "--json"))
    return str(answer["version"])


def missing() -> str:
    """What is in the way of running containerlab here, and what to do about it; empty when nothing is."""
    try:
        found = version()
    except (UnsupportedError, CommandError) as error:
        return str(error)
    if not _new_enough(found):
        minimum = ".".join(map(str, MINIMUM))
        return f"{program()} is version {found}: {minimum} or later is needed (`containerlab version upgrade`)"
    if not MODULES.exists():
        return (
            f"containerlab needs {MODULES}, and this kernel was built without loadable modules: "
            "`testbed vm -- COMMAND` runs it on a distribution's kernel"
        )
    return ""


def check() -> None:
    """Raise UnsupportedError with what `missing` says."""
    if reason := missing():
        raise UnsupportedError(reason)


def _new_enough(text: str) -> bool:
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    return numbers == UNKNOWN or numbers >= MINIMUM


# --- questions --------------------------------------------------------------------------------------------------------


def inspect(lab: str, engine: str) -> list[Container]:
    """The containers of a lab, by name.

    Args:
        engine: address of the Docker engine.

    Raises:
        CommandError: there is no such lab.
    """
    arguments = ("inspect", "--name", lab, "--format", "json")
    return _containers(_json([PROGRAM, *arguments], _ask(*arguments, engine=engine)))


def validate(topology: Path, engine: str) -> None:
    """Have containerlab read a topology file. Raises CommandError with what is wrong with it."""
    _ask("validate", "--topo", str(topology), engine=engine)


def _ask(*arguments: str, engine: str = "") -> str:
    return door.run([program(), *arguments], env=_environment(engine))


# --- changes ----------------------------------------------------------------------------------------------------------


def alone(waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[int]:
    """Hold the lock under which one containerlab at a time makes or ends a lab on this machine.

    Its descriptor is inherited by the program, which may outlive us. `waiting`: called while it is not to be had.
    """
    return lock.held(PROGRAM, LONG, "another containerlab that testbed started does not end", waiting)


def deploy(topology: Path, engine: str, held: int) -> list[Container]:
    """Make a lab, or add to one that runs; returns its containers.

    Args:
        held: descriptor of the lock.

    Raises:
        CommandError: with the program's words. What it made until then is there.
    """
    arguments = ("deploy", "--topo", str(topology), "--skip-post-deploy", "--skip-labdir-acl", "--format", "json")
    return _containers(_json([PROGRAM, *arguments], _change(arguments, topology, engine, held)))


def destroy(topology: Path, engine: str, held: int) -> None:
    """End a lab. To be used under the lock. Raises CommandError with the program's words."""
    _change(("destroy", "--topo", str(topology), "--cleanup", "--yes"), topology, engine, held)


def kill(topology: Path, deadline: Deadline) -> None:
    """End every containerlab that works on this topology file: whoever started it has been killed."""
    while pids := [pid for pid, argv in processes.running() if _works_on(argv, str(topology))]:
        for pid in pids:
            if not processes.end(pid, deadline):
                raise DeployError(f"{PROGRAM} (process {pid}) does not end")


def _works_on(argv: Sequence[str], topology: str) -> bool:
    return Path(argv[0]).name.startswith(PROGRAM) and topology in argv


def _change(arguments: Sequence[str], topology: Path, engine: str, held: int) -> str:
    where = program()
    kept = (str(topology.parent), engine.removeprefix(SCHEME), where)
    environment = _environment(engine)
    return door.run([where, *arguments], env=environment, apart=partial(_apart, kept), keep=(held,), timeout=LONG)


def _environment(engine: str) -> Mapping[str, str]:
    """The version check asks the Internet, and waits for it; progress bars and colours are for terminals."""
    return {
        **door.ENVIRONMENT,
        "CLAB_VERSION_CHECK": "disable",
        "NO_COLOR": "1",
        **({"DOCKER_HOST": engine} if engine else {}),
    }


def _apart(kept: Iterable[str]) -> None:
    """Give the calling thread a mount namespace where what containerlab writes is its own, and a network namespace.

    Args:
        kept: files and folders that are the host's all the same, wherever they are.
    """
    door.unshare(door.CLONE_NEWNS | door.CLONE_NEWNET)
    try:
        door.mount("none", "/", flags=MS_REC | MS_PRIVATE)
        opened = [(real, os.open(real, os.O_PATH)) for real in map(os.path.realpath, kept)]
        for place, options in HIDDEN.items():
            door.mount("testbed", place, "tmpfs", MS_NOSUID, options)
        for path, descriptor in opened:
            if path.startswith(tuple(f"{place}/" for place in HIDDEN)):
                _put_back(path, descriptor)
            os.close(descriptor)
        if Path(HOSTS).exists():
            shutil.copy(HOSTS, "/tmp/hosts")  # noqa: S108 - its own
            door.mount("/tmp/hosts", HOSTS, flags=MS_BIND)  # noqa: S108
        if Path(SSH).is_dir():
            door.mount("testbed", SSH, "tmpfs", MS_NOSUID, "mode=755")
    except OSError as error:
        raise DeployError(f"{PROGRAM} cannot be kept apart from the host: {error}") from None


def _put_back(path: str, descriptor: int) -> None:
    target = Path(path)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    door.mount(f"/proc/self/fd/{descriptor}", path, flags=MS_BIND)


# --- answers ----------------------------------------------------------------------------------------------------------


def _json(argv: Sequence[str], text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise CommandError(argv, 0, f"it was expected to answer in JSON: {text[:200]}") from None


def _containers(answer: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Container]:
    return sorted(
        (
            Container(
                lab=lab,
                name=entry["name"],
                id=entry["container_id"],
                kind=entry["kind"],
                image=entry["image"],
                state=entry["state"],
                topology=entry["absLabPath"],
            )
            for lab, entries in answer.items()
            for entry in entries
        ),
        key=lambda container: container.name,
    )
