"""What the tests of the probes talk to: the echo program as a real process, and servers that misbehave."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testbed

PROGRAM = Path(testbed.__file__).parent / "programs" / "echo.py"


class HostSockets:
    """Sockets of the namespace the test runs in, whatever node is asked for."""

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return socket.socket(family, kind, protocol)

    def interfaces(self, node: str, vrf: str | None) -> frozenset[int] | None:
        return None


@dataclass(frozen=True)
class Echo:
    port: int
    udp_port: int


@contextmanager
def started_echo(prefix: tuple[str, ...] = (), **options: Any) -> Iterator[Echo]:
    argv = [*prefix, "/usr/bin/python3", "-I", "-S", str(PROGRAM), "--port", "0", "--announce"]
    env = {**os.environ, "NODE_NAME": "node7", "POD_NAME": "web-1"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env, **options) as process:
        try:
            assert process.stdout
            ports = [int(process.stdout.readline()) for _ in range(2)]
            yield Echo(*ports)
        finally:
            process.terminate()


@contextmanager
def canned(*replies: bytes, hang: bool = False) -> Iterator[int]:
    """A TCP server that sends each client the next of `replies` at the client's first word, then closes (or hangs).

    Yields its port.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        for reply in replies:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(65536)
            client.sendall(reply)
            if hang:
                kept.append(client)
            else:
                client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for client in kept:
            client.close()


@contextmanager
def answering(answer: Callable[[bytes], bytes | None], family: int = socket.AF_INET) -> Iterator[int]:
    """A UDP server on loopback that sends what `answer` makes of each datagram, if anything. Yields its port."""
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))

    def serve() -> None:
        while True:
            data, peer = server.recvfrom(65535)
            if data == b"stop":
                return
            reply = answer(data)
            if reply is not None:
                server.sendto(reply, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        with socket.socket(family, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"stop", server.getsockname())
        thread.join()
        server.close()


def closed_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
