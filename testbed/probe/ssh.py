"""The ssh probe: log in with the lab's key, check the server's, run a command; by paramiko."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko

from testbed.errors import ProbeError
from testbed.plan import Flow
from testbed.probe.facts import Facts
from testbed.probe.opening import over_tcp
from testbed.probe.result import Answer
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets

LOG_CHANNEL = "testbed.probe.ssh"
LOGIN_SECONDS = 10.0
"""What a login may take on a machine that does many at a time: it is computing, not waiting for packets."""
MARGIN = 0.01  # seconds, so that the time has certainly passed
LARGEST_OUTPUT = 1 << 20
WHO = 'echo "$SSH_CONNECTION"; hostname'
"""SSH_CONNECTION holds the client's address and port, then the server's (ssh(1))."""

# paramiko logs each failed login as an error, with a traceback; the answer says it in a sentence.
logging.getLogger(LOG_CHANNEL).setLevel(logging.CRITICAL)


def ssh(sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer:
    """Log in as the flow's user and run its command, if any.

    The outcome is `error` when the login fails, the server's key is not the lab's, or the command ends with another
    status than 0. Raises ProbeError when `secrets` lacks a key or holds one that cannot be read.
    """
    key, host_keys = client_key(secrets), known_keys(secrets)

    def talk(sock: socket.socket) -> Answer:
        ends = time.monotonic() + (sock.gettimeout() or 0)
        with _transport(sock, sock.gettimeout() or 0, host_keys) as transport, _closed_at(transport, ends):
            try:
                return _converse(transport, flow, key, host_keys, ends)
            except (paramiko.SSHException, EOFError) as error:
                if time.monotonic() >= ends:
                    raise TimeoutError("the login did not end") from error
                return Answer("error", f"{flow.address} did not let {flow.user} in: {_sentence(error)}")

    return over_tcp(sockets, flow, mark, talk, least=LOGIN_SECONDS if flow.expect == "ok" else 0.0)


def client_key(secrets: Secrets) -> paramiko.PKey:
    """The key to log in with: Ed25519, ECDSA or RSA, without a passphrase."""
    if not secrets.private_key:
        raise ProbeError("an ssh flow needs a private key, and the lab gives none")
    try:
        text = secrets.private_key.read_text() if isinstance(secrets.private_key, Path) else secrets.private_key
    except OSError as error:
        raise ProbeError(f"the private key for ssh cannot be read: {error}") from error
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except (paramiko.SSHException, ValueError):
            continue
    raise ProbeError("the private key for ssh is no Ed25519, ECDSA or RSA key without a passphrase")


def known_keys(secrets: Secrets) -> dict[bytes, str]:
    """The host keys in the form they have on the wire, each with the name of its kind."""
    if not secrets.host_keys:
        raise ProbeError("an ssh flow needs the server's public key to check, and the lab gives none")
    known = {}
    for line in secrets.host_keys:
        words = line.split()
        try:
            known[base64.b64decode(words[1], validate=True)] = words[0]
        except (binascii.Error, IndexError) as error:
            raise ProbeError(f"not a public key: {line!r}") from error
    return known


def _transport(sock: socket.socket, seconds: float, host_keys: dict[bytes, str]) -> paramiko.Transport:
    transport = paramiko.Transport(sock)
    transport.set_log_channel(LOG_CHANNEL)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = seconds
    # The server shall prove the key we know of it, not another that it has besides.
    kinds = [name for kind in host_keys.values() for name in _algorithms(kind)]
    try:
        transport.get_security_options().key_types = tuple(dict.fromkeys(kinds))
    except ValueError as error:
        transport.close()
        raise ProbeError(f"unknown kind of host key: {error}") from error
    return transport


@contextlib.contextmanager
def _closed_at(transport: paramiko.Transport, ends: float) -> Iterator[None]:
    """End the session, and whatever waits for an answer in it, if the block is still at work then.

    Channel.exec_command has no time limit of its own: where the network is cut after the login, it would wait until
    TCP gives up, a quarter of an hour.
    """
    alarm = threading.Timer(ends - time.monotonic() + MARGIN, transport.close)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _algorithms(kind: str) -> tuple[str, ...]:
    """The signature algorithms for a kind of key (RFC 8332 for RSA)."""
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)


def _converse(
    transport: paramiko.Transport, flow: Flow, key: paramiko.PKey, host_keys: dict[bytes, str], ends: float
) -> Answer:
    transport.start_client(timeout=_left(ends))
    shown = transport.get_remote_server_key()
    if shown.asbytes() not in host_keys:
        return Answer("error", f"{flow.address} shows a host key that is not the lab's: {shown.fingerprint}")
    transport.auth_publickey(flow.user, key)
    facts = _who(transport, ends) if flow.seen_as or flow.answered_by else Facts()
    status, output = _run(transport, flow.command, ends) if flow.command else (0, "")
    detail = f"{flow.user} logged in to {flow.address}"
    if flow.command:
        detail += f"; {flow.command!r} ended with status {status}"
    return Answer(
        "error" if status else "ok",
        detail,
        seen_as=facts.seen_as,
        answered_by=facts.answered_by,
        answered_on=facts.answered_on,
        output=output,
        evidence=(transport.remote_version, *output.splitlines()[:100]),
    )


def _who(transport: paramiko.Transport, ends: float) -> Facts:
    """What the server's shell says about the connection; no facts where its shell is none (a router's, say)."""
    _, output = _run(transport, WHO, ends)
    lines = output.splitlines()
    words = lines[0].split() if lines else []
    if len(lines) != 2 or len(words) != 4:
        return Facts()
    return Facts(seen_as=words[0], answered_by=lines[1], answered_on=lines[1])


def _run(transport: paramiko.Transport, command: str, ends: float) -> tuple[int, str]:
    """Run a command on the server. Returns its exit status (-1: a signal ended it) and both streams as one text."""
    with transport.open_session(timeout=_left(ends)) as channel:
        channel.set_combine_stderr(True)
        channel.settimeout(_left(ends))
        channel.exec_command(command)
        output = bytearray()
        while len(output) < LARGEST_OUTPUT and (data := channel.recv(65536)):
            output += data
            channel.settimeout(_left(ends))
        if not channel.status_event.wait(_left(ends)):
            raise TimeoutError(f"{command!r} did not end")
        return channel.exit_status, output.decode(errors="replace")


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the session did not end")
    return left


def _sentence(error: Exception) -> str:
    return str(error) or "it closed the connection"
