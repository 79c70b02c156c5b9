"""Files every node has, whatever runs on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.plan import File


def with_base(files: Iterable[File], hostname: str, addresses: Sequence[str] = ()) -> tuple[File, ...]:
    """The files of a node, after those every node has: its own name, and no name server (the host's would not answer).

    Args:
        files: what the node brings itself; it may bring one of these, too.
        addresses: its own, without prefix length; the first is the one its name means.
    """
    by_path = {file.path: file for file in (*_base(hostname, addresses), *files)}
    return tuple(by_path.values())


def _base(hostname: str, addresses: Sequence[str]) -> tuple[File, ...]:
    own = [f"{address} {hostname}" for address in addresses[:1]] or [f"127.0.1.1 {hostname}"]
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", *own, ""]
    return (
        File("/etc/hostname", f"{hostname}\n"),
        File("/etc/hosts", "\n".join(lines)),
        File("/etc/resolv.conf", "# this node has no name server\n"),
    )
