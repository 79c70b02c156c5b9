"""A Plan as text: all that must exist, node by node, aligned and without colours, to be read and searched."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from testbed.plan import MAIN_TABLE, File, Flow, Interface, Link, Node, Plan, Process, Ready, Route, Rule, Service
from testbed.plan.diff import PlanDiff, describe
from testbed.report.words import columns, count

WRAPPED = 76  # columns of a list of prefixes
Peers = Mapping[tuple[str, str], str]
"""(node, interface) → the other end of its link."""


def plan_lines(plan: Plan) -> Iterator[str]:
    """The whole Plan; contents of files and rulesets are left to `node_lines`."""
    yield f"lab {plan.name}" + (f": {plan.description}" if plan.description else "")
    peers = _peers(plan.links)
    for node in plan.nodes:
        yield ""
        yield from _node(node, peers, contents=False)
    yield ""
    yield from _links(plan.links)
    yield from _readiness(plan)
    yield from _services(plan.services)
    yield from _flows(plan.flows)
    if plan.notes:
        yield "notes"
        yield from (f"  {text}" for text in plan.notes)


def node_lines(plan: Plan, node: Node) -> Iterator[str]:
    """One node, with the contents of its files and rulesets."""
    yield from _node(node, _peers(plan.links), contents=True)


def _peers(links: Sequence[Link]) -> Peers:
    ends = [(link.a, link.b) for link in links] + [(link.b, link.a) for link in links]
    return {(here.node, here.interface): f"{there.node}:{there.interface}" for here, there in ends}


def _node(node: Node, peers: Peers, *, contents: bool) -> Iterator[str]:
    facts: list[str] = [node.kind]
    facts += [f"on {node.parent}"] if node.parent else []
    facts += [f"hostname {node.hostname}"] if node.hostname not in ("", node.name) else []
    facts += [f"VRFs {', '.join(node.vrfs)}"] if node.vrfs else []
    facts += [f"image {node.image}"] if node.image else []
    yield f"node {node.name} ({', '.join(facts)})"
    parts: dict[str, Sequence[Sequence[str]]] = {
        "interfaces": [row for entry in node.interfaces for row in _interface(node, entry, peers)],
        "routes": [_route(route) for route in node.routes],
        "rules": [_rule(rule) for rule in node.rules],
        "sysctls": [(key.replace("/", "."), value) for key, value in node.sysctls],
        "directories": list(node.directories),
        "files": [_file(file) for file in node.files],
        "rulesets": [(entry.name, entry.tool, _vrf(entry.vrf), _lines(entry.text)) for entry in node.rulesets],
        "processes": [row for process in node.processes for row in _process(process)],
        "container": _container(node),
        "commands": [(shlex.join(argv),) for argv in node.commands],
    }
    for heading, rows in parts.items():
        if rows:
            yield f"  {heading}"
            yield from columns(rows, indent="    ")
    if contents:
        yield from _contents(node)


def _interface(node: Node, entry: Interface, peers: Peers) -> Iterator[tuple[str, ...]]:
    facts = [" ".join(entry.addresses)]
    facts += [f"table {entry.table}"] if entry.table else []
    facts += [f"port of {entry.master}"] if entry.master and entry.master != entry.vrf else []
    facts += [f"MAC {entry.mac}"] if entry.mac else []
    facts += [f"MTU {entry.mtu}"] if entry.mtu else []
    peer = peers.get((node.name, entry.name), "")
    facts += [f"to {peer}"] if peer else []
    yield entry.name, entry.kind, _vrf(entry.vrf), ", ".join(fact for fact in facts if fact)
    if tunnel := entry.tunnel:
        yield "", "", "", f"VNI {tunnel.vni}, from {tunnel.local}, UDP port {tunnel.port}"
        yield from (("", "", "", f"to {end.address}, MAC {end.mac}") for end in tunnel.peers)


def _vrf(vrf: str | None) -> str:
    return f"VRF {vrf}" if vrf else ""


def _lines(text: str) -> str:
    return count(len(text.splitlines()), "line")


def _route(route: Route) -> tuple[str, ...]:
    facts: list[str] = [] if route.kind == "unicast" else [route.kind]
    facts += [f"via {route.via}"] if route.via else []
    facts += [f"dev {route.dev}"] if route.dev else []
    facts += [f"src {route.source}"] if route.source else []
    facts += [f"metric {route.metric}"] if route.metric else []
    facts += [f"table {route.table}"] if route.table != MAIN_TABLE else []
    facts += ["onlink"] if route.onlink else []
    return route.to, _vrf(route.vrf), " ".join(facts)


def _rule(rule: Rule) -> tuple[str, ...]:
    facts = [f"from {rule.source or 'all'}"]
    facts += [f"to {rule.destination}"] if rule.destination else []
    facts += [f"fwmark {rule.fwmark:#x}" + (f"/{rule.fwmask:#x}" if rule.fwmask else "")] if rule.fwmark else []
    facts += [f"iif {rule.iif}"] if rule.iif else []
    facts += [f"lookup {rule.table}"]
    return f"{rule.priority}:", f"IPv{rule.family}", _vrf(rule.vrf), " ".join(facts)


def _file(file: File) -> tuple[str, ...]:
    what = _lines(file.content) if isinstance(file.content, str) else f"{file.content.part} key {file.content.secret}"
    return file.path, f"{file.mode:04o}", file.owner, what


def _process(process: Process) -> list[tuple[str, ...]]:
    facts = [f"ready: {_ready(process.ready)}"]
    facts += ["started by the node's image"] if process.by_image else []
    facts += [f"after {', '.join(process.after)}"] if process.after else []
    facts += [f"in {process.directory}"] if process.directory != "/" else []
    facts += [f"then {shlex.join(process.configure)}"] if process.configure else []
    facts += [f"env {' '.join(f'{key}={value}' for key, value in process.env)}"] if process.env else []
    return [(process.name, _vrf(process.vrf), shlex.join(process.argv)), ("", "", "; ".join(facts))]


def _container(node: Node) -> list[tuple[str, str]]:
    """What is said of a container of the node's own image."""
    rows = [(name, shlex.join(words)) for name, words in (("entrypoint", node.entrypoint), ("cmd", node.cmd)) if words]
    return rows + [("env", f"{key}={value}") for key, value in node.env]


def _ready(ready: Ready) -> str:
    if ready.kind == "path":
        return f"{ready.path} exists"
    if ready.kind == "running":
        return "running"
    return f"listens on {'UDP' if ready.kind == 'listen-udp' else 'TCP'} port {ready.port}"


def _contents(node: Node) -> Iterator[str]:
    for file in node.files:
        if isinstance(file.content, str):
            yield from ("", f"--- {file.path}", *file.content.splitlines())
    for ruleset in node.rulesets:
        yield from ("", f"--- ruleset {ruleset.name} ({ruleset.tool})", *ruleset.text.splitlines())


def _links(links: Sequence[Link]) -> Iterator[str]:
    if links:
        yield "links"
        ends = [(f"{link.a.node}:{link.a.interface}", f"{link.b.node}:{link.b.interface}") for link in links]
        yield from columns(ends, indent="  ")
        yield ""


def _readiness(plan: Plan) -> Iterator[str]:
    if plan.sessions:
        yield "BGP sessions that must be established"
        rows = [(e.node, _vrf(e.vrf), e.peer_name, e.peer, e.daemon, e.protocol) for e in plan.sessions]
        yield from columns(rows, indent="  ")
        yield ""
    if plan.routes:
        yield "routes that BGP must bring (in brackets: by how many next hops at least)"
        by_place: dict[tuple[str, str], list[str]] = {}
        for route in plan.routes:
            hops = f"({route.next_hops})" if route.next_hops > 1 else ""
            by_place.setdefault((route.node, _vrf(route.vrf)), []).append(route.prefix + hops)
        yield from columns([row for entry in by_place.items() for row in _wrapped(*entry)], indent="  ")
        yield ""


def _wrapped(place: tuple[str, str], words: Sequence[str]) -> list[tuple[str, ...]]:
    """Many words beside a place, on as many lines as they need."""
    lines = textwrap.wrap(" ".join(words), WRAPPED, break_long_words=False)
    return [(*(place if index == 0 else ("", "")), line) for index, line in enumerate(lines)]


def _services(services: Sequence[Service]) -> Iterator[str]:
    if services:
        yield "Services"
        yield from columns([_service(entry) for entry in services], indent="  ")
        yield ""


def _service(entry: Service) -> tuple[str, ...]:
    announced = f"announced by {', '.join(entry.announced_by)}" if entry.announced_by else ""
    addresses = " ".join((*entry.cluster_ips, *entry.addresses))
    return f"{entry.namespace}/{entry.name}", entry.type, addresses, ",".join(entry.ports), announced


def _flows(flows: Sequence[Flow]) -> Iterator[str]:
    if flows:
        yield "flows"
        yield from columns([_flow(flow) for flow in flows], indent="  ")


def _flow(flow: Flow) -> tuple[str, ...]:
    port = f" port {flow.port}" if flow.port else ""
    return flow.name, flow.source, f"{flow.target or flow.address} ({flow.address}{port})", flow.protocol, flow.expect


# --- differences ------------------------------------------------------------------------------------------------------


def diff_lines(old: Plan, new: Plan, change: PlanDiff) -> list[str]:
    """All that is different, also in what only status and tests look at: Services and flows."""
    lines = describe(change)
    for noun, before, after in (("Service", old.services, new.services), ("flow", old.flows, new.flows)):
        lines += _changes(noun, {_name(entry): entry for entry in before}, {_name(entry): entry for entry in after})
    return lines


def _name(entry: Service | Flow) -> str:
    return f"{entry.namespace}/{entry.name}" if isinstance(entry, Service) else entry.name


def _changes(noun: str, before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    signs = [("+", name) for name in after if name not in before]
    signs += [("-", name) for name in before if name not in after]
    signs += [("~", name) for name, entry in after.items() if name in before and before[name] != entry]
    return [f"{sign} {noun} {name}" for sign, name in signs]
