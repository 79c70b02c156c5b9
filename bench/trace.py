"""What watching packets costs: requests and a bulk transfer through labs/edge, with and without capture, in turns.

Packets are watched in every namespace of the lab, as `testbed trace` does. Three ways for the bulk transfer:

- not at all;
- while another flow is followed: each packet passes each namespace's filter, and none is kept;
- while everything is kept: what no trace does. Its buffers overflow, and so show how much memory they may take.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.machine import memory
from bench.table import aligned, spread
from testbed import run
from testbed.bpf import IPPROTO_TCP, Instruction, compiled, ipv4
from testbed.session import Session
from testbed.session import compiled as compiled_lab
from testbed.trace.capture import BUFFER, Place, Recording, capture
from testbed.trace.forms import program
from testbed.trace.tracer import new_mark, places

NAME = "bench-trace"
FLOW = "pod-to-service-far"  # an http request from a pod, by a Service's address, to a pod behind another leaf
REQUESTS = 20  # of each kind in a round
AMOUNT, PIECE = 512 << 20, 1 << 16  # bytes of a bulk transfer, and of a write
PORT = 9001
MB = 1e6
EVERYTHING = compiled([ipv4(0, IPPROTO_TCP)], others=True)
PLAIN, OTHER, FULL = "no capture", "another flow followed", "everything kept"


@dataclasses.dataclass
class Found:
    """What was measured.

    Args:
        latency: "no capture" or "followed" → milliseconds of each request. traced: milliseconds of a whole trace of
            one, with its sockets made and closed. rates: how it was watched → MB/s of each transfer.
        kept, lost: packets of all requests. held, overflow: when everything was kept, those that fitted, at most, and
            those that did not, all told.
        buffers: the most bytes of kernel memory that all captures had taken; one: that a single namespace's had.
        grown: MB by which this process's memory had grown when it held all that fitted.
    """

    namespaces: int = 0
    hops: int = 0
    latency: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {PLAIN: [], "followed": []})
    traced: list[float] = dataclasses.field(default_factory=list)
    rates: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {PLAIN: [], OTHER: [], FULL: []})
    kept: int = 0
    held: int = 0
    lost: int = 0
    overflow: int = 0
    buffers: int = 0
    one: int = 0
    grown: float = 0.0


def measure(rounds: int) -> Found:
    """Bring labs/edge up, measure, and take it down."""
    found = Found()
    with Session(NAME) as session:
        try:
            session.up(compiled_lab("edge", NAME, vrf_driver="netns"))
            lab = _Lab(session)
            found.namespaces = len(lab.places)
            lab.request(found, "followed", count=False)  # libraries are loaded, neighbours known
            for _ in range(rounds):
                for turn in range(REQUESTS):
                    for way in list(found.latency)[:: -1 if turn % 2 else 1]:  # each is first as often
                        lab.request(found, way)
                for _ in range(REQUESTS):
                    lab.trace(found)
                for way in found.rates:
                    lab.bulk(found, way)
        finally:
            session.down()
    return found


class _Lab:
    def __init__(self, session: Session) -> None:
        self.session, self.plan = session, session.plan
        self.places = places(self.plan, session.nodes())
        self.flow = session.chosen([FLOW])[0]
        self.asked = dataclasses.replace(self.flow, via=(), not_via=())  # which would be watched, too
        self.far = session.node("far").name
        self.tracer = session._tracer()

    def capture(self, filter_: Sequence[Instruction]) -> contextlib.AbstractContextManager[Recording]:
        return capture(self.session.runtime, self.places, filter_, (self.flow.source, None))

    def request(self, found: Found, way: str, *, count: bool = True) -> None:
        """One request; its time is what the asker waits for an answer, not what making sockets takes."""
        mark = new_mark(self.flow)
        watched = self.capture(program(self.flow.protocol, 4, mark)) if way != PLAIN else contextlib.nullcontext()
        with watched as recording:
            answer = self.tracer.ask(self.asked, mark)
        if not answer.passed:
            raise RuntimeError(f"{FLOW}: {answer.reasons}")
        if count:
            found.latency[way].append(answer.answer.latency * 1000)
            if recording is not None:
                found.kept += len(recording.frames)
                found.lost += sum(recording.dropped.values())

    def trace(self, found: Found) -> None:
        begin = time.perf_counter()
        trace = self.tracer.trace(self.flow, plain=True)
        found.traced.append((time.perf_counter() - begin) * 1000)
        found.hops = len(trace.walk.request.hops)

    def bulk(self, found: Found, way: str) -> None:
        """One transfer between the two pods."""
        if way == PLAIN:
            found.rates[way].append(self._transfer())
            return
        before = memory([_own()])
        chosen = EVERYTHING if way == FULL else program("tcp", 4, new_mark(self.flow))
        with self.capture(chosen) as recording:
            found.rates[way].append(self._transfer())
            taken = [_buffered(self.session, place) for place in self.places]
        if way == FULL:
            found.held = max(found.held, len(recording.frames))
            found.overflow += sum(recording.dropped.values())
            found.buffers, found.one = max(found.buffers, sum(taken)), max(found.one, *taken)
            found.grown = max(found.grown, memory([_own()]) - before)

    def _transfer(self) -> float:
        """MB/s, from the first byte sent to the last one received."""
        runtime = self.session.runtime
        address = self.plan.node(self.far).interfaces[0].addresses[0].partition("/")[0]
        with (
            runtime.socket(self.far, None, socket.AF_INET, socket.SOCK_STREAM) as server,
            runtime.socket(self.flow.source, None, socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, PORT))
            server.listen()
            client.connect((address, PORT))
            begin = time.perf_counter()
            sender = threading.Thread(target=_send, args=(client,))
            sender.start()
            received = sum(_received(server))
            sender.join()
            seconds = time.perf_counter() - begin
        if received != AMOUNT:
            raise RuntimeError(f"{received} of {AMOUNT} bytes arrived")
        return received / seconds / MB


def _send(client: socket.socket) -> None:
    piece = bytes(PIECE)
    for _ in range(AMOUNT // PIECE):
        client.sendall(piece)
    client.shutdown(socket.SHUT_WR)


def _received(server: socket.socket) -> Iterator[int]:
    connection, _ = server.accept()
    room = bytearray(PIECE)
    with connection:
        while size := connection.recv_into(room):
            yield size


def _own() -> int:
    return int(Path("/proc/self").resolve().name)


def _buffered(session: Session, place: Place) -> int:
    """Bytes of kernel memory that the packet sockets of a place hold now (proc(5), net/packet: the column Rmem)."""
    with run.network_namespace(session.runtime.network(*place)):
        lines = Path("/proc/thread-self/net/packet").read_text().splitlines()
    return sum(int(line.split()[6]) for line in lines[1:])


def show(found: Found) -> None:
    """Print what was measured."""
    print(f"{found.namespaces} namespaces watched, of which the packets pass {found.hops}\n")
    requests = [(way, spread(times), _beside(times, found.latency[PLAIN])) for way, times in found.latency.items()]
    requests.append(("a whole trace of it", spread(found.traced), ""))
    print(aligned(("request", "ms", "x"), requests))
    rates = [(way, spread(rate, 0), _beside(rate, found.rates[PLAIN])) for way, rate in found.rates.items()]
    print("\n" + aligned((f"transfer of {AMOUNT / MB:.0f} MB", "MB/s", "x"), rates))
    print(f"\npackets of all requests: {found.kept} kept, {found.lost} lost")
    bound = BUFFER * found.namespaces
    print(
        f"when everything is kept: at most {found.held} packets held, {found.overflow} lost in all; kernel memory "
        f"{found.buffers / MB:.1f} MB of {bound / MB:.1f} MB, in one namespace {found.one / MB:.2f} of "
        f"{BUFFER / MB:.2f} MB and a packet; the process grew by {found.grown:.1f} MB"
    )


def _beside(values: Sequence[float], base: Sequence[float]) -> str:
    return f"{statistics.median(values) / statistics.median(base):.2f}"
