"""What a container runs: its command line and environment.

Sources: Kubernetes, "Define a Command and Arguments for a Container"; variables: pkg/kubelet/kubelet_pods.go
(makeEnvironmentVariables) and third_party/forked/golang/expansion. Variables for Services (enableServiceLinks) are not
made.

How a program is found, without looking at the machine: an absolute path is taken as it is; any other name is looked up
by /usr/bin/env at start, along PATH. In an image with a `multicall` program (busybox), names without a slash and paths
in the usual bin directories are commands of that program instead, as they are in the real image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.compile.kube.instances import later
from testbed.compile.kube.owners import Owner, Step
from testbed.compile.kube.volumes import Sources
from testbed.errors import Problem
from testbed.load.yaml import suggest
from testbed.model.images import Arguments, FieldValue, Image
from testbed.model.workloads import Container, EnvFrom, EnvVar, KeyReference

APPLETS = "/usr/lib/testbed/bin"
"""Where the commands of a multicall program stand as files, so that scripts find them."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BINARY = re.compile(r"(?:/usr)?/s?bin/([^/]+)")
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


@dataclass(frozen=True, slots=True)
class Facts:
    """What `fieldRef` tells a pod about itself."""

    name: str
    namespace: str
    node: str
    hostname: str

    def of(self, path: str) -> str:
        """A fact; for the addresses, the mark that `with_addresses` replaces."""
        known = {"metadata.name": self.name, "metadata.namespace": self.namespace, "spec.nodeName": self.node}
        return known[path] if path in known else later(path)


@dataclass(frozen=True, slots=True)
class Command:
    """What is run.

    Args:
        own: whether it is the image's own program (perhaps with translated arguments), not another command.
        default: whether it is exactly what the image runs by itself.
        ready: the port that an option says it will listen on.
        options: those handed on to whoever configures the image's role.
    """

    argv: tuple[str, ...]
    own: bool
    default: bool
    ready: int | None = None
    options: tuple[tuple[str, str], ...] = ()


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces $(NAME) by the variable's value; unknown names stay, and $$ is one $."""

    def one(found: re.Match[str]) -> str:
        name = found[1]
        return "$" if name is None else variables.get(name, found[0])

    return _REFERENCE.sub(one, text)


def environment(
    owner: Owner, index: int, image: Image, facts: Facts, sources: Sources
) -> tuple[dict[str, str], list[Problem]]:
    """The variables of a container, those of the image first; what the container says wins."""
    container = owner.spec.containers[index]
    path = f"{APPLETS}:{_PATH}" if image.multicall else f"{_PATH}:{APPLETS}" if image.applets else _PATH
    variables = {"PATH": path, "HOSTNAME": facts.hostname}
    for name, value in image.env.items():
        variables[name] = facts.of(value.field) if isinstance(value, FieldValue) else value
    lookup = _Lookup(owner, sources)
    own: dict[str, str] = {}
    for number, entry in enumerate(container.env_from):
        own.update(lookup.all_of(entry, ("containers", index, "envFrom", number)))
    for number, variable in enumerate(container.env):
        own[variable.name] = lookup.value(variable, own, facts, ("containers", index, "env", number))
    return {**variables, **own}, lookup.problems


def command(
    owner: Owner, index: int, image: Image, variables: Mapping[str, str]
) -> tuple[Command | None, list[Problem]]:
    """The command line of a container, or why there is none."""
    container = owner.spec.containers[index]
    path = ("containers", index)
    written = _as_written(container, image)
    if written is None:
        line = (*image.command, *image.args)
        return _checked(owner, path, image, Command(line, own=True, default=True))
    entrypoint, arguments, field_name = written
    arguments = [expand(text, variables) for text in arguments]
    if entrypoint is not None:
        line = (*(expand(text, variables) for text in entrypoint), *arguments)
        return _checked(owner, path, image, Command(tuple(line), own=False, default=False))
    if image.arguments is None:
        return _checked(
            owner, path, image, Command((*image.command, *arguments), own=bool(image.command), default=False)
        )
    translated = _Translation(image.arguments)
    translated.read(arguments)
    problems = [
        owner.problem(f"image {container.image!r}: {text}", *path, field_name, hint=hint)
        for text, hint in translated.problems
    ]
    if problems:
        return None, problems
    line = (*image.command, *translated.argv)
    found = Command(line, own=True, default=False, ready=translated.ready, options=tuple(translated.options))
    return _checked(owner, path, image, found)


def _as_written(container: Container, image: Image) -> tuple[tuple[str, ...] | None, Sequence[str], str] | None:
    """The command (None: the image's own), the arguments, and the field that gave them; None when nothing is given."""
    known = image.arguments
    if container.command:
        if known and known.entrypoint and container.command[0] == known.entrypoint:
            return None, (*container.command[1:], *container.args), "command"
        return container.command, container.args, "command"
    if container.args or (known and known.required):
        return None, container.args, "args"
    return None


def _checked(
    owner: Owner, path: tuple[Step, ...], image: Image, found: Command
) -> tuple[Command | None, list[Problem]]:
    """The command with its program as an absolute path."""
    if not found.argv:
        hint = "give the container a command, such as [sleep, infinity]"
        return None, [owner.problem(f"image {image.names[0]!r} has no command of its own", *path, "image", hint=hint)]
    program = found.argv[0]
    binary = _BINARY.fullmatch(program)
    if image.multicall and (binary or "/" not in program):
        line = (image.multicall, binary[1] if binary else program, *found.argv[1:])
        line = found.argv if program == image.multicall else line
    elif program.startswith("/"):
        line = found.argv
    elif not program or "=" in program or program.startswith("-"):
        return None, [owner.problem(f"{program!r} is not the name of a program", *path, "command", 0)]
    else:
        line = ("/usr/bin/env", *found.argv)
    return Command(line, found.own, found.default, found.ready, found.options), []


@dataclass(slots=True)
class _Lookup:
    """Values from ConfigMaps and Secrets; collects what is missing."""

    owner: Owner
    sources: Sources
    problems: list[Problem] = field(default_factory=list)

    def all_of(self, entry: EnvFrom, path: tuple[Step, ...]) -> dict[str, str]:
        if entry.config_map_ref is not None:
            kind, name, where = "ConfigMap", entry.config_map_ref.name, "configMapRef"
        else:
            assert entry.secret_ref is not None
            kind, name, where = "Secret", entry.secret_ref.name, "secretRef"
        texts = self._texts(kind, name, (*path, where, "name"))
        return {entry.prefix + key: text for key, text in sorted((texts or {}).items())}

    def value(self, variable: EnvVar, known: Mapping[str, str], facts: Facts, path: tuple[Step, ...]) -> str:
        source = variable.value_from
        if source is None:
            return expand(variable.value or "", known)
        if source.field_ref is not None:
            return facts.of(source.field_ref.field_path)
        if source.config_map_key_ref is not None:
            return self._key("ConfigMap", source.config_map_key_ref, (*path, "valueFrom", "configMapKeyRef"))
        assert source.secret_key_ref is not None
        return self._key("Secret", source.secret_key_ref, (*path, "valueFrom", "secretKeyRef"))

    def _key(self, kind: str, reference: KeyReference, path: tuple[Step, ...]) -> str:
        texts = self._texts(kind, reference.name, (*path, "name"))
        if texts is not None and reference.key not in texts:
            message = f"{kind} {self.owner.object.namespace}/{reference.name} has no key {reference.key!r}"
            self.problems.append(self.owner.problem(message, *path, "key", hint=suggest(reference.key, texts)))
        return (texts or {}).get(reference.key, "")

    def _texts(self, kind: str, name: str, path: tuple[Step, ...]) -> Mapping[str, str] | None:
        namespace = self.owner.object.namespace
        texts = self.sources.texts(kind, namespace, name)
        if texts is None:
            message, hint = self.sources.missing(kind, namespace, name)
            self.problems.append(self.owner.problem(message, *path, hint=hint))
        return texts


@dataclass(slots=True)
class _Translation:
    """Arguments of the image's real program → arguments of the one that stands in for it."""

    known: Arguments
    argv: list[str] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)
    ready: int | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)

    def read(self, arguments: Sequence[str]) -> None:
        rest = list(arguments)
        wanted = self.known.subcommand
        if wanted and rest and rest[0] == wanted:
            rest.pop(0)
        elif wanted and self.known.required:
            found = f", not {rest[0]!r}" if rest else ""
            self.problems.append((f"only {wanted!r} is supported{found}", f"args: [{wanted}, ...]"))
            return
        given = list(self._pairs(rest))
        names = {name for name, _ in given}
        for name, value in [*given, *(pair for pair in self.known.defaults.items() if pair[0] not in names)]:
            self._option(name, value)

    def _pairs(self, words: list[str]) -> Iterator[tuple[str, str]]:
        """(name, value) of --name=value, --name value, and --name, whose value is "true" (Go's flag packages)."""
        while words:
            word = words.pop(0)
            if not re.fullmatch(r"--?[A-Za-z].*", word, re.DOTALL):
                self.problems.append((f"the argument {word!r} is not supported", self._known_options("")))
                continue
            name, equals, value = word.lstrip("-").partition("=")
            if not equals:
                value = words.pop(0) if words and not words[0].startswith("-") else "true"
            yield name, value

    def _known_options(self, name: str) -> str:
        return suggest(name, self.known.options) or "it takes none here"

    def _option(self, name: str, value: str) -> None:
        option = self.known.options.get(name)
        if option is None:
            self.problems.append((f"the option {name!r} is not supported", self._known_options(name)))
            return
        if option.ready:
            if not re.fullmatch(r"[1-9][0-9]{0,4}", value) or int(value) > 65535:
                self.problems.append((f"the option {name!r} takes a port, not {value!r}", ""))
                return
            self.ready = self.ready or int(value)
        self.argv += [part.replace("{value}", value) for part in option.argv]
        if option.hand_on:
            self.options.append((name, value))
