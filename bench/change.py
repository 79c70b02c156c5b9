"""How long a running lab takes to be changed in place: FRR's routers by testbed, and by frr-reload.py alone, in turns.

Each change is made to a copy of labs/edge, and taken back; both are measured. `up` ends when all sessions and routes
are there again; the routers are what differs between the two ways.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from bench.peers import ROOT
from bench.table import aligned, ratio, spread
from testbed.deploy import frr_reload
from testbed.events import Event, Step
from testbed.plan import Plan
from testbed.session import Session, compiled

NAME = "bench-change"
TESTBED, TOOL = "testbed", "frr-reload.py"
WAYS = {TESTBED: frr_reload.reload, TOOL: frr_reload.by_tool}
CHANGES = {
    "BGP timers of 6 routers": ("keepalive: 3, hold: 9", "keepalive: 4, hold: 12"),
    "AS number of a router": ("asn: 65102", "asn: 65103"),
    "all addresses of 6 routers": ("links: {ipv4: 172.20.0.0/16}", "links: {ipv4: 172.21.0.0/16}"),
}
TIMEOUT = 300.0  # seconds


@dataclasses.dataclass
class Found:
    """Seconds, by change and way. Args: routers: until they had their configurations. up: of the whole."""

    routers: dict[str, dict[str, list[float]]]
    up: dict[str, dict[str, list[float]]]


def measure(rounds: int) -> Found:
    """Bring labs/edge up, measure, and take it down."""
    found = Found(*({change: {way: [] for way in WAYS} for change in CHANGES} for _ in range(2)))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Session(NAME) as session:
        plans = dict(_plans(Path(folder)))
        try:
            session.up(plans[""])
            for _ in range(rounds):
                for change in CHANGES:
                    for way in WAYS:
                        for plan in (plans[change], plans[""]):
                            _change(session, plan, found, change, way)
        finally:
            session.down()
    return found


def _plans(folder: Path) -> Iterator[tuple[str, Plan]]:
    """The lab as it is shipped (""), and with each change."""
    lab = Path(shutil.copytree(ROOT / "labs" / "edge", folder / "edge")) / "lab.yaml"
    text = lab.read_text()
    yield "", compiled(str(lab), NAME, vrf_driver="netns")
    for change, (old, new) in CHANGES.items():
        assert text.count(old) == 1, old
        lab.write_text(text.replace(old, new))
        yield change, compiled(str(lab), NAME, vrf_driver="netns")


def _change(session: Session, plan: Plan, found: Found, change: str, way: str) -> None:
    def observe(event: Event) -> None:
        if isinstance(event, Step) and event.name == "processes" and event.seconds is not None:
            found.routers[change][way].append(event.seconds)

    begin = time.monotonic()
    with patch.object(frr_reload, "reload", WAYS[way]):
        session.up(plan, timeout=TIMEOUT, observer=observe)
    found.up[change][way].append(time.monotonic() - begin)


def show(found: Found) -> None:
    """Print what was measured."""
    rows = []
    for change in CHANGES:
        for way in WAYS:
            own, up = found.routers[change], found.up[change]
            columns = (spread(own[way]), ratio(own[way], own[TESTBED]), spread(up[way]), ratio(up[way], up[TESTBED]))
            rows.append((change, way, *columns))
    print(aligned(("change", "by", "routers, s", "x testbed", "up, s", "x testbed"), rows))
