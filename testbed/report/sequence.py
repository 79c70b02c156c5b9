"""A walk as a sequence diagram in the DOT language: a column for each place, a row for each step, time going down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from testbed.probe.result import Verdict
from testbed.report.topology import quoted
from testbed.trace.tracer import Trace
from testbed.trace.walk import Path

Step = tuple[str, str, str, str]
"""From, to, what is said, and the class of the line (request, reply, error, lost)."""


def sequence(trace: Trace[Verdict]) -> str:
    """The diagram: a grid of points, whose columns are held together by dashed lines."""
    paths = [path for path in (trace.walk.forward, trace.walk.back, *trace.walk.errors[:1]) if path]
    names = list(dict.fromkeys(hop.name for path in paths for hop in path.hops))
    steps = [step for path in paths for step in _steps(path)]
    lines = [
        f"digraph {quoted(trace.flow.name)} {{",
        '  graph [bgcolor="transparent", nodesep=0.8, ranksep=0.25, splines=line, tooltip=" "]',
        '  node [shape=point, width=0.03, class="lifeline", fontname="sans-serif", fontsize=11]',
        '  edge [fontname="sans-serif", fontsize=9, arrowsize=0.7]',
        *_row(names, 0, {name: f'label={quoted(name)}, shape=box, style=rounded, class="host"' for name in names}),
    ]
    for number, step in enumerate(steps, 1):
        lines += _step(names, number, step)
    return "\n".join([*lines, "}", ""])


def _steps(path: Path) -> Iterator[Step]:
    """Each link that a packet crossed; what happened inside a place is a step of its own."""
    for hop, after in zip(path.hops, [*path.hops[1:], None], strict=True):
        inside = ", ".join(change.upper() for change in hop.changes if change in ("dnat", "snat"))
        if inside:
            yield hop.name, hop.name, f"{inside}: {hop.ends}", path.direction
        if after is not None:
            words = f"{path.words}  {hop.ends}" if hop is path.first else path.words
            yield hop.name, after.name, words, path.direction
    if not path.delivered:
        yield path.last.name, path.last.name, "seen last here", "lost"


def _point(name: str, row: int) -> str:
    return quoted(f"{name}#{row}")


def _row(names: Sequence[str], row: int, facts: dict[str, str]) -> Iterator[str]:
    """The points of a row, side by side in the order of the columns."""
    yield "  { rank=same"
    for name in names:
        yield f"    {_point(name, row)} [group={quoted(name)}, {facts.get(name, 'label=' + quoted(''))}]"
    for one, other in pairwise(names):
        yield f"    {_point(one, row)} -> {_point(other, row)} [style=invis]"
    yield "  }"


def _step(names: Sequence[str], row: int, step: Step) -> Iterator[str]:
    source, target, words, kind = step
    note = f'label={quoted(words)}, shape=note, fontsize=9, class="{kind}"'
    yield from _row(names, row, {source: note} if source == target else {})
    for name in names:
        line = f"{_point(name, row - 1)} -> {_point(name, row)}"
        yield f'  {line} [style=dashed, arrowhead=none, weight=9, class="lifeline"]'
    if source != target:
        line = f"{_point(source, row)} -> {_point(target, row)}"
        yield f'  {line} [label={quoted(words)}, constraint=false, class="{kind}"]'
