"""The docker runtime for labs whose cluster is made by kind: some nodes are containers of kind's.

In these nothing of ours runs: their links, addresses, routes, rules and rulesets are programmed from outside, and the
rest is Kubernetes' own. They are found by kind's labels and the engine's network that the lab has for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.errors import DeployError, NoSuchNodeError, UnsupportedError
from testbed.run import Namespaces
from testbed.runtime import engine, kind_tool
from testbed.runtime.base import NodeState
from testbed.runtime.client import Supervisor
from testbed.runtime.docker import DockerRuntime
from testbed.runtime.engine import LAB, Container
from testbed.wait import Deadline, until

CONFIG, KUBECONFIG, CONTAINERS = "kind.yaml", "kubeconfig", "containers.json"  # in the lab's folder
LAST = 60.0  # seconds the engine has to remove what kind made


class KindNodesRuntime(DockerRuntime):
    """See testbed.runtime.base.ClusterRuntime."""

    def __init__(self, lab: str) -> None:
        super().__init__(lab)
        self._open: dict[str, tuple[int, Namespaces]] = {}

    @property
    def network_name(self) -> str:
        """The engine's network that the cluster's nodes are on."""
        return f"testbed-{self.lab}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / KUBECONFIG

    # --- the cluster ----------------------------------------------------------------------------------------------

    def make_cluster(self, config: str, containers: Mapping[str, str], images: Sequence[str], timeout: float) -> None:
        """Have kind make the cluster, unless it is there.

        Raises:
            CommandError: kind could not. DeployError: a part of it is there, or others have its name.
        """
        there = {entry.name: entry for entry in self._kind_containers()}
        (self.directory / CONTAINERS).write_text(json.dumps(dict(containers)))
        if missing := [node for node, name in containers.items() if there and name not in there]:
            raise DeployError(f"{', '.join(missing)}: kind's container is gone; `testbed down` and `up` make it anew")
        if stopped := [entry for entry in there.values() if entry.state != "running"]:
            names = ", ".join(entry.name for entry in stopped)
            raise DeployError(f"{names}: stopped; `docker start` it, or `testbed down` and `up` make all anew")
        if there:
            return
        self._refuse_others()
        self._make_network()
        (self.directory / CONFIG).write_text(config)
        where = engine.home(self.lab)
        deadline = Deadline(timeout)
        kind_tool.create(
            self.lab,
            self.directory / CONFIG,
            self.kubeconfig,
            engine=where,
            network=self.network_name,
            timeout=deadline.left,
        )
        self.kubeconfig.chmod(0o600)
        for image in images:
            kind_tool.load(self.lab, image, engine=where)

    def _refuse_others(self) -> None:
        others = engine.containers(engine.home(self.lab), f"{kind_tool.CLUSTER}={self.lab}")
        if others:
            raise DeployError(f"there is a cluster {self.lab} of kind's already: run the lab under another --name")

    def _make_network(self) -> None:
        for entry in engine.networks(engine.home(self.lab)):
            if entry.name == self.network_name:
                if entry.labels.get(LAB) != self.lab:
                    raise DeployError(f"there is a network {entry.name} of somebody else: run it under another --name")
                return
        self._docker.networks.create(self.network_name, driver="bridge", labels={LAB: self.lab})

    def _kind_containers(self) -> list[Container]:
        """kind's containers of this cluster; another's cluster of the same name is on another network."""
        found = engine.containers(engine.home(self.lab), f"{kind_tool.CLUSTER}={self.lab}")
        return [entry for entry in found if self.network_name in entry.networks]

    def _names(self) -> dict[str, str]:
        """Node → kind's container, as `make_cluster` was told."""
        try:
            found: dict[str, str] = json.loads((self.directory / CONTAINERS).read_text())
        except (OSError, ValueError):
            return {}
        return found

    # --- the lab --------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return super().exists() or bool(self._kind_containers() or self._networks())

    def close(self) -> None:
        for node in list(self._open):
            self._let_go(node)
        super().close()

    def destroy(self) -> None:
        kind_tool.stop_creating(self.kubeconfig)
        super().destroy()

    def _discard_all(self) -> None:
        self._discard_cluster()
        super()._discard_all()

    def _networks(self) -> list[engine.Network]:
        return [entry for entry in engine.networks(engine.home(self.lab)) if entry.labels.get(LAB) == self.lab]

    def _discard_cluster(self) -> None:
        """Remove kind's containers with their volumes, then the network; returns when nothing is left."""

        def gone() -> bool:
            self._each(self._kind_containers(), self._discard)
            networks = [] if self._kind_containers() else self._networks()
            self._each(networks, lambda entry: self._docker.api.remove_network(entry.id))
            return not self._kind_containers() and not self._networks()

        if not until(gone, Deadline(LAST)):
            raise DeployError(f"the cluster of lab {self.lab} does not go: see `docker ps` for {kind_tool.CLUSTER}")

    # --- nodes ----------------------------------------------------------------------------------------------------

    def remove(self, nodes: Sequence[str]) -> None:
        names = self._names()
        if own := [node for node in nodes if node in names]:
            raise DeployError(f"{', '.join(own)}: kind cannot take nodes from a cluster; `testbed down` ends all of it")
        super().remove(nodes)

    def state(self) -> dict[str, NodeState]:
        found = super().state()
        running = {entry.name: entry for entry in self._kind_containers() if entry.state == "running"}
        for node, name in self._names().items():
            container = running.get(name)
            pid = engine.process(engine.home(self.lab), container.id) if container else 0
            if self._open.get(node, (pid, None))[0] != pid:
                self._let_go(node)
            if pid:
                found[node] = NodeState(node, pid, "", (), {})
        return found

    def absence(self, node: str) -> str:
        name = self._names().get(node)
        if name is None:
            return super().absence(node)
        container = next((entry for entry in self._kind_containers() if entry.name == name), None)
        return f"kind's container {name} is {container.state if container else 'gone'}"

    def supervisor(self, node: str) -> Supervisor:
        if node in self._names():
            raise UnsupportedError(f"{node} is a container of kind's, in which no program of the lab's runs")
        return super().supervisor(node)

    # --- inside a node --------------------------------------------------------------------------------------------

    def namespaces(self, node: str) -> Namespaces:
        return self._entered(node)[1] if node in self._names() else super().namespaces(node)

    def vrf_namespaces(self, node: str) -> dict[str, int]:
        return {} if node in self._names() else super().vrf_namespaces(node)

    def path(self, node: str, path: str) -> Path:
        if node not in self._names():
            return super().path(node, path)
        return Path(f"/proc/{self._entered(node)[0]}/root{path}")

    def _entered(self, node: str) -> tuple[int, Namespaces]:
        """(pid of the container, its namespaces), opened once."""
        if node not in self._open:
            name = self._names()[node]
            container = next((entry for entry in self._kind_containers() if entry.name == name), None)
            if container is None or container.state != "running":
                raise NoSuchNodeError(f"node {node} does not run")
            pid = self._process(node, container.id)
            self._open[node] = (pid, Namespaces.of(node, Path(f"/proc/{pid}")))
        return self._open[node]

    def _let_go(self, node: str) -> None:
        if known := self._open.pop(node, None):
            known[1].close()
