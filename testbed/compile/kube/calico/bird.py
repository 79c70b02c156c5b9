"""The configuration of BIRD 1.6 on a node, with the file names, protocols and filters of Calico's confd.

A node runs one BIRD for each family it has an address of. The files include each other by name, so that they belong
into one directory (/etc/calico/confd/config on a real node); the daemon is started with bird.cfg or bird6.cfg.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from typing import Any

from jinja2 import Environment

from testbed.compile.kube.calico.bgp import FAMILIES, BgpCluster, BgpNode, BirdSession, Family, sessions
from testbed.compile.kube.calico.check import problems
from testbed.compile.kube.calico.filter import MAX_METRIC, Direction, FilterFunction, community, filter_function
from testbed.compile.kube.calico.services import service_routes
from testbed.errors import InputError
from testbed.model.calico import BGPConfigurationSpec

_TEMPLATES = ("aggr", "ipam")
_ALWAYS_IGNORED = ("cali*", "kube-ipvs*")
_DIRECTIONS: tuple[Direction, ...] = ("import", "export")


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds between attempts to reach a peer; the defaults are Calico's."""

    connect_delay: int = 2
    connect_retry: int = 5
    error_wait_first: int = 5
    error_wait_last: int = 30


def bird(environment: Environment, cluster: BgpCluster, node: str, timers: Timers = Timers()) -> dict[str, str]:
    """The files of one node: name → text.

    They are bird.cfg, bird_aggr.cfg, bird_ipam.cfg where the node has an IPv4 address, and bird6.cfg, bird6_aggr.cfg,
    bird6_ipam.cfg where it has an IPv6 one.

    Args:
        environment: holds the templates bird/*.j2 (`testbed.render.environment()`).
        cluster: all that the configuration depends on.
        node: whose files are wanted. Raises KeyError when the cluster has no such node.
        timers: shorter ones bring a lab's sessions up sooner.

    Raises InputError when something of the cluster's resources is wrong or not supported.
    """
    if found := problems(cluster):
        raise InputError(found)
    local = cluster.node(node)
    files: dict[str, str] = {}
    for family in FAMILIES:
        if local.address(family):
            context = _context(cluster, local, family, timers)
            prefix = context["prefix"]
            files[f"{prefix}.cfg"] = environment.get_template("bird/bird.cfg.j2").render(context)
            for part in _TEMPLATES:
                files[f"{prefix}_{part}.cfg"] = environment.get_template(f"bird/bird_{part}.cfg.j2").render(context)
    return files


@dataclass(frozen=True, slots=True)
class _Block:
    prefix: str

    @property
    def is_single(self) -> bool:
        """A block of one address: its pod's own route takes the place of a blackhole."""
        return ip_network(self.prefix).num_addresses == 1


@dataclass(frozen=True, slots=True)
class _Pools:
    """Prefixes of pools, sorted as text."""

    hidden: tuple[str, ...]
    exported: tuple[str, ...]
    in_kernel: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Debug:
    """What BIRD logs of itself and of its peers; empty for nothing."""

    daemon: str
    peers: str


def _context(cluster: BgpCluster, node: BgpNode, family: Family, timers: Timers) -> dict[str, Any]:
    defaults = cluster.defaults
    found = tuple(session for session in sessions(cluster, node.name) if session.family == family)
    functions = _functions(cluster, family)
    return {
        "family": "IPv4" if family == 4 else "IPv6",
        "prefix": "bird" if family == 4 else "bird6",
        "node": node,
        "router_id": _router_id(cluster, node),
        "listen": _listen(cluster, node, family),
        "interfaces": _interfaces(defaults),
        "debug": _debug(cluster, node),
        "communities": _communities(cluster, node, family),
        "local_asn": cluster.as_number(node),
        "timers": timers,
        "functions": [function for pair in functions.values() for function in pair.values()],
        "calls": _caller(functions),
        "sessions": found,
        "blocks": [_Block(prefix) for prefix in _of_family(cluster.blocks.get(node.name, ()), family)],
        "gateways": sorted(
            {(f"{s.peer}/{32 if family == 4 else 128}", s.reachable_by) for s in found if s.reachable_by}
        ),
        "services": service_routes(cluster, node, family),
        "pools": _pools(cluster, family),
        "tunnels": _tunnels(defaults),
        "priority": defaults.ipv4_normal_route_priority if family == 4 else defaults.ipv6_normal_route_priority,
        "max_metric": MAX_METRIC,
    }


def _router_id(cluster: BgpCluster, node: BgpNode) -> str:
    """Also BIRD for IPv6 has an IPv4 address for a name (RFC 6286)."""
    if cluster.router_id == "hash":
        return str(IPv4Address(hashlib.sha256(node.name.encode()).digest()[:4]))
    return cluster.router_id or node.ipv4


def _listen(cluster: BgpCluster, node: BgpNode, family: Family) -> str:
    address = node.address(family) if cluster.defaults.bind_mode == "NodeIP" else ""
    port = cluster.listen_port(node.name)
    return " ".join([*([f"address {address}"] if address else []), *([f"port {port}"] if port else [])])


def _interfaces(defaults: BGPConfigurationSpec) -> str:
    ignored = ", ".join(f'-"{pattern}"' for pattern in (*defaults.ignored_interfaces, *_ALWAYS_IGNORED))
    return f'{ignored}, "*"'


def _debug(cluster: BgpCluster, node: BgpNode) -> _Debug:
    own = cluster.for_node(node.name)
    is_own = own is not None and "log_severity_screen" in own.model_fields_set
    level = own.log_severity_screen if own and is_own else cluster.defaults.log_severity_screen
    if level == "Debug":
        return _Debug("all", "all")
    if level == "Info":
        return _Debug("{ states }", "{ states, routes, filters, events }")
    return _Debug("", "")


def _communities(cluster: BgpCluster, node: BgpNode, family: Family) -> list[tuple[str, list[str]]]:
    """Prefix → the statements that add its communities; the node's own configuration goes before the default one."""
    own = cluster.for_node(node.name)
    spec = own if own and own.prefix_advertisements else cluster.defaults
    values = {named.name: named.value for named in spec.communities}
    found: list[tuple[str, list[str]]] = []
    for advertisement in spec.prefix_advertisements:
        if _is_of_family(advertisement.cidr, family):
            chosen = dict.fromkeys(values.get(name, name) for name in advertisement.communities)
            added = [community(value) for value in chosen]
            found.append((advertisement.cidr, [f"{attribute}.add({value});" for attribute, value in added]))
    return found


def _functions(cluster: BgpCluster, family: Family) -> dict[str, dict[Direction, FilterFunction]]:
    """Name of a BGPFilter → its functions of this family, of every filter of the cluster."""
    found: dict[str, dict[Direction, FilterFunction]] = {}
    for bgp_filter in sorted(cluster.filters, key=lambda bgp_filter: bgp_filter.name):
        for direction in _DIRECTIONS:
            if function := filter_function(bgp_filter, direction, family):
                found.setdefault(bgp_filter.name, {})[direction] = function
    return found


def _caller(functions: dict[str, dict[Direction, FilterFunction]]) -> Callable[[BirdSession, Direction], list[str]]:
    """For the template: the statements that call a session's filters, in order."""

    def calls(session: BirdSession, direction: Direction) -> list[str]:
        found = [functions.get(name, {}).get(direction) for name in session.filters]
        return [function.call(session.internal) for function in found if function]

    return calls


def _pools(cluster: BgpCluster, family: Family) -> _Pools:
    """The kernel's filter of IPv6 has no line for a pool that it accepts: it accepts all that it does not reject."""
    pools = [pool for pool in cluster.pools if pool.spec.network.version == family]
    hidden = sorted(pool.spec.cidr for pool in pools if pool.spec.disable_bgp_export)
    every = sorted(pool.spec.cidr for pool in pools)
    exported = [cidr for cidr in every if cidr not in hidden]
    return _Pools(tuple(hidden), tuple(exported), tuple(every) if family == 4 else ())


def _tunnels(defaults: BGPConfigurationSpec) -> str:
    """Routes by these interfaces are another node's to tell of; BIRD's own IPIP routes are only with Enabled."""
    patterns = ["*.cali", "*.calico"] + ([] if defaults.program_cluster_routes == "Enabled" else ["tunl0"])
    return " || ".join(f'(ifname ~ "{pattern}")' for pattern in patterns)


def _of_family(prefixes: Iterable[str], family: Family) -> list[str]:
    return [prefix for prefix in prefixes if _is_of_family(prefix, family)]


def _is_of_family(prefix: str, family: Family) -> bool:
    return (":" in prefix) == (family == 6)
