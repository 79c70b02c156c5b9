"""Hosts: end systems with addresses, a default route, and perhaps a program from the image catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed import plan
from testbed.compile import return_path as paths
from testbed.compile import sysctls
from testbed.compile.base import with_base
from testbed.compile.kube.workloads import pods
from testbed.compile.lab_checks import NO_GATEWAY
from testbed.compile.return_path import ReturnPath, ways
from testbed.compile.return_path_checks import Ground, chosen, field_problems, source_check_problems, way_problems
from testbed.compile.routers import interfaces
from testbed.compile.topology import Topology, gateway
from testbed.compile.uplinks import uplinks
from testbed.errors import InputError, Problem
from testbed.load.explain import suggest
from testbed.load.manifests import Manifests
from testbed.model.base import Origin
from testbed.model.images import Catalogue
from testbed.model.kube import Metadata, Node
from testbed.model.lab import Host, Lab, Router
from testbed.model.workloads import Container, EnvVar, Pod, PodSpec

POD_ROLES = ("dns", "ingress-nginx")  # what these images serve is made from the cluster's objects


def compile_host(lab: Lab, topology: Topology, images: Catalogue, name: str) -> tuple[plan.Node, list[Problem]]:
    """A host's part of the Plan, and what is wrong with it."""
    node = lab.nodes[name]
    assert isinstance(node, Host)
    problems = _gateway_problems(lab, topology, name, node)
    path, found = _return_path(lab, topology, name, node)
    problems += found
    program = _program(node, name, images, problems)
    made = plan.Node(
        name=name,
        kind="host",
        interfaces=tuple(interfaces(topology, name)),
        routes=(*_default_routes(lab, topology, name, node), *path.routes),
        rules=path.rules,
        rulesets=path.rulesets,
        sysctls=(*sysctls.END_SYSTEM, *sysctls.stated(node.sysctls)),
        directories=program.directories,
        files=with_base(program.files, name, topology.addresses(name)),
        processes=program.processes,
    )
    return made, problems


def _default_routes(lab: Lab, topology: Topology, name: str, node: Host) -> list[plan.Route]:
    if node.gateway == NO_GATEWAY:
        return []
    found = []
    for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
        if ends := gateway(lab, topology, name, version):
            own, router = ends
            found.append(plan.Route(everything, via=router.address(version), dev=own.interface))
    return found


def _return_path(lab: Lab, topology: Topology, name: str, node: Host) -> tuple[ReturnPath, list[Problem]]:
    """The host's return path, or none and what is wrong with it."""
    policy, ends = node.return_path, gateway(lab, topology, name, 4)
    links = uplinks(lab, topology, name)
    default = next((entry for entry in links if ends and entry.interface == ends[0].interface), None)
    found = ways(links, default)
    ground = Ground(lab, name, default, found)
    problems = [*field_problems(policy), *way_problems(policy, ground)]
    problems += source_check_problems(policy, ground, node.sysctls)
    if problems or policy.mode == "none":
        return ReturnPath(), problems
    taken = chosen(policy, found)
    if policy.mode == "static":
        return paths.static(taken[0], policy.to), []
    if policy.mode == "rule-own-ip":
        return paths.by_source(taken[0], (f"{taken[0].uplink.address}/32",)), []
    return paths.connmark(taken), []


def _gateway_problems(lab: Lab, topology: Topology, name: str, node: Host) -> list[Problem]:
    around = dict.fromkeys(end.node for segment, _ in topology.of(name) for end in segment.others(name))
    routers = [other for other in around if isinstance(lab.nodes[other], Router)]
    if node.gateway not in ("", NO_GATEWAY, *around):
        hint = suggest(node.gateway, [*routers, NO_GATEWAY])
        return [Problem(f"{name} has no link to {node.gateway!r}", node.origin.at("gateway"), hint)]
    if not node.gateway and len(routers) > 1:
        message = f"{name} has links to several routers: {', '.join(routers)}"
        return [Problem(message, node.origin.at(), f"add gateway: {routers[0]}, or {NO_GATEWAY} for no default route")]
    return []


@dataclass(frozen=True)
class _Program:
    """What a host runs; nothing by default."""

    files: tuple[plan.File, ...] = ()
    directories: tuple[tuple[str, str], ...] = ()
    processes: tuple[plan.Process, ...] = ()


def _program(node: Host, name: str, images: Catalogue, problems: list[Problem]) -> _Program:
    """The image's program, as it would run in a pod with the host's network."""
    if node.image is None:
        for field, stated in (("command", node.command), ("env", node.env)):
            if stated:
                message = f"{field} belongs to an image, and {name} has none"
                problems.append(Problem(message, node.origin.at(field), "add image: NAME"))
        return _Program()
    ground = Node(api_version="v1", kind="Node", metadata=Metadata(name=name))
    pod = _pod(node, name, node.image)
    try:
        made = pods(Manifests((pod,)), (ground,), images)[0]
    except InputError as error:
        said = f"Pod {pod.key}: "  # the author wrote no Pod
        problems += [replace(entry, message=f"{name}: {entry.message.removeprefix(said)}") for entry in error.problems]
        return _Program()
    main = made.containers[0]
    if main.role in POD_ROLES:
        message = f"{name}: the image {node.image!r} works in a pod of the cluster only"
        problems.append(Problem(message, node.origin.at("image")))
    process = plan.Process(
        name=main.image.rpartition("/")[2],
        argv=main.argv,
        env=main.env,
        ready=main.ready,
        files=tuple(file.path for file in made.files),
        directory=main.directory,
    )
    return _Program(made.files, tuple((path, "root") for path in made.directories), (process,))


def _pod(node: Host, name: str, image: str) -> Pod:
    """A pod with the host's program, whose parts say where in the lab file they were written."""
    env = tuple(EnvVar(name=key, value=value) for key, value in node.env.items())
    container = Container(name="main", image=image, command=node.command, env=env)
    spec = PodSpec(node_name=name, host_network=True, containers=(container,))
    pod = Pod(api_version="v1", kind="Pod", metadata=Metadata(name=name), spec=spec)
    place = ("spec", "containers", 0)
    places = {(): node.origin.at(), (*place, "image"): node.origin.at("image")}
    places[*place, "command"] = node.origin.at("command")
    for index, key in enumerate(node.env):
        places[*place, "env", index] = node.origin.at("env", key)
    pod._origin = Origin({path: position for path, position in places.items() if position})
    return pod
