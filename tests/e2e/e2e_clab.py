"""What the tests of containerlab topologies ask a running one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.errors import CommandError
from testbed.session import Session
from testbed.wait import Deadline, until

EXAMPLES = "TESTBED_CLAB_EXAMPLES"
CONVERGED = 60.0  # seconds routing protocols have: OSPF's timers alone may take a good part of it


def run(lab: Session, node: str, *argv: str) -> str:
    """The output of a program in a node."""
    return lab.runtime.run(node, None, argv)


def kernel_routes(lab: Session, node: str) -> list[dict[str, Any]]:
    """The IPv4 routes in a node's kernel."""
    found: list[dict[str, Any]] = json.loads(run(lab, node, "ip", "-j", "-4", "route"))
    return found


def await_routes(lab: Session, node: str, prefixes: set[str], seconds: float = CONVERGED) -> None:
    """Wait until a node has routes to all of these."""

    def there() -> bool:
        return prefixes <= {entry["dst"] for entry in kernel_routes(lab, node)}

    assert until(there, Deadline(seconds)), f"{node} has {kernel_routes(lab, node)}, and not all of {sorted(prefixes)}"


def await_reached(lab: Session, node: str, address: str) -> None:
    """Wait until a node reaches an address."""

    def reached() -> bool:
        try:
            run(lab, node, "ping", "-c", "1", "-W", "1", address)
        except CommandError:
            return False
        return True

    assert until(reached, Deadline(CONVERGED)), f"{node} does not reach {address}"


def checkout(request: pytest.FixtureRequest) -> Path:
    """Where containerlab's own examples are; the test is not run where nobody says it."""
    named = request.config.getoption("--clab-examples") or os.environ.get(EXAMPLES, "")
    if not named:
        pytest.skip(f"not run: no checkout of containerlab is named (--clab-examples FOLDER, or {EXAMPLES})")
    return Path(named)


def linux_only(checkout: Path) -> list[Path]:
    """The topologies of a checkout whose nodes are all of the kind linux or bridge."""
    return [path for path in sorted(checkout.rglob("*.clab.y*ml")) if set(_kinds(path)) <= {"linux", "bridge"}]


def _kinds(path: Path) -> Iterator[str]:
    try:
        topology = yaml.safe_load(path.read_text()).get("topology", {})
    except (yaml.YAMLError, AttributeError):
        yield "none: it is a template"
        return
    sections = [topology.get(part) or {} for part in ("nodes", "groups", "kinds")]
    entries = [topology.get("defaults") or {}, *(entry or {} for section in sections[:2] for entry in section.values())]
    yield from (entry["kind"] for entry in entries if entry.get("kind"))
    yield from sections[2]
