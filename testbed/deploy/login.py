"""Lets a user into any node by ssh, whether or not an sshd runs there.

The client is OpenSSH's; what it talks to is an `sshd -i` (sshd(8)) that a ProxyCommand starts in the node for this one
connection, so no port is open and no route is needed. Keys, configuration and known hosts are the lab's own.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from testbed.deploy import secrets
from testbed.plan import File, Node, SecretRef
from testbed.runtime.base import Runtime

CLIENT_KEY, HOST_KEY = "ssh", "ssh-host"
FOLDER = "/run/testbed"
CONFIG = f"""\
HostKey {FOLDER}/host_key
AuthorizedKeysFile {FOLDER}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
AllowUsers root
LogLevel ERROR
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
PidFile none
Subsystem sftp internal-sftp
"""
SERVER = ("/usr/sbin/sshd", "-i", "-e", "-f", f"{FOLDER}/sshd_config")
CLIENT = "/usr/bin/ssh"
KNOWN_HOSTS = "known_hosts"


def prepare(runtime: Runtime, node: str, lab: str, directory: Path) -> None:
    """Put the server's files into a node (below /run, which is the node's own), and the client's beside the lab's keys.

    Args:
        lab: its name, under which the host key is known. directory: of the lab; keys it lacks are made there.
    """
    keys = secrets.make((CLIENT_KEY, HOST_KEY), directory)
    files = (
        File(f"{FOLDER}/sshd_config", CONFIG),
        File(f"{FOLDER}/authorized_keys", SecretRef(CLIENT_KEY, "public")),
        File(f"{FOLDER}/host_key", SecretRef(HOST_KEY, "private"), 0o600),
    )
    wanted = Node(node, "host", files=files, directories=(("/run/sshd", "root"),))
    runtime.write(wanted, secrets.contents([wanted], keys), [])
    (directory / KNOWN_HOSTS).write_text(f"{lab} {keys[HOST_KEY, 'public']}")


def client(lab: str, directory: Path, through: Sequence[str], command: Sequence[str] = ()) -> tuple[str, ...]:
    """The command line of the OpenSSH client (ssh_config(5)) for a node that `prepare` has seen.

    Args:
        through: what runs a command in the node; the server is appended to it.
        command: what to run there, joined by spaces and read by the login shell, as with any ssh; empty: a shell.
    """
    # ssh hands a ProxyCommand to a shell, and takes % for the start of one of its own tokens.
    proxy = shlex.join((*through, *SERVER)).replace("%", "%%")
    options = {
        "ProxyCommand": proxy,
        "HostKeyAlias": lab,
        "UserKnownHostsFile": directory / KNOWN_HOSTS,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "IdentityFile": directory / CLIENT_KEY,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "LogLevel": "ERROR",
    }
    arguments = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return (CLIENT, "-F", "none", *arguments, f"root@{lab}", *(("--", *command) if command else ()))
