"""Asks the kernel how a node's interfaces are (SIOCGIFFLAGS, netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import Literal

from testbed.plan import Interface, Node
from testbed.runtime.base import Sockets

SIOCGIFFLAGS = 0x8913
IFF_UP, IFF_RUNNING = 0x1, 0x40

LinkState = Literal["up", "down", "no carrier", "missing"]


def link_states(sockets: Sockets, node: Node) -> list[tuple[Interface, LinkState]]:
    """The planned interfaces of a node with how each is now; `no carrier`: it is up, and what it leads to is not.

    Raises:
        NoSuchNodeError: the node does not run.
    """
    found = []
    for vrf in (None, *node.vrfs):
        own = [entry for entry in node.interfaces if entry.vrf == vrf]
        if own:
            found += _states(sockets, node.name, vrf, own)
    return found


def _states(
    sockets: Sockets, node: str, vrf: str | None, interfaces: Sequence[Interface]
) -> list[tuple[Interface, LinkState]]:
    with sockets.socket(node, vrf, socket.AF_INET, socket.SOCK_DGRAM) as control:
        return [(entry, _state(control, entry.name)) for entry in interfaces]


def _state(control: socket.socket, name: str) -> LinkState:
    request = struct.pack("16sH22x", name.encode(), 0)
    try:
        flags: int = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)[0]
    except OSError:  # ENODEV
        return "missing"
    if not flags & IFF_UP:
        return "down"
    return "up" if flags & IFF_RUNNING else "no carrier"
