"""What every kind of node sets in its network namespaces.

A new namespace takes IPv4 settings over from the host's (Documentation/networking/ip-sysctl.rst,
devconf_inherit_init_net), so what a lab depends on is stated, also where it is the kernel's default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Sysctls = tuple[tuple[str, str], ...]

COMMON: Sysctls = (
    # Linux sends few ICMP errors to one host (icmp(7)); in a lab many probes share one source.
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    # No strict or loose source check: with several VRFs a request may come in where no route leads back.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    # Addresses are the Plan's; looking for duplicates of them would cost a second (RFC 4862).
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
)

END_SYSTEM: Sysctls = (
    *COMMON,
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
)

ROUTER: Sysctls = (
    *COMMON,
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    # Equal-cost paths are chosen per flow (addresses and ports), as switches do.
    ("net/ipv4/fib_multipath_hash_policy", "1"),
    ("net/ipv6/fib_multipath_hash_policy", "1"),
)


def stated(settings: Mapping[str, str | int]) -> Iterator[tuple[str, str]]:
    """Sysctls from the lab file, with slashes."""
    for key, value in settings.items():
        yield key.replace(".", "/"), str(value)
