"""Asks a Docker engine what runs on it, over its Unix socket and without the Docker SDK, which takes 0.2 s to import.

Only questions that change nothing: any command looks here for labs. Source: Docker Engine API v1.41,
"GET /containers/json", "GET /containers/{id}/json", "GET /images/{name}/json", "GET /networks", "GET /info".
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from testbed.errors import UnsupportedError
from testbed.patience import stretched
from testbed.runtime.supervised import STATE

LAB, NODE = "testbed.lab", "testbed.node"  # labels of a container
HOME = "engine"  # a file in a lab's folder: the address of the engine that it is on
DEFAULT = "unix:///var/run/docker.sock"
SCHEME = "unix://"
PATIENCE = 10.0  # seconds an engine has to answer a question
MISSING = 404


@dataclass(frozen=True, slots=True)
class Container:
    """A container; `state` in Docker's words: created, running, paused, restarting, removing, exited, dead."""

    id: str
    name: str
    state: str
    image: str
    labels: Mapping[str, str]
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the engine's."""

    id: str
    name: str
    labels: Mapping[str, str]


def address() -> str:
    """Of the engine that the environment means: DOCKER_HOST, or the usual socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT


def home(lab: str) -> str:
    """The address of the engine that a lab is on: what its folder says, else the environment."""
    try:
        return (STATE / lab / HOME).read_text()
    except OSError:
        return address()


def ask(where: str, path: str) -> Any:
    """The engine's answer to a GET; None when there is no such thing.

    Raises:
        UnsupportedError: no engine answers there, or it cannot answer this.
    """
    if not where.startswith(SCHEME):
        raise UnsupportedError(f"DOCKER_HOST is {where}: containers are wired on this machine, use {SCHEME}PATH")
    try:
        status, body = _get(where.removeprefix(SCHEME), path)
        answer = json.loads(body)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnsupportedError(f"no Docker engine answers at {where}: {reason}") from None
    if status == MISSING:
        return None
    if status >= 300:
        raise UnsupportedError(f"the Docker engine at {where} refused {path}: {answer.get('message', status)}")
    return answer


def _get(path: str, target: str) -> tuple[int, bytes]:
    """Status and body. In HTTP/1.0 an answer ends with its connection and comes in one piece (RFC 1945)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(stretched(PATIENCE))
        channel.connect(path)
        channel.sendall(f"GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        answer = bytearray()
        while part := channel.recv(1 << 16):
            answer += part
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return int(head.split(None, 2)[1]), body


def answers(where: str = "") -> bool:
    """Whether an engine answers; `where`: its address, empty for that of the environment."""
    try:
        containers(where or address(), LAB)
    except UnsupportedError:
        return False
    return True


def containers(where: str, label: str = "") -> list[Container]:
    """The containers of an engine, whatever state they are in; `label`: only those that have it, NAME or NAME=VALUE."""
    query = quote(json.dumps({"label": [label]})) if label else ""
    found = ask(where, "/containers/json?all=1" + (f"&filters={query}" if query else ""))
    return [
        Container(
            entry["Id"],
            entry["Names"][0].lstrip("/"),
            entry["State"],
            entry["Image"],
            entry["Labels"] or {},
            tuple((entry.get("NetworkSettings") or {}).get("Networks") or ()),
        )
        for entry in found
        if entry["Names"]  # one that is being removed has none
    ]


def networks(where: str, label: str = "") -> list[Network]:
    """The networks of an engine; `label`: only those that have it."""
    query = quote(json.dumps({"label": [label]})) if label else ""
    found = ask(where, "/networks" + (f"?filters={query}" if query else ""))
    return [Network(entry["Id"], entry["Name"], entry["Labels"] or {}) for entry in found or ()]


def of_lab(lab: str) -> dict[str, Container]:
    """Node → container, for a lab. Raises UnsupportedError when its engine does not answer."""
    return {entry.labels[NODE]: entry for entry in containers(home(lab), f"{LAB}={lab}")}


def process(where: str, container: str) -> int:
    """The id of a container's first process; 0 when it does not run."""
    found = ask(where, f"/containers/{container}/json")
    return int(found["State"]["Pid"]) if found else 0


def labels(where: str, container: str) -> Mapping[str, str]:
    """The labels of a container; none where there is no such container."""
    found = ask(where, f"/containers/{container}/json")
    return (found["Config"]["Labels"] or {}) if found else {}


def has(lab: str) -> bool:
    """Whether a lab is, or was begun to be made, on a Docker engine."""
    if (STATE / lab / HOME).exists():
        return True
    with contextlib.suppress(UnsupportedError):
        return bool(of_lab(lab) or networks(home(lab), f"{LAB}={lab}"))
    return False


def labs() -> list[str]:
    """The labs that are on this machine's Docker engines; none where none answers."""
    folders = [entry.name for entry in STATE.iterdir()] if STATE.is_dir() else []
    found: set[str] = set()
    for where in {address(), *(home(lab) for lab in folders)}:
        with contextlib.suppress(UnsupportedError):
            found |= {entry.labels[LAB] for entry in containers(where, LAB)}
            found |= {entry.labels[LAB] for entry in networks(where, LAB)}
    return sorted(found)
