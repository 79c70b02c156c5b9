"""Reads a lab: its file, the manifests it names, and the image catalogue."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import InputError, Problem
from testbed.load.explain import suggest
from testbed.load.images import catalogue
from testbed.load.manifests import Manifests, read_manifests
from testbed.load.yaml import parse, read_text, validate
from testbed.model.images import Catalogue
from testbed.model.lab import API_VERSION, Lab

FILE = "lab.yaml"


@dataclass(frozen=True)
class Loaded:
    """A lab and all it is compiled from."""

    path: Path
    lab: Lab
    manifests: Manifests
    images: Catalogue


def labs_folder() -> Path:
    """Where the labs that come with the project are: in the installed package, else beside it in the checkout."""
    spec = importlib.util.find_spec("testbed")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    return package / "labs" if (package / "labs").is_dir() else package.parent / "labs"


def find(name: str) -> Path:
    """The lab file a user means: a file, a folder with a lab.yaml, or the name of a lab that comes with the project.

    Raises:
        InputError: there is none.
    """
    path = Path(name)
    for candidate in (path, path / FILE, labs_folder() / name / FILE):
        if candidate.is_file():
            return candidate
    known = sorted(entry.parent.name for entry in labs_folder().glob(f"*/{FILE}"))
    raise InputError(
        [Problem(f"no lab {name!r}: neither a lab file, nor a folder with a {FILE}", hint=suggest(name, known))]
    )


def parse_lab(text: str, file: str) -> Lab:
    """The lab a text describes. Raises InputError with every problem."""
    documents = parse(text, file)
    if len(documents) != 1:
        raise InputError([Problem(f"{file}: a lab file is one YAML document, found {len(documents)}")])
    document = documents[0]
    if isinstance(document.value, dict):
        version = document.value.get("apiVersion", API_VERSION)
        if version != API_VERSION:
            hint = f"this version reads {API_VERSION}"
            raise InputError([Problem(f"unknown apiVersion {version!r}", document.at("apiVersion"), hint)])
    lab, problems = validate(Lab, document, "lab")
    if lab is None:
        raise InputError(problems)
    return lab


def load(name: str) -> Loaded:
    """Read a lab by path or name.

    Raises:
        InputError: with every problem of its file, or else of its manifests.
    """
    path = find(name)
    lab = parse_lab(read_text(path), str(path))
    return Loaded(path, lab, _manifests(lab, path.parent), catalogue(lab.images))


def _manifests(lab: Lab, folder: Path) -> Manifests:
    """The manifests of the cluster; they must lie in the lab's own folder."""
    if lab.cluster is None:
        return Manifests()
    problems = []
    paths = []
    for index, text in enumerate(lab.cluster.manifests):
        path = folder / text
        position = lab.cluster.origin.at("manifests", index)
        if Path(text).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            problems.append(Problem(f"{text!r} leads out of the lab's folder", position))
        elif not path.exists():
            problems.append(Problem(f"no file or folder {text!r}", position))
        else:
            paths.append(path)
    if problems:
        raise InputError(problems)
    return read_manifests(paths)
