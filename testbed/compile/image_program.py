"""What a node that is no pod runs of an image: the program of the catalogue, as it would run in a pod on the node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from testbed import plan
from testbed.compile.kube.workloads import pods
from testbed.errors import InputError, Position, Problem
from testbed.load.manifests import Manifests
from testbed.model.base import Origin
from testbed.model.images import Catalogue
from testbed.model.kube import Metadata, Node
from testbed.model.workloads import Container, EnvVar, Pod, PodSpec

POD_ROLES = ("dns", "ingress-nginx")  # what these images serve is made from the cluster's objects


@dataclass(frozen=True)
class Wanted:
    """An image, and what a node says of it.

    Args:
        command, args: replace the image's own, as those of a container do.
        places: ("image",), ("command",), ("args",), ("env", NAME), () → where it was written.
    """

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    places: Mapping[tuple[str, ...], Position | None] | None = None

    def place(self, *path: str) -> Position | None:
        places = self.places or {}
        return places.get(path) or places.get(path[:1]) or places.get(())


@dataclass(frozen=True)
class Program:
    """What a node gets of an image; nothing by default."""

    files: tuple[plan.File, ...] = ()
    directories: tuple[tuple[str, str], ...] = ()
    processes: tuple[plan.Process, ...] = ()


def image_program(name: str, wanted: Wanted, images: Catalogue) -> tuple[Program, list[Problem]]:
    """The program of an image in the node `name`, and what is wrong with it."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "node"  # nodes may have names that pods may not
    ground = Node(api_version="v1", kind="Node", metadata=Metadata(name=label))
    pod = _pod(label, wanted)
    try:
        made = pods(Manifests((pod,)), (ground,), images)[0]
    except InputError as error:
        said = f"Pod {pod.key}: "  # the author wrote no Pod
        found = [replace(entry, message=f"{name}: {entry.message.removeprefix(said)}") for entry in error.problems]
        return Program(), found
    main = made.containers[0]
    problems: Sequence[Problem] = ()
    if main.role in POD_ROLES:
        message = f"{name}: the image {wanted.image!r} works in a pod of the cluster only"
        problems = [Problem(message, wanted.place("image"))]
    process = plan.Process(
        name=main.image.rpartition("/")[2],
        argv=main.argv,
        env=tuple((key, name if key == "HOSTNAME" else value) for key, value in main.env),
        ready=main.ready,
        files=tuple(file.path for file in made.files),
        directory=main.directory,
    )
    return Program(made.files, tuple((path, "root") for path in made.directories), (process,)), list(problems)


def _pod(name: str, wanted: Wanted) -> Pod:
    """A pod with the node's program, whose parts say where the author wrote them."""
    env = tuple(EnvVar(name=key, value=value) for key, value in (wanted.env or {}).items())
    container = Container(name="main", image=wanted.image, command=wanted.command, args=wanted.args, env=env)
    spec = PodSpec(node_name=name, host_network=True, containers=(container,))
    pod = Pod(api_version="v1", kind="Pod", metadata=Metadata(name=name), spec=spec)
    top = ("spec", "containers", 0)
    places: dict[tuple[str | int, ...], Position | None] = {(): wanted.place()}
    for part in ("image", "command", "args"):
        places[*top, part] = wanted.place(part)
    for index, key in enumerate(wanted.env or {}):
        places[*top, "env", index] = wanted.place("env", key)
    pod._origin = Origin({path: position for path, position in places.items() if position})
    return pod
