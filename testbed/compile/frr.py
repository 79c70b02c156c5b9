"""FRR as a node's routing daemons: files, directories and processes, one `-f` file per daemon."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.plan import File, Process, Ready

DIRECTORIES = tuple((f"{top}/frr", "frr") for top in ("/etc", "/run", "/var/lib", "/var/log", "/var/tmp"))  # noqa: S108 - a node's own
LIBRARY = "/usr/lib/frr"
VTYSH = File("/etc/frr/vtysh.conf", "no service integrated-vtysh-config\n", 0o640, "frr")
BGPD_SOCKET = "/run/frr/bgpd.vty"


def daemon_file(daemon: str, text: str) -> File:
    """The configuration of one daemon."""
    return File(f"/etc/frr/{daemon}.conf", text, 0o640, "frr")


def processes(daemons: Sequence[str], *, namespace_vrfs: bool, listen: bool = True) -> tuple[Process, ...]:
    """The processes of a set of daemons; zebra comes first.

    Args:
        daemons: of zebra, staticd, bgpd.
        namespace_vrfs: VRFs are network namespaces, not VRF devices (zebra's option -n).
        listen: whether bgpd accepts sessions (MetalLB's does not: `-p 0`).

    The others start when zebra's sockets exist: a client that finds none tries again only after 10 s.
    """
    return tuple(_process(daemon, namespace_vrfs, listen) for daemon in daemons)


def _process(daemon: str, namespace_vrfs: bool, listen: bool) -> Process:
    options: list[str] = []
    if daemon == "zebra" and namespace_vrfs:
        options.append("-n")
    if daemon == "bgpd" and not listen:
        options += ["-p", "0"]
    config = f"/etc/frr/{daemon}.conf"
    return Process(
        name=daemon,
        argv=(f"{LIBRARY}/{daemon}", "-f", config, "-P", "0", "--log", "stdout", *options),
        # zebra serves its clients once zserv.api exists, and makes zebra.vty after it.
        ready=Ready("path", path=f"/run/frr/{daemon}.vty"),
        after=() if daemon == "zebra" else ("zebra",),
        reload="vtysh",
        files=(config,),
    )
