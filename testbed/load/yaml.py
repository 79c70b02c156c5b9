"""Reads YAML with positions, and checks it against a model; every problem is reported with file, line and column.

The parser's events are turned into data here rather than by PyYAML's constructors: so a tag can never make an object,
nesting and aliases are limited before anything is built, duplicate keys are seen, and scalars mean what they mean to
Kubernetes (see `testbed.load.scalars`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from testbed.errors import InputError, Position, Problem
from testbed.load.attach import attach
from testbed.load.document import Document, Path
from testbed.load.explain import suggest, validate_strictly
from testbed.load.scalars import NULLS, ScalarError, resolve, short_tag

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Document", "parse", "read_text", "suggest", "validate"]

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 100_000
MAX_DEPTH = 100

# The characters that YAML 1.1 (section 5.1) and YAML 1.2 both leave out of text.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast, where it was built in
_MAP_TAGS = (None, "!", "tag:yaml.org,2002:map")
_SEQUENCE_TAGS = (None, "!", "tag:yaml.org,2002:seq")

M = TypeVar("M", bound=BaseModel)


def read_text(path: FilePath) -> str:
    """The text of a file. Raises InputError when it cannot be read, is too large, or is not UTF-8."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError([Problem(f"cannot read {path}: {error.strerror or error}")]) from error
    if len(data) > MAX_BYTES:
        raise InputError([_too_large(str(path))])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError([Problem("not UTF-8 text", Position(str(path), line, 1))]) from error


def parse(text: str, file: str, *, as_text: bool = False) -> list[Document]:
    """The documents of a YAML text, in order; documents without content are left out.

    Args:
        text: the whole file.
        file: its name, for positions.
        as_text: plain scalars are the text they are written as (and null), for formats whose fields know their types.

    Raises:
        InputError: with every problem that was found: bad syntax, duplicate or non-text keys, unknown tags, control
            characters, numbers beyond 64 bits, aliases that refer to themselves or to nothing, and input beyond
            MAX_BYTES, MAX_NODES (aliases counted once per use) or MAX_DEPTH.
    """
    text = text.removeprefix("\ufeff")
    if problem := _unreadable(text, file):
        raise InputError([problem])
    composer = _Composer(file, as_text=as_text)
    documents: list[Document] = []
    try:
        for root in composer.documents(text):
            builder = _Builder(file)
            documents.append(Document(builder.build(root, (), root.at), file, builder.positions, builder.keys))
    except yaml.YAMLError as error:
        composer.problems.append(_syntax_problem(error, text, file))
    except _StopError as stop:
        composer.problems.append(stop.problem)
    if composer.problems:
        raise InputError(composer.problems)
    return [document for document in documents if document.value is not None]


def validate(model: type[M], document: Document, name: str | None = None) -> tuple[M | None, list[Problem]]:
    """Checks a document against a model.

    Numbers, texts and booleans must be written as such ("80" is no integer), and fields are known by their aliases
    alone. Located models get their `origin`, nested ones relative to themselves.

    Args:
        model: the pydantic model.
        document: what was written.
        name: what messages call the document ("Service"); its `kind`, else the model's name, when not given.

    Returns:
        The instance and no problems, or None and all problems.
    """
    if name is None:
        kind = document.value.get("kind") if isinstance(document.value, dict) else None
        name = kind if isinstance(kind, str) else model.__name__
    instance, problems = validate_strictly(model, document, name)
    if instance is not None:
        attach(instance, document.positions)
    return instance, problems


class _StopError(Exception):
    """Reading cannot go on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(slots=True)
class _Node:
    """A value, not yet expanded. `content` is a scalar, a list of nodes, or a list of entries."""

    at: Position


@dataclass(slots=True)
class _ScalarNode(_Node):
    value: Any


@dataclass(slots=True)
class _SequenceNode(_Node):
    items: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    key: str
    at: Position
    value: _Node


@dataclass(slots=True)
class _MappingNode(_Node):
    entries: list[_Entry] = field(default_factory=list)
    merged: list[_Node] = field(default_factory=list)


class _Composer:
    """Parser events → nodes, aliases still shared. Collects problems that do not keep it from reading on."""

    def __init__(self, file: str, *, as_text: bool = False) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._as_text = as_text
        self._anchors: dict[str, _Node] = {}
        self._open: set[str] = set()
        self._nodes = 0

    def documents(self, text: str) -> Iterator[_Node]:
        events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                self._open.clear()
                yield self._compose(next(events), events, 1)

    def _compose(self, event: Any, events: Iterator[Any], depth: int) -> _Node:
        at = self._position(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, at)
        self._limit(at, depth)
        if event.anchor:
            self._open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            node: _Node = self._scalar(event, at)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, events, at, depth)
        else:
            node = self._mapping(event, events, at, depth)
        if event.anchor:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = node
        return node

    def _limit(self, at: Position, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _StopError(_too_many(at))
        if depth > MAX_DEPTH:
            raise _StopError(_too_deep(at))

    def _alias(self, name: str | None, at: Position) -> _Node:
        if name in self._open:
            self.problems.append(Problem(f"the alias '*{name}' refers to itself", at))
        elif node := self._anchors.get(name or ""):
            return node
        else:
            self.problems.append(Problem(f"the alias '*{name}' refers to no anchor '&{name}' above it", at))
        return _ScalarNode(at, None)

    def _scalar(self, event: Any, at: Position) -> _ScalarNode:
        if found := _UNPRINTABLE.search(event.value):
            self.problems.append(Problem(f"control character U+{ord(found[0]):04X} in a text", at))
        if self._as_text and event.tag is None:
            null = event.implicit[0] and event.value in NULLS
            return _ScalarNode(at, None if null else event.value)
        try:
            return _ScalarNode(at, resolve(event.value, event.tag, event.implicit[0]))
        except ScalarError as error:
            self.problems.append(Problem(str(error), at))
            return _ScalarNode(at, event.value)

    def _sequence(self, event: Any, events: Iterator[Any], at: Position, depth: int) -> _SequenceNode:
        self._check_tag(event.tag, _SEQUENCE_TAGS, at)
        node = _SequenceNode(at)
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            node.items.append(self._compose(item, events, depth + 1))
        return node

    def _mapping(self, event: Any, events: Iterator[Any], at: Position, depth: int) -> _MappingNode:
        self._check_tag(event.tag, _MAP_TAGS, at)
        node = _MappingNode(at)
        seen: dict[str, Position] = {}
        while not isinstance(start := next(events), yaml.MappingEndEvent):
            key = self._compose(start, events, depth + 1)
            key_at = self._position(start)
            value = self._compose(next(events), events, depth + 1)
            name = self._key(key, key_at, start)
            if name is None:
                continue
            if name in seen:
                self.problems.append(Problem(f"duplicate key {name!r}, first on line {seen[name].line}", key_at))
                continue
            seen[name] = key_at
            if name == "<<" and isinstance(start, yaml.ScalarEvent) and start.implicit[0]:
                node.merged += self._merged(value, key_at)
            else:
                node.entries.append(_Entry(name, key_at, value))
        return node

    def _key(self, node: _Node, at: Position, event: Any) -> str | None:
        if isinstance(node, _ScalarNode) and isinstance(node.value, str):
            return node.value
        problem = Problem("the key of a mapping must be a text", at)
        if isinstance(node, _ScalarNode) and isinstance(event, yaml.ScalarEvent):
            number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
            meaning = "is a number" if number else f"means {json.dumps(node.value)}"
            problem = Problem(f"the key {event.value!r} {meaning}, not a text", at, "put quotes around it")
        self.problems.append(problem)
        return None

    def _merged(self, value: _Node, at: Position) -> list[_Node]:
        nodes = value.items if isinstance(value, _SequenceNode) else [value]
        if all(isinstance(node, _MappingNode) for node in nodes):
            return nodes
        self.problems.append(Problem("'<<' merges mappings, and takes an alias of one or a list of such", at))
        return []

    def _check_tag(self, tag: str | None, known: tuple[str | None, ...], at: Position) -> None:
        if tag is not None and tag not in known:
            self.problems.append(Problem(f"unknown tag {short_tag(tag)!r}", at))

    def _position(self, event: Any) -> Position:
        return Position(self._file, event.start_mark.line + 1, event.start_mark.column + 1)


class _Builder:
    """Nodes → data and positions, aliases expanded within the limits."""

    def __init__(self, file: str) -> None:
        self.positions: dict[Path, Position] = {}
        self.keys: dict[Path, Position] = {}
        self._file = file
        self._nodes = 0

    def build(self, node: _Node, path: Path, at: Position) -> Any:
        self._count(node, len(path))
        if isinstance(node, _ScalarNode):
            self.positions[path] = node.at if node.value is not None else at
            return node.value
        self.positions[path] = at
        if isinstance(node, _SequenceNode):
            return [self.build(item, (*path, index), item.at) for index, item in enumerate(node.items)]
        assert isinstance(node, _MappingNode)
        return self._mapping(node, path)

    def _mapping(self, node: _MappingNode, path: Path) -> dict[str, Any]:
        entries: dict[str, _Entry] = {}
        self._collect(node, entries, len(path))
        result = {}
        for name, entry in entries.items():
            self.keys[*path, name] = entry.at
            result[name] = self.build(entry.value, (*path, name), entry.at)
        return result

    def _collect(self, node: _MappingNode, entries: dict[str, _Entry], depth: int) -> None:
        """The entries of a mapping; its own win over what is merged, and of merged mappings the first wins."""
        for entry in node.entries:
            entries.setdefault(entry.key, entry)
        for merged in node.merged:
            assert isinstance(merged, _MappingNode)
            self._count(merged, depth + 1)
            self._collect(merged, entries, depth + 1)

    def _count(self, node: _Node, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _StopError(_too_many(node.at))
        if depth >= MAX_DEPTH:
            raise _StopError(_too_deep(node.at))


def _unreadable(text: str, file: str) -> Problem | None:
    """Why the text cannot be YAML at all."""
    if len(text) > MAX_BYTES or len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        return _too_large(file)
    if found := _UNPRINTABLE.search(text):
        start = found.start()
        column = start - text.rfind("\n", 0, start)
        at = Position(file, text.count("\n", 0, start) + 1, column)
        return Problem(f"control character U+{ord(found[0]):04X} in a text", at)
    return None


def _too_large(file: str) -> Problem:
    return Problem(f"larger than {MAX_BYTES // 1024 // 1024} MiB", Position(file, 1, 1))


def _too_many(at: Position) -> Problem:
    return Problem(f"more than {MAX_NODES} values, aliases counted each time they are used", at)


def _too_deep(at: Position) -> Problem:
    return Problem(f"nested more than {MAX_DEPTH} levels deep", at)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(f"invalid YAML: {error}", Position(file, 1, 1))
    mark = error.problem_mark or error.context_mark
    at = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
    problem, context = error.problem or "", error.context or ""
    if mark and problem.endswith("cannot start any token") and mark.index < len(text):
        what = "a tab cannot indent" if text[mark.index] == "\t" else f"{text[mark.index]!r} cannot start a text"
        return Problem(f"invalid YAML: {what}", at, "use spaces" if "tab" in what else "put quotes around the text")
    if context and error.context_mark and error.context_mark.line + 1 != at.line:
        context += f" that starts on line {error.context_mark.line + 1}"
    return Problem(f"invalid YAML: {problem or context}", at, context if problem else "")
