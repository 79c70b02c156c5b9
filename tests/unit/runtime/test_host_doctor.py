"""What the doctor says of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.runtime import host_doctor
from testbed.runtime.doctor import Finding


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which all is well, as folders PROC, SYS and LIBRARY."""
    for name in ("PROC", "SYS", "LIBRARY"):
        monkeypatch.setattr(host_doctor, name, tmp_path / name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write(tmp_path / "SYS/fs/cgroup/cgroup.controllers", "cpu memory")
    write(tmp_path / "PROC/sys/fs/inotify/max_user_instances", "8192")
    write(tmp_path / "PROC/sys/net/bridge/bridge-nf-call-iptables", "1")
    write(tmp_path / "PROC/modules", "vrf 45056 0 - Live 0x0\ndummy 16384 0 - Live 0x0\n")
    library = tmp_path / "LIBRARY" / os.uname().release
    write(library / "modules.dep", "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/a.ko\nkernel/net/ipv4/ipip.ko:\n")
    write(library / "modules.builtin", "kernel/net/8021q/8021q.ko\n")
    for name, words in (("containerlab", "    version: 0.79.0"), ("kind", "kind v0.32.0 go1.25 linux/amd64")):
        write(tmp_path / "bin" / name, f"#!/bin/sh\necho '{words}'\n").chmod(0o755)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in host_doctor.examine()}


def test_all_is_well(machine: Path) -> None:
    found = findings()
    assert all(finding.works and not finding.advice for finding in found.values())
    assert found["cgroups"].detail == "version 2"
    assert found["inotify instances"].detail == "8192"
    assert found["kernel modules"].detail == (
        "loaded: vrf, dummy; loadable: ip_vs, ipip; built in: 8021q; not there: vxlan, sch_netem"
    )
    assert found["bridge netfilter"].detail.startswith("on: ")
    assert found["FORWARD policy"].detail in ("accept", "drop")
    assert found["containerlab"].detail == f"0.79.0, {machine}/bin/containerlab"
    assert found["kind"].detail == f"0.32.0, {machine}/bin/kind"


def test_what_is_wrong_says_what_to_do(machine: Path) -> None:
    (machine / "SYS/fs/cgroup/cgroup.controllers").unlink()
    (machine / "PROC/sys/fs/inotify/max_user_instances").write_text("128")
    (machine / "PROC/sys/net/bridge/bridge-nf-call-iptables").write_text("0")
    (machine / "PROC/modules").unlink()
    (machine / "bin/kind").unlink()
    write(machine / "bin/containerlab", "#!/bin/sh\necho broken >&2\nexit 3\n")
    found = findings()
    assert (found["cgroups"].state, "unified" in found["cgroups"].advice) == ("version 1", True)
    assert found["inotify instances"].advice.startswith("128 of the 512 that kind asks for: sysctl fs.inotify.max_user")
    assert (found["kernel modules"].state, "testbed vm" in found["kernel modules"].advice) == ("none", True)
    assert found["bridge netfilter"].detail == "off"
    assert (found["kind"].works, "go install" in found["kind"].advice) == (False, True)
    assert (found["containerlab"].state, "broken" in found["containerlab"].advice) == ("fails", True)
    assert not any(finding.fatal for finding in found.values())


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (
            "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}",
            "drop",
        ),
        ("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER", "drop"),
        ("-P FORWARD ACCEPT", "accept"),
        ("", "accept"),
    ],
)
def test_the_forward_policy(monkeypatch: pytest.MonkeyPatch, text: str, policy: str) -> None:
    monkeypatch.setattr(host_doctor.run, "run", lambda _: text)
    assert host_doctor._forward_policy() == policy


def test_containerlab_is_of_no_use_to_a_kernel_without_modules(machine: Path) -> None:
    (machine / "PROC/modules").unlink()
    found = findings()["containerlab"]
    assert (found.works, found.state) == (False, "not here")
    assert found.advice.startswith("0.79.0, ")
    assert "testbed vm" in found.advice
