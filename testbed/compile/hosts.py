"""Hosts: end systems with addresses, a default route, and perhaps a program from the image catalogue."""

from __future__ import annotations

from testbed import plan
from testbed.compile.base import with_base
from testbed.compile.kube.workloads import pods
from testbed.compile.routers import ICMP_SYSCTLS, extra_sysctls, interfaces
from testbed.compile.topology import Topology, gateway
from testbed.errors import InputError, Problem
from testbed.load.explain import suggest
from testbed.load.manifests import Manifests
from testbed.model.images import Catalogue
from testbed.model.kube import Metadata, Node
from testbed.model.lab import Host, Lab, Router
from testbed.model.workloads import Pod

SYSCTLS = (*ICMP_SYSCTLS, ("net/ipv6/conf/all/accept_dad", "0"), ("net/ipv6/conf/default/accept_dad", "0"))


def compile_host(lab: Lab, topology: Topology, images: Catalogue, name: str) -> tuple[plan.Node, list[Problem]]:
    """A host's part of the Plan, and what is wrong with it."""
    node = lab.nodes[name]
    assert isinstance(node, Host)
    problems = _gateway_problems(lab, topology, name, node)
    files: tuple[plan.File, ...] = ()
    directories: tuple[tuple[str, str], ...] = ()
    processes: tuple[plan.Process, ...] = ()
    if node.image:
        files, directories, processes = _program(node, name, images, problems)
    elif node.command or node.env:
        problems.append(Problem("command and env belong to an image", node.origin.at("command"), "add image: NAME"))
    made = plan.Node(
        name=name,
        kind="host",
        interfaces=tuple(interfaces(topology, name)),
        routes=tuple(_default_routes(lab, topology, name, node)),
        sysctls=(*SYSCTLS, *extra_sysctls(node.sysctls)),
        directories=directories,
        files=with_base(files, name, topology.addresses(name)),
        processes=processes,
    )
    return made, problems


def _default_routes(lab: Lab, topology: Topology, name: str, node: Host) -> list[plan.Route]:
    if node.gateway == "none":
        return []
    found = []
    for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
        if ends := gateway(lab, topology, name, version):
            own, router = ends
            found.append(plan.Route(everything, via=router.address(version), dev=own.interface))
    return found


def _gateway_problems(lab: Lab, topology: Topology, name: str, node: Host) -> list[Problem]:
    around = [end.node for segment, _ in topology.of(name) for end in segment.others(name)]
    routers = [other for other in around if isinstance(lab.nodes[other], Router)]
    position = node.origin.at("gateway")
    if node.gateway not in ("", "none", *around):
        return [Problem(f"{name} has no link to {node.gateway!r}", position, suggest(node.gateway, [*routers, "none"]))]
    if not node.gateway and len(set(routers)) > 1:
        return [Problem(f"{name} has links to several routers", node.origin.at(), f"add gateway: {' or '.join(routers)}")]
    return []


def _program(
    node: Host, name: str, images: Catalogue, problems: list[Problem]
) -> tuple[tuple[plan.File, ...], tuple[tuple[str, str], ...], tuple[plan.Process, ...]]:
    """The image's program, as it would run in a pod with the host's network."""
    container: dict[str, object] = {"name": "main", "image": node.image}
    if node.command:
        container["command"] = list(node.command)
    if node.env:
        container["env"] = [{"name": key, "value": value} for key, value in node.env.items()]
    pod = Pod.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"nodeName": name, "hostNetwork": True, "containers": [container]},
        }
    )
    ground = Node(api_version="v1", kind="Node", metadata=Metadata(name=name))
    try:
        made = pods(Manifests((pod,)), (ground,), images)[0]
    except InputError as error:
        position = node.origin.at("image")
        problems += [Problem(entry.message, position, entry.hint) for entry in error.problems]
        return (), (), ()
    main = made.containers[0]
    process = plan.Process(
        name=main.image.rpartition("/")[2],
        argv=main.argv,
        env=main.env,
        ready=main.ready,
        files=tuple(file.path for file in made.files),
        directory=main.directory,
    )
    return made.files, tuple((path, "root") for path in made.directories), (process,)
