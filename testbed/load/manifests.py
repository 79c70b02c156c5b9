"""Kubernetes manifests → objects, every problem reported at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from testbed.errors import InputError, Position, Problem
from testbed.load.document import Document
from testbed.load.explain import shown
from testbed.load.patch import merged
from testbed.load.yaml import parse, read_text, suggest, validate
from testbed.model import calico, kube, metallb, ovn, workloads
from testbed.model.kube import KubeObject

K = TypeVar("K", bound=KubeObject)

KINDS: Mapping[tuple[str, str], type[KubeObject]] = {
    (api_version, kind.model_fields["kind"].default): kind
    for kind in (*kube.KINDS, *workloads.KINDS, *metallb.KINDS, *calico.KINDS, *ovn.KINDS)
    for api_version in kind.api_versions
}
"""(apiVersion, kind) → the model. Both MetalLB and Calico have a BGPPeer: the pair decides."""

_NOT_HERE: Mapping[str, str] = {
    "Job": "a testbed runs services, not jobs",
    "CronJob": "a testbed runs services, not jobs",
    "NetworkPolicy": "not supported yet",
}


_LONGEST_NAME = 253
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of a cluster, in the order they were written.

    Args:
        texts: each object as it was written, as JSON. upstream, archives: see testbed.load.kind.
    """

    objects: tuple[KubeObject, ...] = ()
    texts: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()

    def of(self, kind: type[K]) -> tuple[K, ...]:
        """The objects of one kind, in order."""
        return tuple(item for item in self.objects if isinstance(item, kind))


@dataclass(frozen=True, slots=True)
class ObjectPatch:
    """A merge patch for one object of the manifests.

    Args:
        namespace: empty: `default`, or none where the object states none. position: where the patch was written.
    """

    kind: str
    namespace: str
    name: str
    patch: Document
    position: Position

    def is_for(self, document: Document) -> bool:
        value = document.value if isinstance(document.value, dict) else {}
        metadata = value.get("metadata")
        if value.get("kind") != self.kind or not isinstance(metadata, dict) or metadata.get("name") != self.name:
            return False
        return bool(metadata.get("namespace", "default") == (self.namespace or "default"))

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def read_manifests(
    paths: Sequence[Path], patches: Sequence[ObjectPatch] = (), read: dict[Path, list[Document]] | None = None
) -> Manifests:
    """Reads files; of a directory, its *.yaml and *.yml in the order of their names (not those of its directories).

    Args:
        patches: what to change in the objects before they are looked at, in this order.
        read: what has been read already, by file; it is used, and added to.

    Raises:
        InputError: with all problems of all files.
    """
    problems: list[Problem] = []
    read = {} if read is None else read
    documents: list[Document] = []
    for path in paths:
        files = _yaml_files(path) if path.is_dir() else [path]
        if not files:
            problems.append(Problem(f"no *.yaml or *.yml in the directory {path}"))
        for file in files:
            try:
                if file not in read:
                    read[file] = parse(read_text(file), str(file))
                documents += read[file]
            except InputError as error:
                problems += error.problems
    found, more = _load(documents, patches)
    if problems or more:
        raise InputError([*problems, *more])
    return found


def load_manifests(texts: Sequence[tuple[str, str]]) -> Manifests:
    """The objects of some manifests.

    Args:
        texts: pairs of file name (for positions) and content.

    Raises:
        InputError: with all problems of all files.
    """
    problems: list[Problem] = []
    documents: list[Document] = []
    for file, text in texts:
        try:
            documents += parse(text, file)
        except InputError as error:
            problems += error.problems
    found, more = _load(documents)
    if problems or more:
        raise InputError([*problems, *more])
    return found


def _yaml_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())


def _load(documents: Iterable[Document], patches: Sequence[ObjectPatch] = ()) -> tuple[Manifests, list[Problem]]:
    problems: list[Problem] = []
    items = [item for entry in documents for item in _items(entry.without_nulls(), problems)]
    for patch in patches:
        if not any(patch.is_for(item) for item in items):
            problems.append(Problem(f"no {patch} in the manifests to change", patch.position))
        items = [merged(item, patch.patch) if patch.is_for(item) else item for item in items]
    objects: list[KubeObject] = []
    written: list[str] = []
    for item in items:
        if (found := _object(item, problems)) is not None:
            objects.append(found)
            written.append(json.dumps(item.value, ensure_ascii=False))
    return Manifests(tuple(objects), tuple(written)), problems + _duplicates(objects)


def _items(document: Document, problems: list[Problem]) -> list[Document]:
    """The document, or the items of a List."""
    value = document.value
    if not isinstance(value, dict) or value.get("kind") != "List" or value.get("apiVersion") != "v1":
        return [document]
    for key in value:
        if key not in ("apiVersion", "kind", "metadata", "items"):
            hint = suggest(key, ("apiVersion", "kind", "metadata", "items"))
            problems.append(Problem(f"unknown field {key!r} in List", document.key_at(key), hint))
    items = value.get("items", [])
    if not isinstance(items, list):
        problems.append(Problem("List.items: expected a list", document.at("items")))
        return []
    return [document.part("items", index) for index in range(len(items))]


def _object(document: Document, problems: list[Problem]) -> KubeObject | None:
    value = document.value
    if not isinstance(value, dict):
        problems.append(Problem("not a Kubernetes object: expected a mapping with apiVersion and kind", document.at()))
        return None
    missing = [field for field in ("apiVersion", "kind") if not isinstance(value.get(field), str)]
    if missing:
        message = f"not a Kubernetes object: {' and '.join(missing)} must be given, as text"
        problems.append(Problem(message, document.at(missing[0])))
        return None
    model = KINDS.get((value["apiVersion"], value["kind"]))
    if model is None:
        problems.append(_unknown_kind(document))
        return None
    found, faults = validate(model, document)
    problems += faults
    if found is not None:
        problems += _metadata_problems(found)
    return found


def _metadata_problems(item: KubeObject) -> Iterator[Problem]:
    """What the API server would refuse: names become host names, file names and parts of rules."""
    name, namespace = item.metadata.name, item.metadata.namespace
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        message = f"{item.kind}.metadata.name: {shown(name)} is not a name"
        yield Problem(message, item.origin.at("metadata", "name"), "small letters, digits, '-' and '.'")
    if namespace and not _LABEL.fullmatch(namespace):
        message = f"{item.kind}.metadata.namespace: {shown(namespace)} is not the name of a namespace"
        yield Problem(message, item.origin.at("metadata", "namespace"), "at most 63 small letters, digits and '-'")
    if namespace and not item.namespaced:
        message = f"{item.kind}.metadata.namespace: objects of this kind belong to no namespace"
        yield Problem(message, item.origin.at("metadata", "namespace"), "leave it out")
    for key, value in item.metadata.labels.items():
        if not _LABEL_VALUE.fullmatch(value):
            message = f"{item.kind}.metadata.labels: {shown(value)} is not the value of a label"
            yield Problem(
                message, item.origin.at("metadata", "labels", key), "at most 63 letters, digits, '-', '_', '.'"
            )


def _unknown_kind(document: Document) -> Problem:
    version, kind = document.value["apiVersion"], document.value["kind"]
    if reason := _NOT_HERE.get(kind):
        return Problem(f"kind {kind} ({version}): {reason}", document.at("kind"), f"supported are {_supported()}")
    if versions := [known for known, name in KINDS if name == kind]:
        message = f"kind {kind} is not read as {version!r}"
        return Problem(message, document.at("apiVersion"), f"use {' or '.join(versions)}")
    kinds = list(dict.fromkeys(name for _, name in KINDS))
    hint = suggest(kind, kinds, closeness=0.85)
    hint = hint if hint.startswith("did you mean") else f"supported are {_supported()}"
    return Problem(f"kind {kind!r} ({version}) is not supported", document.at("kind"), hint)


def _supported() -> str:
    return ", ".join(sorted({name for _, name in KINDS}))


def _duplicates(objects: Sequence[KubeObject]) -> list[Problem]:
    first: dict[tuple[str, str, str], KubeObject] = {}
    problems = []
    for item in objects:
        key = (item.api_version.partition("/")[0] if "/" in item.api_version else "", item.kind, item.key)
        known = first.setdefault(key, item)
        if known is not item:
            message = f"{item.kind} {item.key} is there twice, first at {known.origin.at('metadata', 'name')}"
            problems.append(Problem(message, item.origin.at("metadata", "name")))
    return problems
