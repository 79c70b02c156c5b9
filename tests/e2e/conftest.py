"""Live labs for the end-to-end tests: under names of their own, and taken down whatever happens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from testbed.plan import Plan
from testbed.session import Session, compiled

LABS = Path(__file__).resolve().parents[2] / "labs"
EDGE, TWO_ROUTERS = str(LABS / "edge"), str(LABS / "two-routers")


def own_name(topic: str) -> str:
    """A lab name that no other run on this machine has."""
    return f"e2e-{topic}-{os.getpid()}"


@contextlib.contextmanager
def running(plan: Plan, runtime: str = "") -> Iterator[Session]:
    """The lab of a Plan, up for the length of the block."""
    with Session(plan.name, runtime) as session:
        try:
            session.up(plan)
            yield session
        finally:
            session.down()


def pids(session: Session) -> dict[str, int]:
    """The process ids of all nodes ("leaf1") and programs ("leaf1: bgpd") that run."""
    found = {}
    for name, node in session.nodes().items():
        found[name] = node.pid
        found.update({f"{name}: {key}": entry.pid for key, entry in node.processes.items() if entry.running})
    return found


def assert_flows(session: Session, names: Sequence[str] = ()) -> None:
    """All flows (or those named) must be as the lab file says; of those that are not, it is told why."""
    verdicts = session.test(names)
    assert verdicts, "the lab has no flows"
    wrong = [f"{entry.flow.name}: {reason}" for entry in verdicts for reason in entry.reasons]
    why = [line for entry in verdicts if not entry.passed for line in session.explained(entry.flow)]
    assert not wrong, "\n".join([*wrong, *why])


@pytest.fixture(scope="session")
def edge() -> Iterator[Session]:
    """labs/edge, one for all tests that leave it as they found it."""
    with running(compiled(EDGE, own_name("edge"))) as session:
        yield session
