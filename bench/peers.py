"""What the floor, munet and Mininet are given to build the very same routers: scripts, topologies, where they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from testbed.compile.frr import LIBRARY
from testbed.plan import Node, Plan

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
DRIVER = Path(__file__).with_name("with_mininet.py")
LOOPBACK_UP = "ip link set lo up"
# FRR's topotests use it so too. Otherwise it enters the namespaces of process 1, which a container may forbid.
MUNET = ("--no-cli", "--unshare-inline")

# Every node has a mount namespace of its own, whatever tool made it. `zebra -d` returns when it serves its clients.
SCRIPT = """\
mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mkdir /run/frr /var/tmp/frr && chown frr:frr /run/frr /var/tmp/frr
{settings}
{library}/zebra -d -f {folder}/zebra.conf -P 0 -i /run/frr/zebra.pid >{folder}/zebra.log 2>&1
exec {library}/bgpd -f {folder}/bgpd.conf -P 0 -i /run/frr/bgpd.pid >{folder}/bgpd.log 2>&1
"""


def write_scripts(plan: Plan, folder: Path) -> dict[str, Path]:
    """For each node the script that starts its routing daemons, with the Plan's own configuration and sysctls."""
    scripts = {}
    for node in plan.nodes:
        own = folder / node.name
        own.mkdir(parents=True)
        for file in node.files:
            assert isinstance(file.content, str)
            (own / Path(file.path).name).write_text(file.content)
        (own / "start.sh").write_text(SCRIPT.format(settings=_settings(node), library=LIBRARY, folder=own))
        scripts[node.name] = own / "start.sh"
    return scripts


def _settings(node: Node) -> str:
    lines = [f"echo {value} > /proc/sys/{key}" for key, value in node.sysctls]
    lines.append(LOOPBACK_UP)
    for interface in node.interfaces:
        if interface.kind == "loopback":
            lines += [f"ip address replace {address} dev lo" for address in interface.addresses]
    return "\n".join(lines)


def _addresses(plan: Plan) -> dict[tuple[str, str], str]:
    """(node, interface) → its address, which in these fabrics is one."""
    return {(node.name, entry.name): entry.addresses[0] for node in plan.nodes for entry in node.interfaces}


# --- munet ------------------------------------------------------------------------------------------------------------


def munet_config(plan: Plan, scripts: Mapping[str, Path]) -> str:
    """The lab in munet's own YAML."""
    addresses = _addresses(plan)
    connections: dict[str, list[dict[str, str]]] = {node.name: [] for node in plan.nodes}
    for link in plan.links:
        for end, other in ((link.a, link.b), (link.b, link.a)):
            connections[end.node].append(
                {
                    "to": other.node,
                    "name": end.interface,
                    "remote-name": other.interface,
                    "ip": addresses[end.node, end.interface],
                }
            )
    nodes = [
        {"name": name, "cmd": f"exec sh {scripts[name]}\n", "connections": connections[name]} for name in connections
    ]
    return yaml.safe_dump({"version": 1, "topology": {"ipv6-enable": False, "nodes": nodes}}, sort_keys=False)


# --- Mininet ----------------------------------------------------------------------------------------------------------


def mininet_topology(plan: Plan, scripts: Mapping[str, Path]) -> str:
    """The lab as the JSON that with_mininet.py reads."""
    addresses = _addresses(plan)
    links = [
        [(end.node, end.interface, addresses[end.node, end.interface]) for end in (link.a, link.b)]
        for link in plan.links
    ]
    return json.dumps({"nodes": {name: str(script) for name, script in scripts.items()}, "links": links})


# --- who is there -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool, ready to run.

    Args:
        argv: without what names the lab. env: beside the usual. sysctls: those of the host that it changes.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    sysctls: tuple[str, ...] = ()


def find_munet() -> Peer | str:
    """munet in this Python, in .cache/munet or on the path; or the reason why it cannot be run."""
    for program in (Path(sys.executable).with_name("munet"), CACHE / "munet" / "bin" / "munet"):
        if program.exists():
            return Peer("munet", (str(program), *MUNET), {})
    found = shutil.which("munet")
    return (
        Peer("munet", (found, *MUNET), {})
        if found
        else "not installed: `python -m bench --get-peers` puts it into .cache"
    )


def find_mininet() -> Peer | str:
    """Mininet as Debian installs it, or unpacked in .cache/mininet; or the reason why it cannot be run."""
    for root in (Path("/"), CACHE / "mininet"):
        library = root / "usr/lib/python3/dist-packages"
        if (library / "mininet" / "net.py").exists() and (root / "usr/bin/mnexec").exists():
            changed = re.findall(r"sysctlTestAndSet\(\s*'([\w.]+)'", (library / "mininet" / "util.py").read_text())
            if not shutil.which("ifconfig"):
                return "it needs ifconfig (Debian package net-tools)"
            env = {"PYTHONPATH": str(library), "PATH": f"{root / 'usr/bin'}:{os.environ['PATH']}"}
            return Peer("Mininet", ("/usr/bin/python3", str(DRIVER)), env, tuple(changed))
    return "not installed: `python -m bench --get-peers` unpacks it into .cache"
