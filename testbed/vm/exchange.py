"""What host and guest tell each other: files of one folder that both see.

The host writes `request.json` and starts the machine; the guest makes `started` when it is up and, when the command has
ended, `status`; the host makes `drained` when all output has come out, and then the guest may power off. (What is still
in a virtio port when the power goes is lost.)
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

HOST = Path("/dev/shm")  # noqa: S108 - a tmpfs of its own is mounted there, see machine.py
GUEST = Path("/run/testbed-vm")
STARTED, STATUS, DRAINED, IMAGE = "started", "status", "drained", "image.tar"
REQUEST, SHARED = "request.json", "shared"


@dataclass(frozen=True, slots=True)
class Request:
    """What the guest is to do.

    Args:
        argv: the command. folder: where it runs. environment: all of its environment.
        shared: folders of the host that the guest may write; the n-th is SHARED/n in the exchange folder.
        terminal: rows and columns of a terminal for it; None: it has none.
        docker: whether a Docker engine is wanted.
    """

    argv: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    shared: tuple[str, ...] = ()
    terminal: tuple[int, int] | None = None
    docker: bool = False


def write(request: Request, folder: Path) -> None:
    """Leave a request for the guest."""
    (folder / REQUEST).write_text(json.dumps(dataclasses.asdict(request)))


def read(folder: Path) -> Request:
    """The request that the host has left."""
    fields = json.loads((folder / REQUEST).read_text())
    fields["argv"], fields["shared"] = tuple(fields["argv"]), tuple(fields["shared"])
    if fields["terminal"]:
        rows, columns = fields["terminal"]
        fields["terminal"] = (rows, columns)
    return Request(**fields)
