"""Which node each pod runs on. Source of the rules: Kubernetes, "Assigning Pods to Nodes", "Taints and Tolerations".

A choice depends on nothing that changes when something else is scaled: replicas are placed in rounds, the first of
every owner, then the second of every owner, and every round holds all owners, whether or not they want that many. So
scaling up moves nothing, and scaling down takes the last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.compile.kube.owners import Owner
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.kube import Node, Protocol, Taint
from testbed.model.workloads import DaemonSet, Deployment, PodSpec, ReplicaSet, Toleration

_NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoExecute")
_UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")

# What the DaemonSet controller adds to its pods (pkg/controller/daemon/util/daemonset_util.go).
_DAEMON_TOLERATIONS = (
    Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/disk-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/memory-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/pid-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule"),
)
_DAEMON_HOST_NETWORK = Toleration(key="node.kubernetes.io/network-unavailable", operator="Exists", effect="NoSchedule")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a replica runs.

    Args:
        index: which replica.
        node: its node.
        moved: its first node was lost.
        lost: its node is not ready, and it cannot move.
    """

    index: int
    node: Node
    moved: bool = False
    lost: bool = False


@dataclass(slots=True)
class _Board:
    """What has been placed so far."""

    nodes: Sequence[Node]
    total: Counter[str] = field(default_factory=Counter)
    of_owner: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ports: dict[str, set[tuple[Protocol, int]]] = field(default_factory=lambda: defaultdict(set))

    def put(self, owner: Owner, node: Node, *, real: bool) -> None:
        self.total[node.name] += 1
        self.of_owner[id(owner)][node.name] += 1
        if real:
            self.ports[node.name] |= owner.host_ports

    def take(self, owner: Owner, node: Node) -> None:
        self.total[node.name] -= 1
        self.of_owner[id(owner)][node.name] -= 1
        self.ports[node.name] -= owner.host_ports

    def best(self, owner: Owner, nodes: Sequence[Node]) -> Node | None:
        """The node with the fewest pods of this owner, then the fewest pods, then the first by name."""
        mine = self.of_owner[id(owner)]
        free = [node for node in nodes if not owner.host_ports & self.ports[node.name]]
        return min(free, key=lambda node: (mine[node.name], self.total[node.name], node.name), default=None)


def place(owners: Sequence[Owner], nodes: Sequence[Node]) -> tuple[dict[int, list[Placement]], list[Problem]]:
    """Places all pods.

    Args:
        owners: in the order they were written.
        nodes: of the cluster.

    Returns:
        By the owner's position, the placements in order of index (for a DaemonSet, of nodes); and why pods could not be
        placed, one Problem for each owner.
    """
    board = _Board(sorted(nodes, key=lambda node: node.name))
    placed: dict[int, list[Placement]] = {position: [] for position in range(len(owners))}
    problems: dict[int, Problem] = {}
    floating: list[int] = []
    for position, owner in enumerate(owners):
        if isinstance(owner.object, DaemonSet):
            placed[position] = list(_daemons(owner, board))
        elif owner.spec.node_name:
            placed[position], problem = _pinned(owner, board)
            if problem:
                problems[position] = problem
        else:
            floating.append(position)
    _float(owners, floating, board, placed, problems)
    return placed, [problems[position] for position in sorted(problems)]


def available(node: Node) -> bool:
    """Whether the node is alive: no Ready condition says otherwise."""
    return all(item.status == "True" for item in node.status.conditions if item.type == "Ready")


def labels_of(node: Node) -> Mapping[str, str]:
    """The node's labels, with those that every kubelet sets."""
    return {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.metadata.labels}


def _daemons(owner: Owner, board: _Board) -> Iterator[Placement]:
    added = (*_DAEMON_TOLERATIONS, _DAEMON_HOST_NETWORK) if owner.spec.host_network else _DAEMON_TOLERATIONS
    for index, node in enumerate(board.nodes):
        wanted = owner.spec.node_name in ("", node.name) and _selects(owner.spec, node)
        if wanted and not _untolerated(node, (*owner.spec.tolerations, *added)):
            board.put(owner, node, real=True)
            yield Placement(index, node, lost=not available(node))


def _pinned(owner: Owner, board: _Board) -> tuple[list[Placement], Problem | None]:
    """Pods that name their node pass by the scheduler; its kubelet still has a word."""
    name = owner.spec.node_name
    node = next((node for node in board.nodes if node.name == name), None)
    if node is None:
        hint = suggest(name, [node.name for node in board.nodes])
        return [], owner.problem(f"there is no node {name!r}", "nodeName", hint=hint)
    if not _selects(owner.spec, node):
        return [], owner.problem(f"node {name} does not match its nodeSelector or affinity", "nodeName")
    evicting = [taint for taint in node.spec.taints if taint.effect == "NoExecute"]
    if taint := _first_untolerated(evicting, owner.spec.tolerations):
        return [], owner.problem(f"node {name} has the taint {_written(taint)}, which it does not tolerate", "nodeName")
    placements = []
    for index in range(owner.replicas):
        if owner.host_ports & board.ports[node.name]:
            return [], owner.problem(f"node {name} has not all of its host ports free", "nodeName")
        board.put(owner, node, real=True)
        placements.append(Placement(index, node, lost=not available(node)))
    return placements, None


def _float(
    owners: Sequence[Owner],
    floating: Sequence[int],
    board: _Board,
    placed: dict[int, list[Placement]],
    problems: dict[int, Problem],
) -> None:
    eligible = {position: _eligible(owners[position], board.nodes) for position in floating}
    rounds = max((owners[position].replicas for position in floating), default=0)
    for index in range(rounds):
        for position in floating:
            owner = owners[position]
            wanted = index < owner.replicas
            node = board.best(owner, eligible[position])
            if node is not None:
                board.put(owner, node, real=wanted)
            if wanted and node is not None:
                placed[position].append(Placement(index, node))
            elif wanted and position not in problems:
                problems[position] = _unschedulable(owner, board, index)
    for position in floating:
        placed[position] = [_kept_or_moved(owners[position], item, board) for item in placed[position]]


def _kept_or_moved(owner: Owner, placement: Placement, board: _Board) -> Placement:
    """The placement; of a pod whose node was lost, another one where its controller would make a new pod."""
    if available(placement.node) or not _untolerated(placement.node, owner.spec.tolerations):
        return placement
    if not isinstance(owner.object, Deployment | ReplicaSet):
        return Placement(placement.index, placement.node, lost=True)
    others = [node for node in _eligible(owner, board.nodes) if available(node)]
    board.take(owner, placement.node)
    node = board.best(owner, others)
    if node is None:
        board.put(owner, placement.node, real=True)
        return Placement(placement.index, placement.node, lost=True)
    board.put(owner, node, real=True)
    return Placement(placement.index, node, moved=True)


def _eligible(owner: Owner, nodes: Sequence[Node]) -> list[Node]:
    """Where the scheduler may put the pods, dead nodes included: what was there stays there in its count."""
    return [
        node
        for node in nodes
        if _selects(owner.spec, node) and not _first_untolerated(_scheduling_taints(node), owner.spec.tolerations)
    ]


def _selects(spec: PodSpec, node: Node) -> bool:
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    affinity = spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return required is None or any(
        term.match_expressions and all(expression.matches(labels) for expression in term.match_expressions)
        for term in required.node_selector_terms
    )


def _scheduling_taints(node: Node) -> list[Taint]:
    taints = [taint for taint in node.spec.taints if taint.effect != "PreferNoSchedule"]
    return [*taints, _UNSCHEDULABLE] if node.spec.unschedulable else taints


def _untolerated(node: Node, tolerations: Sequence[Toleration]) -> Taint | None:
    taints = _scheduling_taints(node)
    return _first_untolerated(taints if available(node) else [*taints, _NOT_READY], tolerations)


def _first_untolerated(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> Taint | None:
    return next((taint for taint in taints if not any(_tolerates(item, taint) for item in tolerations)), None)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value


def _unschedulable(owner: Owner, board: _Board, index: int) -> Problem:
    """Why no node takes the pod, node by node, in the scheduler's order of checks."""
    reasons: dict[str, list[str]] = {}
    for node in board.nodes:
        reasons.setdefault(_obstacle(owner, node), []).append(node.name)
    told = "; ".join(f"{', '.join(names)} {reason}" for reason, names in reasons.items())
    which = f"replica {index + 1}" if owner.replicas > 1 else "the pod"
    if not board.nodes:
        return owner.problem(f"no node can run {which}: the cluster has no nodes")
    return owner.problem(f"no node can run {which}: {told}")


def _obstacle(owner: Owner, node: Node) -> str:
    if not _selects(owner.spec, node):
        return "not matched by nodeSelector or affinity"
    if taint := _first_untolerated(_scheduling_taints(node), owner.spec.tolerations):
        return f"tainted {_written(taint)}"
    return "without the host ports free"


def _written(taint: Taint) -> str:
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"
