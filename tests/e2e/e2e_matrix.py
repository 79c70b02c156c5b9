"""Labs with a matrix, up and changed from cell to cell; and what passes an interface of theirs."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from conftest import own_name

from testbed.cli.matrix import compiled, run_cells
from testbed.events import ignore
from testbed.load.cells import Cell
from testbed.load.matrix import Variants
from testbed.plan import Plan
from testbed.report.matrix import CellResult
from testbed.session import Session

LONG = 120  # seconds until a cell must be ready
PACKET_OUTGOING = 4  # linux/if_packet.h
ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800  # linux/if_ether.h; packets that leave are shown to the first alone
ANSWERED, LOST = {"tcp": "ok", "udp": "ok"}, {"tcp": "timeout", "udp": "timeout"}


@dataclass
class Changing:
    """A running lab, changed from cell to cell."""

    session: Session
    variants: Variants

    def enter(self, **values: str) -> None:
        """Give the lab the form of the first cell with these values."""
        cell = self.variants.cells({axis: [value] for axis, value in values.items()})[0]
        self.session.switch(self.compiled(cell), timeout=LONG)

    def run(self, **values: str) -> list[CellResult]:
        """What is found in the cells with these values, several of an axis separated by commas."""
        cells = self.variants.cells({axis: value.split(",") for axis, value in values.items()})
        return list(run_cells(self.session, [(cell, self.compiled(cell)) for cell in cells], LONG, ignore))

    def compiled(self, cell: Cell) -> Plan:
        return compiled(self.variants, cell, self.session.name, runtime=self.session.runtime.name)

    def node(self, name: str, *argv: str) -> str:
        return self.session.runtime.run(name, None, argv)

    def outcomes(self) -> dict[str, str]:
        return {verdict.flow.name: verdict.answer.outcome for verdict in self.session.test()}


@contextlib.contextmanager
def changing(lab: str, topic: str, runtime: str = "") -> Iterator[Changing]:
    with Session(own_name(topic), runtime) as session:
        try:
            yield Changing(session, Variants(lab))
        finally:
            session.down()


@contextlib.contextmanager
def several(lab: str, topics: Mapping[str, str], runtime: str = "") -> Iterator[dict[str, Changing]]:
    """A lab for each value of an axis, to be changed side by side: the machine that has what a lab needs may be an
    emulated one, where most of the time is spent waiting.

    Args:
        topics: value → what its lab is called after.
    """
    with contextlib.ExitStack() as stack:
        yield {value: stack.enter_context(changing(lab, topic, runtime)) for value, topic in topics.items()}


def side_by_side(labs: Mapping[str, Changing], axis: str, **values: str) -> list[CellResult]:
    """What is found in the cells with these values, those of each value of the axis in its own lab."""
    with ThreadPoolExecutor(len(labs)) as pool:
        found = pool.map(lambda value: labs[value].run(**values, **{axis: value}), labs)
        return [cell for cells in found for cell in cells]


@contextlib.contextmanager
def checking(lab: Changing, node: str, check: int, valid_mark: int) -> Iterator[None]:
    """A node with these values of rp_filter and src_valid_mark for the length of the block."""
    settings = {"net.ipv4.conf.all.rp_filter": check, "net.ipv4.conf.all.src_valid_mark": valid_mark}
    try:
        for key, value in settings.items():
            lab.node(node, "/usr/sbin/sysctl", "-w", f"{key}={value}")
        lab.session.forget_connections()
        yield
    finally:
        for key in settings:
            lab.node(node, "/usr/sbin/sysctl", "-w", f"{key}=0")


@contextlib.contextmanager
def blackholed(lab: Changing) -> Iterator[None]:
    """A blackhole for n1's default route, for the length of the block."""
    try:
        lab.node("n1", "ip", "route", "replace", "blackhole", "default")
        yield
    finally:
        lab.node("n1", "ip", "route", "replace", "default", "via", "172.16.1.1", "dev", "eth0")


class Seen(NamedTuple):
    """A packet on an interface: whether it left by it, its source and destination."""

    out: bool
    source: str
    destination: str


@contextlib.contextmanager
def capture(session: Session, node: str, interface: str) -> Iterator[list[Seen]]:
    """What passes an interface of a node; complete when the block has ended."""
    seen: list[Seen] = []
    with session.runtime.socket(node, None, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as tap:
        tap.bind((interface, ETH_P_ALL))
        # Before it was bound it may have seen other interfaces.
        drain(tap)
        yield seen
        seen += drain(tap)


def drain(tap: socket.socket) -> list[Seen]:
    found = []
    tap.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            data, (_, protocol, kind, *_) = tap.recvfrom(65535)
            if protocol != ETH_P_IP:
                continue
            addresses = [str(ipaddress.IPv4Address(data[at : at + 4])) for at in (12, 16)]
            found.append(Seen(kind == PACKET_OUTGOING, *addresses))
    return found


CLIENT, BALANCED = "10.10.10.10", "3.3.3.3"
REQUEST, REPLY = Seen(False, CLIENT, BALANCED), Seen(True, BALANCED, CLIENT)


def concerning_the_client(seen: list[Seen]) -> set[Seen]:
    return {packet for packet in seen if CLIENT in (packet.source, packet.destination)}
