"""Which keys of a containerlab node have an effect here; what has none is a note, what cannot be had is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from testbed.errors import Position, Problem
from testbed.load.clab import ClabNode
from testbed.load.clab_settings import Settings
from testbed.model.clab import Stage

# Keys that change nothing of what runs here, and why.
NO_EFFECT: Mapping[str, str] = {
    "auto_remove": "a lab is removed as a whole",
    "cap_add": "a node's root has the capabilities that its own namespaces need",
    "cgroup_parent": "nodes have no cgroups of their own",
    "cgroupns_mode": "nodes have no cgroups of their own",
    "cpu": "resources are not limited",
    "cpu_set": "resources are not limited",
    "credentials": "no ssh configuration of this machine is written",
    "healthcheck": "what runs is watched by itself",
    "image_pull_policy": "images are pulled where they are missing, and only on a container runtime",
    "labels": "no container is labelled by them",
    "link_apply_mode": "`testbed up` finds out by itself what must be made anew",
    "memory": "resources are not limited",
    "mgmt_ipv4": "no management network is made",
    "mgmt_ipv6": "no management network is made",
    "password": "no ssh configuration of this machine is written",
    "position": "it is for drawings",
    "privileged": "nodes are isolated by namespaces of their own",
    "restart_policy": "what ended is started again by `testbed up`",
    "security_opts": "nodes are isolated by namespaces of their own",
    "startup_delay": "nothing is waited for by the clock: exec lines run when links and daemons are ready",
    "type": "a linux node has no types",
    "username": "no ssh configuration of this machine is written",
}
REFUSED: Mapping[str, tuple[str, str]] = {
    "certificate": ("no certificates are made", ""),
    "components": ("a linux node has none", ""),
    "config": ("configuration templates are not rendered", "bind the finished file"),
    "devices": ("devices of this machine stay outside", "/dev/net/tun is there in every node"),
    "enforce_startup_config": ("a linux node has no startup-config", ""),
    "extras": ("it is for other kinds", ""),
    "license": ("a linux node has none", ""),
    "pid_mode": ("every node has processes of its own", ""),
    "ports": ("nothing of this machine is opened to a node", "`testbed exec` and `testbed ssh` reach it"),
    "runtime": ("all nodes run on one runtime", "choose it by `testbed up --runtime`"),
    "shm_size": ("the size of /dev/shm cannot be chosen", ""),
    "startup_config": ("a linux node has no startup-config", "bind the file to where its programs look for it"),
    "suppress_startup_config": ("a linux node has no startup-config", ""),
    "tmpfs": ("what a node writes is kept in memory anyway", "remove it"),
    "user": ("programs of a node start as root", "use su in the command"),
    "volumes": ("a node keeps nothing that outlives the lab", "bind a folder, which is copied"),
}
KINDS = ("linux", "bridge")
WAITED_FOR = ("create", "create-links", "configure")


class KeyCheck:
    """Collects, over all nodes, what is refused and what is a note."""

    def __init__(self) -> None:
        self._problems: dict[tuple[Position | None, str, str], list[str]] = {}
        self._notes: dict[str, list[str]] = {}

    def refuse(self, node: str, message: str, position: Position | None, hint: str = "") -> None:
        self._problems.setdefault((position, message, hint), []).append(node)

    def note(self, node: str, text: str) -> None:
        self._notes.setdefault(text, []).append(node)

    @property
    def problems(self) -> list[Problem]:
        """One problem for each place, with all the nodes it concerns."""
        return [
            Problem(f"{_listed(nodes)}: {message}", position, hint)
            for (position, message, hint), nodes in self._problems.items()
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{_listed(nodes)}: {text}" if nodes != [""] else text for text, nodes in self._notes.items())

    def check(self, node: ClabNode) -> None:
        """All keys of a node that another module does not look at."""
        settings = node.settings
        for field in settings.stated():
            key = field.replace("_", "-")
            if field in NO_EFFECT:
                self.note(node.name, f"{key} has no effect: {NO_EFFECT[field]}")
            elif field in REFUSED:
                reason, hint = REFUSED[field]
                self.refuse(node.name, f"{key} is not supported: {reason}", settings.at(field), hint)
        for place in node.there_already:
            self.note(node.name, f"the bind of {place} changes nothing: it is there")
        self._stages(node.name, settings)

    def _stages(self, name: str, settings: Settings) -> None:
        for stage, entry, position in stages(settings):
            if entry.exec:
                hint = "use exec, which runs when the node's links and daemons are ready"
                self.refuse(name, f"commands of the stage {stage} are not supported", position, hint)
            for wait in entry.wait_for:
                if wait.stage not in WAITED_FOR:
                    hint = f"supported are {', '.join(WAITED_FOR)}"
                    self.refuse(name, f"waiting for the stage {wait.stage!r} is not supported", position, hint)


def stages(settings: Settings) -> Iterator[tuple[str, Stage, Position | None]]:
    """(name, stage, place) of all stages that anybody states for a node."""
    for found in settings.all("stages"):
        for field in type(found).model_fields:
            if (stage := getattr(found, field)) is not None:
                key = field.replace("_", "-")
                yield key, stage, found.origin.at(key)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
