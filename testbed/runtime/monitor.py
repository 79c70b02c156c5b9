"""Watches the kernel's routing tables: every route that comes or goes is an event (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct

from testbed.runtime.base import Sockets

RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE = 0x40, 0x400
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
RTA_DST, RTA_MULTIPATH, RTA_TABLE, RTN_UNICAST = 1, 9, 15, 1
LENGTHS = {socket.AF_INET: 4, socket.AF_INET6: 16}
SO_RCVBUFFORCE = 33  # socket(7); Python does not name it
BUFFER = 4 << 20


class RouteMonitor:
    """The unicast prefixes of one routing table, each with the number of its next hops, kept current by events.

    Args:
        vrf: the routing instance in whose network namespace the table is.
    """

    def __init__(self, sockets: Sockets, node: str, vrf: str | None, table: int) -> None:
        self._table = table
        self.prefixes: dict[str, int] = {}
        self._channel = sockets.socket(node, vrf, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._channel.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._channel.bind((0, RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE))
        self._channel.setblocking(False)
        self._ask()

    def _ask(self) -> None:
        """Request all that is there already; the answers come like events."""
        body = struct.pack("=BBBBBBBBI", socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
        header = struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        self._channel.send(header + body)

    def fileno(self) -> int:
        return self._channel.fileno()

    def close(self) -> None:
        self._channel.close()

    def read(self) -> bool:
        """Take in the events that have come; returns whether there were any."""
        news = False
        while True:
            try:
                data = self._channel.recv(1 << 18)
            except BlockingIOError:
                return news
            except OSError:  # ENOBUFS: events were lost, so ask for everything again
                self.prefixes.clear()
                self._ask()
                continue
            self._take(data)
            news = True

    def _take(self, data: bytes) -> None:
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if length < 16:
                return
            if kind in (RTM_NEWROUTE, RTM_DELROUTE):
                self._take_route(kind, data[offset + 16 : offset + length])
            offset += (length + 3) & ~3

    def _take_route(self, kind: int, body: bytes) -> None:
        family, bits, _, _, table, _, _, route_type = struct.unpack_from("=BBBBBBBB", body)
        if route_type != RTN_UNICAST or family not in LENGTHS:
            return
        address, next_hops = bytes(LENGTHS[family]), 1
        offset = 12
        while offset + 4 <= len(body):
            size, attribute = struct.unpack_from("=HH", body, offset)
            if size < 4:
                break
            if attribute == RTA_DST:
                address = body[offset + 4 : offset + size]
            elif attribute == RTA_MULTIPATH:
                next_hops = _next_hops(body[offset + 4 : offset + size])
            elif attribute == RTA_TABLE:  # the header has room for small numbers only
                table = struct.unpack_from("=I", body, offset + 4)[0]
            offset += (size + 3) & ~3
        if table != self._table:
            return
        prefix = f"{socket.inet_ntop(family, address)}/{bits}"
        if kind == RTM_NEWROUTE:
            self.prefixes[prefix] = next_hops
        else:
            self.prefixes.pop(prefix, None)


def _next_hops(attribute: bytes) -> int:
    """How many next hops RTA_MULTIPATH lists (struct rtnexthop: its length comes first)."""
    found = offset = 0
    while offset + 8 <= len(attribute):
        size = struct.unpack_from("=H", attribute, offset)[0]
        if size < 8:
            break
        found += 1
        offset += (size + 3) & ~3
    return found
