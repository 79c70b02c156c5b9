"""What is entered into a running FRR daemon, in which order, and when FRR's own tool must do it."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from testbed.compile import frr
from testbed.deploy import frr_reload
from testbed.deploy.control import Entry
from testbed.deploy.frr_reload import Difference, foreseen, parsed, shown
from testbed.errors import CommandError
from testbed.runtime.base import Runtime

SUCCESS, WARNING, NO_MATCH, SILENT, FAILED = 0, 1, 2, 11, 13  # FRR lib/command.h
BGPD = next(entry for entry in frr.processes(("zebra", "bgpd"), namespace_vrfs=False) if entry.name == "bgpd")

ROUTER, VRF, FAMILY = "router bgp 65001", "router bgp 65001 vrf red", "address-family ipv4 unicast"
GONE: Entry = (ROUTER, "no neighbor 10.0.0.1 remote-as 65002")
GONE_TOO: Entry = (ROUTER, "no neighbor 10.0.0.1 description r2")
NEW: Entry = (ROUTER, "neighbor 10.0.0.1 remote-as 65003")
NEW_TOO: Entry = (ROUTER, FAMILY, "neighbor 10.0.0.1 activate")
LIST: Entry = ("no ip prefix-list old seq 5 permit 10.0.0.0/8",)

PRINTED = f"""
Lines To Delete
===============
service integrated-vtysh-config
{ROUTER}
 no neighbor 10.0.0.1 remote-as 65002
{VRF}
 {FAMILY}
  no neighbor 10.1.0.1 activate
no router bgp 65009

Lines To Add
============
hostname r1
{VRF}
 {FAMILY}
  neighbor 10.1.0.2 activate
"""


def printed(deletions: Sequence[Entry] = (), additions: Sequence[Entry] = ()) -> str:
    """As frr-reload.py --test does."""
    text = ""
    for title, entries in (("Lines To Delete", deletions), ("Lines To Add", additions)):
        if entries:
            text += f"\n{title}\n{'=' * len(title)}\n"
        for entry in entries:
            text += "".join(f"{' ' * depth}{line}\n" for depth, line in enumerate(entry))
    return text


NOTHING = printed([("service integrated-vtysh-config",)])


def test_what_the_tool_printed() -> None:
    assert parsed(PRINTED) == Difference(
        (GONE, (VRF, FAMILY, "no neighbor 10.1.0.1 activate"), ("no router bgp 65009",)),
        (("hostname r1",), (VRF, FAMILY, "neighbor 10.1.0.2 activate")),
    )
    assert parsed("") == parsed(NOTHING) == Difference()
    both = Difference((GONE, LIST), (NEW, NEW_TOO))
    assert parsed(printed(both.deletions, both.additions)) == both


SHOWN = f"""
frr version 8.4.4
!
{VRF}
 no bgp default ipv4-unicast
 neighbor 10.1.0.1 remote-as 65002
 !
 {FAMILY}
  neighbor 10.1.0.1 activate
 exit-address-family
exit
!
ip prefix-list all seq 5 permit any
end
"""


def test_what_a_daemon_shows() -> None:
    assert shown(SHOWN) == {
        ("frr version 8.4.4",),
        (VRF,),
        (VRF, "no bgp default ipv4-unicast"),
        (VRF, "neighbor 10.1.0.1 remote-as 65002"),
        (VRF, FAMILY),
        (VRF, FAMILY, "neighbor 10.1.0.1 activate"),
        ("ip prefix-list all seq 5 permit any",),
    }


def test_what_will_be_shown() -> None:
    before = shown(SHOWN)
    version, prefixes = ("frr version 8.4.4",), ("ip prefix-list all seq 5 permit any",)
    assert foreseen(before, Difference()) == before
    assert foreseen(before, Difference(((f"no {VRF}",),))) == {version, prefixes}
    assert foreseen(before, Difference(additions=((f"no {prefixes[0]}",),))) == before - {prefixes}
    negative, positive = (VRF, "no bgp default ipv4-unicast"), (VRF, "bgp default ipv4-unicast")
    assert foreseen(before, Difference((positive,))) == before - {negative}
    assert foreseen(before - {negative}, Difference(additions=(negative,))) == before
    timers = (VRF, "neighbor 10.1.0.1 timers 3 9")
    assert foreseen(before, Difference(additions=(timers,))) == before | {timers}


class Daemon:
    """A bgpd's control socket, and FRR's tool in its node.

    Args:
        answers: what the tool prints, each time that it is asked for the difference.
        statuses: what the daemon answers to lines, where that is not CMD_SUCCESS; it does nothing, but with a warning.
        before: what it shows at first. A neighbour goes with its remote-as.
    """

    def __init__(
        self, place: Path, answers: Sequence[str], statuses: Mapping[str, int], before: Iterable[Entry] = ()
    ) -> None:
        self.place, self.answers, self.statuses = place, list(answers), statuses
        self.config = [(ROUTER,), *before]
        self.modes: list[str] = []
        self.entered: list[Entry] = []

    def path(self, node: str, path: str) -> Path:
        assert (node, path) == ("r1", frr.BGPD_SOCKET)
        return self.place

    def run(self, node: str, vrf: str | None, argv: Sequence[str]) -> str:
        assert (node, vrf, argv[-1]) == ("r1", None, "/etc/frr/bgpd.conf")
        self.modes.append(argv[2])
        return self.answers.pop(0) if argv[2] == "--test" else ""

    def serve(self, listener: socket.socket) -> None:
        """Answer one connection after the other until the listener is shut down."""
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as channel:
                    self._converse(channel)

    def _converse(self, channel: socket.socket) -> None:
        heard = b""
        while part := channel.recv(4096):
            *lines, heard = (heard + part).split(b"\0")
            for line in lines:
                text, status = self._take(line.decode())
                channel.sendall(text.encode() + b"\0\0\0" + bytes([status]))

    def _take(self, line: str) -> tuple[str, int]:
        if line == "show running-config":
            own = sorted(self.config, key=lambda entry: entry[0])
            return "".join(f"{' ' * depth}{part}\n" for entry in own for depth, part in enumerate(entry)), SUCCESS
        if line == "configure terminal":
            self.entered.append(())
        elif line not in ("enable", "end"):
            self.entered[-1] += (line,)
            if line not in (ROUTER, FAMILY) and self.statuses.get(line, SUCCESS) in (SUCCESS, WARNING):
                self._enter(self.entered[-1])
        return "% a message\n", self.statuses.get(line, SUCCESS)

    def _enter(self, entry: Entry) -> None:
        *context, line = entry
        if not line.startswith("no "):
            self.config.append(entry)
        elif "remote-as" in line:
            self.config = [other for other in self.config if line.split()[2] not in other[-1].split()]
        else:
            self.config.remove((*context, line.removeprefix("no ")))


@contextlib.contextmanager
def serving(own: Daemon) -> Iterator[None]:
    """It serves for the length of the block."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own.place))
        listener.listen()
        thread = threading.Thread(target=own.serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def reload(own: Daemon) -> None:
    frr_reload.reload(cast(Runtime, own), "r1", BGPD)


OLD: Entry = (ROUTER, "neighbor 10.0.0.1 remote-as 65002")
OLD_TOO: Entry = (ROUTER, "neighbor 10.0.0.1 description r2")
PORT: Entry = (ROUTER, "neighbor 10.0.0.1 port 179")
OLD_LIST: Entry = ("ip prefix-list old seq 5 permit 10.0.0.0/8",)


@dataclasses.dataclass(frozen=True)
class Case:
    """Args: statuses, before: of the Daemon. tool: what its tool prints. entered, modes: what must have been done."""

    tool: Sequence[str]
    entered: Sequence[Entry]
    modes: Sequence[str] = ("--test",)
    before: Sequence[Entry] = ()
    statuses: Mapping[str, int] = dataclasses.field(default_factory=dict)


TWICE, BY_TOOL = ("--test", "--test"), ("--test", "--test", "--reload")
CASES = {
    "nothing differs": Case([NOTHING], []),
    "deletions come first": Case([printed([GONE], [NEW])], [GONE, NEW], before=[OLD]),
    "a warning is no refusal": Case([printed([], [NEW])], [NEW], statuses={NEW[-1]: WARNING}),
    "refused because an earlier line took it along": Case(
        [printed([GONE, GONE_TOO])], [GONE, GONE_TOO], before=[OLD, OLD_TOO], statuses={GONE_TOO[-1]: FAILED}
    ),
    "what a deletion took along is added again, then what was added, and nothing deleted twice": Case(
        [printed([GONE], [NEW, LIST]), printed([], [OLD_TOO])],
        [GONE, NEW, LIST, OLD_TOO, NEW],
        TWICE,
        before=[OLD, OLD_TOO, OLD_LIST],
    ),
    "what an addition brought along stays": Case(
        [printed([GONE], [NEW]), printed([GONE_TOO])], [GONE, NEW], TWICE, before=[OLD_TOO]
    ),
    "what is taken and not shown": Case(
        [printed([], [OLD, PORT]), printed([], [PORT])],
        [OLD, PORT, PORT, OLD, PORT],
        TWICE,
        statuses={PORT[-1]: SILENT},
    ),
    "a deletion refused": Case(
        [printed([GONE], [NEW]), printed([GONE])],
        [GONE, NEW],
        BY_TOOL,
        before=[OLD],
        statuses={GONE[-1]: NO_MATCH},
    ),
    "an addition refused": Case(
        [printed([], [NEW]), printed([], [NEW])], [NEW, NEW, NEW], BY_TOOL, statuses={NEW[-1]: FAILED}
    ),
    "what stands in a context that is refused is not entered elsewhere": Case(
        [printed([], [NEW_TOO]), printed([], [NEW_TOO])],
        [NEW_TOO[:2], NEW_TOO[:2], NEW_TOO[:2]],
        BY_TOOL,
        statuses={FAMILY: NO_MATCH},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_entered(tmp_path: Path, case: Case) -> None:
    own = Daemon(tmp_path / "bgpd.vty", case.tool, case.statuses, case.before)
    with serving(own):
        reload(own)
    assert own.entered == list(case.entered)
    assert own.modes == list(case.modes)
    assert not own.answers


def test_a_daemon_that_does_not_answer_is_left_to_the_tool(tmp_path: Path) -> None:
    own = Daemon(tmp_path / "none.vty", [], {})
    reload(own)
    assert own.modes == ["--reload"]


def test_the_tool_has_the_last_word(tmp_path: Path) -> None:
    class Refusing(Daemon):
        def run(self, node: str, vrf: str | None, argv: Sequence[str]) -> str:
            raise CommandError(argv, 1, "we failed to remove this command", node)

    with pytest.raises(CommandError, match="we failed to remove this command"):
        reload(Refusing(tmp_path / "none.vty", [], {}))
