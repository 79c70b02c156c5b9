"""Parts of `testbed vm` that need no machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import run
from testbed.errors import CommandError, InputError
from testbed.vm import exchange, kvm, machine
from testbed.vm.exchange import Request
from testbed.vm.kernels import Kernel
from testbed.vm.machine import Machine
from testbed.vm.streams import Copy


def test_a_request_arrives_as_it_was_sent(tmp_path: Path):
    for request in (
        Request(("ls", "-l", "a b"), "/tmp/x", {"A": "1", "B": "ü\n"}, ("/tmp/x", "/srv"), (24, 80), docker=True),
        Request(("true",), "/", {}),
    ):
        exchange.write(request, tmp_path)
        assert exchange.read(tmp_path) == request


def test_the_environment_that_is_carried_over():
    here = {"PATH": "/bin", "DOCKER_HOST": "unix:///x", "TESTBED_REQUIRE": "all", "TMPDIR": "/x"}
    there = {"PATH": "/bin", "TESTBED_REQUIRE": "all"}
    assert machine.carried(here, accelerated=True) == there
    assert machine.carried(here, accelerated=False) == {**there, "TESTBED_PATIENCE": machine.EMULATED}
    own = {"TESTBED_PATIENCE": "30"}
    assert machine.carried(own, accelerated=False) == own


def test_what_the_guest_may_write(tmp_path: Path):
    assert machine.shared("/srv") == ("/srv",)
    assert machine.shared("/") == ()
    assert machine.shared("/srv", [str(tmp_path)]) == ("/srv", str(tmp_path))
    for folder, others, words in (
        ("/proc/1", (), "/proc/1 cannot be shared"),
        ("/srv", ("/",), "/ cannot be shared"),
        ("/srv", (f"{tmp_path}/none",), "--write .*/none: there is no such folder"),
    ):
        with pytest.raises(InputError, match=words):
            machine.shared(folder, others)


def test_the_command_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "virtme", lambda: "/bin/virtme-run")
    kernel = Kernel(Path("/boot/vmlinuz-6.1"), "6.1")
    argv = list(machine._command(Machine(kernel, "4G", 2, kvm=False, network=True)))
    assert argv[:3] == ["/bin/virtme-run", "--kimg", "/boot/vmlinuz-6.1"]
    assert "--disable-kvm" in argv
    assert argv[argv.index("--net") + 1] == "user"
    assert "--rw" not in argv, "the host's files are read-only"
    argv = list(machine._command(Machine(kernel, "4G", 2, kvm=True)))
    assert not {"--disable-kvm", "--net", "--verbose"} & set(argv)


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "PACKAGES", {"/no/such/qemu": "qemu-system-x86"})
    monkeypatch.setattr(machine, "virtme", lambda: "")
    assert "apt install qemu-system-x86; pip install 'testbed[vm]'" in machine.missing()
    monkeypatch.setattr(machine, "PACKAGES", {"/bin/sh": "dash"})
    monkeypatch.setattr(machine, "virtme", lambda: "/bin/virtme-run")
    assert machine.missing() == ""


# --- KVM --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm, and a kernel to try it with."""
    path = tmp_path / "kvm"
    path.write_text("")
    monkeypatch.setattr(kvm, "DEVICE", path)
    monkeypatch.setattr(kvm, "MEMORY", tmp_path / "memory")
    monkeypatch.setattr(kvm.kernels, "find", lambda: Kernel(Path("/boot/vmlinuz"), ""))
    return path


@pytest.mark.parametrize(
    ("outcome", "works", "reason"),
    [
        ("Kernel panic - not syncing: VFS: Unable to mount root fs", True, ""),
        ("", False, "exists, but the guest did not boot"),
        (CommandError(["qemu"], -9, "took longer than 10 s"), False, "exists, but the guest hangs"),
        (CommandError(["qemu"], -6, "error: failed to set MSR 0x1\n"), False, "QEMU ends: error: failed to set MSR"),
        (CommandError(["qemu"], 1, ""), False, "QEMU ends without a word"),
    ],
)
def test_kvm_is_tried_once(device: Path, monkeypatch: pytest.MonkeyPatch, outcome, works: bool, reason: str):
    tried = []

    def boot(argv, timeout):
        tried.append(argv)
        if isinstance(outcome, CommandError):
            raise outcome
        return outcome

    monkeypatch.setattr(run, "run", boot)
    first, second = kvm.answer(), kvm.answer()
    assert first == second
    assert first.works is works
    assert reason in first.reason
    assert len(tried) == 1
    assert kvm.QEMU in tried[0]


def test_no_device_no_kvm(device: Path):
    device.unlink()
    assert kvm.answer() == kvm.Kvm(False, f"there is no {device}")


# --- streams ----------------------------------------------------------------------------------------------------------


def test_bytes_are_copied_until_the_end():
    reader, source = os.pipe()
    target, writer = os.pipe()
    copy = Copy({reader: writer})
    assert not copy.some(0)
    os.write(source, b"\0\xff words")
    assert copy.some(1)
    assert os.read(target, 100) == b"\0\xff words"
    os.close(source)
    assert copy.some(1)
    assert copy.pairs == {}
    for descriptor in (reader, target, writer):
        os.close(descriptor)


def test_nobody_reads_any_more():
    reader, source = os.pipe()
    target, writer = os.pipe()
    os.close(target)
    copy = Copy({reader: writer})
    os.write(source, b"words")
    assert copy.some(1)
    assert (copy.refused, copy.pairs) == (True, {})
    for descriptor in (source, reader, writer):
        os.close(descriptor)


# --- a terminal for the command, as the guest makes it ----------------------------------------------------------------

ON_TERMINAL = """\
import sys
from testbed.vm import guest
from testbed.vm.exchange import Request
request = Request(tuple(sys.argv[1:]), "/", {}, terminal=(24, 80))
sys.exit(guest._on_terminal(request, {"PATH": "/usr/bin:/bin"}, (24, 80)))
"""


def on_terminal(*argv: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", ON_TERMINAL, *argv]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_command_on_a_terminal():
    script = "trap 'echo caught' INT; stty size; tty; read one; echo got $one; cat; exit 7"
    command = on_terminal("sh", "-c", script)
    assert command.stdin
    assert command.stdout
    assert command.stdout.readline() == b"24 80\r\n"
    assert command.stdout.readline().startswith(b"/dev/pts/")
    command.stdin.write(b"word\n")
    command.stdin.flush()
    assert [command.stdout.readline() for _ in range(2)] == [b"word\r\n", b"got word\r\n"]  # the first is the echo
    command.stdin.write(b"more\n")
    command.stdin.flush()
    assert [command.stdout.readline() for _ in range(2)] == [b"more\r\n"] * 2  # the echo, and what cat says
    command.stdin.write(b"\x03")  # Ctrl-C: ends cat; the shell catches it
    command.stdin.flush()
    assert command.stdout.read() == b"^Ccaught\r\n"
    assert command.wait(10) == 7
    command.stdin.close()
    command.stdout.close()


def test_a_command_that_is_not_there_on_a_terminal():
    said, _ = on_terminal("/no/such/program").communicate(timeout=10)
    assert said == b"/no/such/program: No such file or directory\r\n"
