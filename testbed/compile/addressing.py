"""Addresses that the lab file does not state: subnets from pools in the order of its links, ends in theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from itertools import islice

from testbed.model.lab import Link, Pool

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

POINT_TO_POINT = {4: 31, 6: 127}  # RFC 3021, RFC 6164


def family(version: int) -> str:
    """The field of the lab file that a family's addresses stand in."""
    return f"ipv{version}"


def prefixes(pool: Pool) -> tuple[Network, ...]:
    """The prefixes of a pool, IPv4 first."""
    return tuple(ip_network(text) for text in (pool.ipv4, pool.ipv6) if text)


class SubnetPool:
    """Hands out point-to-point subnets in order, leaving out what is taken.

    Args:
        network: they are taken from.
        taken: prefixes, of any family, that no subnet may overlap.
    """

    def __init__(self, network: Network, taken: Sequence[Network]) -> None:
        self.network = network
        self._taken = [other for other in taken if other.version == network.version]
        self._length = POINT_TO_POINT[network.version]
        self._size = 1 << (network.max_prefixlen - self._length)
        self._next = int(network.network_address)

    def take(self) -> Network | None:
        """The next subnet; None when there is none left."""
        while self._next + self._size - 1 <= int(self.network.broadcast_address):
            subnet = type(self.network)((self._next, self._length))
            obstacle = next((other for other in self._taken if subnet.overlaps(other)), None)
            if obstacle is None:
                self._next += self._size
                return subnet
            behind = int(obstacle.broadcast_address) + 1
            self._next = -(-behind // self._size) * self._size
        return None


def link_subnets(link: Link) -> tuple[Network, ...]:
    """The subnets a link states, IPv4 first."""
    return tuple(ip_network(text) for text in (link.ipv4, link.ipv6) if text)


def usable(network: Network) -> Iterator[Address]:
    """The addresses interfaces can have, in order; all of them on point-to-point subnets (RFC 3021, RFC 6164)."""
    return iter(network) if network.num_addresses <= 2 else network.hosts()


def reserved(network: Network, address: Address) -> str:
    """What an address of a subnet is instead of an interface's: its network or broadcast address; empty if neither.

    An IPv6 subnet has no broadcast address, and its first is that of any of its routers (RFC 4291, section 2.6.1).
    """
    if network.num_addresses <= 2:
        return ""
    if address == network.network_address:
        return "the network's own address" if network.version == 4 else "the anycast address of the subnet's routers"
    return "the broadcast address" if network.version == 4 and address == network.broadcast_address else ""


def end_address(link: Link, network: Network, index: int) -> Interface | None:
    """The address of an end of a link in one of its subnets: the stated one, else the next that is free.

    None when the subnet has no address left.
    """
    stated = [getattr(end, family(network.version)) for end in link.ends]
    if stated[index]:
        return ip_interface(f"{stated[index]}/{network.prefixlen}")
    place = sum(1 for other in stated[:index] if not other)
    free = (address for address in usable(network) if str(address) not in stated)
    address = next(islice(free, place, None), None)
    return None if address is None else ip_interface(f"{address}/{network.prefixlen}")


def loopback(network: Network, index: int) -> Interface | None:
    """The loopback address of the router of that number, counted from 0; None when the pool has none left."""
    if index + 1 >= network.num_addresses:
        return None
    return ip_interface(f"{network[index + 1]}/{network.max_prefixlen}")
