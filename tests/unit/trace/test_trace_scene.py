"""Asking again until a packet comes where the lost one was: only where a router on the way has a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from testbed.trace import scene
from testbed.trace.inquire import Inquiry
from testbed.trace.packet import Ends, Packet
from testbed.trace.routing import Decision
from testbed.trace.rules import RuleEvent
from testbed.trace.walk import Hop, Path

ASKED = Ends("10.10.10.10", "3.3.3.3", 40000, 80)
ONE, TWO = (("172.16.1.2", "eth1"),), (("172.16.1.2", "eth1"), ("172.16.1.3", "eth1"))
OWN = RuleEvent("nat", "KUBE-SERVICES", 4, "rule", "jump", packet=1, ends=("10.10.10.10", "3.3.3.3"))
FOREIGN = RuleEvent("nat", "PREROUTING", 3, "rule", "continue", packet=2, ends=("172.16.1.3", "192.168.40.177"))


class Router:
    """What is asked of a lab: one router before the last hop."""

    def __init__(self, ways: tuple[tuple[str, str], ...]) -> None:
        self.ways = ways

    def routed(self, path: Path, hop: Hop) -> Decision:
        assert hop is not path.last
        return Decision(ways=self.ways)


def lost_at_n1() -> Path:
    packet = Packet(4, 17, ASKED, ttl=64, length=47)
    hops = (
        Hop("r1", None, "eth0", "eth1", ASKED, ASKED, ttl_in=64, ttl_out=63, time=0),
        Hop("n1", None, "eth0", "", ASKED, None, ttl_in=63, ttl_out=0, time=0),
    )
    return Path("request", "UDP", hops, delivered=False, packet=packet)


@pytest.mark.parametrize(
    ("ways", "told", "asked", "found"),
    [
        pytest.param(TWO, [[OWN]], 1, [OWN], id="the-same-way-at-once"),
        pytest.param(TWO, [[FOREIGN], [], [OWN, FOREIGN]], 3, [OWN, FOREIGN], id="the-same-way-at-last"),
        pytest.param(TWO, [[FOREIGN]] * 20, 1 + scene.TRIES, [FOREIGN], id="never"),
        pytest.param(ONE, [[FOREIGN], [OWN]], 1, [FOREIGN], id="there-is-only-one-way"),
    ],
)
def test_asked_until_a_packet_comes_the_same_way(
    monkeypatch: pytest.MonkeyPatch,
    ways: tuple[tuple[str, str], ...],
    told: Sequence[list[RuleEvent]],
    asked: int,
    found: list[RuleEvent],
) -> None:
    waiting = iter(told)
    monkeypatch.setattr(scene, "_rules", lambda *_args: next(waiting))
    inquiry = cast(Inquiry, cast(Any, Router(ways)))
    assert scene._rules_there(inquiry, lost_at_n1(), (), lambda: None) == found
    assert len(told) - len(list(waiting)) == asked
