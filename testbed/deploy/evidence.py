"""What a running lab has to say about a flow that failed: routes, rules, and what is not as planned."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

from testbed.deploy.status import take
from testbed.errors import TestbedError
from testbed.plan import Flow, Plan
from testbed.runtime.base import Runtime

Place = tuple[str, str | None]
LINES, WIDTH = 80, 160  # what fits a report
PROBLEMS, ROUTES, ANNOUNCERS = 12, 6, 2
# The rules that every namespace has (ip-rule(8)), without which nothing would be said by the others.
COMMON_RULES = {"0:from all lookup local", "32766:from all lookup main", "32767:from all lookup default"}


def gather(plan: Plan, runtime: Runtime, flow: Flow) -> list[str]:
    """Facts about the places a flow starts at, must pass and ends at, as lines for a report; at most LINES.

    For each place: where it sends the flow's packets (and, on the way and at the end, those of the answer), its policy
    rules, and the routes of its main table towards there. Then all of the lab that is not as planned.
    """
    source: Place = (flow.source, None)
    reply = _address_of(runtime, source, flow.address)
    lines = [line for place, towards in _places(plan, flow, reply) for line in _place(runtime, place, towards)]
    lines += _health(plan, runtime)
    cut = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines]
    return cut if len(cut) <= LINES else [*cut[: LINES - 1], f"… {len(cut) - LINES + 1} more lines"]


def _places(plan: Plan, flow: Flow, reply: str) -> Iterator[tuple[Place, tuple[str, ...]]]:
    """Each place once, with the addresses that it must know a way to."""
    answer = (reply,) if reply else ()
    found: dict[Place, tuple[str, ...]] = {(flow.source, None): (flow.address,)}
    for place in flow.via:
        found.setdefault(place, (flow.address, *answer))
    for place in _ends(plan, flow.address):
        found.setdefault(place, answer)
    yield from found.items()


def _ends(plan: Plan, address: str) -> list[Place]:
    """Who has an address: the node's routing instance, or the nodes that announce it for a Service."""
    owners: list[Place] = [
        (node.name, interface.vrf)
        for node in plan.nodes
        for interface in node.interfaces
        if any(entry.partition("/")[0] == address for entry in interface.addresses)
    ]
    services = [entry for entry in plan.services if address in entry.addresses]
    announcers: list[Place] = [(node, None) for entry in services for node in entry.announced_by]
    return owners or list(dict.fromkeys(announcers))[:ANNOUNCERS]


def _place(runtime: Runtime, place: Place, towards: tuple[str, ...]) -> list[str]:
    node, vrf = place
    lines = [f"{node} (VRF {vrf}):" if vrf else f"{node}:"]
    for address in towards:
        lines += _way(runtime, place, address)
    rules = [line.replace("\t", " ") for line in _ip(runtime, place, _family(towards), "rule") if not _common(line)]
    return [*lines, *(f"  rule {rule}" for rule in rules)]


def _way(runtime: Runtime, place: Place, address: str) -> list[str]:
    """What `ip route get` answers, and the main table's routes that hold the address."""
    version = _family((address,))
    way = " ".join(" ".join(_ip(runtime, place, version, "route", "get", address)).split())
    routes = [" ".join(line.split()) for line in _ip(runtime, place, version, "route", "show", "match", address)]
    more = [f"    … {len(routes) - ROUTES} more"] if len(routes) > ROUTES else []
    return [f"  way to {address}: {way}", *(f"    route {route}" for route in routes[:ROUTES]), *more]


def _common(rule: str) -> bool:
    return "".join(rule.split("\t")).strip() in COMMON_RULES


def _family(addresses: tuple[str, ...]) -> int:
    return ipaddress.ip_address(addresses[0]).version if addresses else 4


def _address_of(runtime: Runtime, place: Place, target: str) -> str:
    """The address that a place speaks to the target from; empty when it has no way there."""
    try:
        routes = json.loads(runtime.run(*place, ("ip", "-j", "route", "get", target)))
        return str(routes[0]["prefsrc"])
    except (TestbedError, ValueError, LookupError):
        return ""


def _ip(runtime: Runtime, place: Place, version: int, *words: str) -> list[str]:
    """The lines of an answer of ip(8); where it fails, why."""
    try:
        return runtime.run(*place, ("ip", f"-{version}", *words)).splitlines()
    except TestbedError as error:
        return [str(error).rpartition(": ")[2].strip() or str(error)]


def _health(plan: Plan, runtime: Runtime) -> list[str]:
    try:
        problems = take(plan, runtime).problems
    except TestbedError as error:
        return [f"the lab: {error}"]
    if not problems:
        return [f"all {len(plan.sessions)} BGP sessions are established; every node, link and program runs"]
    more = [f"  … {len(problems) - PROBLEMS} more"] if len(problems) > PROBLEMS else []
    return ["not as planned:", *(f"  {line}" for line in problems[:PROBLEMS]), *more]
