"""The ssh probe against the real sshd, on loopback, with keys of the test's own."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ecdsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from probe_servers import canned

from testbed.errors import ProbeError
from testbed.plan import Flow
from testbed.probe.secrets import Secrets
from testbed.probe.ssh import ssh

SSHD = Path("/usr/sbin/sshd")
HOSTNAME = os.uname().nodename
# As root, sshd wants /run/sshd, which only its service makes; a private /run leaves the machine as it is.
PRIVATE_RUN = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'


@dataclass(frozen=True)
class Server:
    port: int
    secrets: Secrets


def key_pair(kind: str = "ed25519") -> tuple[str, str]:
    """A private and a public key, as text."""
    key: Ed25519PrivateKey | EllipticCurvePrivateKey = (
        Ed25519PrivateKey.generate() if kind == "ed25519" else generate_ecdsa(SECP256R1())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    if not SSHD.exists():
        pytest.skip(f"{SSHD} is not installed")
    folder = tmp_path_factory.mktemp("sshd")
    private, public = key_pair()
    host_private, host_public = key_pair("ecdsa")
    (folder / "authorized_keys").write_text(public)
    # The other host key is of the kind that paramiko prefers: the one that is known must be asked for.
    for name, text in (("host_key", host_private), ("other_key", key_pair()[0])):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nListenAddress [::1]:{port}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"HostKey {folder}/other_key\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    argv = [str(SSHD), "-D", "-e", "-f", str(folder / "config")]
    if os.geteuid() == 0:
        argv = ["unshare", "--mount", "sh", "-c", PRIVATE_RUN, "sh", *argv]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stderr.readline() for _ in range(2)]
            if not all("Server listening" in line for line in said):
                pytest.skip(f"sshd does not run here: {' '.join(said).strip()}")
            yield Server(port, Secrets(private, (host_public,)))
        finally:
            process.terminate()


def login(server: Server, **fields) -> Flow:
    defaults = {"name": "f", "source": "here", "address": "127.0.0.1", "port": server.port, "user": getpass.getuser()}
    return Flow(protocol="ssh", **{**defaults, **fields})


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_login_tells_who_asks_and_who_answers(sockets, server, address):
    answer = ssh(sockets, login(server, address=address, seen_as=(address,)), server.secrets)
    assert (answer.outcome, answer.seen_as, answer.answered_by) == ("ok", address, HOSTNAME)
    assert answer.detail == f"{getpass.getuser()} logged in to {address}"
    assert answer.evidence[0].startswith("SSH-2.0-OpenSSH")
    assert answer.local_port > 0


def test_command(sockets, server):
    flow = login(server, command='echo "a b"; echo $SSH_CONNECTION')
    answer = ssh(sockets, flow, server.secrets)
    assert answer.outcome == "ok"
    assert answer.output == f"a b\n127.0.0.1 {answer.local_port} 127.0.0.1 {server.port}\n"


def test_command_is_heard_on_both_streams(sockets, server):
    assert ssh(sockets, login(server, command="echo no such thing >&2"), server.secrets).output == "no such thing\n"


def test_command_that_fails(sockets, server):
    answer = ssh(sockets, login(server, command="echo no; exit 3"), server.secrets)
    assert (answer.outcome, answer.output) == ("error", "no\n")
    assert answer.detail == f"{getpass.getuser()} logged in to 127.0.0.1; 'echo no; exit 3' ended with status 3"


def test_command_that_does_not_end_is_a_timeout(sockets, server):
    flow = login(server, command="cat", expect="timeout", timeout=1)
    assert ssh(sockets, flow, server.secrets).outcome == "timeout"


def test_key_from_a_file(sockets, server, tmp_path):
    path = tmp_path / "key"
    path.write_text(str(server.secrets.private_key))
    assert ssh(sockets, login(server), replace(server.secrets, private_key=path)).outcome == "ok"


def test_wrong_client_key_is_an_error(sockets, server, capfd, caplog):
    answer = ssh(sockets, login(server), replace(server.secrets, private_key=key_pair()[0]))
    assert (answer.outcome, answer.detail) == (
        "error",
        f"127.0.0.1 did not let {getpass.getuser()} in: Authentication failed.",
    )
    assert capfd.readouterr().err == ""
    assert caplog.records == []


def test_wrong_host_key_is_an_error(sockets, server):
    answer = ssh(sockets, login(server), replace(server.secrets, host_keys=(key_pair()[1],)))
    assert answer.outcome == "error"
    assert answer.detail.startswith("127.0.0.1 shows a host key that is not the lab's: SHA256:")


def test_one_of_several_host_keys_will_do(sockets, server):
    secrets = replace(server.secrets, host_keys=(key_pair("ecdsa")[1], f"{server.secrets.host_keys[0]} root@r1\n"))
    assert ssh(sockets, login(server), secrets).outcome == "ok"


def test_server_without_the_kind_of_key_is_an_error(sockets, server):
    secrets = replace(server.secrets, host_keys=("ssh-rsa AAAA",))
    assert ssh(sockets, login(server), secrets).outcome == "error"


def test_server_of_another_protocol_is_an_error(sockets, server):
    # It answers in lines that are no ssh banner, then closes.
    with canned(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        answer = ssh(sockets, login(server, port=port), server.secrets)
    assert answer.outcome == "error"


class Mute(paramiko.ServerInterface):
    """Lets everybody in, and says nothing more."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.ended.wait(30)
        return False


@contextlib.contextmanager
def mute(private_key: str) -> Iterator[int]:
    """A server that answers no more after the login; the port it listens on."""
    answers = Mute()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with paramiko.Transport(connection) as transport:
                transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(private_key)))
                transport.start_server(server=answers)
                answers.ended.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            answers.ended.set()
            thread.join()


def test_a_server_that_falls_silent_after_the_login_is_a_timeout(sockets, server):
    """As where a link is cut just then: the request to run a command is never answered."""
    private, public = key_pair()
    flow = login(server, command="true", expect="timeout", timeout=1)
    with mute(private) as port:
        answer = ssh(sockets, replace(flow, port=port), replace(server.secrets, host_keys=(public,)))
    assert answer.outcome == "timeout"


def test_silent_server_is_a_timeout(sockets, server):
    with canned(b"", hang=True) as port:
        answer = ssh(sockets, login(server, port=port, expect="timeout", timeout=0.3), server.secrets)
    assert answer.outcome == "timeout"


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        (Secrets(), "an ssh flow needs a private key, and the lab gives none"),
        (Secrets("nonsense", ("ssh-ed25519 AAAA",)), "is no Ed25519, ECDSA or RSA key without a passphrase"),
        (Secrets(Path("/nonexistent"), ("ssh-ed25519 AAAA",)), "the private key for ssh cannot be read"),
        (Secrets(key_pair()[0]), "needs the server's public key to check"),
        (Secrets(key_pair()[0], ("ssh-ed25519 ???",)), "not a public key: 'ssh-ed25519 ???'"),
        (Secrets(key_pair()[0], ("ssh-ed25519",)), "not a public key: 'ssh-ed25519'"),
        (Secrets(key_pair()[0], ("",)), "not a public key: ''"),
        (Secrets(key_pair()[0], ("ssh-klingon AAAA",)), "unknown kind of host key"),
    ],
)
def test_secrets_that_will_not_do_are_refused(sockets, flow, secrets, message):
    with pytest.raises(ProbeError) as caught:
        ssh(sockets, flow("ssh"), secrets)
    assert message in str(caught.value)


def test_private_key_is_not_shown():
    assert "secret" not in repr(Secrets("secret"))
