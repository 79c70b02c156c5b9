"""The lab's secrets: Ed25519 key pairs, random, one set per lab, in files only root can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from testbed.plan import Node, SecretPart, SecretRef

Secrets = Mapping[tuple[str, SecretPart], str]


def make(names: Iterable[str], directory: Path) -> Secrets:
    """The key pairs of these names, in OpenSSH's formats; made where the directory has none yet.

    Args:
        directory: of the lab; files NAME and NAME.pub are written there with mode 0600.
    """
    found: dict[tuple[str, SecretPart], str] = {}
    for name in names:
        private, public = directory / name, directory / f"{name}.pub"
        if not (private.exists() and public.exists()):
            _generate(private, public)
        found[name, "private"] = private.read_text()
        found[name, "public"] = public.read_text()
    return found


def _generate(private: Path, public: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    line = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    for path, data in ((private, text), (public, line + b"\n")):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_bytes(data)


def contents(nodes: Iterable[Node], secrets: Secrets) -> dict[tuple[str, str], str]:
    """(node, path) → text of the files that are parts of secrets."""
    return {
        (node.name, file.path): secrets[file.content.secret, file.content.part]
        for node in nodes
        for file in node.files
        if isinstance(file.content, SecretRef)
    }
