"""What is different between two Plans, in the terms in which it is applied."""

from __future__ import annotations

from dataclasses import dataclass, fields

from testbed.plan import Link, Node, Plan

# What a set of namespaces cannot change while it lives.
IDENTITY = ("kind", "parent", "hostname", "vrfs")


@dataclass(frozen=True)
class NodeChange:
    """A node that is in both Plans and differs."""

    old: Node
    new: Node

    @property
    def recreated(self) -> bool:
        """Whether it must be made anew."""
        return any(getattr(self.old, name) != getattr(self.new, name) for name in IDENTITY)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(
            entry.name for entry in fields(Node) if getattr(self.old, entry.name) != getattr(self.new, entry.name)
        )


@dataclass(frozen=True)
class PlanDiff:
    added: tuple[Node, ...]
    removed: tuple[Node, ...]
    changed: tuple[NodeChange, ...]
    links_added: tuple[Link, ...]
    links_removed: tuple[Link, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.links_added or self.links_removed)


def diff(old: Plan, new: Plan) -> PlanDiff:
    """What must change to get from `old` to `new`."""
    before = {node.name: node for node in old.nodes}
    after = {node.name: node for node in new.nodes}
    return PlanDiff(
        added=tuple(node for node in new.nodes if node.name not in before),
        removed=tuple(node for node in old.nodes if node.name not in after),
        changed=tuple(
            NodeChange(before[node.name], node)
            for node in new.nodes
            if node.name in before and before[node.name] != node
        ),
        links_added=tuple(link for link in new.links if link not in old.links),
        links_removed=tuple(link for link in old.links if link not in new.links),
    )


def describe(found: PlanDiff) -> list[str]:
    """The difference as lines: `+` appears, `-` goes, `~` changes."""
    lines = [f"+ node {node.name} ({node.kind})" for node in found.added]
    lines += [f"- node {node.name} ({node.kind})" for node in found.removed]
    for change in found.changed:
        how = " (made anew)" if change.recreated else ""
        lines.append(f"~ node {change.new.name}{how}")
        for name in change.fields:
            lines += [
                f"    {line}" for line in _field_lines(name, getattr(change.old, name), getattr(change.new, name))
            ]
    lines += [f"+ link {_link(link)}" for link in found.links_added]
    lines += [f"- link {_link(link)}" for link in found.links_removed]
    return lines


def _link(link: Link) -> str:
    return f"{link.a.node}:{link.a.interface} – {link.b.node}:{link.b.interface}"


def _field_lines(name: str, old: object, new: object) -> list[str]:
    if not (isinstance(old, tuple) and isinstance(new, tuple)):
        return [f"~ {name}: {old} → {new}"]
    lines = []
    for sign, here, there in (("-", old, new), ("+", new, old)):
        for entry in here:
            if entry not in there:
                lines += _entry_lines(sign, name, entry, there)
    return lines


def _entry_lines(sign: str, name: str, entry: object, there: tuple[object, ...]) -> list[str]:
    label = next((str(getattr(entry, key)) for key in ("path", "name", "to") if hasattr(entry, key)), str(entry))
    text = _text(entry)
    if text is None:
        return [f"{sign} {name}: {label}"]
    twin = next((_text(other) for other in there if _label(other) == label), None) or ""
    known = set(twin.splitlines())
    return [f"{sign} {name}: {label}: {line.strip()}" for line in text.splitlines() if line not in known]


def _label(entry: object) -> str:
    return next((str(getattr(entry, key)) for key in ("path", "name") if hasattr(entry, key)), "")


def _text(entry: object) -> str | None:
    """The text of a file or ruleset; None for anything else (a secret is not shown)."""
    found = getattr(entry, "content", getattr(entry, "text", None))
    return found if isinstance(found, str) else None
