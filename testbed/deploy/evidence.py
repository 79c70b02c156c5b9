"""What a running lab has to say about a flow that failed: routes, rules, and what is not as planned."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass

from testbed.deploy.status import take
from testbed.errors import TestbedError
from testbed.plan import Flow, Plan
from testbed.runtime.base import Runtime

Place = tuple[str, str | None]
LINES, WIDTH = 80, 160  # what fits a report
PROBLEMS, ROUTES, ANNOUNCERS = 12, 6, 2
# The rules that every namespace has (ip-rule(8)), without which nothing would be said by the others.
COMMON_RULES = {"0:from all lookup local", "32766:from all lookup main", "32767:from all lookup default"}
# … and those of one that has VRF devices.
COMMON_RULES |= {"1000:from all lookup [l3mdev-table]", "32765:from all lookup local"}


def gather(plan: Plan, runtime: Runtime, flow: Flow) -> list[str]:
    """Facts about the places a flow starts at, must pass and ends at, as lines for a report; at most LINES.

    For each place: where it sends the flow's packets (and, on the way and at the end, those of the answer), its policy
    rules, and the routes of its main table towards there. Then all of the lab that is not as planned.
    """
    look = _Look(runtime, {(node.name, vrf) for node in plan.nodes for vrf in node.vrf_devices})
    reply = look.address_of((flow.source, None), flow.address)
    lines = [line for place, towards in _places(plan, flow, reply) for line in look.place(place, towards)]
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


@dataclass(frozen=True)
class _Look:
    """Asks ip(8) in the places. A VRF that is a device must be named to ip; in one that is a namespace, ip runs."""

    runtime: Runtime
    devices: Container[Place]

    def place(self, place: Place, towards: tuple[str, ...]) -> list[str]:
        node, vrf = place
        lines = [f"{node} (VRF {vrf}):" if vrf else f"{node}:"]
        for address in towards:
            lines += self._way(place, address)
        found = self._ip(place, _family(towards), "rule")
        rules = [line.replace("\t", " ") for line in found if not _common(line)]
        return [*lines, *(f"  rule {rule}" for rule in rules)]

    def _way(self, place: Place, address: str) -> list[str]:
        """What `ip route get` answers, and those of the instance's routes that hold the address."""
        version = _family((address,))
        own = self._own(place)
        way = " ".join(" ".join(self._ip(place, version, "route", "get", address, *own)).split())
        found = self._ip(place, version, "route", "show", *own, "match", address)
        routes = [" ".join(line.split()) for line in found]
        more = [f"    … {len(routes) - ROUTES} more"] if len(routes) > ROUTES else []
        return [f"  way to {address}: {way}", *(f"    route {route}" for route in routes[:ROUTES]), *more]

    def _home(self, place: Place) -> Place:
        return (place[0], None) if place in self.devices else place

    def _own(self, place: Place) -> tuple[str, ...]:
        return ("vrf", str(place[1])) if place in self.devices else ()

    def address_of(self, place: Place, target: str) -> str:
        """The address that a place speaks to the target from; empty when it has no way there."""
        try:
            argv = ("ip", "-j", "route", "get", target, *self._own(place))
            routes = json.loads(self.runtime.run(*self._home(place), argv))
            return str(routes[0]["prefsrc"])
        except (TestbedError, ValueError, LookupError):
            return ""

    def _ip(self, place: Place, version: int, *words: str) -> list[str]:
        """The lines of an answer of ip(8); where it fails, why."""
        try:
            return self.runtime.run(*self._home(place), ("ip", f"-{version}", *words)).splitlines()
        except TestbedError as error:
            return [str(error).rpartition(": ")[2].strip() or str(error)]


def _common(rule: str) -> bool:
    return "".join(rule.split("\t")).strip() in COMMON_RULES


def _family(addresses: tuple[str, ...]) -> int:
    return ipaddress.ip_address(addresses[0]).version if addresses else 4


def _health(plan: Plan, runtime: Runtime) -> list[str]:
    try:
        problems = take(plan, runtime).problems
    except TestbedError as error:
        return [f"the lab: {error}"]
    if not problems:
        return [f"all {len(plan.sessions)} BGP sessions are established; every node, link and program runs"]
    more = [f"  … {len(problems) - PROBLEMS} more"] if len(problems) > PROBLEMS else []
    return ["not as planned:", *(f"  {line}" for line in problems[:PROBLEMS]), *more]
