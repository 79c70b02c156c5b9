"""The places a flow names: a node, a workload's pods, a Service, an address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.lab import Flow, FlowTarget, Lab
from testbed.model.lab import Places as LabPlaces

WORKLOADS = {"deployment": "Deployment", "daemonset": "DaemonSet", "statefulset": "StatefulSet", "pod": "Pod"}
_WORDS = (*WORKLOADS, "service")

Path = tuple[str | int, ...]


class PlaceError(Exception):
    """A place that a flow names does not exist, or cannot stand there. `hint`: what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def at(self, flow: Flow, *path: str | int) -> Problem:
        """The problem, at a field of the flow."""
        return Problem(str(self), flow.origin.at(*path), self.hint)


def place(lab: Lab, text: str | FlowTarget) -> FlowTarget:
    """A place in its long form; its node exists in the lab.

    Raises:
        PlaceError: it is none, or the lab has no such node.
    """
    if isinstance(text, FlowTarget):
        if text.node is not None:
            known_node(lab, text.node)
        return text
    kind, slash, name = text.partition("/")
    if slash:
        return _object(text, kind, name)
    try:
        return FlowTarget(address=str(ipaddress.ip_address(text)))
    except ValueError:
        return FlowTarget(node=known_node(lab, text))


def _object(text: str, kind: str, name: str) -> FlowTarget:
    if kind not in _WORDS:
        raise PlaceError(f"{text!r} names no place: unknown kind {kind!r}", suggest(kind, _WORDS))
    if not 1 <= len([part for part in name.split("/") if part]) == name.count("/") + 1 <= 2:
        raise PlaceError(f"{text!r} names no place", f"write {kind}/NAME or {kind}/NAMESPACE/NAME")
    return FlowTarget.model_validate({kind: name})


def known_node(lab: Lab, name: str) -> str:
    """The name, when the lab has such a node. Raises PlaceError."""
    if name not in lab.nodes:
        raise PlaceError(f"no node {name!r}", suggest(name, lab.nodes))
    return name


def object_name(text: str) -> tuple[str, str]:
    """(namespace, name) of NAME or NAMESPACE/NAME."""
    namespace, _, name = text.rpartition("/")
    return namespace or "default", name


def each(places: LabPlaces, field: str) -> Iterator[tuple[Path, str | FlowTarget]]:
    """The places of a field that takes one or several, with where each was written."""
    if isinstance(places, tuple):
        yield from (((field, index), entry) for index, entry in enumerate(places))
    else:
        yield (field,), places
