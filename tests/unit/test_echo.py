"""The echo program, as a real process, asked by hand-written clients."""

from __future__ import annotations

import ast
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import testbed

PROGRAM = Path(testbed.__file__).parent / "programs" / "echo.py"
ENVIRONMENT = {"NODE_NAME": "node7", "POD_NAME": "web-1"}
HOSTNAME = os.uname().nodename


@contextmanager
def started(*arguments: str, **options) -> Iterator[tuple[subprocess.Popen, list[list[int]]]]:
    argv = ["/usr/bin/python3", "-I", "-S", str(PROGRAM), *arguments, "--announce"]
    options.setdefault("env", ENVIRONMENT)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            ports = [[int(word) for word in process.stdout.readline().split()] for _ in range(2)]
            assert all(ports), "the program did not announce its ports"
            yield process, ports
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    with started("--port", "0") as (_, announced):
        yield announced[0][0], announced[1][0]


@pytest.fixture(scope="module")
def port(ports) -> int:
    return ports[0]


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), timeout=5)


def talk(port: int, data: bytes) -> bytes:
    """All the program sends to a client that says `data` and closes its side."""
    with connect(port) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while more := sock.recv(65536):
            received += more
        return received


def ask(port: int, path: str, method: str = "GET", **options) -> tuple[http.client.HTTPResponse, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request(method, path, **options)
    response = client.getresponse()
    body = response.read()
    client.close()
    return response, body


def test_program_is_valid_python_3_9():
    ast.parse(PROGRAM.read_text(), feature_version=(3, 9))


def test_http_tells_who_asks_and_who_answers(port):
    with connect(port) as sock:
        sock.sendall(
            b"GET /a/b?c=d HTTP/1.1\r\nHost: web.lab\r\nX-Forwarded-For: 10.0.0.9\r\nX-Forwarded-For: 10.0.0.8\r\n\r\n"
        )
        head, _, body = sock.recv(65536).partition(b"\r\n\r\n")
        here, there = sock.getsockname(), sock.getpeername()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == {
        "peer": "127.0.0.1",
        "peerPort": here[1],
        "local": "127.0.0.1",
        "localPort": there[1],
        "hostname": HOSTNAME,
        "node": "node7",
        "pod": "web-1",
        "method": "GET",
        "path": "/a/b?c=d",
        "host": "web.lab",
        "headers": {"Host": "web.lab", "X-Forwarded-For": "10.0.0.9, 10.0.0.8"},
        "forwardedFor": "10.0.0.9, 10.0.0.8",
    }


def test_ipv6_client_is_seen_as_such(port):
    with connect(port, "::1") as sock:
        sock.sendall(b"hello\n")
        told = json.loads(sock.recv(65536))
    assert (told["peer"], told["local"]) == ("::1", "::1")


def test_clientip_puts_ipv6_in_brackets_as_agnhost_does(port):
    with connect(port, "::1") as sock:
        sock.sendall(b"GET /clientip HTTP/1.0\r\n\r\n")
        body = sock.makefile("rb").read().partition(b"\r\n\r\n")[2]
        assert body.decode() == f"[::1]:{sock.getsockname()[1]}"


def test_agnhost_paths(port):
    response, body = ask(port, "/hostname")
    assert (response.status, body.decode()) == (200, HOSTNAME)
    response, body = ask(port, "/clientip")
    address, _, number = body.decode().rpartition(":")
    assert (address, number.isdigit()) == ("127.0.0.1", True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/200", 200),
        ("/status/204", 204),
        ("/status/503", 503),
        ("/status/599", 599),
        ("/status/100", 400),
        ("/status/600", 400),
        ("/status/abc", 400),
        ("/status/", 400),
        ("/status", 200),
    ],
)
def test_status_paths(port, path, status):
    response, body = ask(port, path)
    assert response.status == status
    assert bool(body) == (status != 204)


def test_head_has_the_length_but_no_body(port):
    response, body = ask(port, "/", "HEAD")
    assert (body, int(response.headers["Content-Length"]) > 0) == (b"", True)


def test_connection_is_kept_for_several_requests(port):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.connect()
    sock = client.sock
    for _ in range(3):
        client.request("POST", "/", body=b"x" * 200_000)
        assert json.loads(client.getresponse().read())["peerPort"] == sock.getsockname()[1]
    assert client.sock is sock
    client.close()


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET /\n\n", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
def test_keep_alive_is_honoured(port, request_, kept):
    with connect(port) as sock:
        sock.sendall(request_)
        stream = sock.makefile("rb")
        head = b"".join(iter(stream.readline, b"\r\n")).lower()
        assert (b"connection: keep-alive" in head) == kept
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length"))
        stream.read(length)
        if kept:
            sock.sendall(b"and now for something else\n")
            assert json.loads(stream.readline())["peer"] == "127.0.0.1"
        else:
            assert stream.read() == b""


def test_reply_reaches_a_client_that_is_still_sending(port):
    """Closing at once would reset the connection and lose the reply."""
    with connect(port) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n")
        stream = sock.makefile("rb")
        assert stream.read().startswith(b"HTTP/1.1 200 OK")
        sock.sendall(b"x" * 1_000_000)


def test_pipelined_requests_are_answered_in_order(port):
    received = talk(port, b"GET /status/201 HTTP/1.1\r\n\r\nGET /status/202 HTTP/1.1\r\n\r\n")
    assert [line.split()[1] for line in received.splitlines() if line.startswith(b"HTTP/")] == [b"201", b"202"]


def test_request_in_single_bytes(port):
    with connect(port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /slow HTTP/1.0\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert b'"path": "/slow"' in sock.makefile("rb").read()


def test_each_line_of_a_plain_client_is_answered(port):
    answers = talk(port, b"one\r\ntwo\n\nunfinished").splitlines()
    assert [json.loads(answer)["pod"] for answer in answers] == ["web-1"] * 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01" + b"\0\xff" * 5000,
        b"A" * 300_000,
        b"\n" * 20_000,
        b"GET",
        b"GET / HTTP/1.1 surplus words\r\n\r\n",
        b"GET \r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n: \r\n\r\n",
        b"GET /" + b"x" * 200_000,
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_garbage_does_not_stop_the_program(port, garbage):
    with connect(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closed by a reset
        with suppress(OSError):
            sock.sendall(garbage)
    assert json.loads(talk(port, b"still there?\n"))["hostname"] == HOSTNAME


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /status/\xb200 HTTP/1.1\r\n\r\n",  # a digit, but none of ASCII
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_bad_request_is_told_so(port, garbage):
    assert talk(port, garbage).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_client_that_never_reads_does_not_hold_up_others(port):
    with connect(port) as deaf:
        deaf.settimeout(0.3)
        with pytest.raises(TimeoutError):  # once the program, which waits for us to read, reads no more
            deaf.sendall(b"\n" * 100_000_000)
        assert json.loads(talk(port, b"hello\n"))["hostname"] == HOSTNAME


def test_oldest_client_makes_room_when_files_run_out():
    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    with started("--port", "0", preexec_fn=few_files) as (_, announced):
        port = announced[0][0]
        idle = [connect(port) for _ in range(40)]
        assert json.loads(talk(port, b"hello\n"))["hostname"] == HOSTNAME
        assert idle[0].recv(1) == b""
        for sock in idle:
            sock.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.5"), (socket.AF_INET6, "::1")])
def test_datagram_is_answered_from_the_address_it_was_sent_to(ports, family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((address, ports[1]))  # so that an answer from elsewhere, 127.0.0.1 say, would be dropped
        sock.send(b"hello")
        told = json.loads(sock.recv(65536))
        assert (told["local"], told["localPort"], told["peerPort"]) == (address, ports[1], sock.getsockname()[1])
        assert (told["pod"], told["node"]) == ("web-1", "node7")


def test_empty_datagram_is_answered(ports):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", ports[1]))
        sock.send(b"")
        assert json.loads(sock.recv(65536))["peer"] == "127.0.0.1"


def test_several_ports_and_udp_on_the_same_ones():
    with started("--port", "0", "--port", "0") as (_, (streams, datagrams)):
        assert len(set(streams)) == 2
        assert streams == datagrams
        assert all(json.loads(talk(port, b"\n"))["localPort"] == port for port in streams)


def test_udp_port_of_its_own(ports):
    with started("--port", "0", "--udp-port", "0") as (_, (streams, datagrams)):
        assert len(streams) == len(datagrams) == 1


@pytest.mark.parametrize(("option", "source"), [("--udp-port", "127.0.0.2"), ("--plain-udp", "127.0.0.1")])
def test_source_address_of_an_answer(option, source):
    """Asked by 127.0.0.2, it answers from there, or from where the way to the client begins."""
    with (
        started("--port", "0", "--udp-port", "0", option, "0") as (_, (_, datagrams)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(5)
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"x", ("127.0.0.2", datagrams[-1]))
        data, peer = sock.recvfrom(65536)
    assert peer == (source, datagrams[-1])
    assert json.loads(data)["local"] == "127.0.0.2"


def test_names_default_to_the_host(port):
    with started("--port", "0", env={}) as (_, announced):
        told = json.loads(talk(announced[0][0], b"\n"))
    assert (told["node"], told["pod"]) == (HOSTNAME, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(number):
    with started("--port", "0") as (process, announced), connect(announced[0][0]):
        process.send_signal(number)
        assert process.wait(5) == 0


@pytest.mark.parametrize(
    "arguments",
    [["--port"], ["--port", "x"], ["--port", "65536"], ["--udp-port", "-1"], ["--plain-udp"], ["--tls"]],
    ids=" ".join,
)
def test_wrong_arguments_are_refused(arguments):
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", PROGRAM, *arguments], capture_output=True, text=True, timeout=5
    )
    assert done.returncode == 2
    assert "usage: echo.py" in done.stderr


def test_port_in_use_is_reported(port):
    argv = ["/usr/bin/python3", "-I", "-S", PROGRAM, "--port", str(port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=5)
    assert (done.returncode, done.stderr) == (1, "echo.py: cannot listen: [Errno 98] Address already in use\n")


def test_it_loads_nothing_that_takes_long():
    """A lab may start hundreds of it: most of the time to start is what is imported."""
    listing = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='echo'); print(*sys.modules)"
    argv = ["/usr/bin/python3", "-I", "-S", "-c", listing, str(PROGRAM)]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    assert "json" in loaded
    assert not {"asyncio", "http", "email", "ssl", "logging", "argparse", "ipaddress", "subprocess"} & set(loaded)
