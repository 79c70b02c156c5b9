"""Asks the kernel how a node's interfaces are (netdevice(7); Linux include/uapi/linux/ethtool.h)."""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from typing import Literal

from testbed.plan import Interface, Node
from testbed.runtime.base import Sockets

SIOCGIFFLAGS, SIOCETHTOOL = 0x8913, 0x8946
IFF_UP = 0x1
ETHTOOL_GLINK = 0x0A

LinkState = Literal["up", "down", "no carrier", "missing"]


def link_states(sockets: Sockets, node: Node) -> list[tuple[Interface, LinkState]]:
    """The planned interfaces of a node with how each is now; `no carrier`: it is up, and what it leads to is not.

    Raises:
        NoSuchNodeError: the node does not run.
    """
    by_namespace: dict[str | None, list[Interface]] = {}
    for entry in node.interfaces:
        by_namespace.setdefault(entry.vrf if entry.vrf in node.vrf_namespaces else None, []).append(entry)
    found = []
    for namespace, own in by_namespace.items():
        with sockets.socket(node.name, namespace, socket.AF_INET, socket.SOCK_DGRAM) as control:
            found += [(entry, _state(control, entry)) for entry in own]
    return found


def _state(control: socket.socket, entry: Interface) -> LinkState:
    request = struct.pack("16sH22x", entry.name.encode(), 0)
    try:
        flags: int = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        if not flags & IFF_UP:
            return "down"
        return "up" if entry.kind == "vrf" or _carrier(control, entry.name) else "no carrier"  # a VRF leads nowhere
    except OSError:  # ENODEV
        return "missing"


def _carrier(control: socket.socket, name: str) -> bool:
    """Whether the other end is up too; IFF_RUNNING tells it up to a second later (net/core/link_watch.c)."""
    value = array("I", [ETHTOOL_GLINK, 0])
    fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), value.buffer_info()[0]))
    return bool(value[1])
