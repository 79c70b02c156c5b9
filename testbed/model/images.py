"""The image catalogue: which installed program stands for which container image.

A lab pulls no images. A container runs a program of the machine (or the project's own echo server) with the files,
variables and readiness that make it behave as the image would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from testbed.model.base import Located, Model
from testbed.model.workloads import AbsolutePath, FieldPath, FileMode, PortNumber, VariableName

SecretPart = Literal["private", "public"]
Role = Literal["", "echo", "ssh", "ingress-nginx", "dns"]
BUSYBOX = "/bin/busybox"
Capability = Literal["frr", "host"]

# A host has a dot or a port, or is localhost (distribution/reference: splitDockerDomain).
_HOST = re.compile(r"(?:localhost(?::[0-9]+)?|[A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)+(?::[0-9]+)?|[A-Za-z0-9-]+:[0-9]+)/")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_SUFFIX = re.compile(
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)


def normalise(reference: str) -> str:
    """The name an image has in the catalogue: no registry, no `library/`, no tag, no digest.

    Source of the grammar: github.com/distribution/reference. Raises ValueError when it is no image reference.
    """
    host = _HOST.match(reference)
    rest = reference[host.end() :] if host else reference
    path = _PATH.match(rest)
    if not path or not _SUFFIX.fullmatch(rest, path.end()):
        raise ValueError(f"{reference!r} is not the name of an image")
    return path[0].removeprefix("library/")


def _normal(name: str) -> str:
    if normalise(name) != name:
        raise ValueError(f"write {normalise(name)!r}: names have no registry, tag or digest")
    return name


class SecretFile(Model):
    """A part of a key pair that is made for the lab when it is brought up."""

    name: str
    part: SecretPart


class ImageFile(Model):
    """A file of the image.

    Args:
        content: its text, as it is.
        template: a Jinja template below configs/, given `name`, `namespace`, `hostname`, `node` and `ports`.
        program: one of the project's own programs, by its file name.
        secret: a part of a key pair of the lab.
    """

    content: str | None = None
    template: str | None = None
    program: str | None = None
    secret: SecretFile | None = None
    mode: FileMode = 0o644

    @model_validator(mode="after")
    def _one(self) -> Self:
        sources = (self.content, self.template, self.program, self.secret)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("exactly one of content, template, program, secret is needed")
        return self


class FieldValue(Model):
    """A variable that holds a fact about the pod, as with `fieldRef`."""

    field: FieldPath


class Option(Model):
    """An option that the image's real program knows.

    Args:
        argv: what it becomes for the program that stands in; "{value}" is its value.
        hand_on: the part of the lab that configures this role reads it (`ContainerInstance.options`).
        ready: its value is the port that shows the program is ready.
        without_effect: why it changes nothing here. Exactly one of this, `argv` and `hand_on` is given.
    """

    argv: tuple[str, ...] = ()
    hand_on: bool = False
    ready: bool = False
    without_effect: str = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.argv) + self.hand_on + bool(self.without_effect) != 1:
            raise ValueError("exactly one of argv, handOn, withoutEffect is needed")
        return self


class Arguments(Model):
    """The command line of the image's real program, where another one stands in for it.

    Args:
        entrypoint: what a manifest may give as `command` for it ("/agnhost").
        subcommand: what its first argument must be ("netexec"), empty for none.
        required: whether the subcommand must be given: without it, the image does something else.
        options: known options by their names without dashes; others are refused.
        defaults: the values of options that are not given.
    """

    entrypoint: str = ""
    subcommand: str = ""
    required: bool = False
    options: dict[str, Option] = Field(default_factory=dict)
    defaults: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _defaults_known(self) -> Self:
        if unknown := sorted(self.defaults.keys() - self.options.keys()):
            raise ValueError(f"'defaults' names options that are not among 'options': {', '.join(unknown)}")
        return self


class Image(Located):
    """One entry of the catalogue.

    Args:
        names: as in manifests, without registry, tag and digest.
        role: what the pod is to the lab besides its program.
        capabilities: what a node of this image can be: `frr` (its own start runs FRR's daemons as /etc/frr/daemons
            says: a router), `host` (it goes on running by itself, or where a terminal is open: an end system).
        command, args: run when the container gives none; as ENTRYPOINT and CMD of an image.
        arguments: set where `args` are those of another program, and must be translated.
        multicall: a program whose first argument names the command (busybox); commands without a slash, and those in
            the usual bin directories, are run by it.
        applets: commands of it that scripts may call; where there is no `multicall`, commands of /bin/busybox, for what
            the machine itself may lack.
        packages: the Debian packages that hold the programs. requires: programs, as absolute paths.
        files: path → content, or more about it. directories: that must exist, owned by root.
        ready: the TCP port it listens on once it is up.
    """

    names: tuple[Annotated[str, AfterValidator(_normal)], ...] = Field(min_length=1)
    role: Role = ""
    capabilities: tuple[Capability, ...] = ()
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    arguments: Arguments | None = None
    multicall: AbsolutePath | None = None
    applets: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    requires: tuple[AbsolutePath, ...] = ()
    files: dict[AbsolutePath, str | ImageFile] = Field(default_factory=dict)
    directories: tuple[AbsolutePath, ...] = ()
    env: dict[VariableName, str | FieldValue] = Field(default_factory=dict)
    ready: PortNumber | None = None

    @model_validator(mode="after")
    def _runs_by_path(self) -> Self:
        first = next(iter((*self.command, *self.args)), "/")
        if not first.startswith("/") and self.multicall is None:
            raise ValueError(f"the program {first!r} must be given by its absolute path")
        if self.applets and self.multicall is None and BUSYBOX not in self.requires:
            raise ValueError(f"'applets' belong to a 'multicall' program, or to {BUSYBOX} among 'requires'")
        return self


class ImageList(Located):
    """A file of catalogue entries."""

    images: tuple[Image, ...]


@dataclass(frozen=True)
class Catalogue:
    """All known images.

    Args:
        images: of entries for the same name, the last wins; so a lab's own come after the built-in ones.
        texts: contents of the templates and programs that the images' files name; kind ("template", "program") and
            name → text.
    """

    images: tuple[Image, ...]
    texts: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def find(self, name: str) -> Image | None:
        """The entry for a normalised name."""
        return next((image for image in reversed(self.images) if name in image.names), None)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted({name for image in self.images for name in image.names}))


def texts_named(images: Sequence[Image]) -> Iterator[tuple[Image, str, str, str]]:
    """(image, path, "template" or "program", its name) for each file whose text is kept elsewhere."""
    for image in images:
        for path, entry in image.files.items():
            if isinstance(entry, ImageFile) and entry.template is not None:
                yield image, path, "template", entry.template
            if isinstance(entry, ImageFile) and entry.program is not None:
                yield image, path, "program", entry.program
