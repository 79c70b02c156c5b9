"""What the host looks like, to compare: nothing that a lab does may show in it.

Other labs may run on the machine meanwhile, and containers; what belongs to them is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from testbed import run

NAMESPACES = ("net", "mnt", "uts", "ipc", "pid")
# Remaining life times of addresses and routes that the host got by DHCP or router advertisements.
LIFETIMES = re.compile(r"(valid_lft|preferred_lft|expires) \w+")
# Counters, and keys that the kernel draws anew for every reader.
VOLATILE = re.compile(
    r"/(nf_conntrack_count|tcp_fastopen_key|icmp_msgs_\w+|stable_secret|neigh/.*/(gc_|app_).*|flush|tcp_allowed_.*)$"
)
ENGINES = re.compile(r"docker|containerd")  # mount points of a container engine, whose containers come and go
COMMANDS = {
    "routes": ("ip", "-4", "route", "show", "table", "all"),
    "IPv6 routes": ("ip", "-6", "route", "show", "table", "all"),
    "rules": ("ip", "-4", "rule"),
    "IPv6 rules": ("ip", "-6", "rule"),
    "addresses": ("ip", "-o", "address"),
    "links": ("ip", "-o", "link"),
    "rulesets": ("nft", "--stateless", "list", "ruleset"),
}
LEGACY = ("/usr/sbin/iptables-legacy-save", "/usr/sbin/ip6tables-legacy-save")
TITLE = "lab:"  # of a supervisor or holder (its name cut to 15 letters), when its command line is gone already
Facts = dict[str, set[str]]


class Process(NamedTuple):
    """A process.

    Args:
        lab: whose supervisor is among its ancestors. nested: it is in a pid namespace below the host's.
        started: in clock ticks since boot.
    """

    pid: int
    parent: int
    argv: str
    lab: str
    nested: bool
    started: int


def snapshot() -> Facts:
    """Everything of the host that a lab could have changed, by kind, as comparable lines."""
    facts = {kind: set(LIFETIMES.sub("", run.run(argv)).splitlines()) for kind, argv in COMMANDS.items()}
    facts["legacy rulesets"] = set(_legacy_rulesets())
    facts["sysctls"] = set(_sysctls())
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    facts["mounts"] = {line for line in mounts if not ENGINES.search(line.split()[4])}
    facts["files in /etc"] = set(_files(Path("/etc")))
    facts["locks"] = set(_entries("/run/lock"))
    facts["named network namespaces"] = set(_entries("/run/netns"))
    return facts


def differences(before: Facts, after: Facts) -> list[str]:
    """What is not as it was. A setting that is new came with a kernel module, and is no change of any other."""
    found = [f"{kind}: gone: {line}" for kind in before for line in sorted(before[kind] - after[kind])]
    fresh = {kind: lines - before[kind] for kind, lines in after.items()}
    known = {line.partition(" = ")[0] for line in before["sysctls"]}
    fresh["sysctls"] = {line for line in fresh["sysctls"] if line.partition(" = ")[0] in known}
    return found + [f"{kind}: new: {line}" for kind in fresh for line in sorted(fresh[kind])]


def _legacy_rulesets() -> Iterator[str]:
    """The rules of iptables-legacy, which nft does not see, without comments and counters."""
    for program in LEGACY:
        if Path(program).exists():
            for line in run.run((program,)).splitlines():
                if not line.startswith("#"):
                    yield f"{program}: {line.partition(' [')[0]}"


def _sysctls() -> Iterator[str]:
    for path in Path("/proc/sys/net").rglob("*"):
        if path.is_file() and not VOLATILE.search(str(path)):
            try:
                yield f"{path} = {path.read_text().strip()}"
            except OSError:  # write-only, or of a feature that this kernel lacks
                continue


def _entries(folder: str) -> list[str]:
    return [str(path) for path in Path(folder).iterdir()] if Path(folder).is_dir() else []


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        yield f"{path} mode {facts.st_mode:o} size {facts.st_size} changed {facts.st_mtime_ns}"


# --- what a lab leaves ------------------------------------------------------------------------------------------------


def now() -> int:
    """The time in clock ticks since boot, as processes' start times are given (proc(5), /proc/PID/stat, field 22)."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK"))


def remains(lab: str, since: int) -> list[str]:
    """What there is of a lab that is down: processes, namespaces they hold, files, sockets."""
    doomed = [
        entry
        for entry in processes()
        if entry.pid != os.getpid() and (entry.lab == lab or _names(entry, lab) or _stray(entry, since))
    ]
    found = [f"process {entry.pid}: {entry.argv}" for entry in doomed]
    found += [f"file {path}" for path in _named(lab)]
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return found + [f"socket {line.split()[-1]}" for line in sockets if lab in line]


def _names(entry: Process, lab: str) -> bool:
    if entry.argv.startswith(TITLE):
        return lab.startswith(entry.lab)
    return lab in entry.argv.split("\0") and "testbed" in entry.argv


def _stray(entry: Process, since: int) -> bool:
    """Newer than the lab, in a pid namespace below the host's, of no other lab, and its parent is gone."""
    return entry.nested and not entry.lab and entry.started >= since and entry.parent == 1


def _named(lab: str) -> list[Path]:
    places = ("/run", "/run/lock", "/run/testbed", "/run/netns", "/tmp", "/var/tmp", "/var/log", "/var/lib", "/dev/shm")
    folders = [Path(place) for place in places if Path(place).is_dir()]
    return [path for folder in folders for path in folder.iterdir() if lab in path.name]


def processes() -> list[Process]:
    """Every process of the machine, with the lab it belongs to."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = _process(Path(entry.path))
            except OSError:  # it has ended
                continue
    labs = {pid: _lab_of(argv) for pid, (_, argv, _, _) in found.items()}
    result = []
    for pid, (parent, argv, nested, started) in found.items():
        ancestor = pid
        while ancestor in found and not labs[ancestor]:
            ancestor = found[ancestor][0]
        result.append(Process(pid, parent, argv, labs.get(ancestor, ""), nested, started))
    return result


def _process(path: Path) -> tuple[int, str, bool, int]:
    """(parent, argv, nested, start time). Raises OSError when it has ended, also when nobody has waited for it yet."""
    status = dict(line.split(":\t", 1) for line in (path / "status").read_text().splitlines() if ":\t" in line)
    if status["State"].startswith("Z"):
        raise ProcessLookupError(path)
    started = int((path / "stat").read_text().rpartition(")")[2].split()[19])
    argv = (path / "cmdline").read_bytes().decode(errors="replace").rstrip("\0")
    return int(status["PPid"]), argv or status["Name"], len(status["NSpid"].split()) > 1, started


def _lab_of(argv: str) -> str:
    """The lab a supervisor or holder belongs to; empty for any other process. In a container it has LAB/NODE."""
    if argv.startswith(TITLE):
        return argv.removeprefix(TITLE)
    words = argv.split("\0")
    return words[4].partition("/")[0] if len(words) > 4 and words[3].endswith("/supervisor.py") else ""


def namespaces_of(lab: str) -> set[str]:
    """The namespaces of a running lab ("net:[4026532211]"): its processes', and those its supervisor holds open."""
    host = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in NAMESPACES}
    return {link for entry in processes() if entry.lab == lab for link in _links(entry.pid)} - host


def holders(namespaces: set[str], labs: set[str]) -> list[str]:
    """Processes that are in one of the namespaces, or hold it open; those of the given labs do not count."""
    return [
        f"process {entry.pid} ({entry.argv}) holds {sorted(held)}"
        for entry in processes()
        if entry.lab not in labs and (held := namespaces & set(_links(entry.pid)))
    ]


def _links(pid: int) -> Iterator[str]:
    for folder in (Path(f"/proc/{pid}/ns"), Path(f"/proc/{pid}/fd")):
        with contextlib.suppress(OSError):  # it has ended
            for entry in folder.iterdir():
                with contextlib.suppress(OSError):  # it was closed
                    link = str(entry.readlink())
                    if link.partition(":")[0] in NAMESPACES:
                        yield link
