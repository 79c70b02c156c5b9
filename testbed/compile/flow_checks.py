"""What is wrong with flows by themselves: names, places the lab does not have, fields that mean nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from testbed.compile.flow_places import PlaceError, each, known_node, place
from testbed.compile.lab_checks import no_vrf
from testbed.errors import Problem
from testbed.model.lab import Flow, FlowTarget, Lab, Router

# Fields that mean something to one protocol alone, under their names in the file.
_OWN_FIELDS = {
    "host": "http",
    "path": "http",
    "status": "http",
    "forwardedFor": "http",
    "user": "ssh",
    "command": "ssh",
    "output": "ssh",
    "query": "dns",
    "answer": "dns",
}
# What is looked for in an answer, which only a flow that expects one has.
_ABOUT_ANSWERS = ("seenAs", "answeredBy", "status", "forwardedFor", "output", "answer")


def flow_problems(lab: Lab) -> list[Problem]:
    """Everything that is wrong with the flows of a lab, before anything is known of addresses and pods."""
    problems: list[Problem] = []
    seen: set[str] = set()
    for flow in lab.flows:
        if flow.name in seen:
            problems.append(Problem(f"two flows are named {flow.name}", flow.origin.at("name")))
        seen.add(flow.name)
        problems += [*_ends(lab, flow), *_others(lab, flow), *_passages(lab, flow), *_fields(flow), *_steps(lab, flow)]
    return problems


def _ends(lab: Lab, flow: Flow) -> Iterator[Problem]:
    try:
        _check_source(lab, _known(lab, flow.source))
    except PlaceError as error:
        yield error.at(flow, "from")
    try:
        _check_family(flow, _known(lab, flow.to))
    except PlaceError as error:
        yield error.at(flow, "to")


def _check_source(lab: Lab, source: FlowTarget) -> None:
    if source.service or source.address:
        what = f"Service {source.service}" if source.service else str(source.address)
        raise PlaceError(f"a flow starts at a node or a pod, and {what} is neither")
    if source.vrf:
        raise PlaceError("a flow starts at a node, not in one of its VRFs", "leave vrf out")
    if source.node and isinstance(lab.nodes[source.node], Router):
        raise PlaceError(f"{source.node} is a router: flows start at hosts, Kubernetes nodes and pods")


def _check_family(flow: Flow, target: FlowTarget) -> None:
    if target.address and ipaddress.ip_address(target.address).version != int(flow.family[-1]):
        other = "IPv6" if flow.family == "IPv4" else "IPv4"
        raise PlaceError(f"{target.address} is no {flow.family} address", f"add family: {other}")


def _known(lab: Lab, text: str | FlowTarget) -> FlowTarget:
    """A place that this lab can have at all."""
    target = place(lab, text)
    word, name = ("service", target.service) if target.service else target.pods
    if word and lab.cluster is None:
        raise PlaceError(f"{word}/{name}: the lab has no cluster")
    if target.vrf and target.vrf not in lab.vrfs:
        problem = no_vrf(lab, target.vrf, None)
        raise PlaceError(problem.message, problem.hint)
    return target


def _others(lab: Lab, flow: Flow) -> Iterator[Problem]:
    """The places that must have been seen, or have answered."""
    stated = (("seenAs", flow.seen_as), ("answeredBy", flow.answered_by), ("forwardedFor", flow.forwarded_for))
    for field, places in stated:
        for path, text in each(places, field):
            try:
                _check_other(field, _known(lab, text))
            except PlaceError as error:
                yield error.at(flow, *path)


def _check_other(field: str, target: FlowTarget) -> None:
    if field == "answeredBy" and (target.service or target.address):
        raise PlaceError("a Service or an address does not answer by itself", "name a workload or a node")


def _passages(lab: Lab, flow: Flow) -> Iterator[Problem]:
    for field, names in (("via", flow.via), ("notVia", flow.not_via)):
        for index, name in enumerate(names):
            try:
                known_node(lab, name)
            except PlaceError as error:
                yield error.at(flow, field, index)
    for name in dict.fromkeys(flow.via):
        if name in flow.not_via:
            yield Problem(f"{name} is in both via and notVia", flow.origin.at("notVia", flow.not_via.index(name)))
    if flow.vrf and not (flow.via or flow.not_via):
        yield Problem("vrf is that of the routers in via or notVia, and there are none", flow.origin.at("vrf"))
    elif flow.vrf and flow.vrf not in lab.vrfs:
        yield no_vrf(lab, flow.vrf, flow.origin.at("vrf"))


def _check_step(at: FlowTarget) -> None:
    if at.service or at.address or at.vrf:
        raise PlaceError("a step is at a node or a pod", "add vrf: NAME beside at" if at.vrf else "")


def _steps(lab: Lab, flow: Flow) -> Iterator[Problem]:
    """Places and VRFs of steps; the steps of the answer stand after those of the request, as they happen."""
    answering = False
    for index, step in enumerate(flow.steps):
        try:
            _check_step(_known(lab, step.at))
        except PlaceError as error:
            yield error.at(flow, "steps", index, "at")
        if step.vrf and step.vrf not in lab.vrfs:
            yield no_vrf(lab, step.vrf, flow.origin.at("steps", index, "vrf"))
        for field, places in (("from", step.source), ("to", step.to)):
            for path, text in each(places, field):
                try:
                    _known(lab, text)
                except PlaceError as error:
                    yield error.at(flow, "steps", index, *path)
        if answering and not step.reply:
            yield Problem("a step of the request stands after one of the reply", flow.origin.at("steps", index))
        answering = answering or step.reply
    if flow.expect != "ok" and any(step.reply for step in flow.steps):
        yield Problem(f"a flow that must end in {flow.expect} has no reply", flow.origin.at("steps"))


def _fields(flow: Flow) -> Iterator[Problem]:
    """Fields that mean nothing to the flow are refused, not ignored."""
    written = {info.alias or name for name, info in Flow.model_fields.items() if name in flow.model_fields_set}
    for field, protocol in _OWN_FIELDS.items():
        if field in written and protocol != flow.protocol:
            message = f"{field} means nothing to a flow of protocol {flow.protocol}: it is for {protocol}"
            yield Problem(message, flow.origin.at(field))
    if flow.protocol == "icmp" and flow.port:
        yield Problem("icmp has no ports", flow.origin.at("port"))
    if flow.protocol == "dns" and not flow.query:
        yield Problem("a dns flow needs the name to ask for", flow.origin.at("protocol"), "add query: NAME")
    for field in ("seenAs", "answeredBy") if flow.protocol in ("icmp", "dns") else ():
        if field in written:
            yield Problem(f"{flow.protocol} does not tell whom the server saw, nor who it is", flow.origin.at(field))
    for field in _ABOUT_ANSWERS if flow.expect != "ok" else ():
        if field in written:
            message = f"{field} is about an answer, and a flow that must end in {flow.expect} has none"
            yield Problem(message, flow.origin.at(field))
