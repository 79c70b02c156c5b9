"""What a cluster did when a node ended, as lines and as data."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.deploy.watch import Reaction
from testbed.plan import Service
from testbed.report.words import count, duration


def reaction_lines(reaction: Reaction) -> list[str]:
    """Which nodes ended, and what that changed for Services."""
    verb = "has" if len(reaction.ended) == 1 else "have"
    first = f"{', '.join(reaction.ended)} {verb} ended: not ready"
    if reaction.problem:
        return [first, *(f"  {line}" for line in reaction.problem.splitlines()), "  nothing was changed"]
    before = {(entry.namespace, entry.name): entry for entry in reaction.before.services}
    changed = [
        f"  Service {service.namespace}/{service.name}: {change}"
        for service in reaction.after.services
        for change in _changes(before[service.namespace, service.name], service)
    ]
    return [first, *changed, f"  applied in {duration(reaction.seconds)}"]


def reaction_data(reaction: Reaction) -> dict[str, object]:
    """The same, to be printed as JSON."""
    return {
        "ended": list(reaction.ended),
        "problem": reaction.problem,
        "seconds": round(reaction.seconds, 3),
        "services": [
            {
                "namespace": entry.namespace,
                "name": entry.name,
                "endpoints": list(entry.endpoints),
                "announcedBy": list(entry.announced_by),
            }
            for entry in reaction.after.services
        ],
    }


def _changes(before: Service, after: Service) -> Iterator[str]:
    if before.announced_by != after.announced_by:
        yield f"announced by {_nodes(after)}, before by {_nodes(before)}"
    if lost := len(before.endpoints) - len(after.endpoints):
        yield f"{count(lost, 'endpoint')} less, {len(after.endpoints)} left"


def _nodes(service: Service) -> str:
    return ", ".join(service.announced_by) or "nobody"
