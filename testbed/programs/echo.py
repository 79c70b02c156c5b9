"""The server that labs run: tells every client, over HTTP, plain TCP and UDP, who it is and whom it sees.

It stands alone (`/usr/bin/python3 -I -S echo.py --port 8080`, Python 3.9 or later, standard library only), is one
process with one thread, and is up in a few hundredths of a second, for a lab may start hundreds of it.

    HTTP   any path          200, a JSON object: peer, peerPort, local, localPort, hostname, node, pod, method, path,
                             host, headers, forwardedFor
           /hostname         the host's name, plain          } as agnhost netexec
           /clientip         the client's address:port       } answers them
           /status/N         the same JSON object with status N (200 to 599)
    TCP    any other line    the JSON object without the HTTP fields, as one line, for each line
    UDP    any datagram      the same, sent from the address the datagram was sent to; with --plain-udp, as most
                             programs do it, from the address of the interface that the way back leaves by

NODE_NAME and POD_NAME in the environment give `node` (else the host's name) and `pod` (else empty). IPv4 clients of the
dual-stack sockets are shown as IPv4. SIGTERM and SIGINT end the process with status 0.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator

USAGE = """\
usage: echo.py [--port N]... [--udp-port N]... [--plain-udp N]... [--announce]
  --port N      TCP port to listen on, repeatable; 0: any free one (default: 8080)
  --udp-port N  UDP port, repeatable; 0: any free one (default: the same as the TCP ports)
  --plain-udp N a UDP port beside these, whose answers leave the choice of their source address to the kernel
  --announce    print the TCP ports, then the UDP ports, on one line each, once all are open
"""
METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT ")
LARGEST_HEAD = 65536
CHUNK = 16384
BODILESS = (204, 304)
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}
PKTINFO_V6 = struct.Struct("=16sI")
PKTINFO_V4 = struct.Struct("=I4s4s")
IP_PKTINFO = 8  # linux/in.h; the socket module names it in recent versions only


class Ends:
    """Both ends of a conversation, as the client's side and ours."""

    __slots__ = ("local", "local_port", "peer", "peer_port")

    def __init__(self, peer: str, peer_port: int, local: str, local_port: int) -> None:
        self.peer = plain(peer)
        self.peer_port = peer_port
        self.local = plain(local)
        self.local_port = local_port


class Reply:
    """What to send, how much of the client's data it answers, and whether the connection stays open.

    `body` bytes that are still to come belong to the request and are thrown away.
    """

    __slots__ = ("body", "data", "keep", "used")

    def __init__(self, data: bytes, used: int, keep: bool, body: int = 0) -> None:
        self.data = data
        self.used = used
        self.keep = keep
        self.body = body


def plain(address: str) -> str:
    """An address without the IPv4-mapped prefix and without a zone."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def facts(ends: Ends) -> dict[str, object]:
    """What every client is told."""
    hostname = os.uname().nodename
    return {
        "peer": ends.peer,
        "peerPort": ends.peer_port,
        "local": ends.local,
        "localPort": ends.local_port,
        "hostname": hostname,
        "node": os.environ.get("NODE_NAME") or hostname,
        "pod": os.environ.get("POD_NAME", ""),
    }


def as_line(told: dict[str, object]) -> bytes:
    return json.dumps(told).encode() + b"\n"


def reply_to(received: bytes, ends: Ends) -> Reply | None:
    """The reply to the first request in what a TCP client has sent; None: more is needed."""
    if received.startswith(METHODS):
        return reply_to_http(received, ends)
    line, newline, _ = received.partition(b"\n")
    if newline:
        return Reply(as_line(facts(ends)), len(line) + 1, keep=True)
    return Reply(b"", len(received), keep=False) if len(received) >= LARGEST_HEAD else None


def reply_to_http(received: bytes, ends: Ends) -> Reply | None:
    size = head_size(received)
    if not size:
        return Reply(http_reply(400, b"", keep=False), len(received), False) if len(received) >= LARGEST_HEAD else None
    first, *fields = received[:size].decode("latin-1").splitlines()
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if colon:
            headers[name.strip()] = joined(headers.get(name.strip()), value.strip())
    words = first.split()
    lower = {name.lower(): value for name, value in headers.items()}
    length = lower.get("content-length", "0")
    if len(words) not in (2, 3) or not (length.isascii() and length.isdigit()):
        return Reply(http_reply(400, b"bad request\n", keep=False), size, keep=False)
    keep = stays_open(words, lower)
    status, text = http_body(words, headers, lower, ends)
    head_only = words[0] == "HEAD"
    return Reply(http_reply(status, text, keep, head_only), size, keep, int(length))


def joined(before: str | None, value: str) -> str:
    """The value of a header field that occurs again (RFC 9110, 5.3)."""
    return value if before is None else before + ", " + value


def head_size(received: bytes) -> int:
    """The length of a request's head with the empty line that ends it; 0 when that has not come yet."""
    ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n") for at in [received.find(mark)] if at >= 0]
    return min(ends, default=0)


def stays_open(words: list[str], lower: dict[str, str]) -> bool:
    """Whether the connection outlives the request (RFC 9112, 9.3). After a body in chunks it never does."""
    options = lower.get("connection", "").lower()
    if "transfer-encoding" in lower or len(words) == 2:
        return False
    return "keep-alive" in options if words[2] == "HTTP/1.0" else "close" not in options


def http_body(words: list[str], headers: dict[str, str], lower: dict[str, str], ends: Ends) -> tuple[int, bytes]:
    """The status and the body for a request."""
    path = words[1].partition("?")[0]
    if path == "/hostname":
        return 200, os.uname().nodename.encode()
    if path == "/clientip":
        peer = "[" + ends.peer + "]" if ":" in ends.peer else ends.peer
        return 200, (peer + ":" + str(ends.peer_port)).encode()
    told = facts(ends)
    told["method"] = words[0]
    told["path"] = words[1]
    told["host"] = lower.get("host", "")
    told["headers"] = headers
    told["forwardedFor"] = lower.get("x-forwarded-for", "")
    return wanted_status(path), as_line(told)


def wanted_status(path: str) -> int:
    """N for /status/N, 400 where that is no status, else 200."""
    if not path.startswith("/status/"):
        return 200
    text = path[len("/status/") :]
    return int(text) if len(text) == 3 and text.isascii() and text.isdigit() and 200 <= int(text) <= 599 else 400


def http_reply(status: int, body: bytes, keep: bool, head_only: bool = False) -> bytes:
    kind = "application/json" if body.startswith(b"{") else "text/plain; charset=utf-8"
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", "Content-Type: " + kind]
    if status not in BODILESS:
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: " + ("keep-alive" if keep else "close"))
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if head_only or status in BODILESS else head + body


class Connection:
    """One TCP client. It reads only while nothing waits to be sent, so a client that never reads costs little.

    After the last reply it tells the client so and throws away what still comes, until the client closes too: closing
    at once would reset the connection, and the client could lose the reply (RFC 9112, 9.6).
    """

    __slots__ = ("ended", "ends", "keep", "pending", "received", "skip", "sock", "told")

    def __init__(self, sock: socket.socket, ends: Ends) -> None:
        self.sock = sock
        self.ends = ends
        self.received = b""
        self.pending = b""
        self.skip = 0  # bytes of a request's body that are still to come
        self.keep = True
        self.ended = False  # the client has closed its side
        self.told = False  # we have closed ours

    def advance(self, readable: bool) -> bool:
        """Go on as far as the client allows. Returns whether the connection is to stay."""
        if readable:
            self.receive()
        while self.send() and self.keep and self.answer():
            pass
        if self.pending:
            return True
        if not self.keep and not self.told:
            self.told = True
            self.sock.shutdown(socket.SHUT_WR)
        return not self.ended

    def receive(self) -> None:
        data = self.sock.recv(CHUNK)
        self.ended = not data
        if self.keep:
            self.received += data

    def send(self) -> bool:
        """Send what waits. Returns whether all of it went out."""
        while self.pending:
            try:
                self.pending = self.pending[self.sock.send(self.pending) :]
            except BlockingIOError:
                return False
        return True

    def answer(self) -> bool:
        """Prepare the reply to the next request. Returns whether there is one."""
        skipped = min(self.skip, len(self.received))
        self.skip -= skipped
        self.received = self.received[skipped:]
        reply = reply_to(self.received, self.ends) if self.received else None
        if reply is None:
            return False
        self.received = self.received[reply.used :]
        self.pending, self.keep, self.skip = reply.data, reply.keep, reply.body
        return True


class Server:
    """All sockets of the process, and what to do when one of them is ready."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.connections: dict[socket.socket, Connection] = {}

    def listen(self, sock: socket.socket, act: Callable[[socket.socket, int], None]) -> None:
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, act)

    def serve(self) -> None:
        while True:
            for key, events in self.selector.select():
                key.data(key.fileobj, events)

    def accept(self, listener: socket.socket, events: int) -> None:  # noqa: ARG002 (an action)
        """Take in one client. Where files run out, the oldest client makes room for it."""
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self.connections:
                self.drop(next(iter(self.connections.values())))
            return
        sock.setblocking(False)
        try:
            local = sock.getsockname()
        except OSError:
            sock.close()
            return
        self.connections[sock] = Connection(sock, Ends(peer[0], peer[1], local[0], local[1]))
        self.selector.register(sock, selectors.EVENT_READ, self.advance)

    def advance(self, sock: socket.socket, events: int) -> None:
        connection = self.connections.get(sock)
        if connection is None:  # dropped since the selector reported it
            return
        try:
            stays = connection.advance(bool(events & selectors.EVENT_READ))
        except BlockingIOError:
            return
        except OSError:  # the client is gone
            stays = False
        if not stays:
            self.drop(connection)
            return
        self.selector.modify(sock, selectors.EVENT_WRITE if connection.pending else selectors.EVENT_READ, self.advance)

    def drop(self, connection: Connection) -> None:
        self.selector.unregister(connection.sock)
        del self.connections[connection.sock]
        connection.sock.close()


def answer_datagram(sock: socket.socket, events: int) -> None:  # noqa: ARG001 (an action)
    """Answer one datagram, from the address it was sent to, whatever address routing would choose."""
    try:
        _, controls, _, peer = sock.recvmsg(65535, 256)
        local, control = destination(controls)
        sock.sendmsg([answer_to(sock, peer, local)], control, 0, peer)
    except OSError:  # an ICMP error for an earlier answer, or no way to the client: nothing to be done for either
        return


def answer_plainly(sock: socket.socket, events: int) -> None:  # noqa: ARG001 (an action)
    """Answer one datagram as most programs do: the kernel chooses the source, by the way back to the client."""
    try:
        _, controls, _, peer = sock.recvmsg(65535, 256)
        sock.sendto(answer_to(sock, peer, destination(controls)[0]), peer)
    except OSError:
        return


def answer_to(sock: socket.socket, peer: tuple[str, int], local: str) -> bytes:
    return as_line(facts(Ends(peer[0], peer[1], local, sock.getsockname()[1])))


def destination(controls: list[tuple[int, int, bytes]]) -> tuple[str, list[tuple[int, int, bytes]]]:
    """The address a datagram was sent to, and the control message that makes it the source of the answer.

    The interface is left to routing: the way back may be another (ip(7), ipv6(7)).
    """
    for level, kind, data in controls:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address = PKTINFO_V6.unpack_from(data)[0]
            source = PKTINFO_V6.pack(address, 0)
            return socket.inet_ntop(socket.AF_INET6, address), [(level, kind, source)]
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            _, local, address = PKTINFO_V4.unpack_from(data)
            source = PKTINFO_V4.pack(0, local, b"\0\0\0\0")
            return socket.inet_ntop(socket.AF_INET, address), [(level, kind, source)]
    return "", []


def bound(kind: int, port: int) -> socket.socket:
    """A socket on all addresses of both families, or of IPv4 alone where the kernel lacks IPv6."""
    try:
        sock = socket.socket(socket.AF_INET6, kind)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return opened(socket.socket(socket.AF_INET, kind), port)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return opened(sock, port)


def opened(sock: socket.socket, port: int) -> socket.socket:
    """Bind a socket to all addresses; a UDP socket will tell which of them a datagram was sent to."""
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        sock.listen(1024)
        return sock
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("", port))
    return sock


def pair(port: int) -> tuple[socket.socket, socket.socket]:
    """TCP and UDP on the same port; where any port will do, on one that is free for both."""
    while True:
        stream = bound(socket.SOCK_STREAM, port)
        try:
            return stream, bound(socket.SOCK_DGRAM, stream.getsockname()[1])
        except OSError as error:
            stream.close()
            if port or error.errno != errno.EADDRINUSE:
                raise


def open_all(ports: list[int], udp_ports: list[int]) -> tuple[list[socket.socket], list[socket.socket]]:
    """The TCP and the UDP sockets."""
    if udp_ports:
        return [bound(socket.SOCK_STREAM, port) for port in ports], [bound(socket.SOCK_DGRAM, p) for p in udp_ports]
    pairs = [pair(port) for port in ports]
    return [stream for stream, _ in pairs], [datagram for _, datagram in pairs]


def arguments(words: list[str]) -> tuple[dict[str, list[int]], bool]:
    """Ports by option, whether to announce them. Raises ValueError (argparse would take longer than the rest)."""
    numbers: dict[str, list[int]] = {"--port": [], "--udp-port": [], "--plain-udp": []}
    announce = False
    rest: Iterator[str] = iter(words)
    for word in rest:
        if word == "--announce":
            announce = True
        elif word in numbers:
            number = int(next(rest, ""))
            if not 0 <= number <= 65535:
                raise ValueError(f"{number} is not a port")
            numbers[word].append(number)
        else:
            raise ValueError("unknown argument " + word)
    return numbers, announce


def end(number: int, frame: object) -> None:  # noqa: ARG001 (signal handlers get both)
    sys.exit(0)


def main(words: list[str]) -> int:
    # As the first process of a pod it would ignore signals that it has no handler for (pid_namespaces(7)).
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        ports, announce = arguments(words)
    except ValueError as error:
        sys.stderr.write(f"echo.py: {error}\n{USAGE}")
        return 2
    try:
        streams, datagrams = open_all(ports["--port"] or [8080], ports["--udp-port"])
        plain_ones = [bound(socket.SOCK_DGRAM, port) for port in ports["--plain-udp"]]
    except OSError as error:
        sys.stderr.write(f"echo.py: cannot listen: {error}\n")
        return 1
    server = Server()
    for sock in streams:
        server.listen(sock, server.accept)
    for sock in datagrams:
        server.listen(sock, answer_datagram)
    for sock in plain_ones:
        server.listen(sock, answer_plainly)
    if announce:
        for sockets in (streams, [*datagrams, *plain_ones]):
            sys.stdout.write(" ".join(str(sock.getsockname()[1]) for sock in sockets) + "\n")
        sys.stdout.flush()
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
