"""Which sockets of a namespace wait at a port: the kernel's own tables (proc(5), net/tcp, net/udp)."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path as File

from testbed.trace.inquire import Inquiry
from testbed.trace.map import Place

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h


def waiting(inquiry: Inquiry, place: Place, kind: str, address: str, port: int) -> tuple[bool | None, tuple[str, ...]]:
    """(whether a socket of a kind, tcp or udp, waits at an address and port, the other addresses where one does).

    None: not known. VRFs that are devices share a namespace's tables.
    """

    def tables() -> list[str]:
        files = (File("/proc/thread-self/net", name) for name in (kind, f"{kind}6"))
        return [line for file in files if file.exists() for line in file.read_text().splitlines()]

    lines = inquiry.read(place, tables)
    if lines is None:
        return None, ()
    found = list(bound(lines, port, listening=kind == "tcp"))
    return takes(found, address), tuple(dict.fromkeys(str(entry) for entry in found))


def takes(found: Iterable[Address], address: str) -> bool:
    """Whether one of the addresses that sockets are bound to gets what is sent to an address."""
    wanted = ipaddress.ip_address(address)
    return any(
        entry == wanted or (entry.is_unspecified and (entry.version == wanted.version or entry.version == 6))
        for entry in found
    )


def bound(lines: Iterable[str], port: int, *, listening: bool) -> Iterator[Address]:
    """The local addresses of the sockets that have a port; those that do not listen are left out where they should."""
    for line in lines:
        fields = line.split()
        if len(fields) < 4 or not fields[0].endswith(":") or (listening and fields[3] != LISTEN):
            continue
        address, _, number = fields[1].partition(":")
        if int(number, 16) == port:
            yield decoded(address)


def decoded(text: str) -> Address:
    """An address as these tables write it: words of 32 bits, each in the byte order of the machine."""
    data = bytes.fromhex(text)
    words = [data[start : start + 4] for start in range(0, len(data), 4)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    found = ipaddress.ip_address(packed)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
