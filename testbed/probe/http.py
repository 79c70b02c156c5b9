"""The http probe: one GET by httpx over a socket of the source's namespace."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

import httpcore
import httpx

from testbed.errors import ProbeError
from testbed.plan import Flow
from testbed.probe.facts import agnhost_facts, facts_of
from testbed.probe.opening import over_tcp
from testbed.probe.result import Answer
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets


def http(sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer:  # noqa: ARG001 (Probe)
    """Ask for the flow's path, with its Host header when it has one. Redirects are answers, not followed.

    Whatever status a server sends, the outcome is `ok`; judging the status is the judge's.
    """
    request = request_of(flow)

    def talk(sock: socket.socket) -> Answer:
        with httpx.Client(transport=SocketTransport(sock), trust_env=False) as client:
            try:
                return read(flow, client.send(request))
            except (httpx.HTTPError, httpcore.ProtocolError) as error:
                where = f"{flow.address} port {flow.port}"
                return Answer("error", f"{where} did not answer in HTTP ({error or type(error).__name__})")

    return over_tcp(sockets, flow, mark, talk)


def request_of(flow: Flow) -> httpx.Request:
    """The request a flow makes. Raises ProbeError when its path or host cannot stand in one."""
    host = f"[{flow.address}]" if ":" in flow.address else flow.address
    headers = {"User-Agent": "testbed", "Connection": "close"}
    if flow.http_host:
        headers["Host"] = flow.http_host
    try:
        return httpx.Request("GET", f"http://{host}:{flow.port}{flow.http_path}", headers=headers)
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise ProbeError(f'flow "{flow.name}": {flow.http_path!r} cannot be asked for: {error}') from error


def read(flow: Flow, response: httpx.Response) -> Answer:
    """What a response means for `flow`."""
    facts = facts_of(response.content)
    if facts.seen_as == facts.answered_by == "" and response.is_success:
        facts = agnhost_facts(flow.http_path, response.text)
    line = f"{response.http_version} {response.status_code} {response.reason_phrase}".rstrip()
    return Answer(
        "ok",
        f"{flow.address} port {flow.port} answered {line}",
        seen_as=facts.seen_as,
        answered_by=facts.answered_by,
        answered_on=facts.answered_on,
        forwarded_for=facts.forwarded_for,
        status=response.status_code,
        evidence=(line, *(f"{name}: {value}" for name, value in response.headers.items()), response.text[:2000]),
    )


class SocketTransport(httpx.BaseTransport):
    """Speaks HTTP/1.1 over a socket that is connected already, whatever address the URL names."""

    def __init__(self, sock: socket.socket) -> None:
        self._backend = _Backend(sock)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        with httpcore.HTTPConnection(url.origin, network_backend=self._backend) as connection:
            response = connection.request(request.method, url, headers=request.headers.raw, content=request.read())
        return httpx.Response(
            response.status, headers=response.headers, content=response.content, extensions=response.extensions
        )


class _Backend(httpcore.NetworkBackend):
    """Where httpcore asks for a connection: hands out the one there is."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 (httpcore's interface)
        port: int,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return _Stream(self._sock)


class _Stream(httpcore.NetworkStream):
    """A connected socket with one time limit for all it does. Its OSErrors pass through httpcore unchanged."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ends = time.monotonic() + (sock.gettimeout() or 0)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 (httpcore's interface)
        self._limit()
        return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._limit()
        self._sock.sendall(buffer)

    def close(self) -> None:
        self._sock.close()

    def _limit(self) -> None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not end")
        self._sock.settimeout(left)
