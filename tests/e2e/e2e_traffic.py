"""Traffic that goes on while a lab is changed, and what of it was lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.session import Session
from testbed.wait import Deadline, until

PORT = 9999
PERIOD = 0.01  # seconds between datagrams


@dataclass
class Stream:
    """Numbered datagrams from one node to another, about 100 a second."""

    source: str
    target: str
    sent: int = 0
    refused: list[str] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)

    @property
    def lost(self) -> list[int]:
        return sorted(set(range(self.sent)) - self.arrived)

    def report(self) -> str:
        return (
            f"{self.source} → {self.target}: {len(self.lost)} of {self.sent} lost: {self.lost[:20]} {self.refused[:5]}"
        )


@contextlib.contextmanager
def stream(session: Session, source: str, target: str, address: str, port: int = PORT) -> Iterator[Stream]:
    """Send from one node (or pod) to the address of another for the length of the block.

    Yields once ten datagrams have arrived; at the end, waits for those still on their way.
    """
    flow = Stream(source, target)
    stop = threading.Event()
    with (
        session.runtime.socket(target, None, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        session.runtime.socket(source, None, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((address, port))
        receiver.setblocking(False)
        thread = threading.Thread(target=_send, args=(flow, sender, (address, port), stop))
        thread.start()
        try:
            assert until(lambda: _receive(flow, receiver) >= 10, Deadline(5)), f"no traffic at all: {flow.report()}"
            collector = threading.Thread(target=_collect, args=(flow, receiver, stop))
            collector.start()
            yield flow
        finally:
            stop.set()
            thread.join()
        collector.join()
        until(lambda: _receive(flow, receiver) == flow.sent, Deadline(2))


def _send(flow: Stream, sender: socket.socket, address: tuple[str, int], stop: threading.Event) -> None:
    while not stop.wait(PERIOD):
        try:
            sender.sendto(flow.sent.to_bytes(8, "big"), address)
        except OSError as error:
            flow.refused.append(f"{flow.sent}: {error}")
        flow.sent += 1


def _collect(flow: Stream, receiver: socket.socket, stop: threading.Event) -> None:
    """Keep the receiver's buffer empty."""
    while not stop.wait(PERIOD):
        _receive(flow, receiver)


def _receive(flow: Stream, receiver: socket.socket) -> int:
    """Take in what has arrived; returns how many datagrams have arrived in all."""
    with contextlib.suppress(BlockingIOError):
        while True:
            flow.arrived.add(int.from_bytes(receiver.recv(64), "big"))
    return len(flow.arrived)
