"""Prints files that grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.wait import Deadline, until


class Tail:
    """Several files that grow, printed as one text; where there are several, each part under its file's name.

    Args:
        files: name → path. out: takes the text, in whole lines.
    """

    def __init__(self, files: Mapping[str, Path], out: Callable[[str], None]) -> None:
        self._files = files
        self._out = out
        self._read: dict[str, int] = {}
        self._last = ""

    def read(self) -> bool:
        """Print what is new. Returns whether the files are still there."""
        return all([self._read_one(name, path) for name, path in self._files.items()])  # noqa: C419 - read every one

    def follow(self) -> None:
        """Print what is new as it comes, until a file is gone because its node is."""
        until(lambda: not self.read(), Deadline(math.inf))

    def _read_one(self, name: str, path: Path) -> bool:
        try:
            with path.open("rb") as stream:
                stream.seek(self._read.get(name, 0))
                data = stream.read()
        except OSError:
            return False
        whole, newline, rest = data.rpartition(b"\n")
        self._read[name] = self._read.get(name, 0) + len(data) - len(rest)
        if newline:
            self._print(name, whole.decode(errors="replace"))
        return True

    def _print(self, name: str, text: str) -> None:
        if len(self._files) > 1 and name != self._last:
            self._out(f"{'' if not self._last else chr(10)}==> {name} <==")
            self._last = name
        self._out(text)
