"""The docker runtime: every node is a container, and everything in it is done by the code the netns runtime uses.

A node's container runs the same supervisor as its pid 1 that holds a whole lab in the netns runtime; so programs, pods
and VRFs are made, watched and ended alike. Links, addresses, routes, rules and rulesets are programmed into the
containers' network namespaces. Containers belong to a lab by their labels: no file is needed to find or end it.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import DeployError, NoSuchNodeError, UnsupportedError
from testbed.plan import Node, Process
from testbed.runtime.base import NodeState
from testbed.runtime.client import Supervisor, node_request, process_request
from testbed.runtime.supervised import STATE, SUPERVISOR, Supervised
from testbed.wait import Deadline, until

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

LAB, NODE = "testbed.lab", "testbed.node"  # labels
IMAGE = "testbed/node"
PROGRAM = "/usr/lib/testbed"
SOCKETS = "/run/testbed-supervisor"
START = 20.0  # seconds a container has until its supervisor answers
PARALLEL = 8
# Docker turns IPv6 off in containers without a network of its own.
SYSCTLS = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}


def client() -> DockerClient:
    """The Docker engine of the environment (DOCKER_HOST, or the usual socket).

    Raises:
        UnsupportedError: none answers.
    """
    import docker

    try:
        found = docker.from_env(timeout=120)
        found.ping()
    except docker.errors.DockerException as error:
        raise UnsupportedError(f"no Docker engine answers: {error}") from None
    return found


class DockerRuntime(Supervised):
    """The lab `lab` on this machine's Docker engine. See testbed.runtime.base.Runtime for the methods."""

    name = "docker"

    def __init__(self, lab: str) -> None:
        super().__init__(lab)
        self._supervisors: dict[str, tuple[int, Supervisor]] = {}

    @cached_property
    def _docker(self) -> DockerClient:
        return client()

    # --- the lab --------------------------------------------------------------------------------------------------

    def _containers(self) -> dict[str, Container]:
        found = self._docker.containers.list(all=True, filters={"label": f"{LAB}={self.lab}"}, ignore_removed=True)
        return {container.labels[NODE]: container for container in found}

    def exists(self) -> bool:
        return bool(self._containers())

    def open(self) -> None:
        import docker

        try:
            self._docker.images.get(IMAGE)
        except docker.errors.ImageNotFound:
            raise UnsupportedError(f"there is no image {IMAGE}: `testbed image build` makes it") from None

    def close(self) -> None:
        """Let go of the lab, which goes on."""
        for _, supervisor in self._supervisors.values():
            supervisor.close()
        self._supervisors.clear()

    def destroy(self) -> None:
        self.close()
        self._each(list(self._containers().values()), _discard)
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATE.rmdir()

    def _each(self, items: Sequence[Any], work: Callable[[Any], None]) -> None:
        """Do work on many containers side by side. Raises DeployError with all that went wrong."""
        import docker

        errors = []
        with ThreadPoolExecutor(PARALLEL) as pool:
            for future in [pool.submit(work, item) for item in items]:
                try:
                    future.result()
                except (docker.errors.DockerException, OSError) as error:
                    errors.append(str(error))
        if errors:
            raise DeployError("; ".join(errors))

    # --- nodes ----------------------------------------------------------------------------------------------------

    def create(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str]) -> None:
        own = [node for node in nodes if not node.parent]
        there = self._containers()
        self._each(own, lambda node: self._run(node, there.get(node.name)))
        self._each(own, lambda node: self._adopt(node, contents))
        by_parent: dict[str, list[Node]] = {}
        for node in nodes:
            if node.parent:
                by_parent.setdefault(node.parent, []).append(node)
        for parent, pods in by_parent.items():
            self._supervisor(parent)[1].ask("create", nodes=[node_request(pod, contents) for pod in pods])

    def _run(self, node: Node, there: Container | None) -> None:
        """Start a node's container; one that is there (it was restarted, or stopped) is used again."""
        container = there or self._docker.containers.create(
            IMAGE,
            ["python3", "-I", "-S", f"{PROGRAM}/supervisor.py", node.name, SOCKETS, "--container"],
            name=f"{self.lab}-{node.name}",
            hostname=node.hostname or node.name,
            labels={LAB: self.lab, NODE: node.name},
            network_mode="none",
            privileged=True,
            tmpfs={"/run": "mode=755", "/tmp": "mode=1777"},  # noqa: S108 - the container's own
            sysctls=SYSCTLS,
            stop_signal="SIGKILL",
        )
        if there is None:
            container.put_archive("/", _archive(f"{PROGRAM}/supervisor.py", SUPERVISOR.read_bytes()))
        container.start()

    def _adopt(self, node: Node, contents: Mapping[tuple[str, str], str]) -> None:
        """Have the supervisor in a container take the container itself for the node."""
        supervisor = self._supervisor(node.name)[1]
        if not until(supervisor.connect, Deadline(START)):
            raise DeployError(f"{node.name}: its container runs, but its supervisor does not answer")
        supervisor.ask("adopt", **node_request(node, contents))

    def _supervisor(self, node: str) -> tuple[int, Supervisor]:
        """(host's pid of the container, its supervisor) of a node."""
        if node not in self._supervisors:
            container = self._containers().get(node)
            pid = container.attrs["State"]["Pid"] if container else 0
            if container and not pid:
                container.reload()
                pid = container.attrs["State"]["Pid"]
            if not pid:
                raise NoSuchNodeError(f"node {node} does not run")
            path = Path(f"/proc/{pid}/root{SOCKETS}/supervisor.sock")
            self._supervisors[node] = (pid, Supervisor(path, f"{self.lab}, node {node}"))
        return self._supervisors[node]

    def _forget(self, node: str) -> None:
        if node in self._supervisors:
            self._supervisors.pop(node)[1].close()

    def _holder(self, node: str) -> tuple[int, Supervisor]:
        """The container that a node or pod is in."""
        containers = self._containers() if node not in self._owners else {}
        if node in containers:
            self._owners[node] = node
        elif node not in self._owners:
            self.state()
        owner = self._owners.get(node)
        if owner is None:
            raise NoSuchNodeError(f"node {node} does not run")
        return self._supervisor(owner)

    @cached_property
    def _owners(self) -> dict[str, str]:
        return {}

    def supervisor(self, node: str) -> Supervisor:
        return self._holder(node)[1]

    def remove(self, nodes: Sequence[str]) -> None:
        containers = self._containers()
        for node in nodes:
            if node not in containers:
                with contextlib.suppress(NoSuchNodeError):
                    supervisor = self._holder(node)[1]
                    supervisor.forget_namespaces()
                    supervisor.ask("remove", nodes=[node])
            self._owners.pop(node, None)
        for node in nodes:
            self._forget(node)
        self._each([containers[node] for node in nodes if node in containers], _discard)

    def state(self) -> dict[str, NodeState]:
        found: dict[str, NodeState] = {}
        for name, container in self._containers().items():
            if container.status != "running":
                self._forget(name)
                continue
            for node, state in self._states(name):
                found[node] = state
                self._owners[node] = name
        return found

    def _states(self, container: str) -> Iterator[tuple[str, NodeState]]:
        """The node and the pods in a container; none while its supervisor has not been given the node."""
        try:
            yield from self._supervisor(container)[1].state().items()
        except DeployError:
            self._forget(container)

    # --- programs -------------------------------------------------------------------------------------------------

    def start(self, processes: Sequence[tuple[str, Process]]) -> None:
        by_container: dict[int, tuple[Supervisor, list[dict[str, Any]]]] = {}
        for node, process in processes:
            pid, supervisor = self._holder(node)
            by_container.setdefault(pid, (supervisor, []))[1].append(process_request(node, process))
        for supervisor, requests in by_container.values():
            supervisor.ask("spawn", processes=requests)

    def proc(self, node: str, pid: int) -> Path:
        return Path(f"/proc/{self._holder(node)[0]}/root/proc/{pid}")


def _discard(container: Container) -> None:
    """Remove a container and what it wrote."""
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        container.remove(force=True, v=True)


def _archive(path: str, content: bytes) -> bytes:
    """A tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def labs() -> list[str]:
    """The labs that run on this machine's Docker engine; none where no engine answers."""
    try:
        found = client().containers.list(all=True, filters={"label": LAB}, ignore_removed=True)
    except UnsupportedError:
        return []
    return sorted({container.labels[LAB] for container in found})
