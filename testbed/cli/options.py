"""Arguments that several commands have, and the lab they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import complete
from testbed.errors import InputError, NoSuchLabError, Problem, UnsupportedError

if TYPE_CHECKING:
    from testbed.session import Session

DEFAULT_LAB = "edge"

LabFile = Annotated[
    str,
    typer.Argument(metavar="LAB", help="A lab file, its folder, or the name of a lab.", autocompletion=complete.labs),
]
RunningLab = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The lab; not needed when only one runs.", autocompletion=complete.running_labs
    ),
]
LabOption = Annotated[
    str, typer.Option("--lab", help="The lab; not needed when only one runs.", autocompletion=complete.running_labs)
]
NameOption = Annotated[str, typer.Option("--name", help="The name it runs under; default: the lab's own.")]
VrfDriverOption = Annotated[
    str,
    typer.Option(
        help="What VRFs are made of: netns or device; default: as the lab file says or the lab runs, else device where "
        "the kernel has VRF devices."
    ),
]
NodeArgument = Annotated[
    str,
    typer.Argument(
        metavar="NODE", help="A node, or a pod by the beginning of its name.", autocompletion=complete.nodes
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def need_root() -> None:
    """Raise UnsupportedError for those who may not make namespaces or look into them."""
    if os.geteuid() != 0:
        raise UnsupportedError("labs need root: run it with sudo")


def running_session(text: str) -> Session:
    """The running lab that is meant: by its name, by its lab file, or, when nothing is said, the only one.

    Raises:
        NoSuchLabError: none runs. InputError: several run and none was named, or there is no such lab file.
    """
    from testbed.session import Session, running

    need_root()
    names = running()
    if text:
        return Session(text if text in names else name_in(text))
    if not names:
        raise NoSuchLabError("no lab is running: `testbed up` starts one")
    if len(names) > 1:
        raise InputError([Problem(f"several labs are running: {', '.join(names)}", hint="say which")])
    return Session(names[0])


def name_in(text: str) -> str:
    """The name of a lab that is given by its file or folder; anything that looks like neither is a name."""
    if "/" not in text and not text.endswith((".yaml", ".yml")):
        return text
    from testbed.load.yaml import read_text
    from testbed.session import TOPOLOGIES

    if text.endswith(TOPOLOGIES):
        from testbed.load.clab import parse_clab

        return parse_clab(read_text(Path(text)), text, os.environ).name
    from testbed.load.lab import find, parse_lab

    path = find(text)
    return parse_lab(read_text(path), str(path)).name
