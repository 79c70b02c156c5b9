"""The image that nodes of the container runtimes are made of: what it is made of, and whether an engine has it.

`configs/image` says what is in it. A label of the image has the hash of that folder; one with another hash is stale.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed.render import configs
from testbed.runtime import engine

NAME = "testbed/node:latest"
HASH, SOURCE = "testbed.image.hash", "testbed.image.from"  # labels

State = Literal["present", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image is made of.

    Args:
        base: image to start from. suite: of Debian, the same one. packages: names, sorted.
        date: seconds since the epoch that no file is newer than. hash: of everything in the folder.
    """

    base: str
    suite: str
    packages: tuple[str, ...]
    date: int
    hash: str


@dataclass(frozen=True, slots=True)
class Image:
    """The image on an engine; `size` in bytes, `source`: what it was built from."""

    id: str
    hash: str
    source: str
    size: int


def recipe(folder: Path | None = None) -> Recipe:
    """What is to be built, as `configs/image` (or another folder) says."""
    import yaml

    folder = folder or configs() / "image"
    facts = yaml.safe_load((folder / "image.yaml").read_text())
    listed = [line.partition("#")[0].strip() for line in (folder / "packages").read_text().splitlines()]
    packages = sorted({*filter(None, listed), *facts["packages"]})
    return Recipe(facts["base"], facts["suite"], tuple(packages), facts["date"], _hash(folder))


def _hash(folder: Path) -> str:
    """Of the names and contents of all files of a folder."""
    total = hashlib.sha256()
    for path in sorted(entry for entry in folder.iterdir() if entry.is_file()):
        content = path.read_bytes()
        total.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def found(where: str) -> Image | None:
    """The image on the engine at this address; None when it has none. Raises UnsupportedError: no engine answers."""
    answer = engine.ask(where, f"/images/{NAME}/json")
    if answer is None:
        return None
    labels = answer["Config"].get("Labels") or {}
    return Image(answer["Id"], labels.get(HASH, ""), labels.get(SOURCE, ""), answer["Size"])


def state(where: str) -> State:
    """Whether the engine at this address has the image, made of what `configs/image` says now."""
    there = found(where)
    if there is None:
        return "missing"
    return "present" if there.hash == recipe().hash else "stale"
