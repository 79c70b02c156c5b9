"""Which interface is in which VRF; route tables by number; the driver a lab gets."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import lab_texts_of_runtime
import pytest

from testbed import session
from testbed.deploy import needs
from testbed.deploy.readiness import await_routes, describe_route
from testbed.errors import InputError, UnsupportedError
from testbed.events import ignore
from testbed.plan import ExpectedRoute, Interface, Node, Plan
from testbed.run import network_namespace
from testbed.runtime import kernel
from testbed.runtime.monitor import RouteMonitor
from testbed.runtime.vrf import Device, _device, _vrf_of, members
from testbed.wait import Deadline

CLONE_NEWNET = 0x40000000
DEVICES = {
    device.index: device
    for device in (
        Device(1, "lo", "", 0),
        Device(2, "red", "vrf", 0),
        Device(3, "eth0", "veth", 2),
        Device(4, "br0", "bridge", 2),
        Device(5, "eth1", "veth", 4),
        Device(6, "br1", "bridge", 0),
        Device(7, "eth2", "veth", 6),
        Device(8, "eth3", "veth", 99),  # its master went meanwhile
    )
}


def test_an_interface_is_in_the_vrf_that_its_masters_are_in() -> None:
    found = {device.name: _vrf_of(device, DEVICES) for device in DEVICES.values()}
    red = dict.fromkeys(("red", "eth0", "br0", "eth1"), "red")
    assert found == red | dict.fromkeys(("lo", "br1", "eth2", "eth3"))


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def test_an_answer_of_the_kernel_is_read() -> None:
    head = struct.pack("=BxHiII", 0, 1, 7, 0, 0)
    info = attribute(18 | 0x8000, attribute(1, b"veth\0"))
    whole = head + attribute(3, b"eth0\0") + attribute(10, struct.pack("=I", 2)) + info
    assert _device(whole) == Device(7, "eth0", "veth", 2)
    assert _device(head + attribute(3, b"lo\0")) == Device(7, "lo", "", 0)


def in_a_namespace(*commands: str) -> int:
    """A descriptor of a new network namespace in which these commands of ip(8) were run."""
    descriptors: list[int] = []

    def make() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0:
            for command in commands:
                subprocess.run(["ip", *command.split()], check=True)
            descriptors.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not descriptors:
        pytest.skip("not run: network namespaces need root")
    return descriptors[0]


def test_a_namespace_without_vrf_devices() -> None:
    namespace = in_a_namespace(
        "link add dev br0 type bridge", "link add dev v0 type veth peer name v1", "link set dev v0 master br0"
    )
    assert members(namespace) == {None: frozenset({1, 2, 3, 4})}
    os.close(namespace)


class OneNamespace:
    """Sockets of one namespace, whatever node is asked for."""

    def __init__(self, namespace: int) -> None:
        self.namespace = namespace

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with network_namespace(self.namespace):
            return socket.socket(family, kind, protocol)

    def interfaces(self, node: str, vrf: str | None) -> frozenset[int] | None:
        return None


def test_routes_are_watched_in_one_table() -> None:
    namespace = in_a_namespace(
        "link set dev lo up",
        "route add 10.1.0.0/16 dev lo",
        "route add 10.2.0.0/16 dev lo table 28264",
        "route add unreachable default table 28264",
        "route add 10.3.0.0/16 dev lo table 100",
    )
    for table, prefixes in ((254, {"10.1.0.0/16"}), (28264, {"10.2.0.0/16"}), (100, {"10.3.0.0/16"}), (101, set())):
        monitor = RouteMonitor(OneNamespace(namespace), "r1", "red", table)
        monitor.read()
        assert {prefix for prefix in monitor.prefixes if ":" not in prefix} == prefixes
        monitor.close()
    os.close(namespace)


def test_next_hops_are_counted() -> None:
    namespace = in_a_namespace(
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "address add 10.0.0.1/24 dev v0",
        "address add fd00::1/64 dev v0 nodad",
        "route add 10.1.0.0/16 via 10.0.0.2",
        "route add 10.2.0.0/16 nexthop via 10.0.0.2 nexthop via 10.0.0.3 nexthop via 10.0.0.4",
        "route add fd00:2::/64 nexthop via fd00::2 nexthop via fd00::3",
        # As FRR does: next hops are objects of the kernel.
        "nexthop add id 1 via 10.0.0.2 dev v0",
        "nexthop add id 2 via 10.0.0.3 dev v0",
        "nexthop add id 3 group 1/2",
        "route add 10.3.0.0/16 nhid 3",
        "route add 10.4.0.0/16 nhid 1",
    )
    monitor = RouteMonitor(OneNamespace(namespace), "r1", None, 254)
    monitor.read()
    counts = {"10.1.0.0/16": 1, "10.2.0.0/16": 3, "fd00:2::/64": 2, "10.3.0.0/16": 2, "10.4.0.0/16": 1}
    assert {prefix: monitor.prefixes.get(prefix) for prefix in counts} == counts
    with network_namespace(namespace):
        for words in (
            "route del 10.1.0.0/16",
            "route replace 10.2.0.0/16 via 10.0.0.2",
            "route append fd00:2::/64 via fd00::4",
            "route replace 10.4.0.0/16 nhid 3",
        ):
            subprocess.run(["ip", *words.split()], check=True)
    monitor.read()
    counts = {"10.1.0.0/16": None, "10.2.0.0/16": 1, "fd00:2::/64": 3, "10.3.0.0/16": 2, "10.4.0.0/16": 2}
    assert {prefix: monitor.prefixes.get(prefix) for prefix in counts} == counts
    monitor.close()
    os.close(namespace)


def test_readiness_waits_for_all_next_hops() -> None:
    namespace = in_a_namespace(
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "address add 10.0.0.1/24 dev v0",
        "route add 10.1.0.0/16 via 10.0.0.2",
        "route add 10.2.0.0/16 nexthop via 10.0.0.2 nexthop via 10.0.0.3",
    )
    wanted = [ExpectedRoute("r1", None, f"10.{number}.0.0/16", next_hops=2) for number in (1, 2, 3)]

    def late() -> list[str]:
        return [describe_route(entry) for entry in await_routes(OneNamespace(namespace), wanted, Deadline(0), ignore)]

    assert late() == ["r1: route to 10.1.0.0/16 with 2 next hops", "r1: route to 10.3.0.0/16 with 2 next hops"]
    with network_namespace(namespace):
        for number in (1, 3):
            words = f"route replace 10.{number}.0.0/16 nexthop via 10.0.0.3 nexthop via 10.0.0.4"
            subprocess.run(["ip", *words.split()], check=True)
    assert late() == []
    os.close(namespace)


# --- the driver of a lab ----------------------------------------------------------------------------------------------


def answer(works: bool | None) -> Any:
    return lambda trials: dict.fromkeys(trials, kernel.Answer(works, "the kernel has no vrf devices"))


VRFS = "vrfs: [red]\n"


@pytest.mark.parametrize(
    ("text", "wanted", "works", "expected"),
    [
        (VRFS, "", True, "device"),
        (VRFS, "", False, "netns"),
        (VRFS, "", None, "netns"),  # not root: it could not be tried
        (VRFS, "netns", True, "netns"),
        (VRFS, "device", False, "device"),  # `plan` shows it; `up` refuses it
        (VRFS + "vrfDriver: netns\n", "", True, "netns"),
        (VRFS + "vrfDriver: device\n", "", False, "device"),
        (VRFS + "vrfDriver: device\n", "netns", False, "netns"),
        ("", "", True, "netns"),
    ],
)
def test_the_driver(
    text: str, wanted: str, works: bool | None, expected: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STATE", state)
    monkeypatch.setattr(kernel, "try_all", answer(works))
    assert session.vrf_driver_of(lab_texts_of_runtime.lab(text), "test", wanted) == expected


def test_a_lab_without_vrfs_asks_the_kernel_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "try_all", lambda trials: pytest.fail("the kernel was asked"))
    assert session.vrf_driver_of(lab_texts_of_runtime.lab(""), "test") == "netns"


def test_a_running_lab_keeps_its_driver(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STATE", state)
    monkeypatch.setattr(kernel, "try_all", answer(works=True))
    (state / "test").mkdir()
    (state / "test" / "plan.json").write_text(json.dumps({"vrf_driver": "netns"}))
    lab = lab_texts_of_runtime.lab(VRFS)
    assert session.vrf_driver_of(lab, "test") == "netns"
    assert session.vrf_driver_of(lab, "test", "device") == "device"
    assert session.vrf_driver_of(lab, "other") == "device"


def test_no_such_driver() -> None:
    with pytest.raises(InputError, match=r"no VRF driver 'devices'.*device"):
        session.vrf_driver_of(lab_texts_of_runtime.lab(VRFS), "test", "devices")


def test_devices_are_refused_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "try_all", answer(works=False))
    plan = Plan("a", (Node("r1", "router", vrfs=("red",), interfaces=(Interface("red", "vrf", "red", table=10),)),))
    with pytest.raises(UnsupportedError, match="VRF driver device: the kernel has no vrf devices"):
        needs.refuse(plan)
    needs.refuse(Plan("a", (Node("r1", "router", vrfs=("red",)),)))
