"""A Docker engine that is none: it answers GET requests on a Unix socket with what the tests put there."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FakeEngine:
    """Answers: path → (status, body); containers are filtered by label as an engine does it."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self.containers: list[dict[str, Any]] = []
        self.networks: list[dict[str, Any]] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []

    def add(self, name: str, state: str = "running", image: str = "testbed/node:latest", **labels: str) -> None:
        named = {f"testbed.{key}": value for key, value in labels.items()}
        self.containers.append(
            {"Id": f"id-{name}", "Names": [f"/{name}"], "State": state, "Image": image, "Labels": named}
        )

    def put(self, path: str, body: object, status: int = 200) -> None:
        self.answers[path] = (status, json.dumps(body).encode())

    def answer(self, target: str) -> tuple[int, bytes]:
        self.asked.append(target)
        parts = urlsplit(target)
        if parts.path == "/networks":
            return 200, json.dumps(self.networks).encode()
        if parts.path != "/containers/json":
            return self.answers.get(parts.path, (404, b'{"message": "no such thing"}'))
        filters = json.loads(parse_qs(parts.query).get("filters", ["{}"])[0])
        wanted = [label.partition("=") for label in filters.get("label", [])]
        found = [
            entry
            for entry in self.containers
            if all(key in entry["Labels"] and value in ("", entry["Labels"][key]) for key, _, value in wanted)
        ]
        return 200, json.dumps(found).encode()

    def serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                connection, _ = listener.accept()
                with connection:
                    target = connection.recv(1 << 16).split(None, 2)[1].decode()
                    status, body = self.answer(target)
                    head = f"HTTP/1.0 {status} Words\r\nContent-Type: application/json\r\n\r\n"
                    connection.sendall(head.encode() + body)


@contextlib.contextmanager
def engine_at(path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=fake.serve, args=(listener,))
        thread.start()
        try:
            yield fake
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
