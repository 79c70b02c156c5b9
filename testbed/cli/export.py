"""`export`: a lab in the form of another tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed.cli.options import DEFAULT_LAB, LabFile, NameOption
from testbed.errors import InputError, Problem

# Format → the module that renders it (none: a picture, as `graph` draws it), and whether it takes the nodes' image.
FORMATS = {
    "containerlab": ("testbed.export.clab_topology", True),
    "clabernetes": ("testbed.export.clabernetes", True),
    "kind": ("testbed.export.kind", False),
    "mermaid": ("", False),
}


def export(
    to: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")],
    lab: LabFile = DEFAULT_LAB,
    name: NameOption = "",
    image: Annotated[
        str, typer.Option("--image", help="Of the nodes, for containerlab and clabernetes; default: ours.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder the files go into.")
    ] = None,
) -> None:
    """Write a lab in the form of another tool: files into a folder, or a single file to standard output.

    What that tool cannot do is refused by name. Nothing runs, and nothing needs root.
    """
    render = _renderer(to, image)
    files = render(lab, name)
    if output is not None:
        _write(output, files)
    elif len(files) == 1:
        typer.echo(next(iter(files.values())), nl=False)
    else:
        message = f"{to}: {len(files)} files ({', '.join(sorted(files)[:5])}{', …' if len(files) > 5 else ''})"
        raise InputError([Problem(message, hint="say where they go: --output DIR")])


def _renderer(to: str, image: str) -> Callable[[str, str], Mapping[str, str]]:
    """What renders a lab, by its path and the name it shall have."""
    if to not in FORMATS:
        from testbed.load.explain import suggest

        raise InputError([Problem(f"no format {to!r}", hint=suggest(to, FORMATS))])
    module, has_image = FORMATS[to]
    if image and not has_image:
        raise InputError([Problem(f"--image: {to} has no image of the nodes'")])

    def render(lab: str, name: str) -> Mapping[str, str]:
        from importlib import import_module

        from testbed.compile import compile_lab
        from testbed.load.lab import load

        loaded = load(lab)
        plan = compile_lab(loaded.lab, loaded.manifests, loaded.images, name)
        if not module:
            from testbed.report.topology import mermaid, topology

            return {f"{plan.name}.mmd": mermaid(topology(plan))}
        options: dict[str, Any] = {}
        if has_image:
            options["places"] = {key: node.origin.at() for key, node in loaded.lab.nodes.items()}
            options |= {"image": image} if image else {}
        files: Mapping[str, str] = import_module(module).render(plan, **options)
        return files

    return render


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files; what else is in the folder stays."""
    try:
        for name, text in sorted(files.items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            typer.echo(str(path))
    except OSError as error:
        raise InputError([Problem(f"--output {folder}: {error.strerror}")]) from None
