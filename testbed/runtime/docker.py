"""The docker runtime: every node is a container of a Docker engine, without any network of the engine's.

Links, addresses, routes, rules and rulesets are programmed into the containers' network namespaces by the code that the
netns runtime uses.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.plan import Node, Plan
from testbed.runtime import appliance, image
from testbed.runtime.containers import CAPABILITIES, PROGRAM, SYSCTLS, TMPFS, UNCONFINED, Containers
from testbed.runtime.supervised import SUPERVISOR


class DockerRuntime(Containers):
    """The lab `lab` on this machine's Docker engine. See testbed.runtime.base.Runtime for the methods."""

    name = "docker"

    def _container_name(self, node: str) -> str:
        return f"{self.lab}-{node}"

    def _make(
        self,
        nodes: Sequence[Node],
        contents: Mapping[tuple[str, str], str],  # noqa: ARG002 - they are put in before a container starts
        plan: Plan,  # noqa: ARG002 - links are made later
    ) -> None:
        self._each(nodes, self._create)

    def _create(self, node: Node) -> None:
        settings: dict[str, Any] = {
            "name": self._container_name(node.name),
            "hostname": node.hostname or node.name,
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "cap_add": list(CAPABILITIES),
            "security_opt": list(UNCONFINED),
            "userns_mode": "host",
            "sysctls": SYSCTLS,
            "stop_signal": "SIGKILL",
        }
        labels = self._labels(node.name)
        if node.image:
            appliance.create(self._docker, node, **settings, labels=labels | {appliance.LABEL: "1"})
        else:
            command = self._command(node.name)
            self._docker.containers.create(image.NAME, command, **settings, labels=labels, tmpfs=TMPFS)

    def _provide(self, container: str) -> None:
        self._docker.api.put_archive(container, "/", _archive(f"{PROGRAM}/supervisor.py", SUPERVISOR.read_bytes()))

    def _fill(self, node: Node, container: str, contents: Mapping[tuple[str, str], str]) -> None:
        appliance.fill(self._docker, container, node, contents)


def _archive(path: str, content: bytes) -> bytes:
    """A tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
