"""The one place that waits."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from testbed import wait
from testbed.wait import Deadline, readable, until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def test_a_deadline_passes() -> None:
    deadline = Deadline(0.05)
    assert not deadline.passed
    assert 0 < deadline.left <= 0.05
    assert until(lambda: deadline.passed, Deadline(5))
    assert deadline.left == 0.0
    assert deadline.elapsed >= 0.05
    assert Deadline(0).passed


def test_what_is_true_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "readable", lambda *_: pytest.fail("it waited"))
    assert until(lambda: True, Deadline(0))


def test_the_deadline_is_the_end() -> None:
    deadline = Deadline(0.05)
    assert until(lambda: False, deadline) is False
    assert 0.05 <= deadline.elapsed < 2


def test_the_condition_is_asked_again() -> None:
    answers = iter([False, False, False, True])
    assert until(lambda: next(answers), Deadline(5))


def test_pauses_grow_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def note(_: object, seconds: float) -> list[object]:
        pauses.append(seconds)
        return []

    monkeypatch.setattr(wait, "readable", note)
    assert until(lambda: len(pauses) == 12, Deadline(100))
    assert pauses[0] == wait.FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == wait.LAST_PAUSE


def test_a_descriptor_wakes_it(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """With pauses of a minute, only the descriptor can have ended the wait."""
    monkeypatch.setattr(wait, "FIRST_PAUSE", 60.0)
    ours, theirs = pair
    received: list[bytes] = []

    def done() -> bool:
        if readable([ours], 0):
            received.append(ours.recv(10))
        return bool(received)

    writer = threading.Timer(0.05, lambda: theirs.send(b"now"))
    writer.start()
    try:
        assert until(done, Deadline(30), wake=[ours])
    finally:
        writer.join()
    assert received == [b"now"]


def test_readable(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert readable([ours, theirs], 0) == []
    theirs.send(b"x")
    assert readable([ours, theirs], 5) == [ours]
    assert readable([ours.fileno()], 5) == [ours.fileno()]
    theirs.close()
    ours.recv(1)
    assert readable([ours], 5) == [ours]  # the end is an event, too


def test_descriptors_beyond_those_of_select() -> None:
    """select(2) takes none above 1023."""
    read, write = os.pipe()
    high = 1500
    try:
        os.dup2(read, high)
        os.write(write, b"x")
        assert readable([high], 5) == [high]
    finally:
        for descriptor in (read, write, high):
            os.close(descriptor)
