"""What a containerlab topology says of one node, its defaults, kinds and groups merged.

Source: types/topology.go (getField, mergeStringSliceFields, mergeStringMapFields, GetNodeKind, GetNodeGroup): single
values of the node win over its group's, then its kind's, then the defaults'; lists are joined the other way round,
without what is there twice; of mappings the more specific entry wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testbed.errors import Position
from testbed.model.clab import ClabTopology, NodeDefinition


class Settings:
    """The merged settings of the node `name`."""

    def __init__(self, topology: ClabTopology, name: str) -> None:
        node = topology.nodes[name]
        self.kind = _kind(topology, node)
        group = topology.groups.get(_group(topology, node, self.kind))
        kind = topology.kinds.get(self.kind)
        self._chain = tuple(entry for entry in (node, group, kind, topology.defaults) if entry is not None)
        self._node = node

    def one(self, field: str) -> Any:
        """A single value; the model's default where nobody states it."""
        for definition in self._chain:
            if _states(definition, field):
                return getattr(definition, field)
        return NodeDefinition.model_fields[field].get_default(call_default_factory=True)

    def at(self, field: str = "", *path: str | int) -> Position | None:
        """Where a field that somebody states was written; the node itself where nobody does."""
        for definition in self._chain:
            if field and _states(definition, field):
                return definition.origin.at(field.replace("_", "-"), *path)
        return self._node.origin.at()

    def stated(self) -> Iterator[str]:
        """The fields that anybody states."""
        for field in NodeDefinition.model_fields:
            if any(_states(definition, field) for definition in self._chain):
                yield field

    def all(self, field: str) -> list[Any]:
        """What each of those says who state the field, the least specific first."""
        return [getattr(definition, field) for definition in reversed(self._chain) if _states(definition, field)]

    def items(self, field: str) -> list[tuple[str, Position | None]]:
        """The entries of a list with their places."""
        found: dict[str, Position | None] = {}
        for definition in reversed(self._chain):
            for index, item in enumerate(getattr(definition, field)):
                found.setdefault(item, definition.origin.at(field.replace("_", "-"), index))
        return list(found.items())

    def pairs(self, field: str) -> dict[str, tuple[str, Position | None]]:
        """The entries of a mapping with their places."""
        found: dict[str, tuple[str, Position | None]] = {}
        for definition in reversed(self._chain):
            for key, value in getattr(definition, field).items():
                found[key] = (value, definition.origin.at(field.replace("_", "-"), key))
        return found


def _states(definition: NodeDefinition, field: str) -> bool:
    value = getattr(definition, field)
    return value is not None and (value is False or bool(value)) and field in definition.model_fields_set


def _kind(topology: ClabTopology, node: NodeDefinition) -> str:
    for name in (node.group, topology.defaults.group):
        if node.kind:
            break
        if name in topology.groups and topology.groups[name].kind:
            return topology.groups[name].kind
    return node.kind or topology.defaults.kind


def _group(topology: ClabTopology, node: NodeDefinition, kind: str) -> str:
    of_kind = topology.kinds[kind].group if kind in topology.kinds else ""
    return node.group or of_kind or topology.defaults.group
