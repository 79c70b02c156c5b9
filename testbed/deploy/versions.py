"""What took part in a run, with versions: for reports."""

from __future__ import annotations

import contextlib
import os
import platform

from testbed import __version__
from testbed.deploy import control
from testbed.errors import NoSuchNodeError
from testbed.plan import Plan
from testbed.runtime.base import Runtime


def versions(plan: Plan, runtime: Runtime) -> list[tuple[str, str]]:
    """(name, version) of testbed, Python, the kernel, and of the routing daemons as they say themselves."""
    found = {"testbed": __version__, "Python": platform.python_version(), "kernel": os.uname().release}
    for session in plan.sessions:
        name = "FRR" if session.daemon == "frr" else "BIRD"
        if name not in found:
            with contextlib.suppress(control.NoAnswerError, NoSuchNodeError):
                path = runtime.path(session.node, session.socket)
                frr = name == "FRR"
                lines = control.frr(path, "show version").splitlines() if frr else control.bird(path, "show status")
                found[name] = _number(lines)
    return list(found.items())


def _number(lines: list[str]) -> str:
    """The version in a daemon's first line: "FRRouting 8.4.4 (leaf1) on Linux(6.1)", "BIRD 1.6.8"."""
    words = lines[0].split() if lines else []
    return words[1] if len(words) > 1 else "unknown"
