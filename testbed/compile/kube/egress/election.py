"""Which node translates for each EgressService, and what every node has to do for that.

As in OVN-Kubernetes one node sends and announces: with several, a reply could come in at a node that does not know the
connection. It is chosen here, when the lab is compiled; where its label changes, another one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from testbed.compile.kube.egress.checks import Scene, balanced, item_problems
from testbed.compile.kube.egress.handover import way
from testbed.compile.kube.egress.tables import MOST_SERVICES
from testbed.compile.kube.metallb.announce import EXCLUDED, Announcements, excluded
from testbed.compile.kube.placement import available
from testbed.errors import Problem
from testbed.model import kube
from testbed.model.ovn import EgressService

_SERVICE_NAME = "kubernetes.io/service-name"
_LABEL = "egress-service.k8s.ovn.org"


@dataclass(frozen=True)
class Egress:
    """One EgressService with what it is about.

    Args:
        number: from 1, in the order of the manifests.
        address: the Service's load balancer address; empty with sourceIPBy Network.
        pods: address → node, of the Service's endpoints that are pods with a network of their own.
        node: the one that translates; empty until it is chosen, and with sourceIPBy Network.
    """

    number: int
    item: EgressService
    address: str
    pods: Mapping[str, str]
    node: str = ""

    @property
    def label(self) -> str:
        """What OVN-Kubernetes labels the chosen node with, for MetalLB's advertisements to select."""
        return f"{_LABEL}/{self.item.namespace}-{self.item.name}"


def egress_services(scene: Scene, items: Sequence[EgressService]) -> tuple[list[Egress], list[Problem]]:
    """The EgressServices that have pods, without their nodes, and what is wrong with any."""
    found: list[Egress] = []
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    if len(items) > MOST_SERVICES:
        problems.append(Problem(f"more than {MOST_SERVICES} EgressServices", items[MOST_SERVICES].origin.at()))
    for number, item in enumerate(items, start=1):
        pods = _pods(scene, item)
        wrong = [*item_problems(scene, item)]
        for address in pods:
            if (other := owners.setdefault(address, item.key)) != item.key:
                message = f"EgressService {item.key}: the pod {address} is behind EgressService {other}, too"
                wrong.append(Problem(message, item.origin.at("metadata", "name")))
        problems += wrong
        if pods and not wrong:
            address = balanced(scene, item) if item.spec.source_ip_by == "LoadBalancerIP" else ""
            found.append(Egress(number, item, address, pods))
    return found, problems


def candidates(scene: Scene, egress: Egress) -> list[kube.Node]:
    """The nodes that could translate, the best first; whether MetalLB announces by them is not looked at."""
    able = [node for node in scene.nodes if not _obstacle(scene, egress, node)]
    return sorted(able, key=lambda node: sha256(f"{node.name}#{egress.item.key}".encode()).digest())


def elected(
    scene: Scene, egress: Egress, announcements: Announcements, able: Sequence[kube.Node]
) -> tuple[Egress, list[Problem]]:
    """With its node: the first of those able by which MetalLB announces the address.

    Args:
        announcements: what MetalLB would announce if any of them could be the one.
    """
    if not egress.address:
        return egress, [*_network_problems(scene, egress)]
    announced = announcements.services.get(egress.item.key)
    for node in able:
        if announced and node.name in announced.bgp:
            return replace(egress, node=node.name), []
    reasons = []
    for node in scene.nodes:
        why = _obstacle(scene, egress, node) or f"MetalLB does not announce {egress.address} from it"
        reasons.append(f"{node.name}: {why}")
    message = f"EgressService {egress.item.key}: no node can translate ({'; '.join(reasons)})"
    hint = "let one be selected and announce that the nodes of its pods can reach (nodeSelector, nodeName)"
    return egress, [Problem(message, egress.item.origin.at("spec"), hint)]


# --- one EgressService ------------------------------------------------------------------------------------------------


def _pods(scene: Scene, item: EgressService) -> dict[str, str]:
    """Address → node of the pods behind the Service; those with the node's network have no address of their own."""
    slices = [
        entry
        for entry in scene.slices
        if entry.namespace == item.namespace and entry.metadata.labels.get(_SERVICE_NAME) == item.name
    ]
    behind = {address for entry in slices for endpoint in entry.endpoints for address in endpoint.addresses}
    return {
        address: pod.node_name
        for pod in scene.pods
        if not pod.host_network
        for address in scene.addresses[pod.key]
        if address in behind and ":" not in address
    }


def _network_problems(scene: Scene, egress: Egress) -> Iterator[Problem]:
    for node in sorted(set(egress.pods.values())):
        if scene.uplink(node, egress.item.spec.network) is None:
            where = f" in VRF {egress.item.spec.network}" if egress.item.spec.network else ""
            message = f"EgressService {egress.item.key}: {node}, where pods of it run, has no link to a router{where}"
            yield Problem(message, egress.item.origin.at("spec", "network"), "place its pods on nodes that have one")


def _obstacle(scene: Scene, egress: Egress, node: kube.Node) -> str:
    """Why the node cannot be the one that translates; empty when it can."""
    spec = egress.item.spec
    if not available(node):
        return "it is not ready"
    if not spec.node_selector.matches(node.metadata.labels):
        return "its labels do not match nodeSelector"
    if excluded(node):
        return f"it has the label {EXCLUDED}, or no network"
    if scene.uplink(node.name, spec.network) is None:
        return f"it has no link to a router{f' in VRF {spec.network}' if spec.network else ''}"
    for other in sorted(set(egress.pods.values()) - {node.name}):
        if way(scene, other, node.name) is None:
            return f"it shares no link, nor the VRF of the default route, with {other}, where pods of the Service run"
    return ""
