"""Captures one flow in every namespace of a lab at once: a packet socket in each, read after the probe.

The kernel filters (see `forms`), stamps with nanoseconds as packets come in and go out, and keeps the first SNAP bytes.
A socket takes packets while it holds less than BUFFER bytes, so a lab's captures are bounded by BUFFER and a packet for
each of its namespaces; what does not fit is counted and shown.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from testbed.bpf import SNAP, Instruction, encoded, only
from testbed.errors import ProbeError
from testbed.runtime.base import Sockets
from testbed.trace.packet import Frame, Way
from testbed.wait import Deadline, until

Place = tuple[str, str | None]
"""A node or pod, and one of its routing instances (None: the default one)."""

BUFFER = 2 << 20
"""Bytes of kernel memory (with those of packets that are cut off) above which a namespace's packets are lost."""
PATIENCE = 2.0  # seconds that the kernel has to switch timestamping on

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_ATTACH_FILTER, SO_TIMESTAMPNS, SO_RCVBUFFORCE = 26, 35, 33
WAYS: dict[int, Way] = {0: "in", 1: "in", 2: "in", 3: "other", 4: "out"}


@dataclass
class Recording:
    """What was captured, in the order of time.

    Args:
        places: the namespaces that were watched. dropped: those that lost packets, with how many.
    """

    places: tuple[Place, ...]
    frames: list[Frame] = field(default_factory=list)
    dropped: dict[Place, int] = field(default_factory=dict)


@contextmanager
def capture(
    sockets: Sockets, places: Sequence[Place], program: Sequence[Instruction], clock: Place
) -> Iterator[Recording]:
    """Capture in these places for the length of the block; the recording is filled in at its end.

    Args:
        clock: a place whose loopback is used to find out when the kernel's timestamps are on.

    Raises:
        NoSuchNodeError: a place does not run. ProbeError: it cannot be watched.
    """
    found = Recording(tuple(places))
    with ExitStack() as stack:
        stack.enter_context(_timestamps(sockets, clock))
        taps: dict[Place, socket.socket] = {}
        stack.callback(_close, taps)
        for place in places:
            taps[place] = _tap(sockets, place, (*only(sockets.interfaces(*place)), *program))
        for tap in taps.values():
            _drain(tap)
        yield found
        for place, tap in taps.items():
            found.frames += _frames(place, tap)
            _, dropped = struct.unpack("II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            if dropped:
                found.dropped[place] = dropped
        found.frames.sort(key=lambda frame: frame.time)


@contextmanager
def _timestamps(sockets: Sockets, place: Place) -> Iterator[None]:
    """Have the kernel stamp packets when they pass, for the length of the block.

    It begins some time after the first socket has asked (net_enable_timestamp in net/core/dev.c of Linux patches its
    own code later); until then a packet is stamped when it is read. A datagram to oneself tells which: it is read only
    after a clock has been looked at.
    """
    try:
        ear = sockets.socket(*place, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        raise ProbeError(f"{place[0]} cannot be watched: {error}") from error
    with ear:
        ear.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        try:
            ear.bind(("127.0.0.1", 0))
            ear.connect(ear.getsockname())
            if not until(lambda: _stamped(ear), Deadline(PATIENCE)):
                raise ProbeError(f"the kernel does not stamp packets, though asked to for {PATIENCE:g} s")
        except OSError as error:
            raise ProbeError(f"{place[0]}: its loopback interface does not work: {error}") from error
        yield


def _stamped(ear: socket.socket) -> bool:
    ear.send(b"?")
    sent = time.time_ns()
    _, controls, _, _ = ear.recvmsg(1, 64)
    return _stamp(controls) <= sent


def _stamp(controls: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in controls:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, rest = struct.unpack("qq", data[:16])
            return int(seconds) * 1_000_000_000 + int(rest)
    return time.time_ns()


def _close(taps: dict[Place, socket.socket]) -> None:
    """Close all at once: the kernel lets go of a packet socket only some milliseconds later (synchronize_net)."""
    with ThreadPoolExecutor(len(taps) or 1) as pool:
        list(pool.map(socket.socket.close, taps.values()))


def _tap(sockets: Sockets, place: Place, program: Sequence[Instruction]) -> socket.socket:
    code = encoded(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    try:
        # SOCK_DGRAM: without the link's header, so that the IP header is at 0 whatever the interface.
        tap = sockets.socket(*place, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    except OSError as error:
        raise ProbeError(f"{place[0]} cannot be watched: {error}") from error
    try:
        tap.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer)))
        _make_room(tap)
        tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError as error:
        tap.close()
        raise ProbeError(f"{place[0]} cannot be watched: {error}") from error
    tap.setblocking(False)
    return tap


def _make_room(tap: socket.socket) -> None:
    """The kernel doubles what it is told, for its own use (socket(7)). Only real root may go beyond rmem_max."""
    try:
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER // 2)
    except PermissionError:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER // 2)


def _drain(tap: socket.socket) -> None:
    """Forget what came in before the filter was attached."""
    try:
        while True:
            tap.recv(1)
    except BlockingIOError:
        tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # reading them sets them to 0 (packet(7))


def _frames(place: Place, tap: socket.socket) -> Iterator[Frame]:
    names: dict[str, int] = {}
    while True:
        try:
            data, controls, _, address = tap.recvmsg(SNAP, 64)
        except BlockingIOError:
            return
        interface, ethertype, kind, hardware, sender = address
        index = names.setdefault(interface, len(names) + 1)
        yield Frame(_stamp(controls), *place, interface, WAYS.get(kind, "in"), ethertype, data, hardware, index, sender)
