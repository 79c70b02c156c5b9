"""What is different between two Plans, in the terms in which it is applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import Field, dataclass, fields, is_dataclass
from difflib import unified_diff

from testbed.plan import MAIN_TABLE, Link, Node, Plan, Route, SecretRef

# What a set of namespaces, or a container, cannot change while it lives; and commands are for a new node.
IDENTITY = ("kind", "parent", "hostname", "commands", "image", "entrypoint", "cmd", "env")

# What of a node its routing daemons take no notice of.
UNHEARD = frozenset({"rules", "rulesets"})


@dataclass(frozen=True)
class NodeChange:
    """A node that is in both Plans and differs."""

    old: Node
    new: Node

    @property
    def recreated(self) -> bool:
        """Whether it must be made anew; a container of a user's own image also for what it reads when it starts.

        VRFs come and go while it lives; what they are made of does not change.
        """
        names = (*IDENTITY, *(("files", "directories", "processes") if self.new.image else ()))
        moved = any(getattr(self.old, name) != getattr(self.new, name) for name in names)
        drivers = {"netns" for node in (self.old, self.new) if node.vrf_namespaces}
        drivers |= {"device" for node in (self.old, self.new) if node.vrf_devices}
        return moved or len(drivers) > 1

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

    @property
    def reaches_routing(self) -> bool:
        """Whether routing daemons may hear of it, and tell others. Of what only says how packets are treated they do
        not."""
        elsewhere = self.added or self.removed or self.links_added or self.links_removed
        return bool(elsewhere) or any(not UNHEARD.issuperset(change.fields) for change in self.changed)


def diff(old: Plan, new: Plan) -> PlanDiff:
    """What must change to get from `old` to `new`."""
    links = frozenset(old.links), frozenset(new.links)
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
        links_added=tuple(link for link in new.links if link not in links[0]),
        links_removed=tuple(link for link in old.links if link not in links[1]),
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
    return f"{link.a.node}:{link.a.interface} - {link.b.node}:{link.b.interface}"


def _field_lines(name: str, old: object, new: object) -> list[str]:
    """The lines about one field of a node."""
    if not (isinstance(old, tuple) and isinstance(new, tuple)):
        return [f"~ {name}: {_shown(old)} → {_shown(new)}"]
    before, after = _keyed(old), _keyed(new)
    lines = [f"- {name}: {_whole(key, entry)}" for key, entry in before.items() if key not in after]
    lines += [f"+ {name}: {_whole(key, entry)}" for key, entry in after.items() if key not in before]
    for key, entry in after.items():
        if key in before and before[key] != entry:
            lines += [f"~ {name}: {key}: {line}" for line in _changes(before[key], entry)]
    return lines or [f"~ {name}: in another order"]


def _keyed(entries: Iterable[object]) -> dict[str, object]:
    """Entries by what names them; a second one of the same name gets a number."""
    found: dict[str, object] = {}
    count: Counter[str] = Counter()
    for entry in entries:
        key = _key(entry)
        count[key] += 1
        found[key if count[key] == 1 else f"{key} ({count[key]})"] = entry
    return found


def _key(entry: object) -> str:
    if isinstance(entry, tuple):
        return str(entry[0])
    if isinstance(entry, Route):
        where = f" in VRF {entry.vrf}" if entry.vrf else ""
        return entry.to + where + (f" in table {entry.table}" if entry.table != MAIN_TABLE else "")
    for field in _NAMES:
        if hasattr(entry, field):
            return str(getattr(entry, field))
    return str(entry)


_NAMES = ("path", "name", "priority")
_TEXTS = ("content", "text")


def _whole(key: str, entry: object) -> str:
    """An entry in one line, without the text of a file or ruleset."""
    if isinstance(entry, tuple):
        return " ".join(str(part) for part in entry)
    if not is_dataclass(entry):
        return key
    named = {*_NAMES, *_TEXTS, "to", "table", "vrf"}
    facts = [
        f"{field.name} {_shown(getattr(entry, field.name), field.name)}"
        for field in fields(entry)
        if field.name not in named and getattr(entry, field.name) != _default(field)
    ]
    return f"{key} ({', '.join(facts)})" if facts else key


def _default(field: Field[object]) -> object:
    return field.default_factory() if callable(field.default_factory) else field.default


def _changes(old: object, new: object) -> list[str]:
    """How an entry differs from the one that had its name: fields, and lines of texts."""
    if not is_dataclass(old) or not is_dataclass(new):
        return [f"{_rest(old)} → {_rest(new)}"]
    lines = []
    for field in fields(new):
        here, there = getattr(old, field.name), getattr(new, field.name)
        if here == there:
            continue
        if field.name in _TEXTS and isinstance(here, str) and isinstance(there, str):
            lines += _text_changes(here, there)
        else:
            lines.append(f"{field.name} {_shown(here, field.name)} → {_shown(there, field.name)}")
    return lines


def _text_changes(old: str, new: str) -> list[str]:
    changed = list(unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]  # without its file names
    return [f"{line[0]} {line[1:]}" for line in changed if not line.startswith("@@")] or ["other line ends"]


def _rest(entry: object) -> str:
    return " ".join(str(part) for part in entry[1:]) if isinstance(entry, tuple) else str(entry)


def _shown(value: object, field: str = "") -> str:
    if field == "mode" and isinstance(value, int):
        return f"{value:04o}"
    if isinstance(value, tuple):
        return " ".join(_shown(part) for part in value) or "none"
    if isinstance(value, SecretRef):
        return f"the {value.part} key {value.secret}"
    if isinstance(value, str) and "\n" in value:
        return f"{len(value.splitlines())} lines of text"
    if is_dataclass(value):
        facts = [f"{field.name} {_shown(getattr(value, field.name))}" for field in fields(value)]
        return f"[{', '.join(facts)}]"
    return "none" if value in ("", None) else str(value)
