"""A node's interfaces, routes, rulesets and programs as commands to be run in it, one after the other.

For those who take a lab elsewhere: testbed itself programs namespaces by netlink (testbed.runtime.namespaces). Sources:
ip-address(8), ip-link(8), ip-route(8), ip-rule(8), nft(8), iptables-restore(8), sysctl(8).
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Sequence

from testbed.plan import MAIN_TABLE, Interface, Node, Process, Route, Rule

Argv = tuple[str, ...]
LOGS = "/var/log/testbed"
LOADERS = {"nft": "nft -f", "iptables-restore": "iptables-restore", "ip6tables-restore": "ip6tables-restore"}


def commands(node: Node, rulesets: Sequence[str]) -> list[Argv]:
    """All that is to be run in a container whose links and files are there.

    Args:
        rulesets: where the texts of the node's rulesets are, in their order.
    """
    names = {interface.name for interface in node.interfaces}
    found: list[Argv] = [("install", "-d", "-o", owner, path) for path, owner in (*node.directories, (LOGS, "root"))]
    found += [line for interface in node.interfaces for line in _made(interface)]
    found += [("sysctl", "-qw", f"{key}={value}") for key, value in node.sysctls if names & set(key.split("/"))]
    found += [line for interface in node.interfaces for line in _raised(interface)]
    found += [_route(route) for route in node.routes]
    found += [_rule(rule) for rule in node.rules]
    for ruleset, path in zip(node.rulesets, rulesets, strict=True):
        found.append((*LOADERS[ruleset.tool].split(), path))
    found += [_start(process) for process in in_order(node.processes)]
    return found


def in_order(processes: Sequence[Process]) -> Iterator[Process]:
    """Each after those it is to be started after."""
    done: set[str] = set()
    left = list(processes)
    while left:
        ready = [process for process in left if done.issuperset(process.after)]
        yield from ready
        done |= {process.name for process in ready}
        left = [process for process in left if process not in ready]


def _made(interface: Interface) -> Iterator[Argv]:
    link = ("ip", "link")
    if interface.kind == "bridge":
        yield (*link, "add", interface.name, "type", "bridge")
    if interface.mac:
        yield (*link, "set", interface.name, "address", interface.mac)


def _raised(interface: Interface) -> Iterator[Argv]:
    if interface.master:
        yield ("ip", "link", "set", interface.name, "master", interface.master)
    if interface.kind != "loopback":
        yield ("ip", "link", "set", interface.name, "up")
    for address in interface.addresses:
        version6 = ipaddress.ip_interface(address).version == 6
        yield ("ip", "address", "add", address, "dev", interface.name, *(("nodad",) if version6 else ()))


def _route(route: Route) -> Argv:
    kind = () if route.kind == "unicast" else (route.kind,)
    family = f"-{ipaddress.ip_network(route.to).version}"
    words = ["ip", family, "route", "replace", *kind, route.to]
    words += ["via", route.via] if route.via else []
    words += ["dev", route.dev] if route.dev else []
    words += ["table", str(route.table)] if route.table != MAIN_TABLE else []
    words += ["metric", str(route.metric)] if route.metric else []
    words += ["src", route.source] if route.source else []
    words += ["onlink"] if route.onlink else []
    return tuple(words)


def _rule(rule: Rule) -> Argv:
    words = ["ip", f"-{rule.family}", "rule", "add", "priority", str(rule.priority)]
    words += ["from", rule.source] if rule.source else []
    words += ["to", rule.destination] if rule.destination else []
    words += ["fwmark", f"{rule.fwmark:#x}/{rule.fwmask or 0xFFFFFFFF:#x}"] if rule.fwmark else []
    words += ["iif", rule.iif] if rule.iif else []
    return (*words, "table", str(rule.table))


def _start(process: Process) -> Argv:
    """In the background, with a log; a shell is the shortest way to both."""
    environment = shlex.join(["env", *(f"{name}={value}" for name, value in process.env)]) if process.env else ""
    program = f"{environment} {shlex.join(process.argv)}".strip()
    log = shlex.quote(f"{LOGS}/{process.name}.log")
    return ("sh", "-c", f"cd {shlex.quote(process.directory)} && exec setsid {program} </dev/null >>{log} 2>&1 &")
