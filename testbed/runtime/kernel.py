"""Asks the kernel what it can do by doing it, in a throw-away network and mount namespace: nothing of the host changes.

A thread enters fresh namespaces, tries each feature there and ends; the kernel takes down what it made. (A feature that
is a module may be loaded by the trying, as it would be by a lab.)
Sources: rtnetlink(7), Linux include/uapi/linux/{if_link,veth,if_tunnel,genetlink,pkt_sched}.h and
netfilter/{nfnetlink,nf_tables,nfnetlink_acct,nfnetlink_conntrack}.h, netfilter/ipset/ip_set.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed import run
from testbed.errors import TestbedError
from testbed.runtime import supervisor as system

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, EXCLUSIVE = 0x400, 0x200
ERROR = 2
NESTED = 0x8000
RTM_NEWLINK, RTM_NEWQDISC = 16, 36
NLM_HEADER = "=IHHII"
TC_ROOT = 0xFFFFFFFF
NETLINK_GENERIC, NETLINK_NETFILTER = 16, 12  # Python names neither everywhere
GENL_CONTROL, GENL_GET_FAMILY, GENL_FAMILY_NAME = 16, 3, 2
CONNTRACK, IPSET, ACCOUNTING, NF_TABLES = 1, 6, 7, 10  # subsystems of nfnetlink
TCP_REPAIR = 19  # tcp.h; Python does not name it

NAT_TABLE = """\
table ip testbed {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade
  }
}
"""
# One rule of each kind that kube-proxy and the return path use.
IPTABLES_RULES = """\
*filter
-A INPUT -m conntrack --ctstate INVALID -m nfacct --nfacct-name testbed -j DROP
-A INPUT -m addrtype --dst-type LOCAL -m comment --comment test -j ACCEPT
COMMIT
*mangle
-A PREROUTING -m mark --mark 0x1/0x1 -j CONNMARK --save-mark
COMMIT
*nat
-A PREROUTING -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 192.0.2.1:80
-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully
COMMIT
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of trying a feature: `works` is None when it could not be tried; `detail`: why not, or a version."""

    works: bool | None
    detail: str = ""


Trial = Callable[[], str]
"""Tries a feature in the current namespaces; returns a detail. OSError or TestbedError: it does not work."""


def try_all(trials: dict[str, Trial]) -> dict[str, Answer]:
    """Try features by name, in order, all in the same throw-away namespaces."""
    answers: dict[str, Answer] = {}

    def work() -> None:
        try:
            system.unshare(run.CLONE_NEWNET | run.CLONE_NEWNS)
            system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
        except OSError as error:
            answers.update(dict.fromkeys(trials, Answer(None, f"no namespace to try it in: {_words(error)}")))
            return
        for name, trial in trials.items():
            answers[name] = _try(trial)

    thread = threading.Thread(target=work, name="doctor")
    thread.start()
    thread.join()
    return answers


def _try(trial: Trial) -> Answer:
    try:
        return Answer(True, trial())
    except OSError as error:
        return Answer(False, _words(error))
    except TestbedError as error:
        return Answer(False, str(error).splitlines()[0])


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).splitlines()[0]


# --- netlink, as little of it as trying needs -------------------------------------------------------------------------


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _request(protocol: int, kind: int, flags: int, body: bytes) -> None:
    """Send one request and read the beginning of its answer. Raises OSError with what the kernel says."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as channel:
        channel.send(struct.pack(NLM_HEADER, 16 + len(body), kind, REQUEST | flags, 1, 0) + body)
        answer = channel.recv(1 << 16)
    if struct.unpack_from("=H", answer, 4)[0] == ERROR and (code := -struct.unpack_from("=i", answer, 16)[0]):
        raise OSError(code, os.strerror(code))


def link(name: str, kind: str, data: bytes = b"", over: str = "") -> Trial:
    """A trial: create an interface of a kind; `data` are the kind's own attributes, `over` the interface below it."""

    def trial() -> str:
        info = _attribute(1, kind.encode()) + (_attribute(2 | NESTED, data) if data else b"")
        below = _attribute(5, struct.pack("=I", socket.if_nametoindex(over))) if over else b""
        body = (
            struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(3, name.encode()) + below + _attribute(18 | NESTED, info)
        )
        try:
            _request(socket.NETLINK_ROUTE, RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, body)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # "Unknown device type" (rtnl_newlink)
                raise OSError(errno.EOPNOTSUPP, f"the kernel has no {kind} devices") from None
            raise
        return ""

    return trial


VETH = link("pair0", "veth")
BRIDGE = link("br0", "bridge")
DUMMY = link("dummy0", "dummy")
VRF = link("vrf0", "vrf", _attribute(1, struct.pack("=I", 10)))
VLAN = link("vlan0", "vlan", _attribute(1, struct.pack("=H", 10)), over="pair0")
VXLAN = link("vxlan0", "vxlan", _attribute(1, struct.pack("=I", 10)))
# With an IFLA_IPTUN_REMOTE: without, it would be the tunl0 that every namespace has (ip_tunnel_newlink: EEXIST).
IPIP = link("ipip0", "ipip", _attribute(3, socket.inet_aton("192.0.2.1")))


def netem() -> str:
    """Delay the packets of an interface (struct tc_netem_qopt). Needs VETH tried before."""
    index = socket.if_nametoindex("pair0")
    options = struct.pack("=6I", 1000, 1000, 0, 0, 0, 0)
    body = struct.pack("=BxHiIII", 0, 0, index, 0, TC_ROOT, 0) + _attribute(1, b"netem\0") + _attribute(2, options)
    try:
        _request(socket.NETLINK_ROUTE, RTM_NEWQDISC, ACK | CREATE, body)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise OSError(errno.ENOENT, "the kernel has no netem") from None
        raise
    return ""


def ipvs() -> str:
    body = struct.pack("=BBH", GENL_GET_FAMILY, 1, 0) + _attribute(GENL_FAMILY_NAME, b"IPVS\0")
    try:
        _request(NETLINK_GENERIC, GENL_CONTROL, ACK, body)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise OSError(errno.ENOENT, "the kernel has no IPVS") from None
        raise
    return ""


def netfilter(subsystem: int, what: str, *, message: int = 1, attributes: bytes = b"", dump: bool = True) -> Trial:
    """A trial: ask a subsystem of nfnetlink for what it holds."""

    def trial() -> str:
        body = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
        try:
            _request(NETLINK_NETFILTER, subsystem << 8 | message, DUMP if dump else ACK, body)
        except OSError as error:
            if error.errno == errno.EINVAL:  # nfnetlink_rcv_msg: no such subsystem
                raise OSError(errno.EINVAL, f"the kernel has no {what}") from None
            raise
        return ""

    return trial


NFTABLES = netfilter(NF_TABLES, "nf_tables")
CONNTRACK_TABLE = netfilter(CONNTRACK, "connection tracking over netlink")
NFACCT = netfilter(ACCOUNTING, "nfacct")
IPSETS = netfilter(IPSET, "ipset", attributes=_attribute(1, b"\x07"), dump=False)


# --- what programs and files are needed to try ------------------------------------------------------------------------


def nat() -> str:
    run.run(("/usr/sbin/nft", "-f", "-"), stdin=NAT_TABLE)
    return ""


def iptables() -> str:
    """Load a rule of each kind; the detail is the version, which names the variant."""
    run.run(("/usr/sbin/nfacct", "add", "testbed"))
    run.run(("/usr/sbin/iptables-restore",), stdin=IPTABLES_RULES)
    return run.run(("/usr/sbin/iptables", "--version")).strip().removeprefix("iptables ")


def namespaces() -> str:
    """A process in mount, pid, uts, ipc and network namespaces of its own (unshare(1), of the essential util-linux)."""
    flags = ("--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--mount-proc")
    run.run(("/usr/bin/unshare", *flags, "/bin/true"))
    return ""


def overlay() -> str:
    """An overlay over the root file system, as every node has one."""
    with _workspace() as place:
        for name in ("upper", "work", "root"):
            (place / name).mkdir()
        data = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
        system.mount("testbed", f"{place}/root", "overlay", data=data)
        (place / "root" / "written").write_text("")
    return ""


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    """A tmpfs that only this thread's mount namespace has."""
    system.mount("testbed", "/tmp", "tmpfs", data="mode=700")  # noqa: S108 - hidden behind the new mount
    yield Path("/tmp")  # noqa: S108


def pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return ""


def packet_socket() -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    return ""


def tcp_repair() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    return ""


def sysctls() -> str:
    """Whether a namespace's own settings below /proc/sys/net can be written (in many containers they cannot)."""
    for key in ("ipv4/ip_forward", "ipv4/conf/all/rp_filter"):
        path = Path("/proc/sys/net", key)
        path.write_text(path.read_text())
    return ""


def ipv6() -> str:
    path = Path("/proc/sys/net/ipv6/conf/all/forwarding")
    path.write_text("1")
    return ""
