"""Asks the routing daemons of a node over their own control sockets: no vtysh, no birdc, no process.

Sources: FRR lib/vty.c (a command ends with NUL; the answer ends with three NULs and a status byte) and the BIRD user's
guide, "Remote control" (numbered replies; a reply's last line has a space after its code).
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.patience import stretched

TIMEOUT = 2.0  # seconds a local daemon has to answer
CONFIGURE_TIMEOUT = 30.0  # seconds it has for a line of configuration: it may have all its routes to look at
# CMD_SUCCESS, CMD_WARNING and CMD_SUCCESS_DAEMON (FRR lib/command.h): with these, vtysh too goes on.
FRR_TAKEN = frozenset((0, 1, 11))
IMPORTED = re.compile(r"\s+Routes:\s+(\d+) imported")  # BIRD 1: once; BIRD 2: once per channel
TIME_OF_DAY = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.\d+)?")
MAX_UNIX_PATH = 107  # unix(7)
Entry = tuple[str, ...]  # a line of an FRR configuration, after the contexts that it stands in, the outermost first


@dataclass(frozen=True, slots=True)
class SessionState:
    """A BGP session as a daemon sees it: `state` in RFC 4271's words, and what else helps to find the fault."""

    state: str
    detail: str = ""
    prefixes: int = 0
    uptime: str = ""

    @property
    def established(self) -> bool:
        return self.state == "Established"


class NoAnswerError(Exception):
    """The daemon does not run, or does not answer (yet)."""


def _connect(path: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(stretched(TIMEOUT))
    try:
        channel.connect(str(path))
    except OSError as error:
        channel.close()
        raise NoAnswerError(f"{path.name}: {error.strerror}") from None
    return channel


def accepts(path: Path) -> bool:
    """Whether a program accepts connections at this socket."""
    try:
        _connect(path).close()
    except NoAnswerError:
        return False
    return True


def frr(path: Path, command: str) -> str:
    """The answer of an FRR daemon to a command of the enable mode.

    Raises:
        NoAnswerError: it does not answer.
    """
    with _connect(path) as channel:
        try:
            _frr_answer(channel, "enable")
            return _frr_answer(channel, command)[0]
        except OSError as error:
            raise NoAnswerError(f"{path.name}: {error}") from None


def frr_configure(path: Path, entries: Iterable[Entry]) -> list[Entry]:
    """Enter lines into the configuration of an FRR daemon, in order, over one connection.

    Returns:
        The entries that it refused, or whose context it did; the others were entered all the same.

    Raises:
        NoAnswerError: it does not answer.
    """
    refused = []
    with _connect(path) as channel:
        channel.settimeout(stretched(CONFIGURE_TIMEOUT))
        try:
            _frr_answer(channel, "enable")
            for entry in entries:
                lines = ("end", "configure terminal", *entry)
                if not all(_frr_answer(channel, line)[1] in FRR_TAKEN for line in lines):
                    refused.append(entry)
        except OSError as error:
            raise NoAnswerError(f"{path.name}: {error}") from None
    return refused


def _frr_answer(channel: socket.socket, command: str) -> tuple[str, int]:
    """What a daemon prints for a command, and its status (FRR lib/command.h)."""
    channel.sendall(command.encode() + b"\0")
    answer = bytearray()
    while not (len(answer) >= 4 and answer[-4:-1] == b"\0\0\0"):
        part = channel.recv(1 << 16)
        if not part:
            raise OSError("it hung up")
        answer += part
    return answer[:-4].decode(errors="replace"), answer[-1]


def frr_sessions(path: Path) -> dict[tuple[str | None, str], SessionState]:
    """All BGP neighbours of a bgpd: (VRF, address) → state."""
    try:
        answer: dict[str, Any] = json.loads(frr(path, "show bgp vrf all neighbors json") or "{}")
    except ValueError as error:
        raise NoAnswerError(f"bgpd: {error}") from None
    found = {}
    for vrf, neighbours in answer.items():
        if isinstance(neighbours, dict):
            for address, facts in neighbours.items():
                if isinstance(facts, dict) and "bgpState" in facts:
                    found[None if vrf == "default" else vrf, address] = _frr_state(facts)
    return found


def _frr_state(facts: dict[str, Any]) -> SessionState:
    reasons = [facts.get(key, "") for key in ("lastResetDueTo", "lastNotificationReason", "lastShutdownDescription")]
    families = facts.get("addressFamilyInfo", {}).values()
    return SessionState(
        state=facts["bgpState"],
        detail=", ".join(reason for reason in reasons if reason),
        prefixes=sum(family.get("acceptedPrefixCounter", 0) for family in families),
        uptime=facts.get("bgpTimerUpString", ""),
    )


def bird(path: Path, command: str) -> list[str]:
    """The lines of a BIRD daemon's answer, without codes.

    Raises:
        NoAnswerError: it does not answer.
    """
    with _connect(path) as channel:
        try:
            stream = channel.makefile("rw", encoding="utf-8", errors="replace")
            _bird_answer(stream)  # the greeting
            stream.write(command + "\n")
            stream.flush()
            return _bird_answer(stream)
        except OSError as error:
            raise NoAnswerError(f"{path.name}: {error}") from None


def _bird_answer(stream: Any) -> list[str]:
    lines = []
    for line in stream:
        text = line.rstrip("\n")
        if text[:4].isdigit():
            lines.append(text[5:])
            if text[4:5] == " ":
                return lines
        else:
            lines.append(text[1:])
    raise NoAnswerError("bird hung up")


def bird_sessions(path: Path) -> dict[str, SessionState]:
    """All BGP protocols of a BIRD, by name."""
    now = time.localtime()
    return parse_bird(bird(path, "show protocols all"), now.tm_hour * 3600 + now.tm_min * 60 + now.tm_sec)


def parse_bird(lines: Iterable[str], second: int) -> dict[str, SessionState]:
    """The BGP protocols in the answer to "show protocols all".

    Args:
        lines: for each protocol its name, proto, table, state, since and info, then indented lines with the rest.
        second: of the local day, now; BIRD tells the time of day at which a session came up.
    """
    found: dict[str, SessionState] = {}
    name = ""
    for line in lines:
        parts = line.split(None, 5)
        if parts and not line[0].isspace():
            name = parts[0] if len(parts) >= 5 and parts[1] == "BGP" else ""
            if name:
                state, _, detail = (parts[5].strip() if len(parts) > 5 else parts[3]).partition(" ")
                found[name] = SessionState(state, detail.strip(), uptime=_since(parts[4], second))
        elif name and (match := IMPORTED.match(line)):
            found[name] = replace(found[name], prefixes=found[name].prefixes + int(match[1]))
    return found


def _since(text: str, second: int) -> str:
    """How long ago a time of day was; a date, which BIRD gives for what is older, as it is."""
    match = TIME_OF_DAY.fullmatch(text)
    if not match:
        return f"since {text}"
    hours, minutes, seconds = (int(part) for part in match.groups())
    ago = (second - hours * 3600 - minutes * 60 - seconds) % 86400
    return f"{ago // 3600:02}:{ago // 60 % 60:02}:{ago % 60:02}"
