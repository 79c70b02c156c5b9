"""The exec lines of a containerlab node as commands, and what they tell of its addresses."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from testbed.compile.clab_keys import KeyCheck
from testbed.load.clab import ClabNode, replaced

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_TAKES_AWAY = ("del", "delete", "flush", "down")
MANAGEMENT = "eth0"


def words(text: str) -> list[str]:
    """A line split as containerlab splits it (github.com/google/shlex): quotes, backslashes, comments.

    Raises:
        ValueError: a quote is not closed.
    """
    plain = text if "'" in text or '"' in text else _COMMENT.sub("", text)
    return shlex.split(plain)


def commands(
    node: ClabNode, magic: Mapping[str, str], env: Mapping[str, str], interfaces: Sequence[str], keys: KeyCheck
) -> tuple[tuple[str, ...], ...]:
    """The exec lines of a node.

    Args:
        magic: words that are replaced. env: of the node. interfaces: names of its own.
    """
    prefix = ("/usr/bin/env", *(f"{key}={value}" for key, value in env.items())) if env else ()
    found = []
    for text, position in node.settings.items("exec"):
        try:
            argv = words(replaced(text, magic))
        except ValueError as error:
            keys.refuse(node.name, f"the exec line {text!r} cannot be split: {error}", position)
            continue
        if not argv:
            keys.note(node.name, f"the exec line {text!r} has no command")
        elif MANAGEMENT in interfaces or not re.search(rf"\b{MANAGEMENT}\b", text):
            found.append((*prefix, *argv))
        elif argv[0] == "ip" and any(word in _TAKES_AWAY for word in argv):
            keys.note(node.name, f"{text!r} is not run: there is no {MANAGEMENT} to take anything from")
        else:
            hint = "remove the line: no management network is made"
            keys.refuse(node.name, f"the exec line {text!r} needs {MANAGEMENT}, which is not there", position, hint)
    return tuple(found)


def stated_addresses(lines: Iterable[Sequence[str]], config: str) -> list[str]:
    """The addresses that `ip address add` commands and an FRR configuration give, those of `lo` first."""
    found: list[tuple[bool, str]] = []
    for line in lines:
        argv = [word for word in line if word not in ("-4", "-6")]
        if "ip" in argv:
            argv = argv[argv.index("ip") :]
            if len(argv) > 3 and "address".startswith(argv[1]) and argv[2] in ("add", "replace"):
                found.append((argv[-1] != "lo", argv[3]))
    interface = ""
    for text in config.splitlines():
        part = text.split()
        if text[:1].strip():
            interface = part[1] if part[0] == "interface" and len(part) > 1 else ""
        elif interface and part[:2] in (["ip", "address"], ["ipv6", "address"]) and len(part) > 2:
            found.append((interface != "lo", part[2]))
    return [str(ipaddress.ip_interface(text).ip) for _, text in sorted(found, key=lambda one: one[0]) if _is(text)]


def _is(text: str) -> bool:
    try:
        return not ipaddress.ip_interface(text).ip.is_loopback
    except ValueError:
        return False
