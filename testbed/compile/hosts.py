"""Hosts: end systems with addresses, a default route, and perhaps a program from the image catalogue."""

from __future__ import annotations

from testbed import plan
from testbed.compile import return_path as paths
from testbed.compile import sysctls
from testbed.compile.base import with_base
from testbed.compile.image_program import Program, Wanted, image_program
from testbed.compile.lab_checks import NO_GATEWAY
from testbed.compile.own_images import with_host_image
from testbed.compile.return_path import ReturnPath, ways
from testbed.compile.return_path_checks import Ground, chosen, field_problems, source_check_problems, way_problems
from testbed.compile.routers import interfaces
from testbed.compile.topology import Topology, gateway
from testbed.compile.uplinks import uplinks
from testbed.errors import Position, Problem
from testbed.load.explain import suggest
from testbed.model.images import Catalogue
from testbed.model.lab import Host, Lab, Router


def compile_host(
    lab: Lab, topology: Topology, images: Catalogue, name: str, *, containers: bool = False
) -> tuple[plan.Node, list[Problem]]:
    """A host's part of the Plan, and what is wrong with it.

    Args:
        containers: for a runtime that runs images.
    """
    node = lab.nodes[name]
    assert isinstance(node, Host)
    problems = _gateway_problems(lab, topology, name, node)
    path, found = _return_path(lab, topology, name, node)
    problems += found
    by_image = containers and node.container and node.image
    program = Program() if by_image else _program(node, name, images, problems)
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
    return with_host_image(made, node, containers=containers), problems


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


def _program(node: Host, name: str, images: Catalogue, problems: list[Problem]) -> Program:
    """The image's program; nothing for a host without an image."""
    if node.image is None:
        for field, stated in (("command", node.command), ("env", node.env), ("container", node.container)):
            if stated:
                message = f"{field} belongs to an image, and {name} has none"
                problems.append(Problem(message, node.origin.at(field), "add image: NAME"))
        return Program()
    places: dict[tuple[str, ...], Position | None] = {
        (): node.origin.at(),
        ("image",): node.origin.at("image"),
        ("command",): node.origin.at("command"),
        **{("env", key): node.origin.at("env", key) for key in node.env},
    }
    wanted = Wanted(node.image, command=node.command, env=node.env, places=places)
    program, found = image_program(name, wanted, images)
    problems += found
    return program
