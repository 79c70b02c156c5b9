"""What the shell offers after TAB: names of labs, nodes, programs and flows. Cheap, and silent whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from testbed.errors import TestbedError


def _beginning(names: Callable[[], Iterable[str]], incomplete: str) -> list[str]:
    """Those names that begin so; none when they cannot be found out, for a completion has nobody to complain to."""
    with contextlib.suppress(Exception):
        return sorted({name for name in names() if name.startswith(incomplete)})
    return []


def running_labs(incomplete: str) -> list[str]:
    """The labs that run."""
    return _beginning(_running, incomplete)


def labs(incomplete: str) -> list[str]:
    """The labs that come with the project, lab files and folders."""
    return _beginning(lambda: [*_shipped(), *_paths(incomplete)], incomplete)


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The nodes and pods of the lab that is meant."""
    return _beginning(lambda: _state(ctx), incomplete)


def processes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The programs of the node that was named."""
    return _beginning(lambda: _state(ctx)[ctx.params["node"]], incomplete)


def labs_and_flows(ctx: typer.Context, incomplete: str) -> list[str]:
    """Running labs, and the flows of the lab that was named, or of the only one."""
    return _beginning(lambda: [*_running(), *_flows(ctx)], incomplete)


def flows(ctx: typer.Context, incomplete: str) -> list[str]:
    """The flows of all running labs."""
    return _beginning(lambda: _flows(ctx), incomplete)


def _running() -> list[str]:
    from testbed.session import running

    return running()


def _shipped() -> list[str]:
    from testbed.load.shipped import shipped_labs

    return shipped_labs()


def _paths(incomplete: str) -> list[str]:
    folder, _, beginning = incomplete.rpartition("/")
    base = Path(f"{folder}/") if "/" in incomplete else Path()
    found = [entry for entry in base.iterdir() if entry.name.startswith(beginning)]
    return [
        f"{incomplete.removesuffix(beginning)}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in found
        if entry.suffix in (".yaml", ".yml") or (entry.is_dir() and not entry.name.startswith("."))
    ]


def _state(ctx: typer.Context) -> dict[str, list[str]]:
    """Node → programs, of the lab that was named, or of all that run."""
    from testbed.session import Session

    found: dict[str, list[str]] = {}
    named = ctx.params.get("lab")
    for lab in [named] if named else _running():
        with Session(lab) as session, contextlib.suppress(TestbedError):  # one of them may end just now
            found |= {name: list(state.processes) for name, state in session.nodes().items()}
    return found


def _flows(ctx: typer.Context) -> list[str]:
    from testbed.session import Session

    there = _running()
    named = [name for name in ctx.params.get("names") or () if name in there]
    return [flow for lab in named or there for flow in Session(lab).flow_names()]
