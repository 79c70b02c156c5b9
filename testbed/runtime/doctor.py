"""Whether this machine has what labs need: kernel features, tried; programs, looked for. With what each is for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from testbed import run
from testbed.errors import CommandError, TestbedError, UnsupportedError
from testbed.load.images import builtin_images
from testbed.model.images import Image
from testbed.runtime import kernel

Kind = Literal["kernel", "program", "host", "docker", "vm"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Args:
        works: None when it could not be tried.
        required: whether the netns runtime needs it; without the others some labs, or nothing yet, lack something.
        purpose: what it is for. detail: what was found, or why it does not work.
        advice: what to do where it does not work.
        state: a word for how it does not work; empty: it is missing.
    """

    name: str
    kind: Kind
    works: bool | None
    required: bool
    purpose: str
    detail: str = ""
    advice: str = ""
    state: str = ""

    @property
    def fatal(self) -> bool:
        """Whether labs cannot run because of it."""
        return self.required and not self.works


def examine() -> list[Finding]:
    """Look at everything. Takes half a second; root is needed to try kernel features."""
    return [*_features(), *_programs()]


# --- the kernel -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Feature:
    name: str
    trial: kernel.Trial
    purpose: str
    advice: str
    required: bool = True


_BUILD = "needs a kernel built with "
_IPVS = "kube-proxy's mode ipvs"
_FEATURES = (
    _Feature(
        "namespaces",
        kernel.namespaces,
        "every node is a set of them",
        f"run as root, outside of containers; {_BUILD}CONFIG_NAMESPACES",
    ),
    _Feature("overlayfs", kernel.overlay, "every node's file system", f"{_BUILD}CONFIG_OVERLAY_FS"),
    _Feature("pidfd", kernel.pidfd, "to see at once what has ended", "needs Linux 5.3 or later"),
    _Feature(
        "network sysctls",
        kernel.sysctls,
        "forwarding, in every router",
        "/proc/sys/net is read-only: run outside of containers",
    ),
    _Feature("IPv6", kernel.ipv6, "IPv6 links, every router", "boot without ipv6.disable=1"),
    _Feature("veth", kernel.VETH, "every link", f"{_BUILD}CONFIG_VETH"),
    _Feature("bridge", kernel.BRIDGE, "links with more than two ends", f"{_BUILD}CONFIG_BRIDGE"),
    _Feature("packet sockets", kernel.packet_socket, "the via and notVia of flows", f"{_BUILD}CONFIG_PACKET"),
    _Feature("conntrack", kernel.CONNTRACK_TABLE, "NAT, kube-proxy, returnPath", f"{_BUILD}CONFIG_NF_CT_NETLINK"),
    _Feature("nftables", kernel.NFTABLES, "rulesets of routers and nodes", f"{_BUILD}CONFIG_NF_TABLES"),
    _Feature("nftables NAT", kernel.nat, "source NAT of routers", f"{_BUILD}CONFIG_NFT_MASQ; install nftables"),
    _Feature("nfacct", kernel.NFACCT, "kube-proxy's counters", f"{_BUILD}CONFIG_NETFILTER_NETLINK_ACCT"),
    _Feature(
        "iptables rules",
        kernel.iptables,
        "kube-proxy's rules",
        "install iptables and nfacct; update-alternatives --set iptables /usr/sbin/iptables-nft",
    ),
    _Feature("VRF devices", kernel.VRF, "VRFs", "VRFs are network namespaces instead", required=False),
    _Feature("IPVS", kernel.ipvs, _IPVS, f"that mode {_BUILD}CONFIG_IP_VS", required=False),
    _Feature("ipset", kernel.IPSETS, _IPVS, f"that mode {_BUILD}CONFIG_IP_SET", required=False),
    _Feature("IPIP", kernel.IPIP, "Calico's IPIP pools", "such pools are not supported yet", required=False),
    _Feature(
        "VXLAN",
        kernel.VXLAN,
        "EgressServices between nodes that share no link",
        f"those need{_BUILD.removeprefix('needs')}CONFIG_VXLAN",
        required=False,
    ),
    _Feature("VLAN", kernel.VLAN, "tagged links", "links are not tagged: one per VRF", required=False),
    _Feature("dummy", kernel.DUMMY, _IPVS, f"that mode {_BUILD}CONFIG_DUMMY", required=False),
    _Feature(
        "netem",
        kernel.netem,
        "delay and loss on links",
        "those are not supported yet",
        required=False,
    ),
    _Feature("TCP_REPAIR", kernel.tcp_repair, "moving live connections", "that is not supported yet", required=False),
)


def _features() -> list[Finding]:
    answers = kernel.try_all({feature.name: feature.trial for feature in _FEATURES})
    found = []
    for feature in _FEATURES:
        answer = answers[feature.name]
        advice = "" if answer.works else "run testbed doctor as root" if answer.works is None else feature.advice
        found.append(
            Finding(feature.name, "kernel", answer.works, feature.required, feature.purpose, answer.detail, advice)
        )
    return found


# --- programs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the machine; `trial` tries it and returns a detail, its version for instance."""

    path: str
    package: str
    purpose: str
    required: bool = True
    trial: kernel.Trial | None = None


def _version(*argv: str) -> kernel.Trial:
    return lambda: run.run(argv).partition("\n")[0].partition(" (")[0]


# What BIRD 2 wants inside of a channel; Calico's templates are written so too.
BIRD_16 = "router id 192.0.2.1;\nprotocol kernel { export all; }\nprotocol device { }\n"


def _reads_calico() -> str:
    try:
        run.run((BIRD, "-p", "-c", "/dev/stdin"), stdin=BIRD_16)
    except CommandError:
        raise UnsupportedError("not BIRD 1.6, for which Calico's configuration is written") from None
    return "BIRD 1.6"


BIRD = "/usr/sbin/bird"
_PROGRAMS = (
    Program("/usr/lib/frr/zebra", "frr", "routers, MetalLB's speakers", trial=_version("/usr/lib/frr/zebra", "-v")),
    Program("/usr/lib/frr/bgpd", "frr", "routers, MetalLB's speakers"),
    Program("/usr/lib/frr/staticd", "frr", "routers with static routes"),
    Program("/usr/lib/frr/frr-reload.py", "frr-pythontools", "changes of a router"),
    Program(BIRD, "bird", "Calico's BGP", trial=_reads_calico),
    Program("/usr/sbin/birdc", "bird", "changes of a Calico node"),
    Program("/usr/sbin/nft", "nftables", "rulesets of routers and nodes", trial=_version("/usr/sbin/nft", "-v")),
    Program("/usr/sbin/iptables-restore", "iptables", "kube-proxy's rules"),
    Program("/usr/sbin/nfacct", "nfacct", "kube-proxy's counters"),
    Program("/usr/sbin/ipset", "ipset", _IPVS, required=False),
    Program("/usr/sbin/ipvsadm", "ipvsadm", _IPVS, required=False),
    Program("/usr/bin/python3", "python3", "changes of a router", trial=_version("/usr/bin/python3", "-V")),
    Program("/usr/bin/ssh", "openssh-client", "testbed ssh", required=False),
    Program("/usr/sbin/sshd", "openssh-server", "testbed ssh", required=False),
)


def _programs() -> list[Finding]:
    return [_program(program) for program in with_images(_PROGRAMS, builtin_images())]


def with_images(programs: Sequence[Program], images: Iterable[Image]) -> list[Program]:
    """The programs, and those of the image catalogue after them; one that several need has all their purposes."""
    found = {program.path: program for program in programs}
    users: dict[str, list[str]] = {}
    for image in images:
        for path in image.requires:
            found.setdefault(path, Program(path, " ".join(image.packages), "", required=False))
            users.setdefault(path, []).append(image.names[0])
    for path, names in users.items():
        own = f"{found[path].purpose}, " if found[path].purpose else ""
        found[path] = replace(
            found[path], purpose=f"{own}{'image' if len(names) == 1 else 'images'} {', '.join(names)}"
        )
    return list(found.values())


def _program(program: Program) -> Finding:
    works, detail = _look(program)
    advice = "" if works else f"apt install {program.package}"
    return Finding(program.path, "program", works, program.required, program.purpose, detail, advice)


def _look(program: Program) -> tuple[bool, str]:
    if not os.access(program.path, os.X_OK):
        return False, "not installed"
    try:
        return True, program.trial() if program.trial else ""
    except TestbedError as error:
        return False, str(error)
