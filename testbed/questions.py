"""Flows that no lab file declares: made of a running lab's Plan, from what is typed on a command line. Pure."""

from __future__ import annotations

import ipaddress
from typing import get_args

from testbed.errors import InputError, Problem
from testbed.plan import Flow, Plan, Protocol, Service

ASKED: tuple[Protocol, ...] = ("tcp", "udp", "icmp", "http")
"""Protocols that need no more to be asked than an address and a port."""


def asked(plan: Plan, source: str, to: str, protocol: str, port: int) -> Flow:
    """A flow from a node or pod of a Plan; see Session.question. Raises InputError."""
    known = next((entry for entry in ASKED if entry == protocol), None)
    if known is None:
        hint = "give a flow of the lab file" if protocol in get_args(Protocol) else f"use {', '.join(ASKED)}"
        raise InputError([Problem(f"the protocol {protocol!r} cannot be asked without a flow", hint=hint)])
    address, own = _target(plan, source, to)
    number = 0 if known == "icmp" else port or own or (80 if known == "http" else 0)
    if known != "icmp" and not number:
        raise InputError([Problem(f"{known} to {to} needs a port", hint="add --port NUMBER")])
    return Flow(f"{source}-to-{to.replace('/', '-')}", source, address, known, number, to)


def _target(plan: Plan, source: str, to: str) -> tuple[str, int]:
    """(address, port; 0: none or several) of a target."""
    try:
        return str(ipaddress.ip_address(to)), 0
    except ValueError:
        pass
    kind, _, name = to.partition("/")
    if kind == "service" and name:
        return _service(plan, source, name)
    for node in plan.nodes:
        if node.name in (to, kind) or (node.parent and node.name.startswith(f"{to}-")):
            vrf = name if node.name == kind and name else None
            return _address(plan, node.name, vrf), 0
    raise InputError([Problem(f"{to!r} is no address, node or service of lab {plan.name}")])


def _service(plan: Plan, source: str, name: str) -> tuple[str, int]:
    namespace, _, own = name.rpartition("/")
    for service in plan.services:
        if (service.namespace, service.name) == (namespace or "default", own):
            found = service.cluster_ips if _inside(plan, source) else service.addresses
            if not found:
                raise InputError([Problem(f"service {name} has no address that {source} could ask")])
            return found[0], _only_port(service)
    raise InputError([Problem(f"lab {plan.name} has no service {name!r}")])


def _inside(plan: Plan, source: str) -> bool:
    return plan.node(source).kind in ("pod", "kubernetes")


def _only_port(service: Service) -> int:
    numbers = [int(text) for port in service.ports if (text := port.partition("/")[0].partition(":")[0]).isdigit()]
    return numbers[0] if len(numbers) == 1 else 0


def _address(plan: Plan, name: str, vrf: str | None) -> str:
    """The first address of a node, on a link into `vrf` where that is given."""
    node = plan.node(name)
    peers = {(link.a.node, link.a.interface): link.b for link in plan.links}
    peers |= {(link.b.node, link.b.interface): link.a for link in plan.links}
    vrfs = {(entry.name, port.name): port.vrf for entry in plan.nodes for port in entry.interfaces}
    for interface in node.interfaces:
        peer = peers.get((name, interface.name))
        network = interface.vrf or (vrfs.get((peer.node, peer.interface)) if peer else None)
        if interface.addresses and vrf in (None, network) and interface.kind != "loopback":
            return interface.addresses[0].partition("/")[0]
    where = f" in VRF {vrf}" if vrf else ""
    raise InputError([Problem(f"{name} has no address{where}")])
