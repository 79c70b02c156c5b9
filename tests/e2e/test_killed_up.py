"""`kill -9` of `testbed up` at any instant, then `testbed down`: nothing of the lab remains."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from conftest import EDGE, TWO_ROUTERS, own_name
from e2e_host import differences, now, remains, snapshot

from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

INSTANTS = {TWO_ROUTERS: 10, EDGE: 20}
TESTBED = (sys.executable, "-m", "testbed.cli")


@pytest.mark.parametrize("lab", INSTANTS, ids=["two-routers", "edge"])
def test_killed_at_random_instants(lab, record_property):
    kill_at_random_instants(lab, INSTANTS[lab], record_property)


def kill_at_random_instants(
    lab: str, instants: int, record_property: Callable[[str, object], None], *options: str
) -> None:
    """Kill so many starts of a lab, each followed by `down`; assert that nothing remains. `options`: of `up`."""
    name = own_name("killed")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    record_property("seed", seed)
    chance = random.Random(seed)
    before = snapshot()
    whole = undisturbed(lab, name, *options)
    killed = 0
    for number in range(instants):
        # One instant in each slice of the time it takes, so that no part of it is left out.
        instant = whole * (number + chance.random()) / instants
        since = now()
        try:
            killed += kill_up(lab, name, instant, *options)
        finally:
            down(name)
        assert remains(name, since) == [], f"seed {seed}: killed after {instant:.3f} s of {whole:.3f} s"
    assert killed >= instants / 2, "most starts had ended before they were to be killed"
    assert differences(before, snapshot()) == [], f"seed {seed}"


def undisturbed(lab: str, name: str, *options: str) -> float:
    """The seconds that `up` takes here; the positive control: it works, and `remains` sees the lab."""
    since = now()
    start = time.monotonic()
    try:
        argv = [*TESTBED, "up", lab, "--name", name, *options]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=120)
        taken = time.monotonic() - start
        assert remains(name, since)
    finally:
        down(name)
    assert remains(name, since) == []
    return taken


def kill_up(lab: str, name: str, instant: float, *options: str) -> bool:
    """Kill `up` so many seconds after its start; returns whether it was still at work."""
    argv = [*TESTBED, "up", lab, "--name", name, *options]
    started = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    ended = until(lambda: started.poll() is not None, Deadline(instant, exact=True))
    started.send_signal(signal.SIGKILL)
    started.wait()
    return not ended


def down(name: str) -> None:
    done = subprocess.run([*TESTBED, "down", name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: there was no such lab (yet)
