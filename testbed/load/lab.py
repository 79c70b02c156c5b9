"""Reads a lab: its file, the manifests it names, and the image catalogue."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import InputError, Position, Problem
from testbed.load.document import Document
from testbed.load.explain import shown, suggest
from testbed.load.images import catalogue
from testbed.load.kind import upstream
from testbed.load.manifests import Manifests, ObjectPatch, read_manifests
from testbed.load.shipped import FILE, labs_folder, shipped_labs
from testbed.load.yaml import parse, read_text, validate
from testbed.model.images import Catalogue
from testbed.model.lab import API_VERSION, Lab


@dataclass(frozen=True)
class Loaded:
    """A lab and all it is compiled from."""

    path: Path
    lab: Lab
    manifests: Manifests
    images: Catalogue


def find(name: str) -> Path:
    """The lab file a user means: a file, a folder with a lab.yaml, or the name of a lab that comes with the project.

    Raises:
        InputError: there is none.
    """
    path = Path(name)
    for candidate in (path, path / FILE, labs_folder() / name / FILE):
        with contextlib.suppress(OSError):  # a name too long for the file system is no file
            if candidate.is_file():
                return candidate
    hint = suggest(name, shipped_labs())
    raise InputError([Problem(f"no lab {name!r}: neither a lab file, nor a folder with a {FILE}", hint=hint)])


def parse_lab(text: str, file: str) -> Lab:
    """The lab a text describes.

    Args:
        file: its name, for positions.

    Raises:
        InputError: with every problem. A file of another apiVersion is not looked at any further.
    """
    return lab_of(lab_document(text, file))


def lab_document(text: str, file: str) -> Document:
    """The one document of a lab file. Raises InputError when there is none or several, or they cannot be read."""
    return _only_document(parse(text, file), file)


def lab_of(document: Document) -> Lab:
    """The lab a document describes. Raises as `parse_lab`."""
    if isinstance(document.value, dict):
        version = document.value.get("apiVersion", API_VERSION)
        if version != API_VERSION:
            hint = f"this version reads {API_VERSION}"
            raise InputError([Problem(f"unknown apiVersion {shown(version)}", document.at("apiVersion"), hint)])
    lab, problems = validate(Lab, document, "lab")
    if lab is None:
        raise InputError(problems)
    return lab


def _only_document(documents: list[Document], file: str) -> Document:
    if not documents:
        message = "the file is empty: a lab file is one YAML document"
        raise InputError([Problem(message, Position(file, 1, 1), f"it begins with apiVersion: {API_VERSION}")])
    if len(documents) > 1:
        hint = "manifests are files of their own, named in cluster.manifests"
        message = f"a lab file is one YAML document, and this is the second of {len(documents)}"
        raise InputError([Problem(message, documents[1].at(), hint)])
    return documents[0]


def load(name: str) -> Loaded:
    """Read a lab by path or name.

    Raises:
        InputError: with every problem of its file, or else of its manifests.
    """
    path = find(name)
    lab = parse_lab(read_text(path), str(path))
    return Loaded(path, lab, manifests_of(lab, path), catalogue(lab.images))


def manifests_of(
    lab: Lab, path: Path, patches: Sequence[ObjectPatch] = (), read: dict[Path, list[Document]] | None = None
) -> Manifests:
    """The manifests of the cluster; they must lie in the lab's own folder.

    Args:
        path: of the lab file. patches, read: as for `testbed.load.manifests.read_manifests`.

    Raises:
        InputError: with everything that is wrong with them.
    """
    if lab.cluster is None:
        return Manifests()
    problems: list[Problem] = []
    files: list[Path] = []
    for index, text in enumerate(lab.cluster.manifests):
        try:
            found = _manifest_files(path, text)
            if twice := next((file for file in found if file in files), None):
                raise _PathError(f"{str(twice.relative_to(path.parent))!r} is named twice")
            files += found
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle (pathlib, Python 3.11)
            message = str(error) if isinstance(error, _PathError) else f"{text!r} cannot be read: {_reason(error)}"
            problems.append(Problem(message, lab.cluster.origin.at("manifests", index)))
    sources: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    if lab.cluster.provider == "kind":
        sources, archives, wrong = upstream(lab.cluster, path)
        problems += wrong
    if problems:
        raise InputError(problems)
    return dataclasses.replace(read_manifests(files, patches, read), upstream=sources, archives=archives)


class _PathError(ValueError):
    """An entry of cluster.manifests is refused; the text says why."""


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _manifest_files(lab_file: Path, text: str) -> list[Path]:
    """The files that an entry of cluster.manifests stands for. Raises _PathError, or what the file system says."""
    folder = lab_file.parent
    path = folder / text
    if Path(text).is_absolute() or not _inside(path, folder):
        raise _PathError(f"{text!r} leads out of the lab's folder")
    if not path.exists():
        raise _PathError(f"no file or folder {text!r} in the lab's folder")
    if not path.is_dir():
        if path.samefile(lab_file):
            raise _PathError(f"{text!r} is the lab file itself, which is no manifest")
        return [path]
    files = sorted(entry for entry in path.iterdir() if entry.suffix in (".yaml", ".yml") and entry.is_file())
    if not files:
        raise _PathError(f"no *.yaml or *.yml in the folder {text!r}")
    if outside := next((entry for entry in files if not _inside(entry, folder)), None):
        raise _PathError(f"{str(outside.relative_to(folder))!r} leads out of the lab's folder")
    if any(entry.samefile(lab_file) for entry in files):
        raise _PathError(f"{text!r} is the lab file's own folder: manifests lie in a folder of their own")
    return files


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path stays in a folder, links followed."""
    return path.resolve().is_relative_to(folder.resolve())
