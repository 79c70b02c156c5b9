"""Rtnetlink in batches: many messages in one system call, over a socket that lives in a node's namespace.

The messages are encoded by pyroute2; its sockets are not used, because they start a process per namespace.
Source: rtnetlink(7), Linux include/uapi/linux/{rtnetlink,if_link,fib_rules}.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from testbed.errors import DeployError
from testbed.plan import Route, Rule, Tunnel, TunnelPeer

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
RTM_DELLINKPROP = 109
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFF_UP = 0x1
IFA_F_NODAD = 0x02
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST = 0, 253, 254
RTPROT_STATIC = 4
ROUTE_TYPES = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
RTNH_F_ONLINK = 4
FR_ACT_TO_TBL = 1
NUD_NOARP, NUD_PERMANENT, NTF_SELF = 0x40, 0x80, 0x02
AF_BRIDGE = 7
LOCAL_TABLE = 255
CHUNK = 24 * 1024  # bytes a batch sends at once: well below the smallest default send buffer


@dataclass(frozen=True, slots=True)
class Message:
    """One encoded request, what it means in the user's words, and the errors that mean "it is so already"."""

    data: Any
    meaning: str
    accepted: tuple[int, ...] = ()


def _message(kind: type, type_: int, how: int, meaning: str, accepted: Sequence[int] = (), **fields: Any) -> Message:
    message = kind()
    message["header"]["type"] = type_
    message["header"]["flags"] = NLM_F_REQUEST | how
    for name, value in fields.items():
        message[name] = value
    return Message(message, meaning, tuple(accepted))


@dataclass(frozen=True, slots=True)
class NewEnd:
    """An end of a veth pair that is to be made; `namespace` is a descriptor."""

    name: str
    index: int
    namespace: int
    mac: str

    def attributes(self, mtu: int) -> list[tuple[str, Any]]:
        sizes = [("IFLA_MTU", mtu)] if mtu else []
        named = [("IFLA_IFNAME", self.name), ("IFLA_NET_NS_FD", self.namespace)]
        return [*named, ("IFLA_ADDRESS", self.mac), *sizes]


def new_veth(end: NewEnd, peer: NewEnd, mtu: int) -> Message:
    """A veth pair, each end created in its own namespace under its final name and index."""
    other = {"family": 0, "index": peer.index, "attrs": peer.attributes(mtu)}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", other)]})]}
    attrs = [*end.attributes(mtu), ("IFLA_LINKINFO", info)]
    what = f"create link {end.name} - {peer.name}"
    return _message(ifinfmsg, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, what, index=end.index, attrs=attrs)


def new_bridge(name: str, index: int, mac: str) -> Message:
    """A bridge whose hardware address does not change with its ports."""
    return _new_virtual("bridge", name, index, ("IFLA_ADDRESS", mac))


def new_dummy(name: str, index: int) -> Message:
    """An interface without a cable, for addresses that are the node's own."""
    return _new_virtual("dummy", name, index)


def _new_virtual(kind: str, name: str, index: int, *more: tuple[str, Any]) -> Message:
    attrs = [("IFLA_IFNAME", name), *more, ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})]
    flags = NLM_F_CREATE | NLM_F_EXCL
    return _message(ifinfmsg, RTM_NEWLINK, flags, f"create {kind} {name}", [errno.EEXIST], index=index, attrs=attrs)


def new_vrf(name: str, index: int, table: int) -> Message:
    """A VRF device (Linux Documentation/networking/vrf.rst)."""
    return _new_device("vrf", name, index, [("IFLA_VRF_TABLE", table)], [errno.EEXIST])


def new_vxlan(name: str, index: int, tunnel: Tunnel) -> Message:
    """A VXLAN device (Linux Documentation/networking/vxlan.rst); it sends to those alone that `add_peer` names."""
    data = [
        ("IFLA_VXLAN_ID", tunnel.vni),
        ("IFLA_VXLAN_LOCAL", tunnel.local),
        ("IFLA_VXLAN_PORT", tunnel.port),
        ("IFLA_VXLAN_LEARNING", 0),
    ]
    return _new_device("vxlan", name, index, data)


def _new_device(
    kind: str, name: str, index: int, data: Sequence[tuple[str, Any]], accepted: Sequence[int] = ()
) -> Message:
    info = {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": list(data)})]}
    attrs = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", info)]
    flags, what = NLM_F_CREATE | NLM_F_EXCL, f"create {kind.upper()} device {name}"
    return _message(ifinfmsg, RTM_NEWLINK, flags, what, accepted, index=index, attrs=attrs)


def add_peer(index: int, peer: TunnelPeer) -> tuple[Message, Message]:
    """What is for the next hop of a peer gets its hardware address, and what has that is sent to the peer."""
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return _neighbour(RTM_NEWNEIGH, flags, "add", index, peer), _forwarding(RTM_NEWNEIGH, flags, "add", index, peer)


def delete_peer(index: int, peer: TunnelPeer) -> tuple[Message, Message]:
    return _neighbour(RTM_DELNEIGH, 0, "delete", index, peer), _forwarding(RTM_DELNEIGH, 0, "delete", index, peer)


def _neighbour(type_: int, flags: int, verb: str, index: int, peer: TunnelPeer) -> Message:
    """An entry of the neighbour table (ip-neighbour(8)) that is never asked for."""
    return _message(
        ndmsg,
        type_,
        flags,
        f"{verb} neighbour {peer.address}",
        [] if flags else [errno.ENOENT],
        family=socket.AF_INET,
        ifindex=index,
        state=NUD_PERMANENT,
        attrs=[("NDA_DST", peer.address), ("NDA_LLADDR", peer.mac)],
    )


def _forwarding(type_: int, flags: int, verb: str, index: int, peer: TunnelPeer) -> Message:
    """An entry of a VXLAN device's forwarding database (bridge(8), "fdb")."""
    return _message(
        ndmsg,
        type_,
        flags,
        f"{verb} forwarding entry {peer.mac}",
        [] if flags else [errno.ENOENT],
        family=AF_BRIDGE,
        ifindex=index,
        state=NUD_NOARP | NUD_PERMANENT,
        flags=NTF_SELF,
        attrs=[("NDA_LLADDR", peer.mac), ("NDA_DST", peer.address)],
    )


def set_link(index: int, name: str, *, master: int = 0, mac: str = "", mtu: int = 0) -> Message:
    """Raise a link, with its bridge or VRF device, hardware address and MTU where given."""
    attrs: list[tuple[str, Any]] = []
    if master:
        attrs.append(("IFLA_MASTER", master))
    if mac:
        attrs.append(("IFLA_ADDRESS", mac))
    if mtu:
        attrs.append(("IFLA_MTU", mtu))
    return _message(ifinfmsg, RTM_NEWLINK, 0, f"raise {name}", index=index, flags=IFF_UP, change=IFF_UP, attrs=attrs)


def delete_link(index: int, name: str) -> Message:
    return _message(ifinfmsg, RTM_DELLINK, 0, f"delete link {name}", [errno.ENODEV], index=index)


def move_link(index: int, name: str, namespace: int) -> Message:
    """Move a link, which loses its addresses, is set down, and may get another index there."""
    attrs = [("IFLA_NET_NS_FD", namespace)]
    return _message(ifinfmsg, RTM_NEWLINK, 0, f"move {name}", index=index, attrs=attrs)


def delete_names(index: int, names: Sequence[str]) -> Message:
    """Take alternative names from a link (ip-link(8), "altname")."""
    attrs = [("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", name) for name in names]})]
    return _message(ifinfmsg, RTM_DELLINKPROP, 0, f"delete names {', '.join(names)}", index=index, attrs=attrs)


def _address(type_: int, flags: int, verb: str, index: int, cidr: str, accepted: Sequence[int]) -> Message:
    interface = ipaddress.ip_interface(cidr)
    text = str(interface.ip)
    attrs: list[tuple[str, Any]] = [("IFA_LOCAL", text), ("IFA_ADDRESS", text)]
    if interface.version == 4 and interface.network.prefixlen < 31:
        attrs.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    return _message(
        ifaddrmsg,
        type_,
        flags,
        f"{verb} address {cidr}",
        accepted,
        family=socket.AF_INET if interface.version == 4 else socket.AF_INET6,
        prefixlen=interface.network.prefixlen,
        flags=IFA_F_NODAD if interface.version == 6 else 0,
        index=index,
        attrs=attrs,
    )


def add_address(index: int, cidr: str) -> Message:
    """Add an address; IPv6 without duplicate address detection (RFC 4862), which would hold it back for a second."""
    return _address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "add", index, cidr, [errno.EEXIST])


def delete_address(index: int, cidr: str) -> Message:
    return _address(RTM_DELADDR, 0, "delete", index, cidr, [errno.EADDRNOTAVAIL, errno.ENODEV])


def _route(type_: int, flags: int, verb: str, route: Route, index: int, accepted: Sequence[int]) -> Message:
    network = ipaddress.ip_network(route.to)
    attrs: list[tuple[str, Any]] = [("RTA_TABLE", route.table)]
    if network.prefixlen:
        attrs.append(("RTA_DST", str(network.network_address)))
    if route.via:
        attrs.append(("RTA_GATEWAY", route.via))
    if index:
        attrs.append(("RTA_OIF", index))
    if route.metric:
        attrs.append(("RTA_PRIORITY", route.metric))
    if route.source:
        attrs.append(("RTA_PREFSRC", route.source))
    link_scope = network.version == 4 and not route.via and route.kind == "unicast"
    return _message(
        rtmsg,
        type_,
        flags,
        f"{verb} route {route.to}"
        + (f" via {route.via}" if route.via else "")
        + (f" dev {route.dev}" if route.dev else ""),
        accepted,
        family=socket.AF_INET if network.version == 4 else socket.AF_INET6,
        dst_len=network.prefixlen,
        table=route.table if route.table < 256 else 252,
        proto=RTPROT_STATIC,
        scope=RT_SCOPE_LINK if link_scope else RT_SCOPE_UNIVERSE,
        type=ROUTE_TYPES[route.kind],
        flags=RTNH_F_ONLINK if route.onlink else 0,
        attrs=attrs,
    )


def add_route(route: Route, index: int) -> Message:
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, "add", route, index, [])


def delete_route(route: Route, index: int) -> Message:
    return _route(RTM_DELROUTE, 0, "delete", route, index, [errno.ESRCH, errno.ENODEV])


def _rule(type_: int, flags: int, verb: str, rule: Rule, accepted: Sequence[int]) -> Message:
    attrs: list[tuple[str, Any]] = [("FRA_TABLE", rule.table), ("FRA_PRIORITY", rule.priority)]
    lengths = {}
    for key, attribute, prefix in (("src_len", "FRA_SRC", rule.source), ("dst_len", "FRA_DST", rule.destination)):
        if prefix:
            network = ipaddress.ip_network(prefix)
            lengths[key] = network.prefixlen
            attrs.append((attribute, str(network.network_address)))
    if rule.fwmark:
        attrs += [("FRA_FWMARK", rule.fwmark), ("FRA_FWMASK", rule.fwmask or 0xFFFFFFFF)]
    if rule.iif:
        attrs.append(("FRA_IIFNAME", rule.iif))
    return _message(
        fibmsg,
        type_,
        flags,
        f"{verb} rule {rule.priority}",
        accepted,
        family=socket.AF_INET if rule.family == 4 else socket.AF_INET6,
        table=rule.table if rule.table < 256 else 252,
        action=FR_ACT_TO_TBL,
        attrs=attrs,
        **lengths,
    )


def add_rule(rule: Rule) -> Message:
    return _rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, "add", rule, [errno.EEXIST])


def first_local_rules(*, wanted: bool) -> list[Message]:
    """Add or delete the rules that every namespace begins with: the local table before all others."""
    rules = [Rule(0, LOCAL_TABLE, family) for family in (4, 6)]
    return [add_rule(rule) if wanted else delete_rule(rule) for rule in rules]


def delete_rule(rule: Rule) -> Message:
    return _rule(RTM_DELRULE, 0, "delete", rule, [errno.ENOENT])


class Netlink:
    """A route netlink socket in some namespace.

    Args:
        channel: an AF_NETLINK socket opened in that namespace.
        where: the namespace in the user's words, for errors.
    """

    def __init__(self, channel: socket.socket, where: str) -> None:
        self._socket = channel
        self._where = where
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def apply(self, messages: Iterable[Message]) -> None:
        """Carry out all messages, in order, in as few system calls as possible.

        Raises:
            DeployError: naming each message the kernel refused; the others were carried out.
        """
        chunk: list[tuple[bytes, Message]] = []
        size = 0
        errors: list[str] = []
        for message in messages:
            data = self._encode(message)
            if size + len(data) > CHUNK:
                errors += self._exchange(chunk)
                chunk, size = [], 0
            chunk.append((data, message))
            size += len(data)
        if chunk:
            errors += self._exchange(chunk)
        if errors:
            raise DeployError(f"{self._where}: " + "; ".join(errors))

    def _encode(self, message: Message) -> bytes:
        self._sequence += 1
        message.data["header"]["sequence_number"] = self._sequence
        message.data.reset()
        message.data.encode()
        data = bytes(message.data.data)
        return data + b"\0" * (-len(data) % 4)

    def _exchange(self, chunk: list[tuple[bytes, Message]]) -> list[str]:
        """Send a chunk, ask for an acknowledgement of its last message, collect what went wrong before that."""
        parts = [data for data, _ in chunk]
        last = bytearray(parts[-1])
        struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | NLM_F_ACK)
        self._socket.send(b"".join(parts[:-1]) + bytes(last))
        awaited: int = struct.unpack_from("=I", last, 8)[0]  # of the chunk's last message; more may be encoded already
        first = awaited - len(chunk) + 1
        errors = []
        while True:
            for sequence, code in self._acknowledgements():
                message = chunk[sequence - first][1]
                if code and code not in message.accepted:
                    errors.append(f"{message.meaning}: {os.strerror(code)}")
                if sequence == awaited:
                    return errors

    def _acknowledgements(self) -> Iterable[tuple[int, int]]:
        for type_, sequence, body in _split(self._socket.recv(1 << 20)):
            if type_ == NLMSG_ERROR:
                yield sequence, -struct.unpack_from("=i", body)[0]

    def _dump(self, kind: type, type_: int, **fields: Any) -> list[Any]:
        message = _message(kind, type_, NLM_F_DUMP, "dump", **fields)
        self._socket.send(self._encode(message))
        found: list[Any] = []
        while True:
            for answer, sequence, body in _split(self._socket.recv(1 << 20), whole=True):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body, 16)[0]
                    raise DeployError(f"{self._where}: dump: {os.strerror(code)}")
                entry = kind(body)
                entry.decode()
                found.append(entry)

    def links(self) -> dict[str, tuple[int, bool]]:
        """Interface name → (index, whether it is up)."""
        return {
            link.get_attr("IFLA_IFNAME"): (link["index"], bool(link["flags"] & IFF_UP))
            for link in self._dump(ifinfmsg, RTM_GETLINK)
        }

    def alternative_names(self) -> dict[int, list[str]]:
        """Index → alternative names, for the links that have any."""
        lists = {link["index"]: link.get_attr("IFLA_PROP_LIST") for link in self._dump(ifinfmsg, RTM_GETLINK)}
        return {index: list(names.get_attrs("IFLA_ALT_IFNAME")) for index, names in lists.items() if names}

    def addresses(self) -> set[tuple[int, str]]:
        """(interface index, address in CIDR form) of every address that is not link-local or loopback."""
        found = set()
        for entry in self._dump(ifaddrmsg, RTM_GETADDR):
            if entry["scope"] == RT_SCOPE_UNIVERSE:
                text = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
                found.add((entry["index"], f"{text}/{entry['prefixlen']}"))
        return found

    def routes(self, family: int = socket.AF_UNSPEC) -> list[Any]:
        """Every route of every table, as decoded messages."""
        return self._dump(rtmsg, RTM_GETROUTE, family=family)

    def rules(self, family: int = socket.AF_INET) -> list[Any]:
        """Every policy routing rule of a family, as decoded messages."""
        return self._dump(fibmsg, RTM_GETRULE, family=family)


def _split(data: bytes, *, whole: bool = False) -> Iterable[tuple[int, int, bytes]]:
    """Cut a datagram into (type, sequence, body); with `whole` the body begins at the message's header."""
    offset = 0
    while offset + 16 <= len(data):
        length, type_, _flags, sequence = struct.unpack_from("=IHHI", data, offset)
        if length < 16:
            return
        yield type_, sequence, data[offset + (0 if whole else 16) : offset + length]
        offset += (length + 3) & ~3
