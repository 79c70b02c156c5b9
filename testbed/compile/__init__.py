"""Lab → Plan. Pure: the same lab, manifests and catalogue give the same Plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from testbed import plan
from testbed.compile import bgp, leaks, routers
from testbed.compile.expectations import expected_routes, expected_sessions
from testbed.compile.flow_checks import flow_problems
from testbed.compile.flows import compile_flows
from testbed.compile.hosts import compile_host
from testbed.compile.kube import cluster as kube_cluster
from testbed.compile.kube import cluster_plan, kind_cluster
from testbed.compile.kube.node_vrfs import node_vrf_problems
from testbed.compile.lab_checks import lab_problems
from testbed.compile.node_sessions import add_node_sessions
from testbed.compile.overlaps import cluster_overlaps, overlap_problems
from testbed.compile.own_images import with_router_image
from testbed.compile.topology import Topology
from testbed.compile.topology import build as build_topology
from testbed.errors import InputError, Problem
from testbed.load.manifests import Manifests
from testbed.load.matrix_checks import matrix_problems
from testbed.model.images import Catalogue
from testbed.model.lab import Host, Lab, Router
from testbed.model.names import host_label
from testbed.plan import SecretRef


def compile_lab(
    lab: Lab,
    manifests: Manifests,
    images: Catalogue,
    name: str = "",
    *,
    containers: bool = False,
    vrf_driver: plan.VrfDriver = "netns",
    not_ready: Collection[str] = (),
) -> plan.Plan:
    """The Plan of a lab.

    Args:
        manifests: what the cluster's files hold. images: the catalogue with the lab's own entries.
        name: under which it runs; the lab's own name when empty.
        containers: for a runtime that runs images.
        vrf_driver: what VRFs are made of.
        not_ready: nodes of the embedded cluster that have ended.

    Raises:
        InputError: with every problem that was found. What is wrong with the lab file by itself comes first; then what
            is wrong with the cluster's objects; then what the two make together.
    """
    topology = _topology(lab, name, vrf_driver)
    built = kube_cluster.build(lab, lab.cluster, topology, manifests, images, not_ready) if lab.cluster else None
    routing = bgp.link_sessions(lab, topology)
    problems = add_node_sessions(lab, topology, routing, built) if built else []
    leaks.add_instances(lab, topology, routing)
    bgp.add_router_speakers(lab, topology, routing)
    problems += leaks.add_leaked(lab, routing)
    nodes, found = _nodes(lab, topology, routing, built, images, containers=containers)
    problems += found
    flows, found = compile_flows(lab, topology, built)
    real = built if built and built.cluster.provider == "kind" else None
    pods, pod_links = cluster_plan.pod_plans(built) if built and not real else ([], [])
    everything = (*nodes, *pods)
    _stop([*problems, *found, *_twice(everything, built)])
    alive = routing.without(not_ready)
    return plan.Plan(
        name=name or lab.name,
        description=lab.description,
        nodes=everything,
        links=(*routers.links(topology), *pod_links),
        secrets=_secrets(everything, flows),
        sessions=expected_sessions(topology, alive, built),
        routes=expected_routes(lab, topology, alive, built),
        services=cluster_plan.services(built) if built else (),
        flows=flows,
        cluster=kind_cluster.cluster_plan(real, manifests) if real else None,
        vrf_driver=vrf_driver,
        not_ready=tuple(name for name in lab.nodes if name in not_ready),
    )


def _stop(problems: Iterable[Problem]) -> None:
    if found := dict.fromkeys(problems):
        raise InputError(found)


def _topology(lab: Lab, name: str, vrf_driver: plan.VrfDriver) -> Topology:
    """The topology of a lab that is right by itself. Raises InputError when it is not."""
    problems = lab_problems(lab)
    if name:
        try:
            host_label(name)
        except ValueError as error:
            problems.append(Problem(str(error)))
    topology, found = build_topology(lab, vrf_driver)
    problems += [*found, *overlap_problems(lab, topology), *cluster_overlaps(lab, topology)]
    problems += [*bgp.router_id_problems(lab, topology), *leaks.leak_problems(lab, topology)]
    problems += kind_cluster.problems(lab, lab.cluster, name or lab.name) if lab.cluster else []
    problems += node_vrf_problems(lab, topology)
    _stop([*problems, *flow_problems(lab), *matrix_problems(lab)])
    return topology


def _nodes(
    lab: Lab,
    topology: Topology,
    routing: bgp.Routing,
    built: kube_cluster.Built | None,
    images: Catalogue,
    *,
    containers: bool,
) -> tuple[list[plan.Node], list[Problem]]:
    nodes: list[plan.Node] = []
    problems: list[Problem] = []
    for name, model in lab.nodes.items():
        if isinstance(model, Router):
            node, found = routers.compile_router(lab, topology, routing, name)
            node, more = with_router_image(node, model, images, containers=containers)
            problems += more
        elif isinstance(model, Host):
            node, found = compile_host(lab, topology, images, name, containers=containers)
        else:
            assert built is not None  # a lab with such nodes and no cluster is refused
            made = kind_cluster if built.cluster.provider == "kind" else cluster_plan
            node, found = made.node_plan(built, name), []
        nodes.append(node)
        problems += found
    return nodes, problems


def _twice(nodes: Iterable[plan.Node], built: kube_cluster.Built | None) -> list[Problem]:
    """Pods are named among the lab's nodes: two may not have one name."""
    count = Counter(node.name for node in nodes)
    found = []
    for pod in built.pods if built else ():
        name = kube_cluster.pod_node(pod)
        if count[name] > 1 and not pod.host_network:
            message = (
                f"{pod.origin.kind} {pod.origin.key}: its pod {pod.key} has the name of another node or pod, {name}"
            )
            found.append(Problem(message, pod.origin.origin.at("metadata", "name")))
    return found


def _secrets(nodes: Iterable[plan.Node], flows: Iterable[plan.Flow]) -> tuple[str, ...]:
    """The key pairs that files name, and `ssh` where a flow logs in."""
    named = {file.content.secret for node in nodes for file in node.files if isinstance(file.content, SecretRef)}
    if any(flow.protocol == "ssh" for flow in flows):
        named |= {"ssh", "ssh-host"}
    return tuple(sorted(named))
