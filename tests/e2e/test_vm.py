"""`testbed vm` itself. To boot takes a minute under emulation: few tests boot a machine, and each asks much of it."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_host import processes
from test_killed_up import TESTBED

from testbed.wait import Deadline, readable, until

pytestmark = [pytest.mark.live, pytest.mark.vm_boot, pytest.mark.testbed_needs("vm")]

BOOT = 400  # seconds
EXCHANGE = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _nothing_remains() -> Iterator[None]:
    """No process, no file, no mount of a machine is left, however it ended."""
    before = traces()
    yield
    until(lambda: traces() <= before, Deadline(5))
    assert sorted(traces() - before) == []


def traces() -> set[str]:
    """Other machines may run meanwhile: a process counts when it is ours, or when it has lost its parent."""
    parents = {entry.pid: entry.parent for entry in processes()}
    found = {
        f"process {entry.pid} {entry.argv[:200]!r}"
        for entry in processes()
        if machine(entry.argv) and (entry.parent == 1 or os.getpid() in lineage(entry.pid, parents))
    }
    found |= {str(path) for folder in (EXCHANGE, Path("/tmp"), Path("/var/tmp")) for path in strays(folder)}
    return found | {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(EXCHANGE) in line}


def lineage(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        yield pid
        pid = parents[pid]


def machine(argv: str) -> bool:
    return any(word in argv for word in ("qemu-system", "virtme-run", "setpriv\0--pdeathsig"))


def strays(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if "virtme" in path.name or folder == EXCHANGE]


def vm(*arguments: str, folder: Path, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*TESTBED, "vm", *arguments], cwd=folder, **options)


# Each line says what it is; a shell would hide the status of what fails, so it stops there.
SCRIPT = """\
set -eu
echo "kernel $(uname -r)"
echo "folder $(pwd)"
echo "variable $CARRIED"
echo "patience ${TESTBED_PATIENCE:-none}"
echo "docker ${DOCKER_HOST:-none}"
echo "input $(cat)"
echo from the guest >&2
mkdir made
echo "from the guest" >made/file
cp /etc/hostname /etc/hostname.copy
echo "read-only $(touch /usr/written 2>&1 || true)"
echo "run $(ls -A /run/testbed 2>/dev/null | wc -l)"
test ! -S "$HOST_SOCKET"
head -c 3000000 /dev/zero | tr '\\0' x
echo
exit 7
"""


def test_a_command_has_its_streams_folder_environment_and_status(tmp_path: Path):
    (tmp_path / "a b").mkdir()
    folder = tmp_path / "a b"
    environment = {**os.environ, "CARRIED": "ü 'x'", "DOCKER_HOST": "unix:///x", "HOST_SOCKET": "/run/docker.sock"}
    environment.pop("TESTBED_PATIENCE", None)
    before = set(Path("/etc").iterdir())
    command = vm(
        *("--timeout", str(BOOT), "--emulate", "--", "sh", "-c", SCRIPT),
        folder=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, errors = (stream.decode() for stream in command.communicate(b"one\ntwo\n", timeout=BOOT + 30))
    assert command.returncode == 7, errors
    *lines, flood = printed.splitlines()
    said = dict(line.partition(" ")[::2] for line in lines[:7])
    assert said["kernel"] != os.uname().release
    assert said["folder"] == str(folder)
    assert said["variable"] == "ü 'x'"
    assert said["patience"] == "10"
    assert said["docker"] == "none"
    assert lines[5:7] == ["input one", "two"]
    assert "Read-only file system" in lines[7]
    assert lines[8] == "run 0", "the guest sees labs of the host"
    assert flood == "x" * 3_000_000, "output was lost"
    assert "from the guest" in errors
    assert "(emulated: --emulate)" in errors
    assert (folder / "made/file").read_text() == "from the guest\n"
    assert set(Path("/etc").iterdir()) == before


def test_on_a_terminal_keys_go_to_the_command_and_kill_9_leaves_nothing(tmp_path: Path):
    script = (
        "trap 'echo caught' INT; stty size; tty; read one; echo got $one; sed -u s/ping/pong/; touch ended; exec cat"
    )
    with on_terminal("--", "sh", "-c", script, folder=tmp_path) as (command, terminal, until_it_says):
        until_it_says("24 80")
        until_it_says("/dev/pts/")
        os.write(terminal, b"word\n")
        until_it_says("got word")
        os.write(terminal, b"ping\n")
        until_it_says("pong")  # sed runs
        os.write(terminal, b"\x03")  # Ctrl-C ends it, and the shell goes on
        assert until((tmp_path / "ended").exists, Deadline(60))
        until_it_says("caught")
        assert any(machine(entry.argv) for entry in processes()), "a machine that runs is not seen"
        command.send_signal(signal.SIGKILL)
        command.wait()


@contextlib.contextmanager
def on_terminal(*arguments: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Callable[[str], None]]]:
    """`testbed vm` on a terminal of 24 rows and 80 columns; a function that waits until it has printed something."""
    import termios

    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    command = vm(*arguments, folder=folder, stdin=its, stdout=its, stderr=its, start_new_session=True)
    printed = bytearray()

    def until_it_says(words: str) -> None:
        def said() -> bool:
            while readable([ours], 0):
                printed.extend(os.read(ours, 1 << 16))
            assert command.poll() is None, printed
            return words.encode() in printed

        assert until(said, Deadline(BOOT)), printed

    try:
        yield command, ours, until_it_says
    finally:
        command.kill()
        command.wait()
        os.close(its)
        os.close(ours)


# --- without waiting for a machine to boot ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("instant", [0.5, 3.0])
def test_ended_while_it_boots(tmp_path: Path, number: signal.Signals, instant: float):
    command = vm("--emulate", "--", "true", folder=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: command.poll() is not None, Deadline(instant, exact=True))
    assert command.poll() is None, "it had ended before"
    command.send_signal(number)
    status = command.wait(timeout=30)
    assert status == {signal.SIGKILL: -9, signal.SIGINT: 130}.get(number, 128 + number) or status == -number
    assert list(tmp_path.iterdir()) == []


def test_its_time_is_up(tmp_path: Path):
    start = time.monotonic()
    arguments = ("--emulate", "--timeout", "3", "--", "true")
    command = vm(*arguments, folder=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 124
    assert b"the command did not end in 3 s" in errors
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--kernel", "0.0-none", "--", "true"), 2, "--kernel 0.0-none: there is no /boot/vmlinuz-0.0-none"),
        (("--write", "/no/such", "--", "true"), 2, "--write /no/such: there is no such folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(tmp_path: Path, arguments, status: int, words: str):
    command = vm("--emulate", *arguments, folder=tmp_path, stderr=subprocess.PIPE)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == status
    assert words in errors.decode()
