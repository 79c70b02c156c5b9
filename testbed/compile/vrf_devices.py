"""VRFs as devices: what a node needs beside its links (Linux Documentation/networking/vrf.rst).

A namespace per VRF keeps all apart by itself. Devices share one namespace, so what must not be shared is stated: which
table comes first, where a look-up ends, whom a socket hears, and which connections are whose.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from testbed.compile import nft
from testbed.plan import LAST_METRIC, Interface, Route, Rule, Ruleset

FIRST_TABLE, TABLES = 10_000, 50_000  # a table's number is its connections' zone, too, which has 16 bits
LOCAL_TABLE = 255
# The kernel's rule for VRFs has priority 1000. The local table, at 0 in every namespace, must come after it: else a
# packet of a VRF that is for an address of the default instance would be delivered there.
LOCAL_RULES = tuple(Rule(32765, LOCAL_TABLE, family) for family in (4, 6))

SYSCTLS = (
    # A socket of the default instance hears nothing of a VRF: each routing instance has sockets of its own.
    ("net/ipv4/tcp_l3mdev_accept", "0"),
    ("net/ipv4/udp_l3mdev_accept", "0"),
    ("net/ipv4/raw_l3mdev_accept", "0"),
)


def tables(vrfs: Iterable[str]) -> dict[str, int]:
    """A routing table for each VRF of a lab.

    The number depends on the name, not on which other VRFs there are: to take one away must not move the others.
    (Unless two names meet in one number; then the second takes the next.)
    """
    found: dict[str, int] = {}
    for vrf in vrfs:
        number = zlib.crc32(vrf.encode()) % TABLES
        while FIRST_TABLE + number in found.values():
            number = (number + 1) % TABLES
        found[vrf] = FIRST_TABLE + number
    return found


def devices(vrfs: Sequence[str], numbers: Mapping[str, int]) -> Iterator[Interface]:
    """The devices of a node's VRFs; none where VRFs are namespaces."""
    for vrf in vrfs if numbers else ():
        yield Interface(vrf, "vrf", vrf, table=numbers[vrf])


def last_routes(vrfs: Sequence[str], numbers: Mapping[str, int]) -> Iterator[Route]:
    """The ends of the VRFs' tables: what a VRF has no route for must not be looked up in the default instance's."""
    for vrf in vrfs if numbers else ():
        for anywhere in ("0.0.0.0/0", "::/0"):
            yield Route(anywhere, table=numbers[vrf], vrf=vrf, kind="unreachable", metric=LAST_METRIC)


def zones(
    interfaces: Iterable[Interface], numbers: Mapping[str, int], joined: Iterable[tuple[str, str]] = ()
) -> Ruleset | None:
    """Connection tracking by VRF: the same addresses and ports in two VRFs are two connections.

    Args:
        interfaces: of the node. A zone (nft(8), `ct zone`) is told before connections are looked up, on the way in by
            the interface a packet comes in by, on the way out, for what the node sends itself, by the one it leaves by.
        joined: pairs of VRFs that packets cross between: they have one zone, for a connection comes in by one and its
            answers by the other.
    """
    zone = dict(numbers)
    for one, other in joined:
        zone = {vrf: zone[one] if number == zone[other] else number for vrf, number in zone.items()}
    by_vrf: dict[str, list[str]] = {}
    for entry in interfaces:
        if entry.vrf and entry.vrf in numbers:
            by_vrf.setdefault(entry.vrf, []).append(entry.name)
    if not by_vrf:
        return None
    chains = []
    for hook, key in (("prerouting", "iifname"), ("output", "oifname")):
        quoted = {vrf: ", ".join(f'"{name}"' for name in names) for vrf, names in by_vrf.items()}
        rules = [f"{key} {{ {names} }} ct zone set {zone[vrf]}" for vrf, names in quoted.items()]
        chains.append(nft.chain(hook, f"type filter hook {hook} priority raw; policy accept;", rules))
    return nft.table("ip", "testbed-vrf-zones", chains)
