"""EgressServices: all of them decided, and what every node has to do for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.compile.kube.egress.checks import Scene
from testbed.compile.kube.egress.election import Egress, candidates, egress_services, elected
from testbed.compile.kube.egress.handover import SYSCTLS, tunnel, tunnel_problems, way
from testbed.compile.kube.egress.tables import Leg, node_egress
from testbed.compile.kube.metallb.announce import Announcements, announce
from testbed.compile.kube.metallb.config import Config
from testbed.compile.return_path import ReturnPath
from testbed.errors import Problem
from testbed.model import kube
from testbed.model.ovn import EgressService
from testbed.plan import Interface


@dataclass(frozen=True)
class Decision:
    """Who translates, and who announces what.

    Args:
        nodes: with the labels of those that were chosen.
    """

    egresses: tuple[Egress, ...]
    nodes: tuple[kube.Node, ...]
    announcements: Announcements
    problems: tuple[Problem, ...] = ()


def decide(scene: Scene, items: Sequence[EgressService], metallb: Config) -> Decision:
    """Choose the nodes, and make MetalLB announce each address from its node alone."""
    refused = [] if scene.cluster.provider == "embedded" else [_refused(item) for item in items]
    if refused or not items:
        announcements = announce(scene.services, scene.slices, metallb, scene.nodes)
        return Decision((), tuple(scene.nodes), announcements, tuple(refused))
    found, problems = egress_services(scene, items)
    able = {egress.number: candidates(scene, egress) if egress.address else [] for egress in found}
    # Advertisements may select the label of the chosen node: what would be, if any of those able were chosen?
    labels: dict[str, list[str]] = {}
    for egress in found:
        for node in able[egress.number]:
            labels.setdefault(node.name, []).append(egress.label)
    possible = announce(scene.services, scene.slices, metallb, _labelled(scene.nodes, labels))
    chosen = []
    for egress in found:
        one, more = elected(scene, egress, possible, able[egress.number])
        chosen.append(one)
        problems += more
    labels = {}
    for egress in chosen:
        labels.setdefault(egress.node, []).append(egress.label)
    nodes = tuple(_labelled(scene.nodes, labels))
    only = {egress.item.key: egress.node for egress in chosen if egress.node}
    announcements = announce(scene.services, scene.slices, metallb, nodes, only=only)
    problems += tunnel_problems(scene, _handed(chosen))
    return Decision(tuple(chosen), nodes, announcements, tuple(problems))


@dataclass(frozen=True)
class NodeEgress:
    """What a node gets for all EgressServices."""

    path: ReturnPath
    interfaces: tuple[Interface, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


def egress_of(scene: Scene, egresses: Sequence[Egress], node: str) -> NodeEgress:
    """The routes, rules, ruleset and tunnel of a node for all EgressServices."""
    made = tunnel(scene, _handed(egresses), node)
    path = node_egress([_leg(scene, egress, node) for egress in egresses], _near(scene), tunnelled=made is not None)
    return NodeEgress(path, (made,), SYSCTLS) if made else NodeEgress(path)


def _handed(egresses: Sequence[Egress]) -> list[tuple[str, str]]:
    """(node, to whom it hands over) wherever pods run on another node than the one that translates."""
    return [(node, egress.node) for egress in egresses for node in sorted(set(egress.pods.values()) - {egress.node})]


def _refused(item: EgressService) -> Problem:
    message = f"EgressService {item.key}: nothing acts on it in a cluster of kind's, which runs Calico"
    return Problem(message, item.origin.at("kind"), "use provider: embedded")


def _labelled(nodes: Sequence[kube.Node], labels: Mapping[str, Sequence[str]]) -> list[kube.Node]:
    """The nodes with more labels, each with an empty value."""

    def metadata(node: kube.Node) -> kube.Metadata:
        added = dict.fromkeys(labels.get(node.name, ()), "")
        return node.metadata.model_copy(update={"labels": {**node.metadata.labels, **added}})

    return [node.model_copy(update={"metadata": metadata(node)}) for node in nodes]


def announcement_problems(
    found: Sequence[Egress], announcements: Announcements, advertised: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    """Prefixes that draw replies to other nodes than the one that knows the connections.

    Args:
        advertised: node → the prefixes of Services that Calico advertises by it.
    """
    for egress in found:
        if not egress.node:
            continue
        address = ipaddress.ip_address(egress.address)
        told = {
            **{
                (node, "MetalLB", str(route.prefix)): None
                for node, peers in announcements.routes.items()
                for routes in peers.values()
                for route in routes
            },
            **{(node, "Calico", prefix): None for node, prefixes in advertised.items() for prefix in prefixes},
        }
        for node, who, prefix in told:
            if node != egress.node and address in ipaddress.ip_network(prefix):
                message = f"EgressService {egress.item.key}: {who} also announces {prefix} from {node}, and replies"
                message += f" must come in at {egress.node}"
                hint = "no other Service with this address, no aggregation, no advertising by Calico"
                yield Problem(message, egress.item.origin.at("metadata", "name"), hint)


def _near(scene: Scene) -> list[str]:
    """What is in the cluster: pods, Services with all their addresses, nodes."""
    texts = [scene.cluster.pod_subnet, scene.cluster.service_subnet]
    texts += [address for node in scene.nodes for address in scene.topology.addresses(node.name, 4)]
    for service in scene.services:
        texts += [*service.spec.external_ips, *(entry.ip for entry in service.status.load_balancer.ingress)]
    networks = {ipaddress.ip_network(text) for text in texts if text}
    joined = ipaddress.collapse_addresses(entry for entry in networks if isinstance(entry, ipaddress.IPv4Network))
    return [str(entry).removesuffix("/32") for entry in joined]


def _leg(scene: Scene, egress: Egress, node: str) -> Leg:
    item, pods = egress.item, tuple(egress.pods)
    bare = Leg(egress.number, item.key, pods, balanced=egress.address)
    uplink = scene.uplink(node, item.spec.network)
    if uplink and egress.node in (node, ""):
        others = tuple(
            address
            for entry in scene.nodes
            if entry.name != node
            for address in scene.topology.addresses(entry.name, 4)
        )
        return replace(
            bare,
            gateway=uplink.gateway,
            interface=uplink.interface,
            networks=uplink.networks,
            source=egress.address or uplink.address,
            strangers=others,
        )
    found = way(scene, node, egress.node) if egress.node else None
    if found and (not found.tunnelled or node in egress.pods.values()):
        return replace(bare, interface=found.interface, gateway=found.gateway)
    return bare
