"""`image`: what the nodes of the docker runtime are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.options import need_root
from testbed.errors import InputError, Problem

if TYPE_CHECKING:
    from testbed.runtime.image_build import Source

app = typer.Typer(help="The image that nodes of the docker runtime are made of.", no_args_is_help=True)


@app.callback()
def image() -> None:
    """Keeps `build` a command of its own where it is the only one."""


@app.command("build")
def build(
    source: Annotated[
        str, typer.Option("--from", help="registry or packages; default: a registry where one is reachable.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Although it is there: with the newest packages.")] = False,
) -> None:
    """Build the image. `up` does it too when there is none, or when it is not of what should be in it now."""
    from testbed.cli.display import Display
    from testbed.report.words import duration
    from testbed.runtime import engine, image_build
    from testbed.runtime.image import NAME

    chosen = _source(source)
    need_root()
    with Display() as display:
        made = image_build.build(engine.address(), display, source=chosen, anew=force)
    seconds = display.steps.get("image")
    done = f"built in {duration(seconds)}" if seconds is not None else "is there already (--force builds it anew)"
    typer.echo(f"{NAME}: {done}; from {made.source}, {made.size / 1e6:.0f} MB, {made.hash}")


def _source(text: str) -> Source | None:
    sources: dict[str, Source | None] = {"": None, "registry": "registry", "packages": "packages"}
    if text not in sources:
        raise InputError([Problem(f"--from: no source {text!r}", hint="choose from registry, packages")])
    return sources[text]
