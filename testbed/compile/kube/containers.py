"""Containers of a pod → programs with their files, variables and readiness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import TemplateError

from testbed.compile.kube.commands import APPLETS, Command, Facts, command, environment
from testbed.compile.kube.instances import ContainerInstance
from testbed.compile.kube.owners import Owner
from testbed.compile.kube.volumes import Sources, empty_dir_problems, mounted
from testbed.errors import Problem
from testbed.load.yaml import suggest
from testbed.model.images import BUSYBOX, Catalogue, Image, ImageFile, normalise
from testbed.model.workloads import Container, Probe
from testbed.plan import File, Ready, SecretRef
from testbed.render import environment as templates


@dataclass(frozen=True, slots=True)
class Context:
    """What all containers are made from."""

    images: Catalogue
    sources: Sources


def containers(owner: Owner, facts: Facts, context: Context) -> tuple[tuple[ContainerInstance, ...], list[Problem]]:
    """The programs of one pod, and all that is wrong with them.

    The containers of a pod share one file system, so what two of them want at the same path must be the same.
    """
    made: list[ContainerInstance] = []
    problems = empty_dir_problems(owner)
    for index in range(len(owner.spec.containers)):
        instance, found = _container(owner, index, facts, context)
        problems += found
        if instance is not None:
            made.append(instance)
    return tuple(made), problems + _file_conflicts(owner, made)


def _container(
    owner: Owner, index: int, facts: Facts, context: Context
) -> tuple[ContainerInstance | None, list[Problem]]:
    spec = owner.spec.containers[index]
    image, problems = _image(owner, index, context.images)
    if image is None:
        return None, problems
    volumes, problems = mounted(owner, index, context.sources)
    variables, found = environment(owner, index, image, facts, context.sources)
    problems += found
    run, found = command(owner, index, image, variables)
    problems += found
    probes, found = _probes(owner, index)
    problems += found
    files, found = _image_files(owner, index, image, facts, context.images)
    problems += found
    if run is None or problems:
        return None, problems
    kept = tuple(file for file in files if not volumes.hides(file.path))
    configured = any(file.path.startswith("/etc/") and volumes.hides(file.path) for file in files)
    instance = ContainerInstance(
        name=spec.name,
        image=image.names[0],
        role=image.role if run.own else "",
        argv=run.argv,
        env=tuple(variables.items()),
        directory=spec.working_dir,
        files=(*kept, *volumes.files),
        directories=tuple(dict.fromkeys((*image.directories, *volumes.directories))),
        ports=spec.ports,
        ready=_ready(image, run, probes["readinessProbe"] or probes["startupProbe"], configured=configured),
        options=run.options,
        readiness=probes["readinessProbe"],
        liveness=probes["livenessProbe"],
        startup=probes["startupProbe"],
    )
    return instance, []


def _image(owner: Owner, index: int, images: Catalogue) -> tuple[Image | None, list[Problem]]:
    reference = owner.spec.containers[index].image
    try:
        name = normalise(reference)
    except ValueError as error:
        return None, [owner.problem(str(error), "containers", index, "image")]
    if image := images.find(name):
        return image, []
    hint = suggest(name, images.names)
    hint = hint if hint.startswith("did you mean") else f"known are {', '.join(images.names)}; a lab can add its own"
    return None, [
        owner.problem(f"the image {reference!r} is not in the catalogue", "containers", index, "image", hint=hint)
    ]


def _image_files(
    owner: Owner, index: int, image: Image, facts: Facts, images: Catalogue
) -> tuple[list[File], list[Problem]]:
    files = [_applet(image.multicall or BUSYBOX, name) for name in image.applets]
    problems = []
    for path, entry in image.files.items():
        try:
            files.append(_image_file(path, entry, owner.spec.containers[index], facts, images))
        except TemplateError as error:
            message = f"the template of {path} in image {image.names[0]!r} failed: {error}"
            problems.append(Problem(message, image.origin.at("files", path)))
    return files, problems


def _image_file(path: str, entry: str | ImageFile, container: Container, facts: Facts, images: Catalogue) -> File:
    if isinstance(entry, str):
        return File(path, entry)
    if entry.secret is not None:
        return File(path, SecretRef(entry.secret.name, entry.secret.part), entry.mode)
    if entry.program is not None:
        return File(path, images.texts["program", entry.program], entry.mode)
    if entry.content is not None:
        return File(path, entry.content, entry.mode)
    assert entry.template is not None
    known = {
        "name": facts.name,
        "namespace": facts.namespace,
        "hostname": facts.hostname,
        "node": facts.node,
        "ports": [port.container_port for port in container.ports],
    }
    return File(path, templates().from_string(images.texts["template", entry.template]).render(known), entry.mode)


def _applet(multicall: str, name: str) -> File:
    return File(f"{APPLETS}/{name}", f'#!{multicall} sh\nexec {multicall} {name} "$@"\n', 0o755)


def _probes(owner: Owner, index: int) -> tuple[dict[str, Probe | None], list[Problem]]:
    """The probes with named ports replaced by numbers."""
    container = owner.spec.containers[index]
    written = {
        "readinessProbe": container.readiness_probe,
        "livenessProbe": container.liveness_probe,
        "startupProbe": container.startup_probe,
    }
    numbers = {port.name: port.container_port for port in container.ports if port.name}
    problems = []
    for field, probe in written.items():
        port = _probe_port(probe)
        if isinstance(port, str) and port not in numbers:
            where = "httpGet" if probe and probe.http_get else "tcpSocket"
            message = f"container {container.name} has no port named {port!r}"
            path = ("containers", index, field, where, "port")
            problems.append(owner.problem(message, *path, hint=suggest(port, numbers)))
    return {field: _with_number(probe, numbers) for field, probe in written.items()}, problems


def _probe_port(probe: Probe | None) -> int | str | None:
    action = probe and (probe.http_get or probe.tcp_socket)
    return action.port if action else None


def _with_number(probe: Probe | None, numbers: Mapping[str, int]) -> Probe | None:
    port = _probe_port(probe)
    if probe is None or not isinstance(port, str) or port not in numbers:
        return probe
    change = {"port": numbers[port]}
    if probe.http_get is not None:
        return probe.model_copy(update={"http_get": probe.http_get.model_copy(update=change)})
    assert probe.tcp_socket is not None
    return probe.model_copy(update={"tcp_socket": probe.tcp_socket.model_copy(update=change)})


def _ready(image: Image, run: Command, probe: Probe | None, *, configured: bool) -> Ready:
    """What shows that the program has started.

    A readiness probe's port; else the port that the image is known to open, as long as nothing of what decides it was
    changed: its command, its arguments (unless they say the port), its configuration. Else that it runs.
    """
    if isinstance(port := _probe_port(probe), int):
        return Ready("listen", port)
    if run.own and run.ready:
        return Ready("listen", run.ready)
    known = run.default or (run.own and image.arguments is not None)
    if image.ready and known and not configured:
        return Ready("listen", image.ready)
    return Ready()


def _file_conflicts(owner: Owner, made: list[ContainerInstance]) -> list[Problem]:
    first: dict[str, tuple[str, File]] = {}
    problems = []
    for index, instance in enumerate(made):
        for file in instance.files:
            name, other = first.setdefault(file.path, (instance.name, file))
            if other != file:
                message = f"containers {name} and {instance.name} need different files at {file.path}"
                hint = "containers of a pod share one file system here"
                problems.append(owner.problem(message, "containers", index, hint=hint))
    return problems
