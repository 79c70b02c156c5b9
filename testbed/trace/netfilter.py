"""What netfilter of a namespace says of a flow, over a netlink socket in it: connections, and rules as they decide.

Sources: linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h, nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from testbed.bpf import VXLAN_PORTS
from testbed.errors import CommandError, DeployError, TestbedError
from testbed.plan import Protocol
from testbed.runtime.base import Runtime
from testbed.trace.forms import WINDOW
from testbed.trace.map import Place
from testbed.trace.packet import Ends
from testbed.trace.rules import IPTABLES, Connection, RuleEvent

NETLINK_NETFILTER, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE = 12, 270, 1, 9
NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET = 1, 1
NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE = 10, 17
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER = 16 + 4  # nlmsghdr and nfgenmsg
SIZE = 1 << 16

# enum nft_trace_attributes, enum nft_trace_types, enum nft_verdicts and netfilter's own verdicts.
TABLE, CHAIN, HANDLE, TYPE, VERDICT, ID, NETWORK, MARK, POLICY = 1, 2, 3, 4, 5, 6, 8, 14, 16
TYPES = {1: "policy", 2: "return", 3: "rule"}
VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -2: "break", -3: "jump", -4: "goto"}
VERDICTS[-5] = "return"
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # NFPROTO_… in linux/netfilter.h
WATCH = "testbed-trace"
"""The table that is put into a namespace for as long as its rules are watched."""
QUESTIONS = ("meta protocol arp", "icmpv6 type nd-neighbor-solicit")
"""What matches a question who has an address."""
OUTER = (f"udp dport {{ {', '.join(map(str, VXLAN_PORTS))} }}", "ip protocol ipip")
"""What matches the packets of a tunnel."""


def connections(runtime: Runtime, node: str, vrf: str | None, version: int) -> list[Connection]:
    """The connections that a namespace keeps track of. Raises DeployError when the kernel does not tell."""
    from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg  # takes 0.15 s to import

    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
    request = struct.pack("=IHHIIBBH", HEADER, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, family, 0, 0)
    found = []
    with runtime.socket(node, vrf, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.send(request)
        for type_, data in _messages(sock):
            if type_ == NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, 16)[0]
                raise DeployError(f"{node}: its connections cannot be read: {os.strerror(number)}")
            message = nfct_msg(data)
            message.decode()
            if (connection := _connection(message)) is not None:
                found.append(connection)
    return found


def _messages(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The messages of a dump, up to its end or an error."""
    while True:
        data = sock.recv(SIZE)
        while len(data) >= 16:
            length, type_ = struct.unpack_from("=IH", data)
            if type_ == NLMSG_DONE:
                return
            yield type_, data[:length]
            if type_ == NLMSG_ERROR:
                return
            data = data[(length + 3) & ~3 :]


def _connection(message: Any) -> Connection | None:
    orig, reply = message.get_attr("CTA_TUPLE_ORIG"), message.get_attr("CTA_TUPLE_REPLY")
    if orig is None or reply is None:
        return None
    protocol = orig.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_NUM")
    return Connection(protocol, _ends(orig), _ends(reply), message.get_attr("CTA_MARK") or 0)


def _ends(tuple_: Any) -> Ends:
    addresses, protocol = tuple_.get_attr("CTA_TUPLE_IP"), tuple_.get_attr("CTA_TUPLE_PROTO")
    source = addresses.get_attr("CTA_IP_V4_SRC") or addresses.get_attr("CTA_IP_V6_SRC")
    destination = addresses.get_attr("CTA_IP_V4_DST") or addresses.get_attr("CTA_IP_V6_DST")
    identifier = protocol.get_attr("CTA_PROTO_ICMP_ID") or protocol.get_attr("CTA_PROTO_ICMPV6_ID") or 0
    ports = protocol.get_attr("CTA_PROTO_SRC_PORT") or identifier, protocol.get_attr("CTA_PROTO_DST_PORT") or 0
    return Ends(source, destination, *ports)


@contextmanager
def watched_rules(
    runtime: Runtime, node: str, vrf: str | None, matches: Sequence[str], device: str = ""
) -> Iterator[list[RuleEvent]]:
    """Have the rules of a namespace say what they decide about packets, for the length of the block.

    Yields a list that is filled in at its end. A table of its own marks the packets for tracing, at the hooks where
    packets come in; it decides nothing, and is taken away again.

    Args:
        matches: any of which the packets are known by, as nft(8) writes them.
        device: the interface that they come in by; then the rules of the device and of its bridge tell, too.

    Raises:
        CommandError, UnsupportedError: nft in the node cannot do it.
    """
    events: list[RuleEvent] = []
    with runtime.socket(node, vrf, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
        with ExitStack() as tables:
            hooks = {"prerouting": " priority -350", "output": " priority -350"}
            _put(tables, runtime, (node, vrf), "inet", hooks, [rule for rule in matches if rule not in QUESTIONS])
            with suppress(CommandError):  # a kernel without CONFIG_NETFILTER_INGRESS has no such rules either
                at_device = {"ingress": f' device "{device}" priority -500'} if device else {}
                _put(tables, runtime, (node, vrf), "netdev", at_device, matches)
            yield events
            sock.setblocking(False)
            events += _events(sock)


def _put(
    tables: ExitStack,
    runtime: Runtime,
    place: Place,
    family: str,
    hooks: Mapping[str, str],
    matches: Sequence[str],
) -> None:
    """Put a table that marks packets at these hooks into a place, until `tables` ends."""
    if not hooks or not matches:
        return
    rules = "\n".join(f"    {match} meta nftrace set 1" for match in matches)
    chains = "\n".join(
        f"  chain {hook} {{\n    type filter hook {hook}{where}; policy accept;\n{rules}\n  }}"
        for hook, where in hooks.items()
    )
    name = f"table {family} {WATCH}"
    runtime.run(*place, ("nft", "-f", "-"), f"{name} {{}}\ndelete {name}\n{name} {{\n{chains}\n}}\n")
    tables.callback(runtime.run, *place, ("nft", "delete", "table", family, WATCH))


def matches_of(protocol: Protocol, mark: int) -> tuple[str, ...]:
    """What matches the packets of a flow, as nft(8) writes it; `mark` is at most 2^32 - 1 - WINDOW."""
    match protocol:
        case "icmp":
            return ("meta l4proto { icmp, icmpv6 }",)
        case "udp" | "dns":
            return ("meta l4proto udp",)
        case _:
            return f"tcp sequence {mark}-{mark + WINDOW}", f"tcp ackseq {mark}-{mark + WINDOW}"


def _events(sock: socket.socket) -> Iterator[RuleEvent]:
    while True:
        try:
            data = sock.recv(SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # more was said than fits: what was read so far still holds
                return
            raise
        while len(data) >= HEADER:
            length, type_ = struct.unpack_from("=IH", data)
            if type_ == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE:
                yield _event(_attributes(data[HEADER:length]), FAMILIES.get(data[16], ""))
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, type_ = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[type_ & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _event(found: dict[int, bytes], family: str) -> RuleEvent:
    verdict = _attributes(found.get(VERDICT, b""))
    code = int.from_bytes(verdict.get(1, b"\xff\xff\xff\xff"), "big", signed=True)
    if POLICY in found:
        code = int.from_bytes(found[POLICY], "big", signed=True)
    return RuleEvent(
        table=_text(found.get(TABLE, b"")),
        chain=_text(found.get(CHAIN, b"")),
        handle=int.from_bytes(found.get(HANDLE, b""), "big"),
        kind=TYPES.get(int.from_bytes(found.get(TYPE, b""), "big"), ""),
        verdict=VERDICTS.get(code, str(code)),
        mark=int.from_bytes(found.get(MARK, b""), "big"),
        family=family,
        packet=int.from_bytes(found.get(ID, b""), "big"),
        ends=_addresses(found.get(NETWORK, b"")),
    )


def _addresses(header: bytes) -> tuple[str, ...]:
    """Source and destination in the header of an IP packet; none where it is of another protocol, or not there."""
    if len(header) >= 20 and header[0] >> 4 == 4:
        return str(IPv4Address(header[12:16])), str(IPv4Address(header[16:20]))
    if len(header) >= 40 and header[0] >> 4 == 6:
        return str(IPv6Address(header[8:24])), str(IPv6Address(header[24:40]))
    return ()


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def rule_text(runtime: Runtime, node: str, vrf: str | None, event: RuleEvent) -> str:
    """The rule that an event is about, as iptables or nft shows it, whosever it is; empty when it is gone."""
    for family in (event.family,) if event.family else ("inet", "ip", "ip6"):
        try:
            listing = runtime.run(node, vrf, ("nft", "-a", "list", "chain", family, event.table, event.chain))
        except TestbedError:
            continue
        rules = [line.strip().rpartition(" # handle ") for line in listing.splitlines()[1:] if " # handle " in line]
        rules = [rule for rule in rules if not rule[0].startswith(("chain ", "type "))]
        for index, (text, _, handle) in enumerate(rules):
            if handle == str(event.handle):
                return _by_iptables(runtime, node, vrf, family, event, index) or text
    return ""


def _by_iptables(runtime: Runtime, node: str, vrf: str | None, family: str, event: RuleEvent, index: int) -> str:
    """A rule in the words of iptables, of which nft does not have all (comments); empty when it is nft's own."""
    if family not in ("ip", "ip6") or event.table not in IPTABLES:
        return ""
    command = "iptables" if family == "ip" else "ip6tables"
    try:
        listing = runtime.run(node, vrf, (command, "-t", event.table, "-S", event.chain))
    except TestbedError:
        return ""
    rules = [line for line in listing.splitlines() if line.startswith("-A ")]
    return rules[index] if index < len(rules) else ""
