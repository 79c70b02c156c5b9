"""What all makers of pods have in common, whether they are a Pod or a controller of pods."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.compile.kube.instances import host_ports
from testbed.errors import Position, Problem
from testbed.model.kube import KubeObject, Protocol
from testbed.model.workloads import DaemonSet, Deployment, Pod, PodSpec, ReplicaSet, StatefulSet

Step = str | int

# Letters and digits that make no words (k8s.io/apimachinery/pkg/util/rand).
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_GENERATED_BASE = 58  # characters of a generated name before its five random ones (apiserver names/generate.go)


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """A Pod, or a controller with its template."""

    object: KubeObject
    spec: PodSpec
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    replicas: int
    revision: str
    spec_path: tuple[Step, ...]

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.object.kind} {self.object.key}"

    @property
    def host_ports(self) -> frozenset[tuple[Protocol, int]]:
        """What each of its pods takes on the node, when it has the node's network."""
        if not self.spec.host_network:
            return frozenset()
        return host_ports(port for container in self.spec.containers for port in container.ports)

    def problem(self, message: str, *path: Step, hint: str = "") -> Problem:
        """A Problem with the pod's specification, at the field `path` below it."""
        return Problem(f"{self.title}: {message}", self.at(*path), hint)

    def at(self, *path: Step) -> Position | None:
        return self.object.origin.at(*self.spec_path, *path)


def owner_of(item: KubeObject) -> Owner | None:
    """The owner of pods that this object is; None for other kinds."""
    if isinstance(item, Pod):
        return Owner(item, item.spec, item.metadata.labels, item.metadata.annotations, 1, "", ("spec",))
    if not isinstance(item, Deployment | ReplicaSet | StatefulSet | DaemonSet):
        return None
    template = item.spec.template
    revision = _letters(10, template.model_dump_json(by_alias=True, exclude_defaults=True))
    replicas = 0 if isinstance(item, DaemonSet) else item.spec.replicas
    metadata = template.metadata
    path = ("spec", "template", "spec")
    return Owner(item, template.spec, metadata.labels, metadata.annotations, replicas, revision, path)


def pod_name(owner: Owner, index: int, moved: bool = False, attempt: int = 0, node: str = "") -> str:
    """The name of a replica; made up as Kubernetes does, but the same each time.

    Args:
        owner: the maker of the pod.
        index: which replica.
        moved: it replaces one whose node was lost, and has a name of its own.
        attempt: counts up while the name is taken.
        node: for a DaemonSet, the node, which decides in place of the index.
    """
    item = owner.object
    if isinstance(item, Pod):
        return item.name
    if isinstance(item, StatefulSet):
        return f"{item.name}-{item.spec.ordinals.start + index}"
    middle = f"{owner.revision}-" if isinstance(item, Deployment) else ""
    which = node if isinstance(item, DaemonSet) else str(index)
    suffix = _letters(5, item.kind, item.key, owner.revision, which, str(moved), str(attempt))
    return f"{item.name}-{middle}"[:_GENERATED_BASE] + suffix


def pod_labels(owner: Owner, name: str, index: int) -> dict[str, str]:
    """The labels of a pod: the template's, and what its controller adds."""
    item = owner.object
    labels = dict(owner.labels)
    if isinstance(item, Deployment):
        labels["pod-template-hash"] = owner.revision
    if isinstance(item, StatefulSet | DaemonSet):
        labels["controller-revision-hash"] = f"{item.name}-{owner.revision}"
    if isinstance(item, StatefulSet):
        labels["statefulset.kubernetes.io/pod-name"] = name
        labels["apps.kubernetes.io/pod-index"] = str(item.spec.ordinals.start + index)
    return labels


def stable_suffix(length: int, *parts: str) -> str:
    """Letters that look random and depend on the parts alone."""
    return _letters(length, *parts)


def _letters(length: int, *parts: str) -> str:
    number = int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest(), "big")
    letters = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)
