"""Why BGP did not bring a route though its sessions are up: the neighbour does not announce it, or it is not taken.

FRR is asked ("show bgp … PREFIX json"). What BIRD does with a route is not asked.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from typing import Any

from testbed.errors import TestbedError
from testbed.plan import BgpSession, Plan
from testbed.runtime.base import Runtime
from testbed.trace.context import Fault
from testbed.trace.map import Map, Place, place_name


def withheld(runtime: Runtime, plan: Plan, lab: Map, missing: Iterable[tuple[Place, str]]) -> tuple[Fault, ...]:
    """Who keeps back the routes that places lack: (place, prefix) each."""
    return tuple(fault for place, prefix in missing for fault in _withheld(runtime, plan, lab, place, prefix))


def _withheld(runtime: Runtime, plan: Plan, lab: Map, place: Place, prefix: str) -> Iterator[Fault]:
    """Looked for from the place towards the origin of the route: the first neighbours that have it keep it back."""
    seen, todo = {place}, [place]
    version = ipaddress.ip_network(prefix).version
    while todo:
        here = todo.pop(0)
        for session in _towards(plan, lab, here, version):
            there = (session.node, session.vrf)
            if there in seen:
                continue
            seen.add(there)
            known = _asked(runtime, *there, prefix)
            if not known.get("paths"):
                todo.append(there)
            elif session.peer in known.get("advertisedTo", {}):
                text = f"{place_name(*here)} does not take {prefix}, which {place_name(*there)} announces to it"
                yield Fault("filter", *here, text, prefix)
            else:
                name = place_name(*there)
                text = f"{name} has {prefix} and does not announce it to {place_name(*here)} ({session.peer})"
                yield Fault("filter", *there, text, prefix)


def _towards(plan: Plan, lab: Map, place: Place, version: int) -> Iterator[BgpSession]:
    """The sessions of FRR, over IP of a version, whose other end a place is."""
    for session in plan.sessions:
        peer = ipaddress.ip_address(session.peer)
        if session.daemon == "frr" and peer.version == version and place in lab.owners(session.peer):
            yield session


def _asked(runtime: Runtime, node: str, vrf: str | None, prefix: str) -> dict[str, Any]:
    family = f"ipv{ipaddress.ip_network(prefix).version}"
    words = f"show bgp {f'vrf {vrf} ' if vrf else ''}{family} unicast {prefix} json"
    try:
        found = json.loads(runtime.run(node, None, ("vtysh", "-c", words)) or "{}")
    except (TestbedError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
