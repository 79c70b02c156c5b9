"""One lab from nothing to all flows proven and down again, in a process of its own.

    python -m bench.ours LAB NAME START RUNTIME

LAB is a lab's name or file, NAME the name it runs under, START the time.monotonic() at which this process was started.
Prints a line of JSON when the lab is up and proven, waits for the end of its standard input, takes the lab down and
prints another. It imports nothing but what `testbed up` imports.
"""

from __future__ import annotations

import json
import sys
import time

from testbed.compile import compile_lab
from testbed.events import Event, Step
from testbed.load.lab import load
from testbed.session import Session


class Clock:
    """Notes how long each part took, in seconds since the last one ended."""

    def __init__(self, start: float) -> None:
        self.parts: dict[str, float] = {}
        self._start = self._last = start

    def lap(self, name: str) -> None:
        """The part `name` ends now."""
        now = time.monotonic()
        self.parts[name], self._last = now - self._last, now

    def observe(self, event: Event) -> None:
        """A part that the deployment itself tells of."""
        if isinstance(event, Step) and event.seconds is not None:
            self.lap(event.name)

    @property
    def total(self) -> float:
        return time.monotonic() - self._start


def main() -> None:
    lab, name, start, runtime = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
    clock = Clock(start)
    clock.lap("import")
    loaded = load(lab)
    clock.lap("load")
    plan = compile_lab(loaded.lab, loaded.manifests, loaded.images, name)
    clock.lap("compile")
    with Session(name, runtime) as session:
        try:
            session.up(plan, observer=clock.observe)
            clock.lap("stored")
            result: dict[str, object] = {"up": clock.total, "failed": []}
            if plan.flows:
                verdicts = session.test()
                clock.lap("flows")
                result["failed"] = [verdict.flow.name for verdict in verdicts if not verdict.passed]
            print(json.dumps({**result, "proven": clock.total, "parts": clock.parts}), flush=True)
            sys.stdin.read()
        finally:
            begin = time.monotonic()
            session.down()
            print(json.dumps({"down": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main()
