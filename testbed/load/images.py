"""Reads the image catalogue: the built-in one, and a lab's own entries after it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import TemplateNotFound

from testbed.errors import InputError, Problem
from testbed.load.yaml import parse, read_text, validate
from testbed.model.images import Catalogue, Image, ImageList, texts_named
from testbed.render import configs, environment

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def builtin_images() -> tuple[Image, ...]:
    """The entries of configs/images.yaml. Raises InputError when it is wrong."""
    path = configs() / "images.yaml"
    return load_images(read_text(path), str(path))


def load_images(text: str, file: str) -> tuple[Image, ...]:
    """The entries of a catalogue file. Raises InputError with all problems."""
    documents = parse(text, file)
    if len(documents) != 1:
        raise InputError([Problem(f"{file}: expected one document with 'images', found {len(documents)}")])
    found, problems = validate(ImageList, documents[0], "")
    if found is None:
        raise InputError(problems)
    problems = _twice(found.images)
    if problems:
        raise InputError(problems)
    return found.images


def catalogue(extra: Sequence[Image] = ()) -> Catalogue:
    """The built-in entries and a lab's own, with the texts they name.

    Raises:
        InputError: an entry names a template or program that the project does not have, or two of `extra` have the
            same name.
    """
    images = (*builtin_images(), *extra)
    problems = _twice(extra)
    texts: dict[tuple[str, str], str] = {}
    for image, path, kind, name in texts_named(images):
        text = _template(name) if kind == "template" else _program(name)
        if text is None:
            problems.append(Problem(f"there is no {kind} {name!r}", image.origin.at("files", path, kind)))
        else:
            texts[kind, name] = text
    if problems:
        raise InputError(problems)
    return Catalogue(images, texts)


def _twice(images: Sequence[Image]) -> list[Problem]:
    seen: set[str] = set()
    problems = []
    for image in images:
        for index, name in enumerate(image.names):
            if name in seen:
                problems.append(Problem(f"the image {name!r} is there twice", image.origin.at("names", index)))
            seen.add(name)
    return problems


def _template(name: str) -> str | None:
    loader = environment().loader
    assert loader is not None
    try:
        return loader.get_source(environment(), name)[0]
    except TemplateNotFound:
        return None


def _program(name: str) -> str | None:
    """A program of the project; only those directly in its folder."""
    path = _PACKAGE / "programs" / name
    if path.name != name or name == "__init__.py" or not path.is_file():
        return None
    return read_text(path)
