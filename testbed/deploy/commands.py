"""Commands of nodes: run once, when a node is new and its links and programs are ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.errors import CommandError, NoSuchNodeError, UnsupportedError
from testbed.events import Observer, Told
from testbed.plan import Link, Node, Plan
from testbed.plan.diff import PlanDiff
from testbed.runtime.base import NodeState, Runtime
from testbed.runtime.interfaces import link_states


def run(runtime: Runtime, nodes: Sequence[Node], observer: Observer) -> None:
    """Run the commands of new nodes, one after the other. One that fails is told, and the others are run all the same.

    That is what containerlab does with exec lines: a topology may have lines that fail where there is no management
    network, and work otherwise.
    """
    for node in nodes:
        for argv in node.commands:
            try:
                runtime.run(node.name, None, argv)
            except (CommandError, UnsupportedError, OSError) as error:
                where = "" if isinstance(error, CommandError) else f"{node.name}: "
                observer(Told(f"{where}{error}"))


def disturbed(
    plan: Plan, old: Plan | None, change: PlanDiff, runtime: Runtime, before: Mapping[str, NodeState]
) -> list[str]:
    """The running nodes with commands that must be made anew, because one of their links is, or is gone.

    Args:
        old: what the lab was made from; None: all of it is new. change: from it to `plan`.
        before: the nodes that ran before anything of `change` was applied.
    """
    stay = {node.name for node in plan.nodes if node.commands and node.name in before}
    if old is None or not stay:
        return []
    lost = {node.name for node in plan.nodes if node.name not in before} | {node.name for node in change.removed}
    lost |= {entry.new.name for entry in change.changed if entry.recreated}
    stay -= lost
    anew = {name for name in stay if _lacks_interfaces(plan.node(name), runtime)}
    anew |= {end for link in (*change.links_added, *change.links_removed) for end in _ends(link)} & stay
    while True:
        gone = lost | anew
        more = {end for link in plan.links if gone.intersection(_ends(link)) for end in _ends(link)} & (stay - anew)
        if not more:
            return sorted(anew)
        anew |= more


def _ends(link: Link) -> tuple[str, str]:
    return link.a.node, link.b.node


def _lacks_interfaces(node: Node, runtime: Runtime) -> bool:
    try:
        return any(state == "missing" for _, state in link_states(runtime, node))
    except NoSuchNodeError:
        return False
