"""The files of nodes that are containers of a user's own image, for containerlab, which binds them from a lab's folder.

containerlab starts a container as soon as it has made it, so what its image's programs read must be bound into it. Each
file is bound by itself: what else the image has in its folder stays there, as on the docker runtime. A folder is bound
where it is to be there and nothing is in it.

Source: containerlab's docs/manual/nodes.md, "binds"; Docker's `docker run --volume`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from testbed.plan import Node
from testbed.runtime.appliance import MOUNTED, Owners
from testbed.runtime.client import file_request

ROOT = "root"
DIRECTORY = 0o755  # permissions


def binds(folder: Path, node: Node) -> list[str]:
    """What containerlab is to bind, "HOST:CONTAINER" each; no CONTAINER has a colon.

    Args:
        folder: of this node's files, on this machine.
    """
    return [f"{place}:{path}" for path, place in _places(folder, node).items()]


def need_owners(node: Node) -> bool:
    """Whether anything of a node's belongs to another user than root, whose number only its image knows."""
    owners = {owner for _, owner in node.directories} | {file.owner for file in node.files if file.path not in MOUNTED}
    return bool(owners - {ROOT})


def write(folder: Path, node: Node, contents: Mapping[tuple[str, str], str], owners: Owners) -> None:
    """Write the files of a node, and nothing else, into its folder. Its container does not run.

    Args:
        contents: (node, path) → text, for files whose content is a secret.
        owners: user → (user id, group id), of its image.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    directories, files = dict(node.directories), {file["path"]: file for file in file_request(node, contents)["files"]}
    for path, place in _places(folder, node).items():
        if file := files.get(path):
            place.write_text(file["content"])
            owner, mode = file["owner"], file["mode"]
        else:
            place.mkdir()
            owner, mode = directories[path], DIRECTORY
        os.chown(place, *owners.get(owner, (0, 0)))
        place.chmod(mode)


def _places(folder: Path, node: Node) -> dict[str, Path]:
    """Path in the node → where it is on this machine, under a number: containerlab expands names in these."""
    files = [file.path for file in node.files if file.path not in MOUNTED]
    wanted = dict(node.directories)
    above = {str(parent) for path in (*wanted, *files) for parent in PurePosixPath(path).parents}
    empty = [path for path in wanted if path not in above]
    return {path: folder / str(number) for number, path in enumerate([*empty, *files])}
