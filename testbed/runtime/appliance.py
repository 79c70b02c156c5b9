"""A container of a user's own image as a node: its programs are started by the image, and nothing of ours runs in it.

Its files are put into it before it starts; links, addresses and routes are programmed in its network namespace by the
same code as every node's. `Appliance` answers what a supervisor is asked, from outside, as far as it can be answered.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from testbed import run as door
from testbed.errors import DeployError, NoSuchLabError, UnsupportedError
from testbed.plan import Node
from testbed.run import Namespaces
from testbed.runtime.base import NodeState, ProcessState
from testbed.runtime.client import Supervisor, file_request
from testbed.runtime.supervisor import open_network_sysctls, raise_loopback

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "testbed.appliance"
# The engine mounts files of its own over these when a container starts.
MOUNTED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
SYSCTLS = "/proc/sys/net"
FIRST = 1  # the number of a container's first process, in the container
Owners = Mapping[str, tuple[int, int]]  # user → (user id, group id)


def create(client: DockerClient, node: Node, **settings: Any) -> str:
    """Make the container of a node, with its files, not yet started; its image is pulled where it is missing.

    Args:
        settings: more of what the Docker SDK's `containers.create` takes.

    Returns:
        The container's id.

    Raises:
        UnsupportedError: there is no such image, and it cannot be pulled.
    """
    provide_image(client, node)
    container = client.containers.create(
        node.image,
        command=list(node.cmd) or None,
        entrypoint=list(node.entrypoint) or None,
        environment=dict(node.env),
        tty=True,  # an image that only opens a shell goes on running, as with containerlab
        stdin_open=True,
        **settings,
    )
    return str(container.id)


def provide_image(client: DockerClient, node: Node) -> None:
    """Have the engine pull a node's image where it is missing. Raises UnsupportedError when it cannot be had."""
    import docker

    try:
        if not _has(client, node.image):
            client.images.pull(node.image)
    except docker.errors.DockerException as error:
        reason = getattr(error, "explanation", "") or error
        message = f"{node.name}: the image {node.image} is not on the Docker engine and cannot be pulled: {reason}"
        raise UnsupportedError(f"{message} (`docker load` or `docker pull` brings it there)") from None


def _has(client: DockerClient, image: str) -> bool:
    import docker

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


def fill(client: DockerClient, container: str, node: Node, contents: Mapping[tuple[str, str], str]) -> None:
    """Put a node's files and directories into its container, which does not run."""
    import docker

    request = file_request(node, contents)
    users = owners(client, container)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, owner in request["directories"]:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.uid, entry.gid = users.get(owner, (0, 0))
            archive.addfile(entry)
        for file in request["files"]:
            if file["path"] not in MOUNTED:
                content = file["content"].encode()
                entry = tarfile.TarInfo(file["path"].lstrip("/"))
                entry.size, entry.mode = len(content), file["mode"]
                entry.uid, entry.gid = users.get(file["owner"], (0, 0))
                archive.addfile(entry, io.BytesIO(content))
    try:
        client.api.put_archive(container, "/", buffer.getvalue())
    except docker.errors.APIError as error:
        raise DeployError(f"{node.name}: its files cannot be put into its container: {error.explanation}") from None


def start(client: DockerClient, container: str, node: Node) -> None:
    """Start the container of a node. Raises DeployError when its program cannot be run."""
    import docker

    try:
        client.api.start(container)
    except docker.errors.APIError as error:
        raise DeployError(f"{node.name}: its image {node.image} cannot be run: {error.explanation}") from None


def owners(client: DockerClient, container: str) -> Owners:
    """The users of a container, as its /etc/passwd has them."""
    import docker

    try:
        parts, _ = client.api.get_archive(container, "/etc/passwd")
    except docker.errors.NotFound:
        return {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        stream = archive.extractfile("passwd")
        lines = stream.read().decode(errors="replace").splitlines() if stream else []
    fields = [line.split(":") for line in lines]
    return {entry[0]: (int(entry[2]), int(entry[3])) for entry in fields if len(entry) > 3 and entry[2].isdigit()}


class Appliance(Supervisor):
    """A running container of a user's image, asked from outside.

    Args:
        pid: of its first process, as this machine numbers it. node: its name. where: the same, for messages.
    """

    def __init__(self, pid: int, node: str, where: str) -> None:
        super().__init__(Path(f"/proc/{pid}"), where)
        self._node = node
        self._spaces: Namespaces | None = None
        self._entering = threading.Lock()

    def connect(self) -> bool:
        return self._path.exists()

    def close(self) -> None:
        self.forget_namespaces()

    def ask(self, op: str, **request: Any) -> tuple[dict[str, Any], list[int]]:
        if not self.connect():
            raise NoSuchLabError(f"{self._where} is not running")
        if op == "adopt":
            self._adopt(request)
        else:
            raise DeployError(f"{self._node} runs an image of its own, whose programs and files are not changed")
        return {}, []

    def _adopt(self, request: Mapping[str, Any]) -> None:
        """Do in the namespaces of the container what its engine leaves undone."""

        def work() -> None:
            open_network_sysctls()
            raise_loopback()

        if not self._adopted:
            door.inside(self.node(self._node)[0], work)
        for file in request["files"]:
            if file["path"] in MOUNTED:
                Path(f"{self._path}/root{file['path']}").write_text(file["content"])

    @property
    def _adopted(self) -> bool:
        """Whether `adopt` was asked since the container started: its mount of the sysctls goes with its processes."""
        mounts = (self._path / "mountinfo").read_text().splitlines()
        return any(line.split()[4] == SYSCTLS for line in mounts)

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def node(self, node: str) -> tuple[Namespaces, dict[str, int], int]:
        with self._entering:
            if self._spaces is None:
                try:
                    self._spaces = Namespaces.of(node, self._path)
                except OSError:
                    raise NoSuchLabError(f"{self._where} is not running") from None
            return self._spaces, {}, FIRST

    def holder(self, node: str) -> int:  # noqa: ARG002 - it is one node
        try:
            return os.pidfd_open(int(self._path.name))
        except OSError:
            raise NoSuchLabError(f"{self._where} is not running") from None

    def forget_namespaces(self, node: str = "") -> None:  # noqa: ARG002 - it is one node
        with self._entering:
            if self._spaces is not None:
                spaces, self._spaces = self._spaces, None
                spaces.close()

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NodeState]:
        """The node with the programs that run in its container, by the names of their files; none before `adopt`."""
        try:
            if not self._adopted:
                return {}
        except OSError:
            raise NoSuchLabError(f"{self._where} is not running") from None
        found: dict[str, ProcessState] = {}
        for entry in sorted(Path(f"{self._path}/root/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            with contextlib.suppress(OSError, IndexError, ValueError):  # it ended while we looked
                argv = tuple(part.decode(errors="replace") for part in _command(entry))
                name = PurePosixPath(argv[0]).name
                started = entry.stat().st_mtime
                found.setdefault(name, ProcessState(name, argv, int(entry.name), started))
        return {self._node: NodeState(self._node, FIRST, "", (), found)}


def _command(process: Path) -> list[bytes]:
    return [part for part in (process / "cmdline").read_bytes().split(b"\0") if part]
