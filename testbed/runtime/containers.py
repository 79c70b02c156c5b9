"""What the runtimes share whose nodes are containers of a Docker engine, whoever makes these.

A node's container runs the same supervisor as its pid 1 that holds a whole lab in the netns runtime; so programs, pods
and VRFs are made, watched and ended alike. Containers belong to a lab by their labels: no file is needed to find or end
it.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import DeployError, NoSuchLabError, NoSuchNodeError, TestbedError, UnsupportedError
from testbed.events import Observer
from testbed.patience import stretched
from testbed.plan import Node, Plan, Process
from testbed.runtime import appliance, engine, image
from testbed.runtime.base import NodeState
from testbed.runtime.client import Supervisor, node_request, process_request
from testbed.runtime.engine import LAB, NODE, RUNTIME, Container
from testbed.runtime.supervised import STATE, Supervised
from testbed.wait import Deadline, until

if TYPE_CHECKING:
    from docker import DockerClient

PROGRAM = "/usr/lib/testbed"
SOCKETS = "/run/testbed-supervisor"
CREATING = "creating"  # a file in the lab's folder: the containers that were asked for and have not been answered yet
START = 20.0  # seconds a container has until its supervisor answers
ANSWER = 30.0  # seconds a supervisor has to answer: a container may be paused at any time
LAST = 30.0  # seconds the engine has to end a lab
NOTICE = 3.0  # seconds the engine has to notice that a container has ended
PARALLEL = 8
CONFLICT = 409
# What it takes to make pods and VRFs (mounts, namespaces, devices) and to run daemons; not what would reach the host's
# clock, modules, memory or log. The host's own parts of /proc and /sys stay read-only or hidden, as in any container.
CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL",
    "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
    "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE",
)  # fmt: skip
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "label=disable")  # the usual profiles forbid mount(2)
# Docker turns IPv6 off in containers without a network of its own.
SYSCTLS = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
TMPFS = {"/run": "exec,mode=755", "/tmp": "exec,mode=1777"}  # noqa: S108 - the container's own


class Containers(Supervised):
    """The lab `lab` on this machine's Docker engine. See testbed.runtime.base.Runtime for the methods."""

    name: str

    def __init__(self, lab: str) -> None:
        super().__init__(lab)
        self._supervisors: dict[str, tuple[int, Supervisor]] = {}
        self._connecting = threading.Lock()
        self._places: dict[str, str] = {}  # node or pod → the node whose container it is in

    @cached_property
    def _docker(self) -> DockerClient:
        """The engine, for what changes something. Raises UnsupportedError when it does not answer."""
        import docker

        where = engine.home(self.lab)
        engine.ask(where, "/containers/json?limit=1")  # it says better what is wrong
        return docker.DockerClient(base_url=where, timeout=int(stretched(120)))

    # --- the lab --------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return bool(engine.of_lab(self.lab)) or (self.directory / CREATING).exists()

    def prepare(self, observer: Observer) -> None:
        if image.state(engine.home(self.lab)) != "present":
            from testbed.runtime.image_build import build

            build(engine.home(self.lab), observer)

    def open(self) -> None:
        where = engine.home(self.lab)
        if image.state(where) == "missing":
            raise UnsupportedError(f"there is no image {image.NAME}: `testbed image build` makes it")
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.directory / engine.KIND).write_text(self.name)
        (self.directory / engine.HOME).write_text(where)
        for container in engine.of_lab(self.lab).values():
            if container.state == "paused":
                self._docker.api.unpause(container.id)

    def close(self) -> None:
        """Let go of the lab, which goes on."""
        for node in list(self._supervisors):
            self._forget(node)

    def destroy(self) -> None:
        self.close()
        try:
            self._block_creation()
            self._discard_all()
        except UnsupportedError as error:
            if (self.directory / engine.HOME).exists():
                raise UnsupportedError(f"{error} (if it is gone for good, remove {self.directory})") from None
            raise
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            STATE.rmdir()  # only when no other lab is left

    def _discard_all(self) -> None:
        """Remove every container of the lab; returns when none is left."""

        def gone() -> bool:
            left = list(engine.of_lab(self.lab).values())
            self._each(left, self._discard)
            return not left

        if not until(gone, Deadline(LAST)):
            names = ", ".join(entry.name for entry in engine.of_lab(self.lab).values())
            raise DeployError(f"containers of lab {self.lab} do not go: {names}")

    def _each(self, items: Sequence[Any], work: Callable[[Any], None]) -> None:
        """Do work on many containers side by side. Raises DeployError with all that went wrong."""
        if not items:
            return
        import docker

        errors = []
        with ThreadPoolExecutor(PARALLEL) as pool:
            for future in [pool.submit(work, item) for item in items]:
                try:
                    future.result()
                except docker.errors.APIError as error:
                    errors.append(error.explanation or str(error))
                except (docker.errors.DockerException, TestbedError, OSError) as error:
                    errors.append(str(error))
        if errors:
            raise DeployError("; ".join(dict.fromkeys(errors)))  # what is wrong with one is often wrong with all

    # --- containers -----------------------------------------------------------------------------------------------

    def create(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str], plan: Plan) -> None:
        own = [node for node in nodes if not node.parent]
        there = self._ours([self._container_name(node.name) for node in own])
        if missing := [node for node in own if node.name not in there]:
            with self._asked_for(missing):
                self._make(missing, contents, plan)
            there = engine.of_lab(self.lab)
        self._each(own, lambda node: self._run(node, there.get(node.name), contents))
        by_parent: dict[str, list[Node]] = {}
        for node in nodes:
            if node.parent:
                by_parent.setdefault(node.parent, []).append(node)
        self._each(list(by_parent), lambda parent: self._create_pods(parent, by_parent[parent], contents))

    @abstractmethod
    def _make(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str], plan: Plan) -> None:
        """Make containers for nodes of a Plan that have none; they need not run yet."""

    @abstractmethod
    def _container_name(self, node: str) -> str:
        """What the container of a node is called on the engine."""

    @abstractmethod
    def _provide(self, container: str) -> None:
        """Put into a container, which does not run, what its first process needs."""

    @abstractmethod
    def _fill(self, node: Node, container: str, contents: Mapping[tuple[str, str], str]) -> None:
        """Put the files of a node into its container of its own image, which does not run."""

    def _create_pods(self, parent: str, pods: Sequence[Node], contents: Mapping[tuple[str, str], str]) -> None:
        self._supervisor(parent)[1].ask("create", nodes=[node_request(pod, contents) for pod in pods])

    def _ours(self, wanted: Sequence[str]) -> dict[str, Container]:
        """The lab's containers. Raises DeployError when somebody else's has one of the wanted names."""
        found: dict[str, Container] = {}
        for container in engine.containers(engine.home(self.lab)):
            if container.labels.get(LAB) == self.lab:
                found[container.labels[NODE]] = container
            elif container.name in wanted:
                lab = container.labels.get(LAB)
                whose = f"of lab {lab}" if lab else f"of somebody else (its image is {container.image})"
                raise DeployError(f"there is a container {container.name} {whose}: run the lab under another --name")
        return found

    @contextlib.contextmanager
    def _asked_for(self, nodes: Sequence[Node]) -> Iterator[None]:
        """Keep on file which containers are being made: the engine goes on making them when we are killed."""
        names = [self._container_name(node.name) for node in nodes]
        (self.directory / CREATING).write_text("\n".join(names))
        yield  # on an error the file stays, for `destroy`
        (self.directory / CREATING).unlink()

    def _block_creation(self) -> None:
        """Wait for, or prevent, the making of containers that an `up` asked for before it was killed.

        Taking a name settles it: either it was free, or a container has it that can be seen, now or soon, and removed.
        """
        try:
            names = set((self.directory / CREATING).read_text().split())
        except OSError:
            return
        import docker

        def take(name: str) -> None:
            try:
                self._docker.api.create_container(image.NAME, ["true"], name=name, labels=self._labels(name))
            except docker.errors.ImageNotFound:
                names.discard(name)  # then there will not be such a container
            except docker.errors.APIError as error:
                if error.status_code != CONFLICT:
                    raise

        def settled() -> bool:
            there = {container.name for container in engine.containers(engine.home(self.lab))}
            self._each(sorted(names - there), take)
            return names <= there

        until(settled, Deadline(LAST))

    def _run(self, node: Node, there: Container | None, contents: Mapping[tuple[str, str], str]) -> None:
        """Have its container run the node; also one that was restarted, or has ended."""
        if there is None:
            raise DeployError(f"{node.name}: its container is gone")
        self._forget(node.name)  # whoever was known under that name has ended
        self._start(node, there, contents)
        if node.image:
            self._adopt_appliance(node, there, contents)
            return
        pid, supervisor = self._connected(node.name, there.id)
        if not until(lambda: supervisor.connect() or not Path(f"/proc/{pid}").exists(), Deadline(START)):
            raise DeployError(f"{node.name}: its container runs, but its supervisor does not answer")
        if not supervisor.connect():
            raise self._ended(node, there)
        supervisor.ask("adopt", **node_request(node, contents))
        self._places[node.name] = node.name

    def _adopt_appliance(self, node: Node, there: Container, contents: Mapping[tuple[str, str], str]) -> None:
        """Have a container of the node's own image run it."""
        try:
            self._connected(node.name, there.id)[1].ask("adopt", **node_request(node, contents))
        except (NoSuchLabError, NoSuchNodeError):
            raise self._ended(node, there) from None
        self._places[node.name] = node.name

    def _start(self, node: Node, there: Container, contents: Mapping[tuple[str, str], str]) -> None:
        """Start the container of a node, unless it runs."""
        if there.state == "running":
            return
        if node.image:
            self._fill(node, there.id, contents)
            appliance.start(self._docker, there.id, node)
        else:
            self._provide(there.id)
            self._docker.api.start(there.id)

    def _ended(self, node: Node, container: Container) -> DeployError:
        return DeployError(f"{node.name}: its container has ended: {self._last_words(container.id)}")

    def _command(self, node: str) -> list[str]:
        return ["python3", "-I", "-S", f"{PROGRAM}/supervisor.py", f"{self.lab}/{node}", SOCKETS, "--container"]

    def _labels(self, node: str) -> dict[str, str]:
        return {LAB: self.lab, NODE: node, RUNTIME: self.name}

    def _last_words(self, container: str) -> str:
        text: bytes = self._docker.api.logs(container, tail=5)
        return text.decode(errors="replace").strip() or "it said nothing"

    def _discard(self, container: Container) -> None:
        """Remove a container and what it wrote."""
        import docker

        try:
            self._docker.api.remove_container(container.id, v=True, force=True)
        except docker.errors.APIError as error:
            if error.status_code not in (engine.MISSING, CONFLICT):  # somebody else is removing it
                raise

    # --- supervisors ----------------------------------------------------------------------------------------------

    def _connected(self, node: str, container: str) -> tuple[int, Supervisor]:
        """(host's pid of the container, its supervisor) of a node that runs in this container."""
        with self._connecting:
            if node not in self._supervisors:
                pid, where = self._process(node, container), f"{self.lab}, node {node}"
                path = Path(f"/proc/{pid}/root{SOCKETS}/supervisor.sock")
                own = engine.labels(engine.home(self.lab), container).get(appliance.LABEL)
                speaker = appliance.Appliance(pid, node, where) if own else Supervisor(path, where, ANSWER)
                self._supervisors[node] = (pid, speaker)
            return self._supervisors[node]

    def _process(self, node: str, container: str) -> int:
        """The first process of a container, as this machine numbers it.

        A container may end while it is looked at, and the engine takes a moment to hear of it: only one that goes on
        with a process that is not here is on another machine.
        """
        where = engine.home(self.lab)
        pid = engine.process(where, container)

        def settled() -> bool:
            nonlocal pid
            if pid and not Path(f"/proc/{pid}").exists():
                pid = engine.process(where, container)
            return not pid or Path(f"/proc/{pid}").exists()

        if not until(settled, Deadline(NOTICE)):
            raise UnsupportedError(f"the Docker engine at {where} runs its containers on another machine")
        if not pid:
            raise NoSuchNodeError(f"node {node} does not run")
        return pid

    def _supervisor(self, node: str) -> tuple[int, Supervisor]:
        if known := self._supervisors.get(node):
            return known
        container = engine.of_lab(self.lab).get(node)
        if container is None or container.state != "running":
            raise NoSuchNodeError(f"node {node} does not run")
        return self._connected(node, container.id)

    def _forget(self, node: str) -> None:
        if known := self._supervisors.pop(node, None):
            known[1].close()

    def _holder(self, node: str) -> tuple[int, Supervisor]:
        """The container that a node or pod is in."""
        if node not in self._places:
            self.state()
        if (place := self._places.get(node)) is None:
            raise NoSuchNodeError(f"node {node} does not run")
        return self._supervisor(place)

    def supervisor(self, node: str) -> Supervisor:
        return self._holder(node)[1]

    def holder(self, node: str) -> int:
        try:
            return super().holder(node)
        except NoSuchLabError:  # its supervisor has ended, and so has the node; the engine may not know it yet
            raise NoSuchNodeError(f"node {node} does not run") from None

    def remove(self, nodes: Sequence[str]) -> None:
        containers = engine.of_lab(self.lab)
        for node in nodes:
            if node not in containers:
                with contextlib.suppress(NoSuchNodeError, NoSuchLabError):  # it has ended already
                    supervisor = self._holder(node)[1]
                    supervisor.forget_namespaces()
                    supervisor.ask("remove", nodes=[node])
            self._places.pop(node, None)
        for node in nodes:
            self._forget(node)
        self._each([containers[node] for node in nodes if node in containers], self._discard)

    # --- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NodeState]:
        found: dict[str, NodeState] = {}
        places: dict[str, str] = {}
        running = {name: entry for name, entry in engine.of_lab(self.lab).items() if entry.state == "running"}
        for name in self._supervisors.keys() - running.keys():
            self._forget(name)
        for name, container in running.items():
            states = self._states(name, container)
            found |= states
            places |= dict.fromkeys(states, name)
        self._places = places  # other threads read it
        return found

    def _states(self, node: str, container: Container) -> dict[str, NodeState]:
        """The node and the pods in a container; none while its supervisor has not been given the node."""
        for _ in range(2):  # the container may have been restarted since we last spoke with its supervisor
            try:
                return self._connected(node, container.id)[1].state()
            except (NoSuchLabError, NoSuchNodeError):
                self._forget(node)
        return {}

    def absence(self, node: str) -> str:
        container = engine.of_lab(self.lab).get(node)
        if container is None:
            return "its container is gone"
        if container.state == "running":
            return "its container was started anew, without the node"
        return f"its container is {container.state}"

    # --- programs -------------------------------------------------------------------------------------------------

    def start(self, processes: Sequence[tuple[str, Process]]) -> None:
        by_container: dict[int, tuple[Supervisor, list[dict[str, Any]]]] = {}
        for node, process in processes:
            if process.by_image:
                continue
            pid, supervisor = self._holder(node)
            by_container.setdefault(pid, (supervisor, []))[1].append(process_request(node, process))
        for supervisor, requests in by_container.values():
            supervisor.ask("spawn", processes=requests)

    def proc(self, node: str, pid: int) -> Path:
        return Path(f"/proc/{self._holder(node)[0]}/root/proc/{pid}")
