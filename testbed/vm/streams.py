"""Copies bytes from descriptors to others as they come."""

from __future__ import annotations

import os

from testbed import wait

AT_ONCE = 1 << 16


class Copy:
    """Copies from each descriptor to another, until either of them ends.

    Args:
        pairs: what is read → where that is written.
    """

    def __init__(self, pairs: dict[int, int]) -> None:
        self.pairs = dict(pairs)
        self.refused = False  # a target was not read any more

    def some(self, seconds: float) -> bool:
        """Copy what there is, waiting up to so long for it; returns whether there was anything."""
        ready = wait.readable(self.pairs, seconds)
        for source in ready:
            assert isinstance(source, int)
            data = _read(source)
            if not data or not self._written(self.pairs[source], data):
                del self.pairs[source]
        return bool(ready)

    def _written(self, target: int, data: bytes) -> bool:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(target, view) :]
        except OSError:  # EPIPE, or EIO of a terminal
            self.refused = True
        return not view


def _read(source: int) -> bytes:
    try:
        return os.read(source, AT_ONCE)
    except OSError:  # EIO: nobody has the terminal open any more (pty(7))
        return b""
