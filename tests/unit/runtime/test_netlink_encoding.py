"""Netlink messages as bytes, decoded again; and the kernel's answers, by a socket that is none."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from testbed.errors import DeployError
from testbed.plan import MAIN_TABLE, Route, Rule, Tunnel, TunnelPeer
from testbed.runtime import netlink
from testbed.runtime.netlink import Message, Netlink

REQUEST, ACK, CREATE, EXCL, REPLACE = 0x1, 0x4, 0x400, 0x200, 0x100


def decoded(message: Message, kind: Any) -> Any:
    message.data.reset()
    message.data.encode()
    found = kind(bytes(message.data.data))
    found.decode()
    return found


def attributes(found: Any) -> dict[str, Any]:
    return {name: value for name, value in found["attrs"]}  # noqa: C416 - entries are no tuples


# --- links ------------------------------------------------------------------------------------------------------------


def end(name: str, index: int, namespace: int) -> netlink.NewEnd:
    return netlink.NewEnd(name, index, namespace, f"02:00:00:00:00:{index:02x}")


def test_a_veth_has_both_ends_in_their_namespaces_at_once() -> None:
    found = decoded(netlink.new_veth(end("eth0", 2, 11), end("eth1", 3, 12), 1400), ifinfmsg)
    assert found["header"]["flags"] == REQUEST | CREATE | EXCL
    assert found["index"] == 2
    own = attributes(found)
    assert (own["IFLA_IFNAME"], own["IFLA_NET_NS_FD"], own["IFLA_MTU"]) == ("eth0", 11, 1400)
    info = attributes(own["IFLA_LINKINFO"])
    assert info["IFLA_INFO_KIND"] == "veth"
    peer = attributes(info["IFLA_INFO_DATA"])["VETH_INFO_PEER"]
    assert peer["index"] == 3
    assert attributes(peer)["IFLA_IFNAME"] == "eth1"
    assert attributes(peer)["IFLA_NET_NS_FD"] == 12
    assert (own["IFLA_ADDRESS"], attributes(peer)["IFLA_ADDRESS"]) == ("02:00:00:00:00:02", "02:00:00:00:00:03")
    assert attributes(peer)["IFLA_MTU"] == 1400


def test_without_an_mtu_the_kernel_chooses() -> None:
    assert "IFLA_MTU" not in attributes(decoded(netlink.new_veth(end("a", 2, 11), end("b", 3, 12), 0), ifinfmsg))


def test_a_dummy() -> None:
    message = netlink.new_dummy("kube-ipvs0", 7)
    found = decoded(message, ifinfmsg)
    assert found["header"]["flags"] == REQUEST | CREATE | EXCL
    assert found["index"] == 7
    assert attributes(found)["IFLA_IFNAME"] == "kube-ipvs0"
    assert attributes(attributes(found)["IFLA_LINKINFO"])["IFLA_INFO_KIND"] == "dummy"
    assert message.accepted == (errno.EEXIST,)


def test_a_bridge() -> None:
    message = netlink.new_bridge("br0", 7, "02:00:00:00:00:07")
    found = decoded(message, ifinfmsg)
    assert (found["index"], attributes(found)["IFLA_IFNAME"]) == (7, "br0")
    assert attributes(attributes(found)["IFLA_LINKINFO"])["IFLA_INFO_KIND"] == "bridge"
    assert attributes(found)["IFLA_ADDRESS"] == "02:00:00:00:00:07"
    assert message.accepted == (errno.EEXIST,)


def test_raising_a_link() -> None:
    found = decoded(netlink.set_link(4, "eth0", master=7, mac="ee:ee:ee:ee:ee:ee", mtu=9000), ifinfmsg)
    assert (found["index"], found["flags"] & 1, found["change"]) == (4, 1, 1)
    assert attributes(found) == {"IFLA_MASTER": 7, "IFLA_ADDRESS": "ee:ee:ee:ee:ee:ee", "IFLA_MTU": 9000}
    assert attributes(decoded(netlink.set_link(4, "eth0"), ifinfmsg)) == {}


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cidr", "family", "length", "expected"),
    [
        ("10.0.0.1/24", socket.AF_INET, 24, {"IFA_BROADCAST": "10.0.0.255"}),
        ("10.0.0.1/31", socket.AF_INET, 31, {}),
        ("10.0.0.1/32", socket.AF_INET, 32, {}),
        ("fd00::1/64", socket.AF_INET6, 64, {}),
        ("fd00::1/127", socket.AF_INET6, 127, {}),
    ],
)
def test_addresses(cidr: str, family: int, length: int, expected: dict[str, str]) -> None:
    text = cidr.partition("/")[0]
    found = decoded(netlink.add_address(5, cidr), ifaddrmsg)
    assert (found["family"], found["prefixlen"], found["index"]) == (family, length, 5)
    own = attributes(found)
    assert {name: own[name] for name in ("IFA_LOCAL", "IFA_ADDRESS")} == {"IFA_LOCAL": text, "IFA_ADDRESS": text}
    assert {name: value for name, value in own.items() if name == "IFA_BROADCAST"} == expected
    no_dad = 0x02
    assert found["flags"] == (no_dad if family == socket.AF_INET6 else 0)
    assert found["header"]["flags"] == REQUEST | CREATE | EXCL


def test_an_address_that_is_there_or_gone_is_no_error() -> None:
    assert errno.EEXIST in netlink.add_address(5, "10.0.0.1/24").accepted
    assert errno.EADDRNOTAVAIL in netlink.delete_address(5, "10.0.0.1/24").accepted


def test_a_vrf_device() -> None:
    found = decoded(netlink.new_vrf("red", 4, 28264), ifinfmsg)
    assert (found["index"], found["header"]["flags"]) == (4, REQUEST | CREATE | EXCL)
    own = attributes(found)
    info = attributes(own["IFLA_LINKINFO"])
    assert (own["IFLA_IFNAME"], info["IFLA_INFO_KIND"]) == ("red", "vrf")
    assert attributes(info["IFLA_INFO_DATA"]) == {"IFLA_VRF_TABLE": 28264}


def test_a_vxlan_device_that_learns_nothing() -> None:
    found = decoded(netlink.new_vxlan("tun0", 4, Tunnel(200, "10.0.0.1", 14789)), ifinfmsg)
    assert (found["index"], found["header"]["flags"]) == (4, REQUEST | CREATE | EXCL)
    own = attributes(found)
    info = attributes(own["IFLA_LINKINFO"])
    assert (own["IFLA_IFNAME"], info["IFLA_INFO_KIND"]) == ("tun0", "vxlan")
    assert attributes(info["IFLA_INFO_DATA"]) == {
        "IFLA_VXLAN_ID": 200,
        "IFLA_VXLAN_LOCAL": "10.0.0.1",
        "IFLA_VXLAN_PORT": 14789,
        "IFLA_VXLAN_LEARNING": 0,
    }


def test_a_peer_is_a_neighbour_and_a_forwarding_entry() -> None:
    peer = TunnelPeer("10.0.1.2", "02:00:0a:00:01:02")
    permanent, no_arp, itself = 0x80, 0x40, 0x02
    for messages, kind, flags in (
        (netlink.add_peer(4, peer), 28, REQUEST | CREATE | REPLACE),
        (netlink.delete_peer(4, peer), 29, REQUEST),
    ):
        neighbour, forwarding = (decoded(message, ndmsg) for message in messages)
        for found in (neighbour, forwarding):
            assert (found["header"]["type"], found["header"]["flags"], found["ifindex"]) == (kind, flags, 4)
            assert attributes(found) == {"NDA_DST": "10.0.1.2", "NDA_LLADDR": "02:00:0a:00:01:02"}
        assert (neighbour["family"], neighbour["state"], neighbour["flags"]) == (socket.AF_INET, permanent, 0)
        assert (forwarding["family"], forwarding["state"], forwarding["flags"]) == (7, permanent | no_arp, itself)
    assert {message.accepted for message in netlink.delete_peer(4, peer)} == {(errno.ENOENT,)}
    assert {message.accepted for message in netlink.add_peer(4, peer)} == {()}


def test_the_rules_that_every_namespace_begins_with() -> None:
    for wanted, kind, accepted in ((True, 32, errno.EEXIST), (False, 33, errno.ENOENT)):
        messages = netlink.first_local_rules(wanted=wanted)
        found = [decoded(message, fibmsg) for message in messages]
        assert [entry["family"] for entry in found] == [socket.AF_INET, socket.AF_INET6]
        assert {entry["header"]["type"] for entry in found} == {kind}
        assert {attributes(entry)["FRA_TABLE"] for entry in found} == {255}
        assert {attributes(entry).get("FRA_PRIORITY", 0) for entry in found} == {0}
        assert all(accepted in message.accepted for message in messages)


# --- routes and rules -------------------------------------------------------------------------------------------------

UNIVERSE, LINK = 0, 253

ROUTES: list[tuple[Route, dict[str, int], dict[str, Any]]] = [
    (
        Route("10.8.0.0/16", via="10.0.0.1"),
        {"family": socket.AF_INET, "dst_len": 16, "table": MAIN_TABLE, "scope": UNIVERSE, "type": 1},
        {"RTA_TABLE": MAIN_TABLE, "RTA_DST": "10.8.0.0", "RTA_GATEWAY": "10.0.0.1", "RTA_OIF": 5},
    ),
    (
        Route("10.8.0.0/16", dev="eth0", metric=1024, source="10.0.0.9"),
        {"scope": LINK, "dst_len": 16},
        {"RTA_TABLE": MAIN_TABLE, "RTA_DST": "10.8.0.0", "RTA_OIF": 5, "RTA_PRIORITY": 1024, "RTA_PREFSRC": "10.0.0.9"},
    ),
    (
        Route("0.0.0.0/0", via="169.254.1.1", dev="eth0", onlink=True),
        {"dst_len": 0, "flags": 4},
        {"RTA_TABLE": MAIN_TABLE, "RTA_GATEWAY": "169.254.1.1", "RTA_OIF": 5},
    ),
    (
        Route("fd00::/64", dev="eth0"),
        {"family": socket.AF_INET6, "dst_len": 64, "scope": UNIVERSE},
        {"RTA_TABLE": MAIN_TABLE, "RTA_DST": "fd00::", "RTA_OIF": 5},
    ),
    (
        Route("10.8.0.0/16", kind="blackhole"),
        {"type": 6, "scope": UNIVERSE},
        {"RTA_TABLE": MAIN_TABLE, "RTA_DST": "10.8.0.0"},
    ),
    (Route("10.8.0.0/16", kind="unreachable"), {"type": 7}, {"RTA_TABLE": MAIN_TABLE, "RTA_DST": "10.8.0.0"}),
    (Route("10.8.0.0/16", kind="prohibit"), {"type": 8}, {"RTA_TABLE": MAIN_TABLE, "RTA_DST": "10.8.0.0"}),
    (  # a table number above 255 stands in the attribute alone (RT_TABLE_COMPAT)
        Route("10.8.0.0/16", dev="eth0", table=1000),
        {"table": 252},
        {"RTA_TABLE": 1000, "RTA_DST": "10.8.0.0", "RTA_OIF": 5},
    ),
]


@pytest.mark.parametrize(("route", "fields", "expected"), ROUTES, ids=[str(index) for index in range(len(ROUTES))])
def test_routes(route: Route, fields: dict[str, int], expected: dict[str, Any]) -> None:
    index = 5 if "RTA_OIF" in expected else 0
    found = decoded(netlink.add_route(route, index), rtmsg)
    assert {name: found[name] for name in fields} == fields
    assert attributes(found) == expected
    assert found["header"]["flags"] == REQUEST | CREATE | REPLACE
    gone = decoded(netlink.delete_route(route, index), rtmsg)
    assert attributes(gone) == expected
    assert gone["header"]["type"] == found["header"]["type"] + 1


@pytest.mark.parametrize(
    ("rule", "fields", "expected"),
    [
        (
            Rule(1001, 101, fwmark=0x100, fwmask=0xF00),
            {"family": socket.AF_INET, "table": 101, "src_len": 0, "dst_len": 0},
            {"FRA_TABLE": 101, "FRA_PRIORITY": 1001, "FRA_FWMARK": 0x100, "FRA_FWMASK": 0xF00},
        ),
        (
            Rule(5, 1000, family=6, source="fd00::/64", destination="fd01::1/128", iif="eth0"),
            {"family": socket.AF_INET6, "table": 252, "src_len": 64, "dst_len": 128},
            {"FRA_TABLE": 1000, "FRA_PRIORITY": 5, "FRA_SRC": "fd00::", "FRA_DST": "fd01::1", "FRA_IIFNAME": "eth0"},
        ),
        (
            Rule(6, 7, fwmark=1),
            {"table": 7},
            {"FRA_TABLE": 7, "FRA_PRIORITY": 6, "FRA_FWMARK": 1, "FRA_FWMASK": 0xFFFFFFFF},
        ),
    ],
)
def test_rules(rule: Rule, fields: dict[str, int], expected: dict[str, Any]) -> None:
    found = decoded(netlink.add_rule(rule), fibmsg)
    assert {name: found[name] for name in fields} == fields
    assert attributes(found) == expected
    assert found["action"] == 1  # FR_ACT_TO_TBL


# --- the exchange -----------------------------------------------------------------------------------------------------


class Kernel:
    """Answers as the kernel does: an error for a message that fails, an acknowledgement where one is asked for.

    Args:
        errors: number of a message, from 1 in the order they come → errno.
    """

    def __init__(self, errors: dict[int, int] | None = None) -> None:
        self.errors = errors or {}
        self.sent: list[list[tuple[int, int, int]]] = []  # per system call: (type, flags, sequence)
        self._answers: list[bytes] = []
        self._count = 0

    def send(self, data: bytes) -> int:
        headers = []
        answers = []
        offset = 0
        while offset < len(data):
            length, type_, flags, sequence = struct.unpack_from("=IHHI", data, offset)
            self._count += 1
            headers.append((type_, flags, sequence))
            code = self.errors.get(self._count, 0)
            if code or flags & ACK:
                answers.append(struct.pack("=IHHIIi", 36, 2, 0, sequence, 0, -code) + data[offset : offset + 16])
            offset += (length + 3) & ~3
        self.sent.append(headers)
        self._answers += [b"".join(answers[:1]), b"".join(answers[1:])] if len(answers) > 1 else answers
        return len(data)

    def recv(self, _: int) -> bytes:
        return self._answers.pop(0)

    def close(self) -> None:
        self.closed = True


def connected(kernel: Kernel) -> Netlink:
    return Netlink(kernel, "r1")  # type: ignore[arg-type]


def test_many_messages_in_one_system_call_and_one_acknowledgement() -> None:
    kernel = Kernel()
    connected(kernel).apply(netlink.set_link(index, f"eth{index}") for index in range(1, 101))
    [headers] = kernel.sent
    assert [sequence for _, _, sequence in headers] == list(range(1, 101))
    assert [index for index, (_, flags, _) in enumerate(headers) if flags & ACK] == [99]


def test_a_batch_larger_than_a_chunk_is_cut() -> None:
    kernel = Kernel()
    messages = [netlink.new_veth(end(f"a{index}", 1, 11), end(f"b{index}", 1, 12), 0) for index in range(500)]
    connected(kernel).apply(messages)
    assert 1 < len(kernel.sent) < 10
    assert [sequence for call in kernel.sent for _, _, sequence in call] == list(range(1, 501))
    assert all(call[-1][1] & ACK for call in kernel.sent)


def test_nothing_to_do_asks_nothing() -> None:
    kernel = Kernel()
    connected(kernel).apply([])
    assert kernel.sent == []


def test_refusals_are_named_and_the_others_were_carried_out() -> None:
    kernel = Kernel({2: errno.EINVAL, 3: errno.EPERM})
    messages = [
        netlink.add_address(1, "10.0.0.1/24"),
        netlink.add_address(1, "10.0.0.2/24"),
        netlink.add_route(Route("10.8.0.0/16", via="10.0.0.9"), 0),
    ]
    with pytest.raises(DeployError) as caught:
        connected(kernel).apply(messages)
    assert str(caught.value) == (
        f"r1: add address 10.0.0.2/24: {os.strerror(errno.EINVAL)}; "
        f"add route 10.8.0.0/16 via 10.0.0.9: {os.strerror(errno.EPERM)}"
    )
    assert len(kernel.sent) == 1


def test_what_is_so_already_is_no_refusal() -> None:
    kernel = Kernel({1: errno.EEXIST, 2: errno.ESRCH, 3: errno.ENOENT, 4: errno.ENODEV})
    connected(kernel).apply(
        [
            netlink.add_address(1, "10.0.0.1/24"),
            netlink.delete_route(Route("10.8.0.0/16"), 0),
            netlink.delete_rule(Rule(5, 6)),
            netlink.delete_link(9, "eth9"),
        ]
    )
    assert len(kernel.sent[0]) == 4


def test_sequences_go_on_from_batch_to_batch() -> None:
    kernel = Kernel()
    with connected(kernel) as channel:
        channel.apply([netlink.set_link(1, "a"), netlink.set_link(2, "b")])
        channel.apply([netlink.set_link(3, "c")])
    assert [[sequence for _, _, sequence in call] for call in kernel.sent] == [[1, 2], [3]]
    assert kernel.closed
