"""`kill -9` of `testbed up` at any instant, then `testbed down`: nothing of the lab remains."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import EDGE, TWO_ROUTERS, own_name
from e2e_host import differences, now, remains, snapshot

from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]

INSTANTS = {TWO_ROUTERS: 10, EDGE: 20}
TESTBED = (sys.executable, "-m", "testbed.cli")


@pytest.mark.parametrize("lab", INSTANTS, ids=["two-routers", "edge"])
def test_killed_at_random_instants(lab, record_property):
    name = own_name("killed")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    record_property("seed", seed)
    chance = random.Random(seed)
    before = snapshot()
    whole = undisturbed(lab, name)
    killed = 0
    for number in range(INSTANTS[lab]):
        # One instant in each slice of the time it takes, so that no part of it is left out.
        instant = whole * (number + chance.random()) / INSTANTS[lab]
        since = now()
        try:
            killed += kill_up(lab, name, instant)
        finally:
            down(name)
        assert remains(name, since) == [], f"seed {seed}: killed after {instant:.3f} s of {whole:.3f} s"
    assert killed > INSTANTS[lab] // 2, "most starts had ended before they were to be killed"
    assert differences(before, snapshot()) == [], f"seed {seed}"


def undisturbed(lab: str, name: str) -> float:
    """The seconds that `up` takes here; the positive control: it works, and `remains` sees the lab."""
    since = now()
    start = time.monotonic()
    try:
        subprocess.run([*TESTBED, "up", lab, "--name", name], check=True, stdout=subprocess.DEVNULL, timeout=120)
        taken = time.monotonic() - start
        assert remains(name, since)
    finally:
        down(name)
    assert remains(name, since) == []
    return taken


def kill_up(lab: str, name: str, instant: float) -> bool:
    """Kill `up` so many seconds after its start; returns whether it was still at work."""
    started = subprocess.Popen(
        [*TESTBED, "up", lab, "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    ended = until(lambda: started.poll() is not None, Deadline(instant))
    started.send_signal(signal.SIGKILL)
    started.wait()
    return not ended


def down(name: str) -> None:
    done = subprocess.run([*TESTBED, "down", name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: there was no such lab (yet)
