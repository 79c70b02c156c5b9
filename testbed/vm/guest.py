"""Runs inside of the machine: the host's folders, the Docker engine, the command, its status.

Started by machine.py as ``python -m testbed.vm.guest``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed import run
from testbed.errors import DeployError, TestbedError, UnsupportedError
from testbed.runtime import engine
from testbed.runtime import supervisor as system
from testbed.vm import exchange
from testbed.vm.exchange import GUEST, Request
from testbed.vm.streams import Copy
from testbed.wait import Deadline, until

DOCKERD, CONTAINERD = "dockerd", "containerd"
DOCKER = Path("/run/testbed-docker")
SOCKET = "/run/docker.sock"  # the usual place: programs find it without DOCKER_HOST
START, END, LISTEN = 120.0, 10.0, 60.0  # seconds for a daemon to start, to end, and for the host to read all output
NOT_FOUND, NOT_EXECUTABLE, FAILED = 127, 126, 1  # the first two as a shell has it (POSIX, 2.8.2)


def main() -> None:
    """Do what the request says, and leave the exit status for the host."""
    request = exchange.read(GUEST)
    status = FAILED
    try:
        _share(request)
        (GUEST / exchange.STARTED).touch()
        status = _work(request)
    except (TestbedError, OSError) as error:
        print(f"error: in the virtual machine: {error}", file=sys.stderr, flush=True)  # noqa: T201 - all that it prints
    finally:
        os.sync()
        (GUEST / "status.new").write_text(str(status))
        (GUEST / "status.new").rename(GUEST / exchange.STATUS)
        until((GUEST / exchange.DRAINED).exists, Deadline(LISTEN))


def _share(request: Request) -> None:
    """Put the host's folders, which can be written, in their places."""
    system.mount("testbed", "/tmp", "tmpfs", data="mode=1777")  # noqa: S108 - the guest's own
    for number, folder in enumerate(request.shared):
        Path(folder).mkdir(parents=True, exist_ok=True)
        system.mount(str(GUEST / exchange.SHARED / str(number)), folder, flags=system.MS_BIND | system.MS_REC)
    os.chdir(request.folder)


def _work(request: Request) -> int:
    environment = dict(request.environment)
    with contextlib.ExitStack() as stack:
        if request.docker:
            environment["DOCKER_HOST"] = stack.enter_context(_docker(environment))
        try:
            if request.terminal:
                return _on_terminal(request, environment, request.terminal)
            return run.attach(request.argv, env=environment)
        except UnsupportedError:
            print(f"error: there is no program {request.argv[0]}", file=sys.stderr, flush=True)  # noqa: T201
            return NOT_FOUND
        except PermissionError as error:
            print(f"error: {request.argv[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201
            return NOT_EXECUTABLE


def _on_terminal(request: Request, environment: dict[str, str], size: tuple[int, int]) -> int:
    pid, terminal = run.on_terminal(request.argv, environment, size)
    copy = Copy({terminal: 1, 0: terminal})
    while terminal in copy.pairs:
        copy.some(1.0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code


# --- the Docker engine ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _docker(environment: dict[str, str]) -> Iterator[str]:
    """An engine of this machine's own, in memory, with the image that the host has sent; its address.

    containerd is started before it: the one that dockerd starts itself is given up after 15 s, whatever the machine
    (startupTimeout in libcontainerd/supervisor/remote_daemon.go of Moby).
    """
    where = f"{engine.SCHEME}{SOCKET}"
    DOCKER.mkdir(parents=True)
    (DOCKER / "containerd.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    path = {**run.ENVIRONMENT, "PATH": environment.get("PATH", "")}
    containerd = (
        *(CONTAINERD, "--config", str(DOCKER / "containerd.toml"), "--address", str(DOCKER / "containerd.sock")),
        *("--root", str(DOCKER / "containerd"), "--state", str(DOCKER / "containerd-state")),
    )
    dockerd = (
        *(DOCKERD, "--data-root", str(DOCKER / "data"), "--exec-root", str(DOCKER / "exec")),
        *("--pidfile", str(DOCKER / "pid"), "--host", where, "--containerd", str(DOCKER / "containerd.sock")),
    )
    with (
        _answering(containerd, path, lambda: _accepts(DOCKER / "containerd.sock")),
        _answering(dockerd, path, lambda: engine.answers(where)),
    ):
        if (GUEST / exchange.IMAGE).exists():
            _load(where)
        yield where


@contextlib.contextmanager
def _answering(argv: Sequence[str], environment: Mapping[str, str], answers: Callable[[], bool]) -> Iterator[None]:
    """A daemon that answers, for the length of the block."""
    log = DOCKER / f"{argv[0]}.log"
    with run.beside(argv, environment, log=log, grace=END) as daemon:
        until(lambda: answers() or daemon.status is not None, Deadline(START))
        if not answers():
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise DeployError(f"{argv[0]} did not start; its last words:\n{last}")
        yield


def _accepts(where: Path) -> bool:
    """Whether somebody accepts connections at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(str(where)) == 0


def _load(where: str) -> None:
    import docker

    with (
        contextlib.closing(docker.APIClient(base_url=where, timeout=600)) as client,
        (GUEST / exchange.IMAGE).open("rb") as archive,
    ):
        load: Callable[..., Iterable[Any]] = client.load_image
        list(load(archive))
    (GUEST / exchange.IMAGE).unlink()


if __name__ == "__main__":
    main()
