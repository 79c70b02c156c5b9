"""A node whose image starts FRR by itself: which daemons, with which options, from its /etc/frr/daemons.

Source: FRR tools/frrcommon.sh.in (`daemon_list`, `daemon_start`, `vtysh_b`). The daemons are run in the foreground and
watched as all programs are; watchfrr is not run. An integrated frr.conf is given to each daemon by `vtysh -b -d
DAEMON` once it is ready, as FRR's own script does: a daemon that reads the whole file by `-f` would take lines of
another daemon's section for its own (`redistribute` below `router ospf`, in bgpd below `router bgp`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.compile import frr
from testbed.plan import File, Process, Ready

DAEMONS = (
    "zebra", "bgpd", "ripd", "ripngd", "ospfd", "ospf6d", "isisd", "babeld", "pimd", "pim6d", "ldpd", "nhrpd",
    "eigrpd", "sharpd", "pbrd", "staticd", "bfdd", "fabricd", "vrrpd", "pathd",
)  # fmt: skip
ALWAYS = ("zebra", "staticd")
MANAGEMENT = "mgmtd"  # FRR 9 and later start it by themselves
LIST, CONFIG = "/etc/frr/daemons", "/etc/frr/frr.conf"
VTYSH = "/usr/bin/vtysh"
# What the file may say besides DAEMON and DAEMON_options. watchfrr's part is done by the lab's own supervisor.
_OTHER = ("vtysh_enable", "watchfrr_enable", "watchfrr_options", "watchfrr_debug", "MAX_FDS", "FRR_NO_ROOT")
_SETTING = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)")


class DaemonsError(ValueError):
    """The file of daemons cannot be followed.

    Args:
        line: where in the file, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Started:
    """A daemon that is started, with its options."""

    name: str
    options: tuple[str, ...] = ()


def started(text: str) -> list[Started]:
    """The daemons that a file of daemons starts, in FRR's order. Raises DaemonsError."""
    settings = {name: (value, line) for name, value, line in _settings(text)}
    wide = _options(settings, "frr_global_options")
    if profile := settings.get("frr_profile", ("", 0))[0]:
        wide += ("-F", profile)
    found = []
    for name in DAEMONS:
        value = settings.get(name, ("", 0))[0]
        if name in ALWAYS or value not in ("", "no", "0"):
            found.append(Started(name, (*wide, *_options(settings, f"{name}_options"))))
    return found


def _settings(text: str) -> Iterator[tuple[str, str, int]]:
    """NAME, value, line of each setting: the file is a part of a shell script that only sets variables."""
    known = {*_OTHER, "frr_profile", "frr_global_options", *DAEMONS, *(f"{name}_options" for name in DAEMONS)}
    known |= {MANAGEMENT, f"{MANAGEMENT}_options"}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise DaemonsError(f"cannot be read: {error}", number) from None
        match = _SETTING.fullmatch(" ".join(words))
        if not words:
            continue
        if match is None or "$" in line or "`" in line:
            raise DaemonsError(f"only NAME=VALUE is supported, found {line.strip()!r}", number)
        if match[1] not in known:
            raise DaemonsError(f"{match[1]} is not supported", number)
        yield match[1], match[2].strip(), number


def _options(settings: Mapping[str, tuple[str, int]], name: str) -> tuple[str, ...]:
    """Options without those that put a daemon into the background: whoever starts it here watches it."""
    value, _ = settings.get(name, ("", 0))
    return tuple(word for word in value.split() if word not in ("-d", "--daemon"))


def processes(daemons: Sequence[Started], paths: Sequence[str]) -> tuple[Process, ...]:
    """The programs of a node.

    Args:
        paths: of the files that the node has. With an integrated frr.conf among them, it is given to the daemons;
            without one, each daemon reads a file of its own.
    """
    integrated = CONFIG in paths
    return tuple(_process(daemon, integrated=integrated) for daemon in daemons)


def _process(daemon: Started, *, integrated: bool) -> Process:
    own = f"/etc/frr/{daemon.name}.conf"
    config = () if integrated else ("-f", own)
    return Process(
        name=daemon.name,
        argv=(f"{frr.LIBRARY}/{daemon.name}", *config, "--log", "stdout", *daemon.options),
        ready=Ready("path", path=f"/run/frr/{daemon.name}.vty"),
        after=() if daemon.name == "zebra" else ("zebra",),
        files=(LIST, CONFIG if integrated else own),
        configure=(VTYSH, "-b", "-d", daemon.name) if integrated else (),
    )


def files(bound: Mapping[str, File], daemons: Sequence[Started]) -> list[File]:
    """What a node has below /etc/frr besides what is bound: none of this machine's own configuration shines through."""
    found = [] if "/etc/frr/vtysh.conf" in bound else [File("/etc/frr/vtysh.conf", "", 0o640, "frr")]
    if CONFIG not in bound:
        own = (f"/etc/frr/{daemon.name}.conf" for daemon in daemons)
        found += [File(path, "", 0o640, "frr") for path in own if path not in bound]
    return found
