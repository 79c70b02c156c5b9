"""ConfigMap, Secret and emptyDir volumes → files and directories of a pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.compile.kube.owners import Owner, Step
from testbed.errors import Problem
from testbed.load.manifests import Manifests
from testbed.load.yaml import suggest
from testbed.model.workloads import ConfigMap, Container, KeyToPath, Secret, Volume, VolumeMount
from testbed.plan import File


@dataclass(frozen=True, slots=True)
class Mounted:
    """What the volumes of a container bring.

    Args:
        files: with their full paths. directories: of emptyDir volumes.
        hidden: paths whose content of the image is hidden by a mount: it and all below it.
    """

    files: tuple[File, ...] = ()
    directories: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def hides(self, path: str) -> bool:
        return any(path == mount or path.startswith(mount.rstrip("/") + "/") for mount in self.hidden)


class Sources:
    """The ConfigMaps and Secrets that pods may refer to."""

    def __init__(self, manifests: Manifests) -> None:
        self._texts: dict[tuple[str, str], Mapping[str, str]] = {}
        for config_map in manifests.of(ConfigMap):
            self._texts["ConfigMap", config_map.key] = config_map.data
        for secret in manifests.of(Secret):
            self._texts["Secret", secret.key] = secret.texts

    def texts(self, kind: str, namespace: str, name: str) -> Mapping[str, str] | None:
        """Key → text; None when there is no such object."""
        return self._texts.get((kind, f"{namespace}/{name}"))

    def missing(self, kind: str, namespace: str, name: str) -> tuple[str, str]:
        """Message and hint for an object that is not there."""
        names = [
            key.partition("/")[2] for known, key in self._texts if known == kind and key.startswith(namespace + "/")
        ]
        return f"there is no {kind} {namespace}/{name}", suggest(name, names)


@dataclass(slots=True)
class _Work:
    """One container's volumes in the making."""

    owner: Owner
    path: tuple[Step, ...]
    files: dict[str, File] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def mounted(owner: Owner, index: int, sources: Sources) -> tuple[Mounted, list[Problem]]:
    """The volumes of the container at position `index`, and what is wrong with them."""
    container: Container = owner.spec.containers[index]
    volumes = {volume.name: (position, volume) for position, volume in enumerate(owner.spec.volumes)}
    work = _Work(owner, ("containers", index, "volumeMounts"))
    for mount_index, mount in enumerate(container.volume_mounts):
        position, volume = volumes[mount.name]
        if volume.empty_dir is not None:
            _mount_empty(work, mount_index, mount)
        else:
            _mount_texts(work, mount_index, mount, (position, volume), sources)
    hidden = tuple(mount.mount_path for mount in container.volume_mounts)
    files = tuple(work.files[path] for path in sorted(work.files))
    return Mounted(files, tuple(work.directories), hidden), work.problems


def empty_dir_problems(owner: Owner) -> list[Problem]:
    """An emptyDir is one directory of the pod: containers that share it must do so at one path."""
    places: dict[str, str] = {}
    problems = []
    empty = {volume.name for volume in owner.spec.volumes if volume.empty_dir is not None}
    for index, container in enumerate(owner.spec.containers):
        for mount_index, mount in enumerate(container.volume_mounts):
            first = places.setdefault(mount.name, mount.mount_path)
            if mount.name in empty and mount.mount_path != first:
                message = f"the emptyDir {mount.name!r} is mounted at both {first} and {mount.mount_path}"
                path = ("containers", index, "volumeMounts", mount_index, "mountPath")
                problems.append(owner.problem(message, *path, hint="containers of a pod share it at one path"))
    return problems


def _mount_empty(work: _Work, index: int, mount: VolumeMount) -> None:
    if mount.read_only:
        message = f"the emptyDir {mount.name!r} cannot be mounted readOnly"
        work.problems.append(work.owner.problem(message, *work.path, index, "readOnly"))
    elif mount.sub_path is not None:
        message = f"the emptyDir {mount.name!r} cannot be mounted by subPath"
        work.problems.append(work.owner.problem(message, *work.path, index, "subPath"))
    else:
        work.directories.append(mount.mount_path)


def _mount_texts(work: _Work, index: int, mount: VolumeMount, volume: tuple[int, Volume], sources: Sources) -> None:
    position, declared = volume
    tree, problems = _tree(work.owner, position, declared, sources)
    work.problems += problems
    if tree is None:
        return
    if mount.sub_path is None:
        chosen = {f"{mount.mount_path.rstrip('/')}/{path}": file for path, file in tree.items()}
    elif mount.sub_path in tree:
        chosen = {mount.mount_path: tree[mount.sub_path]}
    else:
        below = mount.sub_path + "/"
        chosen = {
            f"{mount.mount_path.rstrip('/')}/{path.removeprefix(below)}": file
            for path, file in tree.items()
            if path.startswith(below)
        }
    if not chosen and mount.sub_path is not None:
        message = f"the volume {mount.name!r} has no {mount.sub_path!r}"
        hint = suggest(mount.sub_path, tree)
        work.problems.append(work.owner.problem(message, *work.path, index, "subPath", hint=hint))
    for path, (content, mode) in chosen.items():
        work.files[path] = File(path, content, mode)


def _tree(
    owner: Owner, position: int, volume: Volume, sources: Sources
) -> tuple[dict[str, tuple[str, int]] | None, list[Problem]]:
    """Path below the mount → content and mode."""
    if volume.config_map is not None:
        kind, name, field_name, key = "ConfigMap", volume.config_map.name, "configMap", "name"
        items, mode = volume.config_map.items, volume.config_map.default_mode
    else:
        assert volume.secret is not None
        kind, name, field_name, key = "Secret", volume.secret.secret_name, "secret", "secretName"
        items, mode = volume.secret.items, volume.secret.default_mode
    namespace = owner.object.namespace
    texts = sources.texts(kind, namespace, name)
    if texts is None:
        message, hint = sources.missing(kind, namespace, name)
        return None, [owner.problem(message, "volumes", position, field_name, key, hint=hint)]
    if not items:
        return {path: (text, mode) for path, text in texts.items()}, []
    problems = [
        owner.problem(
            f"{kind} {namespace}/{name} has no key {item.key!r}",
            *("volumes", position, field_name, "items", number, "key"),
            hint=suggest(item.key, texts),
        )
        for number, item in enumerate(items)
        if item.key not in texts
    ]
    return _chosen(items, texts, mode), problems


def _chosen(items: Sequence[KeyToPath], texts: Mapping[str, str], mode: int) -> dict[str, tuple[str, int]]:
    return {
        item.path: (texts[item.key], mode if item.mode is None else item.mode) for item in items if item.key in texts
    }
