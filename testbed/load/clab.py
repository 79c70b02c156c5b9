"""Reads a containerlab topology: the file, and the files that it binds into nodes.

Contents are copied when the topology is read: a lab depends on nothing that changes later, and what a node writes
stays in the node.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from testbed.errors import InputError, Position, Problem
from testbed.load.clab_settings import Settings
from testbed.load.document import Document
from testbed.load.expand import expand
from testbed.load.images import catalogue, load_images
from testbed.load.yaml import MAX_BYTES, parse, read_text, validate
from testbed.model.clab import ClabFile
from testbed.model.images import Catalogue

SUFFIXES = (".clab.yml", ".clab.yaml")  # by which the session knows such a file
MAX_FILES = 500  # of one bind: a folder of configuration, not a file system
# What a node has anyway, or what its own network stack cannot use: a bind of it to itself changes nothing.
THERE_ALREADY = ("/dev/net/tun", "/etc/localtime", "/etc/timezone", "/lib/modules", "/usr/lib/modules")
_NOT_FOR_FILES = ("/proc", "/sys", "/dev", "/run/netns", "/run/testbed-supervisor")


@dataclass(frozen=True)
class BoundFile:
    """A file that a node gets, with what it holds."""

    path: str
    content: str
    mode: int


@dataclass(frozen=True)
class ClabNode:
    """A node with all that was read for it.

    Args:
        files: in the order of their binds. directories: that must be there, also where they are empty.
        env: of its env files. there_already: binds that change nothing.
    """

    name: str
    settings: Settings
    files: tuple[BoundFile, ...] = ()
    directories: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    there_already: tuple[str, ...] = ()

    def bind_at(self, path: str) -> Position | None:
        """Where the bind stands that a file or directory of the node came by."""
        found = [(_target(text), position) for text, position in self.settings.items("binds")]
        above = [entry for entry in found if PurePosixPath(path).is_relative_to(entry[0])]
        return max(above, key=lambda entry: len(entry[0]))[1] if above else self.settings.at("binds")


@dataclass(frozen=True)
class LoadedClab:
    """A topology and all it is compiled from."""

    path: Path
    file: ClabFile
    nodes: tuple[ClabNode, ...]
    images: Catalogue


def parse_clab(text: str, file: str, variables: Mapping[str, str]) -> ClabFile:
    """The topology a text describes.

    Args:
        file: its name, for positions. variables: of the environment, for `$NAME` in the text.

    Raises:
        InputError: with every problem.
    """
    if problems := [
        Problem("Go templates are not supported", Position(file, number, line.index("{{") + 1), "render the file first")
        for number, line in enumerate(text.splitlines(), 1)
        if "{{" in line
    ]:
        raise InputError(problems)
    documents = parse(expand(text, variables), file, as_text=True)
    if len(documents) != 1:
        where = documents[1].at() if documents else Position(file, 1, 1)
        raise InputError([Problem("a topology file is one YAML document", where)])
    found, problems = validate(ClabFile, _with_empty_nodes(documents[0]), "topology file")
    if found is None:
        raise InputError(problems)
    return found


def _with_empty_nodes(document: Document) -> Document:
    """`r1:` with nothing below is a node that states nothing; elsewhere null is as if it were not written."""
    value = document.value
    topology = value.get("topology") if isinstance(value, dict) else None
    for part in ("nodes", "kinds", "groups"):
        section = topology.get(part) if isinstance(topology, dict) else None
        if isinstance(section, dict):
            section.update({name: {} for name, entry in section.items() if entry is None})
    return document.without_nulls()


def load_clab(path: Path, variables: Mapping[str, str] = os.environ) -> LoadedClab:
    """Read a topology file, the files that it binds, and the images beside it (NAME.testbed.yaml).

    Raises:
        InputError: with every problem that was found.
    """
    file = parse_clab(read_text(path), str(path), variables)
    reader = _Reader(path.parent, file.name)
    nodes = tuple(reader.node(name, Settings(file.topology, name)) for name in file.topology.nodes)
    if reader.problems:
        raise InputError(reader.problems)
    return LoadedClab(path, file, nodes, _images(path))


def images_file(path: Path) -> Path:
    """Where entries for the image catalogue may lie, beside a topology file."""
    suffix = next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
    return path.with_name(f"{path.name.removesuffix(suffix)}.testbed.yaml")


def _images(path: Path) -> Catalogue:
    beside = images_file(path)
    return catalogue(load_images(read_text(beside), str(beside)) if beside.is_file() else ())


def _target(bind: str) -> str:
    """The path in the node of SOURCE:TARGET[:OPTIONS] (types/bind.go)."""
    parts = bind.split(":")
    return os.path.normpath(parts[1]) if len(parts) > 1 else ""


def magic(lab: str, node: str, folder: Path) -> Mapping[str, str]:
    """The magic variables of binds and exec lines (core/config.go: magicVarReplacer)."""
    directory = folder.resolve() / f"clab-{lab}"
    return {
        "__clabDir__": str(directory),
        "__clabLabName__": directory.name,
        "__clabNodeDir__": str(directory / node),
        "__clabNodeName__": node,
    }


def replaced(text: str, words: Mapping[str, str]) -> str:
    """The text with each of the words replaced."""
    return re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], text)


@dataclass
class _Reader:
    """Reads what nodes bind; collects what is wrong."""

    folder: Path
    lab: str
    problems: list[Problem] = field(default_factory=list)

    def node(self, name: str, settings: Settings) -> ClabNode:
        by_target: dict[str, tuple[str, Position | None]] = {}
        for text, position in settings.items("binds"):
            if bind := self._bind(name, text, position):
                by_target[bind[1]] = (bind[0], position)
        files: dict[str, BoundFile] = {}
        directories: list[str] = []
        there_already: list[str] = []
        for target, (source, position) in sorted(by_target.items()):  # a bind inside another's folder comes after it
            if source == target and target in THERE_ALREADY:
                there_already.append(target)
                continue
            try:
                for path, place in _tree(self.folder / Path(source).expanduser(), PurePosixPath(target)):
                    if place.is_dir():
                        directories.append(str(path))
                    else:
                        files[str(path)] = BoundFile(str(path), *_content(place))
            except _RefusedError as refused:
                self.problems.append(Problem(f"{name}: the bind of {source!r} {refused}", position, refused.hint))
        return ClabNode(
            name, settings, tuple(files.values()), tuple(directories), self._env(name, settings), tuple(there_already)
        )

    def _bind(self, name: str, text: str, position: Position | None) -> tuple[str, str] | None:
        """(source, target) of a bind."""
        parts = text.split(":")
        target = _target(text)
        if len(parts) not in (2, 3) or not parts[0]:
            problem, hint = f"{text!r} is no bind", "write SOURCE:TARGET or SOURCE:TARGET:ro"
        elif not target.startswith("/") or target == "/":
            problem, hint = f"the bind {text!r} needs an absolute path in the node", ""
        elif options := sorted(set(parts[2].split(",")) - {"ro", "rw", "z", "Z", ""} if len(parts) == 3 else ()):
            problem, hint = f"the bind {text!r} has options that are not supported: {', '.join(options)}", "ro, rw"
        elif parts[0] != target and any(PurePosixPath(target).is_relative_to(place) for place in _NOT_FOR_FILES):
            problem, hint = f"the bind {text!r} puts files where the kernel keeps its own", ""
        else:
            return replaced(parts[0], magic(self.lab, name, self.folder)), target
        self.problems.append(Problem(f"{name}: {problem}", position, hint))
        return None

    def _env(self, name: str, settings: Settings) -> dict[str, str]:
        """The variables of the node's env files: NAME=VALUE lines, comments, quotes."""
        found: dict[str, str] = {}
        for text, position in settings.items("env_files"):
            try:
                content, _ = _content(self.folder / Path(text).expanduser())
            except _RefusedError as refused:
                self.problems.append(Problem(f"{name}: the env file {text!r} {refused}", position, refused.hint))
                continue
            for number, line in enumerate(content.splitlines(), 1):
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", line)
                if match is None:
                    message = f"{name}: expected NAME=VALUE in the env file, found {line.strip()!r}"
                    self.problems.append(Problem(message, Position(str(self.folder / text), number, 1)))
                    continue
                value = match[2]
                quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
                found[match[1]] = value[1:-1] if quoted else value
        return found


class _RefusedError(Exception):
    """A bound file cannot be read; the text goes on after its name."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _tree(source: Path, target: PurePosixPath) -> Iterator[tuple[PurePosixPath, Path]]:
    """(path in the node, place on this machine) of a file, or of a folder and all that is in it."""
    try:
        kind = source.stat().st_mode
    except OSError as error:
        raise _RefusedError(f"cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(kind):
        yield target, source
        return
    yield target, source
    count = 0
    for folder, names, files in os.walk(source, followlinks=True):
        names.sort()
        below = target / PurePosixPath(folder).relative_to(source)
        for name in sorted(files) + names:
            count += 1
            if count > MAX_FILES:
                raise _RefusedError(f"is a folder of more than {MAX_FILES} files", "bind what the node needs of it")
            yield below / name, Path(folder) / name


def _content(path: Path) -> tuple[str, int]:
    """Text and permissions of a file."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise _RefusedError(f"cannot be copied: {path} is no file or folder", "sockets and devices stay outside")
        if facts.st_size > MAX_BYTES:
            raise _RefusedError(f"cannot be copied: {path} is larger than {MAX_BYTES // 1024 // 1024} MiB")
        return path.read_bytes().decode(), stat.S_IMODE(facts.st_mode) & 0o777
    except OSError as error:
        raise _RefusedError(f"cannot be read: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _RefusedError(f"cannot be copied: {path} is not UTF-8 text") from None
