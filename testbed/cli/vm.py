"""`vm`: a command on a full distribution kernel."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.options import need_root
from testbed.cli.terminal import complain, ended_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_PROCESSORS = 4


def vm(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The command, and its arguments.")],
    kernel: Annotated[str, typer.Option(help="Version or path; default: the newest in /boot with its modules.")] = "",
    memory: Annotated[str, typer.Option(help="The machine's memory.")] = "4G",
    cpus: Annotated[int, typer.Option(help="Its processors; default: this machine's, at most 4.", min=0)] = 0,
    docker: Annotated[bool, typer.Option("--docker", help="With a Docker engine of its own.")] = False,
    network: Annotated[bool, typer.Option("--network", help="It reaches what this machine reaches.")] = False,
    write: Annotated[
        list[str] | None, typer.Option(help="A folder that can be written, beside the current one.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until it is ended, with 124; 0: never.", min=0.0)] = 0.0,
    emulate: Annotated[bool, typer.Option("--emulate", help="Without KVM, even where it works.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show how the machine boots.")] = False,
) -> None:
    """Run a command on a full distribution kernel, in a virtual machine over this machine's own files.

    What has options of its own stands after `--`. The current folder can be written, all else is read-only or a copy
    in memory. Ends with the command's exit status. On a terminal, Ctrl-] ends the machine.
    """
    need_root()
    from testbed.vm import kernels, kvm, machine
    from testbed.vm.exchange import Request

    kvm.demand()
    folder = os.path.realpath(os.curdir)
    found = kernels.find(kernel)
    acceleration = kvm.Kvm(False, "--emulate") if emulate else kvm.answer()
    how = "KVM" if acceleration.works else f"emulated: {acceleration.reason}"
    request = Request(
        tuple(command),
        folder,
        machine.carried(os.environ, accelerated=acceleration.works),
        machine.shared(folder, write or ()),
        _terminal(),
        docker,
    )
    booted = machine.Machine(found, memory, cpus or _processors(), acceleration.works, network=network, verbose=verbose)
    typer.echo(f"Linux {found.version} ({how})", err=True)
    with ended_by_signals():
        status = machine.boot(booted, request, timeout=timeout, image=_image() if docker else None)
    if status == machine.TIMED_OUT and timeout:
        complain(f"the command did not end in {timeout:g} s")
    raise typer.Exit(status)


def _processors() -> int:
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSORS)


def _terminal() -> tuple[int, int] | None:
    """Rows and columns of the terminal that we are on; None when input or output is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    columns, rows = os.get_terminal_size()
    return rows, columns


def _image() -> Callable[[Path], None] | None:
    """What writes the node image of this machine's engine into a file; None when there is no such image."""
    from testbed.errors import UnsupportedError
    from testbed.runtime import engine, image, image_build

    try:
        there = image.found(engine.address())
    except UnsupportedError:
        there = None
    if there is None:
        typer.echo(f"no engine here has the image {image.NAME} to take along", err=True)
        return None
    return lambda path: image_build.save(engine.address(), path)
