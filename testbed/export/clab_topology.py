"""A lab as a containerlab topology that runs without this program: `containerlab deploy` in the folder is enough.

Every node is a container of kind `linux` that is given its files, and a script, `start`, that containerlab runs in it
once its links are there. It does what the netns runtime would: interfaces, addresses, routes, sysctls, programs.

Source: containerlab 0.79, docs/manual/{topo-def-file,nodes}.md and docs/manual/kinds/linux.md.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.errors import InputError, Position, Problem
from testbed.export.text import dump
from testbed.plan import LAST_METRIC, MAIN_TABLE, File, Interface, Node, Plan, Process, Route

IMAGE = "testbed/node:latest"
FOLDER = "/testbed"  # where a container finds its files
START = "start"
MTU = 1500  # bytes; containerlab's own default is 9500
FIRST_TABLE = 1001  # of VRF devices
_NUMBERED = re.compile(r"eth(\d+)")
# Files that the engine itself writes into containers.
_ENGINE_S = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def render(plan: Plan, places: Mapping[str, Position] | None = None, image: str = IMAGE) -> dict[str, str]:
    """The files of a topology: NAME.clab.yml, and a folder for every node.

    Args:
        places: node → where it was written, for errors. image: of all nodes; it has the programs that they run.

    Raises:
        InputError: naming every node that cannot be so, and why.
    """
    problems = [
        Problem(f"{node.name}: {what}", (places or {}).get(node.parent or node.name), hint)
        for node in plan.nodes
        for what, hint in refusals(node)
    ]
    if problems:
        raise InputError(problems)
    made = {f"{plan.name}.clab.yml": dump({"name": plan.name, **topology(plan, image)})}
    for node in plan.nodes:
        made |= {f"{node.name}/{name}": text for name, text in node_files(node).items()}
    return made


def refusals(node: Node) -> Iterator[tuple[str, str]]:
    """(what of a node cannot be exported, what to do)."""
    if node.parent or node.kind == "kubernetes":
        what = f"a pod on {node.parent}" if node.parent else "a node of a Kubernetes cluster"
        yield f"{what} cannot be exported", "`testbed export kind` is for clusters"
        return
    for entry in node.rulesets:
        yield f"its ruleset {entry.name} cannot be exported", "export a lab without nat"
    for process in node.processes:
        if process.vrf:
            yield f"its program {process.name} runs in VRF {process.vrf}, which cannot be exported", ""
    yield from _beyond_the_script(node)
    for file in node.files:
        if not isinstance(file.content, str):
            yield f"{file.path} holds a secret, which exists only in a running lab", "export a lab without ssh servers"
        elif file.path not in _ENGINE_S and _NUMBERED.search(file.content) and file.path.startswith("/etc/frr/"):
            yield f"{file.path} names interfaces, which have other names in an exported lab", ""


def _beyond_the_script(node: Node) -> Iterator[tuple[str, str]]:
    for entry in node.interfaces:
        if entry.tunnel:
            yield f"its tunnel {entry.name} cannot be exported", ""
    if node.rules:
        yield "its policy routing rules cannot be exported", ""


def topology(plan: Plan, image: str) -> dict[str, Any]:
    """Nodes and links."""
    mtus = {(node.name, entry.name): entry.mtu or MTU for node in plan.nodes for entry in node.interfaces}
    links = []
    for link in plan.links:
        ends = [f"{end.node}:{renamed(end.interface)}" for end in (link.a, link.b)]
        mtu = min(mtus[end.node, end.interface] for end in (link.a, link.b))
        links.append({"endpoints": ends, "mtu": mtu})
    # The engine's own command would end, and with it the container.
    kind = {"image": image, "cmd": "tail -f /dev/null", "restart-policy": "no", "exec": [f"sh {FOLDER}/{START}"]}
    nodes = {
        node.name: {
            "kind": "linux",
            "binds": [f"{node.name}/{name}:{FOLDER}/{name}:ro" for name in node_files(node)],
        }
        for node in plan.nodes
    }
    return {"topology": {"kinds": {"linux": kind}, "nodes": nodes, "links": links}}


def renamed(interface: str) -> str:
    """An interface's name in a container: eth0 is that of the management network there."""
    match = _NUMBERED.fullmatch(interface)
    return f"eth{int(match[1]) + 1}" if match else interface


def node_files(node: Node) -> dict[str, str]:
    """Name → text of what a node is given: its script, and its files under flat names."""
    made = {START: "\n".join(["#!/bin/sh", *_script(node), ""])}
    for file in _own_files(node):
        assert isinstance(file.content, str)  # else it is refused
        made[_flat(file.path)] = file.content
    return made


def _own_files(node: Node) -> list[File]:
    return [file for file in node.files if file.path not in _ENGINE_S]


def _flat(path: str) -> str:
    return path.lstrip("/").replace("/", "_")


# --- the script -------------------------------------------------------------------------------------------------------


def _script(node: Node) -> Iterator[str]:
    yield f"# What {node.name} has and runs. Made by `testbed export`."
    yield "set -e"
    for path, owner in node.directories:
        yield shlex.join(["install", "-d", "-o", owner, path])
    for file in _own_files(node):
        source = f"{FOLDER}/{_flat(file.path)}"
        yield shlex.join(["install", "-D", "-o", file.owner, "-m", f"{file.mode:04o}", source, file.path])
    yield "sysctl -q -w net.ipv6.conf.all.disable_ipv6=0"  # engines turn it off where they do not use it
    for key, value in node.sysctls:
        if "/nf_conntrack" not in key:  # the engine's host has it, or not
            yield shlex.join(["sysctl", "-q", "-w", f"{key.replace('/', '.')}={value}"])
    yield from _interfaces(node)
    for route in node.routes:
        yield _route(route, _tables(node.vrfs))
    for process in _in_order(node.processes):
        yield _background(process)


def _tables(vrfs: Sequence[str]) -> dict[str | None, int]:
    return {vrf: FIRST_TABLE + number for number, vrf in enumerate(vrfs)}


def _interfaces(node: Node) -> Iterator[str]:
    tables = _tables(node.vrfs)
    for vrf in node.vrfs:
        yield f"ip link add {vrf} type vrf table {tables[vrf]}"
        yield f"ip link set {vrf} up"
        # Else what has no route in a VRF would leave by the main table (Documentation/networking/vrf.rst).
        for family in ("", " -6"):
            yield f"ip{family} route add table {tables[vrf]} unreachable default metric {LAST_METRIC}"
    for entry in sorted(node.interfaces, key=lambda entry: entry.kind != "bridge"):
        yield from _interface(entry)


def _interface(entry: Interface) -> Iterator[str]:
    name = renamed(entry.name)
    if entry.kind == "bridge":
        yield f"ip link add {name} type bridge"
    master = renamed(entry.master) if entry.master else entry.vrf
    if master and entry.kind != "loopback":
        yield f"ip link set {name} master {master}"
    if entry.mac:
        yield f"ip link set {name} address {entry.mac}"
    yield f"ip link set {name} up"
    yield from (f"ip address add {address} dev {name}" for address in entry.addresses)


def _route(route: Route, tables: Mapping[str | None, int]) -> str:
    """`replace`, for the engine gives every container a default route by its own network."""
    words = ["ip", *(["-6"] if ":" in route.to else []), "route", "replace"]
    words += [route.kind] if route.kind != "unicast" else []
    words.append(route.to)
    words += ["via", route.via] if route.via else []
    words += ["dev", renamed(route.dev)] if route.dev else []
    words += ["src", route.source] if route.source else []
    words += ["metric", str(route.metric)] if route.metric else []
    words += ["onlink"] if route.onlink else []
    table = tables.get(route.vrf, route.table) if route.vrf else route.table
    words += ["table", str(table)] if table != MAIN_TABLE else []
    return shlex.join(words)


def _in_order(processes: Sequence[Process]) -> list[Process]:
    """Each after those it comes after."""
    made: list[Process] = []
    left = list(processes)
    while left:
        done = {process.name for process in made}
        ready = [process for process in left if done.issuperset(process.after)]
        made += ready
        left = [process for process in left if process not in ready]
        if not ready:
            return [*made, *left]
    return made


def _background(process: Process) -> str:
    """A program that goes on when the script has ended; with kernel VRFs zebra makes no namespaces (zebra(8), -n)."""
    argv = [word for word in process.argv if not (process.argv[0].endswith("/zebra") and word == "-n")]
    env = ["env", *(f"{key}={value}" for key, value in process.env)] if process.env else []
    command = shlex.join(["setsid", *env, *argv])
    folder = f"cd {shlex.quote(process.directory)} && " if process.directory != "/" else ""
    return f"{folder}{command} >/var/log/{process.name}.log 2>&1 </dev/null &"
