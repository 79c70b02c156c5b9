"""A lab for tests of runtimes, written short."""

from __future__ import annotations

from testbed.load.lab import parse_lab
from testbed.model.lab import Lab


def lab(text: str) -> Lab:
    """A lab of one router, with more fields."""
    head = "apiVersion: testbed/v1\nname: test\nnodes: {r1: {kind: router}}\n"
    return parse_lab(head + text, "lab.yaml")
