"""What the image of a containerlab node makes of the node: on the netns runtime, what the image catalogue maps it to;
on a container runtime, a container of that image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from testbed import plan
from testbed.compile import clab_frr, frr
from testbed.compile.clab_exec import words
from testbed.compile.clab_keys import KINDS, KeyCheck
from testbed.compile.image_program import Program, Wanted, image_program
from testbed.errors import Position, Problem
from testbed.load.clab import ClabNode, LoadedClab, images_file
from testbed.model.images import Image, normalise

_SHELLS = ("sh", "ash", "bash", "dash", "zsh")
_IDLE = ("/bin/sleep", "infinity")


@dataclass
class Images:
    """The images of a topology's nodes; collects what is wrong.

    Args:
        containers: for a runtime that runs images.
    """

    loaded: LoadedClab
    keys: KeyCheck
    containers: bool
    problems: list[Problem] = field(default_factory=list)

    def with_image(
        self, made: plan.Node, node: ClabNode, bound: Mapping[str, plan.File], env: Mapping[str, str]
    ) -> plan.Node:
        """The node with what its image brings.

        Args:
            bound: path → file, of what it binds. env: its variables.
        """
        reference, at = node.settings.one("image"), node.settings.at("image")
        entry = self._image(node.name, reference, at) if node.settings.kind.lower() in KINDS else None
        entrypoint, cmd = self._words(node, "entrypoint"), self._words(node, "cmd")
        if self.containers:
            made = replace(made, image=reference, entrypoint=entrypoint, cmd=cmd)
        if entry is None:
            return made
        if "frr" in entry.capabilities and not (entrypoint or cmd):
            return self._router(made, node, bound, env)
        if "frr" in entry.capabilities and not self.containers:
            field_name = "entrypoint" if entrypoint else "cmd"
            message = f"{field_name} replaces how the image starts FRR, which this runtime cannot follow"
            self.keys.refuse(node.name, message, node.settings.at(field_name), "use exec, or a container runtime")
        return made if self.containers else self._host(made, node, entry, env)

    def _image(self, name: str, reference: str, at: Position | None) -> Image | None:
        if not reference:
            self.keys.refuse(name, "it has no image", at)
            return None
        try:
            short = normalise(reference)
        except ValueError as error:
            self.keys.refuse(name, str(error), at)
            return None
        images = self.loaded.images
        entry = images.find(short)
        able = sorted(known for known in images.names if _can_be_a_node(images.find(known)))
        beside = images_file(self.loaded.path).name
        if entry is None and self.containers:
            self.keys.note(name, f"the image {reference} is not in the catalogue: it counts as ready once it runs")
        elif entry is None:
            hint = f"known are {', '.join(able)}; {beside} beside the topology can add its own, below images:"
            self.keys.refuse(name, f"the image {reference!r} is not in the catalogue", at, hint)
        elif not _can_be_a_node(entry):
            self.keys.refuse(name, f"the image {reference!r} works in a pod of a cluster only", at)
            return None
        return entry

    def _words(self, node: ClabNode, field_name: str) -> tuple[str, ...]:
        try:
            return tuple(words(node.settings.one(field_name)))
        except ValueError as error:
            message = f"{field_name} cannot be split: {error}"
            self.keys.refuse(node.name, message, node.settings.at(field_name))
            return ()

    def _router(
        self, made: plan.Node, node: ClabNode, bound: Mapping[str, plan.File], env: Mapping[str, str]
    ) -> plan.Node:
        text = bound[clab_frr.LIST].content if clab_frr.LIST in bound else ""
        assert isinstance(text, str)
        try:
            daemons = clab_frr.started(text)
        except clab_frr.DaemonsError as error:
            self.keys.refuse(node.name, f"{clab_frr.LIST}, line {error.line}: {error}", node.bind_at(clab_frr.LIST))
            return made
        programs = clab_frr.processes(daemons, [*bound])
        if self.containers:
            started = tuple(replace(program, configure=(), by_image=True) for program in programs)
            return replace(made, kind="router", processes=started)
        tools = self._program(node, Wanted(node.settings.one("image"), _IDLE))
        return replace(
            made,
            kind="router",
            directories=(*frr.DIRECTORIES, *tools.directories, *made.directories),
            files=(*tools.files, *clab_frr.files(bound, daemons), *made.files),
            processes=tuple(replace(program, env=tuple(env.items())) for program in programs),
        )

    def _host(self, made: plan.Node, node: ClabNode, entry: Image, env: Mapping[str, str]) -> plan.Node:
        """A host on the netns runtime: the catalogue's program, or none where the image only opens a shell."""
        entrypoint, cmd = self._words(node, "entrypoint"), self._words(node, "cmd")
        line = (*entrypoint, *cmd) or (*entry.command, *entry.args)
        idle = not line or (len(line) == 1 and line[0].rpartition("/")[2] in _SHELLS)
        command, args = (_IDLE, ()) if idle else (entrypoint, cmd)
        fields = {"image": "image", "command": "entrypoint", "args": "cmd"}
        places: dict[tuple[str, ...], Position | None] = {
            (part,): node.settings.at(field_name) for part, field_name in fields.items()
        }
        places[()] = node.settings.at()
        wanted = Wanted(node.settings.one("image"), command, args, env, places)
        program = self._program(node, wanted)
        return replace(
            made,
            directories=(*program.directories, *made.directories),
            files=(*program.files, *made.files),
            processes=() if idle else program.processes,
        )

    def _program(self, node: ClabNode, wanted: Wanted) -> Program:
        program, found = image_program(node.name, wanted, self.loaded.images)
        self.problems += found
        return program


def _can_be_a_node(image: Image | None) -> bool:
    return bool(image and image.capabilities)
