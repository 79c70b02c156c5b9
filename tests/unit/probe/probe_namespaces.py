"""A small network of real namespaces, just for the tests of the probes; it vanishes with the test process.

    client ──── gate ──── server          10.1.0.0/24, fd00:1::/64 · 10.2.0.0/24, fd00:2::/64
                  └────── aside           10.3.0.0/24, fd00:3::/64

gate filters by port, and translates 198.51.100.10 and 2001:db8::10 to the server's echo program, and the source too.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
LEGS = {"client": 1, "server": 2, "aside": 3}
VIP, VIP6 = "198.51.100.10", "2001:db8::10"
GATE_RULES = """
table inet gate {{
  chain forward {{
    type filter hook forward priority 0;
    tcp dport 81 meta nfproto ipv4 reject with icmp type admin-prohibited
    tcp dport 81 meta nfproto ipv6 reject with icmpv6 type admin-prohibited
    udp dport 81 meta nfproto ipv4 reject with icmp type host-unreachable
    udp dport 81 meta nfproto ipv6 reject with icmpv6 type admin-prohibited
    meta l4proto {{ tcp, udp }} th dport 82 drop
    tcp dport 83 reject with tcp reset
    meta l4proto {{ tcp, udp }} th dport 84 reject
    ip daddr 10.2.0.77 reject with icmp type net-prohibited
    ip daddr 10.2.0.78 drop
  }}
  chain before {{
    type nat hook prerouting priority -100;
    ip daddr 198.51.100.10 tcp dport 80 dnat ip to 10.2.0.2:{port}
    ip daddr 198.51.100.10 udp dport 80 dnat ip to 10.2.0.2:{port}
    ip daddr 198.51.100.10 icmp type echo-request dnat ip to 10.2.0.2
    ip6 daddr 2001:db8::10 tcp dport 80 dnat ip6 to [fd00:2::2]:{port}
  }}
  chain after {{
    type nat hook postrouting priority 100;
    ct status & dnat == dnat masquerade random
  }}
}}
"""
CLIENT_RULES = "table inet own { chain output { type filter hook output priority 0; udp dport 85 drop; }; }"


class Namespaces:
    """Network namespaces by name; offers their sockets as a runtime does."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def make(self, name: str) -> None:
        """Raises PermissionError where namespaces cannot be made."""

        def unshare() -> int:
            if self._libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._files[name] = in_thread(unshare)

    def socket(self, node: str, vrf: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        def enter() -> socket.socket:
            if self._libc.setns(self._files[node], CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            return socket.socket(family, kind, protocol)

        return in_thread(enter)

    def interfaces(self, node: str, vrf: str | None) -> frozenset[int] | None:
        return None

    def prefix(self, name: str) -> tuple[str, ...]:
        """The beginning of a command that is to run in a namespace."""
        return "nsenter", f"--net=/proc/{os.getpid()}/fd/{self._files[name]}"

    def run(self, name: str, *argv: str, text: str | None = None) -> None:
        subprocess.run([*self.prefix(name), *argv], check=True, input=text, text=True)

    def cable(self, name: str, interface: str, other: str, other_interface: str) -> None:
        """A veth pair between two namespaces, both ends up."""
        peer = f"/proc/{os.getpid()}/fd/{self._files[other]}"
        self.run(name, "ip", "link", "add", interface, "type", "veth", "peer", "name", other_interface, "netns", peer)
        self.run(name, "ip", "link", "set", interface, "up")
        self.run(other, "ip", "link", "set", other_interface, "up")

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)


def in_thread(function: Callable[[], T]) -> T:
    """What `function` returns or raises in a thread of its own, which can change its namespace and then ends."""
    results: list[T] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            results.append(function())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def network() -> Iterator[Namespaces]:
    """The namespaces with their links, addresses and routes."""
    with ExitStack() as stack:
        spaces = Namespaces()
        stack.callback(spaces.close)
        for name in ("gate", *LEGS):
            spaces.make(name)
            spaces.run(name, "ip", "link", "set", "lo", "up")
            # Else the link-local addresses, by which neighbours are asked for, are not used for a second or two.
            spaces.run(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
        for name, number in LEGS.items():
            _link(spaces, name, number)
        spaces.run("gate", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        spaces.run("gate", "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        for kind, to in (("unreachable", "10.9.0.0/24"), ("unreachable", "fd00:9::/64"), ("blackhole", "10.8.0.0/24")):
            spaces.run("gate", "ip", "route", "add", kind, to)
        for kind, to in (("unreachable", "10.9.1.0/24"), ("prohibit", "10.9.2.0/24"), ("blackhole", "10.9.3.0/24")):
            spaces.run("client", "ip", "route", "add", kind, to)
        spaces.run("client", "nft", "-f", "-", text=CLIENT_RULES)
        yield spaces


def _link(spaces: Namespaces, name: str, number: int) -> None:
    spaces.cable("gate", name, name, "eth0")
    for space, interface, host in (("gate", name, 1), (name, "eth0", 2)):
        spaces.run(space, "ip", "address", "add", f"10.{number}.0.{host}/24", "dev", interface)
        spaces.run(space, "ip", "address", "add", f"fd00:{number}::{host}/64", "dev", interface, "nodad")
    spaces.run(name, "ip", "route", "add", "default", "via", f"10.{number}.0.1")
    spaces.run(name, "ip", "route", "add", "default", "via", f"fd00:{number}::1")
