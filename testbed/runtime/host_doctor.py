"""What of this machine matters to containers, clusters and kernel features: limits, filters, modules, other tools.

Sources: kind's known issues (inotify), Linux Documentation/admin-guide/{cgroup-v2,sysctl/net}.rst, modules.dep(5).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from testbed import run
from testbed.errors import CommandError, UnsupportedError
from testbed.runtime.doctor import Finding

PROC, SYS, LIBRARY = Path("/proc"), Path("/sys"), Path("/lib/modules")
INSTANCES = 512  # what kind asks for
MODULES = ("vrf", "ip_vs", "ipip", "vxlan", "8021q", "sch_netem", "dummy")
# Docker with iptables-nft, and with iptables-legacy.
NFT_FORWARD = ("/usr/sbin/nft", "list", "chain", "ip", "filter", "FORWARD")
LEGACY_FORWARD = ("/usr/sbin/iptables-legacy", "-S", "FORWARD")
POLICY = re.compile(r"policy (\w+)|-P FORWARD (\w+)")
VERSION = re.compile(r"\bv?(\d+\.\d+\.\d+)\b")


def examine() -> list[Finding]:
    """Look at everything. Changes nothing."""
    return [_cgroups(), _inotify(), _modules(), *_filters(), *_tools()]


def _finding(
    name: str, purpose: str, *, works: bool = True, state: str = "", detail: str = "", advice: str = ""
) -> Finding:
    return Finding(name, "host", works, False, purpose, detail, "" if works else advice, state)


def _cgroups() -> Finding:
    unified = (SYS / "fs/cgroup/cgroup.controllers").exists()
    return _finding(
        "cgroups",
        "kind's clusters",
        works=unified,
        state="version 1",
        detail="version 2",
        advice="boot with systemd.unified_cgroup_hierarchy=1",
    )


def _inotify() -> Finding:
    key = "fs.inotify.max_user_instances"
    number = int((PROC / "sys" / key.replace(".", "/")).read_text())
    return _finding(
        "inotify instances",
        "kind's clusters",
        works=number >= INSTANCES,
        state="too few",
        detail=str(number),
        advice=f"{number} of the {INSTANCES} that kind asks for: sysctl {key}={INSTANCES} (for good: in /etc/sysctl.d)",
    )


def _modules() -> Finding:
    """Which modules of features that not every kernel has are there; a kernel may load none at all."""
    purpose = "what a kernel has beside"
    if not (PROC / "modules").exists():
        advice = "this kernel loads none: `testbed vm` has a distribution's kernel for what it lacks"
        return _finding("kernel modules", purpose, works=False, state="none", advice=advice)
    return _finding("kernel modules", purpose, detail=_sorted_modules())


def _sorted_modules() -> str:
    folder = LIBRARY / os.uname().release
    loaded = {line.split()[0] for line in (PROC / "modules").read_text().splitlines()}
    places: dict[str, list[str]] = {"loaded": [], "loadable": [], "built in": [], "not there": []}
    built_in, loadable = _names(folder / "modules.builtin"), _names(folder / "modules.dep")
    for name in MODULES:
        place = "loaded" if name in loaded else "built in" if name in built_in else "loadable"
        places[place if place != "loadable" or name in loadable else "not there"].append(name)
    return "; ".join(f"{place}: {', '.join(names)}" for place, names in places.items() if names)


def _names(path: Path) -> set[str]:
    """The modules that a file lists by their paths, first on each line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return set()
    return {Path(line.partition(":")[0]).name.partition(".ko")[0] for line in lines}


def _filters() -> Iterator[Finding]:
    """What a container engine may have done to the host; labs are not concerned, those who look for packets may be."""
    yield _finding("FORWARD policy", "the host, and no lab", detail=_forward_policy())
    path = PROC / "sys/net/bridge/bridge-nf-call-iptables"
    filtered = path.exists() and path.read_text().strip() == "1"
    text = "on: what crosses a bridge in a node passes that node's rules too" if filtered else "off"
    yield _finding("bridge netfilter", "links with more than two ends", detail=text)


def _forward_policy() -> str:
    tables = PROC / "net/ip_tables_names"
    legacy = tables.exists() and "filter" in tables.read_text().split()
    try:
        match = POLICY.search(run.run(LEGACY_FORWARD if legacy else NFT_FORWARD))
    except (CommandError, UnsupportedError):  # there is no such chain, or nobody to ask
        match = None
    return (match[1] or match[2]).lower() if match else "accept"


def _tools() -> Iterator[Finding]:
    offline = {"CLAB_VERSION_CHECK": "disable"}  # asking for a newer version costs 3 s where nobody answers
    found = _tool("containerlab", "--runtime containerlab", "install its package: containerlab.dev/install", offline)
    if found.works and not (PROC / "modules").exists():
        advice = f"{found.detail}: it needs a kernel that loads modules, which `testbed vm` has"
        found = _finding(found.name, found.purpose, works=False, state="not here", advice=advice)
    yield found
    yield _tool("kind", "clusters of the provider kind", "go install sigs.k8s.io/kind@v0.32.0")


def _tool(name: str, purpose: str, advice: str, settings: dict[str, str] | None = None) -> Finding:
    path = shutil.which(name)
    if not path:
        return _finding(name, purpose, works=False, advice=advice)
    try:
        match = VERSION.search(run.run((path, "version"), env=run.ENVIRONMENT | (settings or {}), timeout=10))
    except CommandError as error:
        return _finding(name, purpose, works=False, state="fails", advice=f"{path}: {error}")
    return _finding(name, purpose, detail=f"{match[1]}, {path}" if match else path)
