"""Boots a virtual machine over this machine's own files, runs one command in it, and ends with it.

The guest sees the host's file system, read-only, with changes to some folders kept in its memory; only the folders that
it is given can be written. Nothing is left, whatever ends us: QEMU is tied to our life, and all files are in a mount
namespace of our own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import testbed
from testbed import run
from testbed.errors import DeployError, InputError, Problem, UnsupportedError
from testbed.patience import VARIABLE
from testbed.runtime import supervisor as system
from testbed.vm import exchange, kvm
from testbed.vm.exchange import GUEST, HOST, Request
from testbed.vm.kernels import Kernel
from testbed.vm.streams import Copy
from testbed.wait import Deadline

PACKAGES = {kvm.QEMU: "qemu-system-x86", "/bin/busybox": "busybox-static", "/usr/bin/file": "file"}
VIRTME = "pip install 'testbed[vm]'"
# In the guest these can be written too; what is written is in its memory, and gone with it.
IN_MEMORY = ("/etc", "/home", "/root", "/srv", "/var")
# Of the host's environment: what names sockets and folders that the guest does not have.
NOT_CARRIED = ("DOCKER_HOST", "TMPDIR", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY")
OF_THE_KERNEL = ("/proc", "/sys", "/dev")
EMULATED = "10"  # how much more patience it takes without KVM; measured: labs/two-routers up 2 s, emulated 20 s
BOOT = 300.0  # seconds; emulated on a busy machine it takes two minutes
PAUSE = 0.1  # seconds between two looks at the exchange folder
TIMED_OUT = 124  # as timeout(1) has it
NOT_READ = 141  # as a shell says of a program that SIGPIPE has ended


@dataclass(frozen=True, slots=True)
class Machine:
    """What to boot.

    Args:
        memory: as QEMU has it, "4G". kvm: whether to use it.
        network: whether the guest reaches what the host reaches.
        verbose: the kernel's and virtme-ng's messages go to standard error.
    """

    kernel: Kernel
    memory: str
    processors: int
    kvm: bool
    network: bool = False
    verbose: bool = False


def virtme() -> str:
    """The path of virtme-ng's virtme-run; empty when it is not installed."""
    return shutil.which("virtme-run", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}") or ""


def missing() -> str:
    """Why no machine can be booted here, kernels aside; empty when one can."""
    packages = sorted({package for path, package in PACKAGES.items() if not os.access(path, os.X_OK)})
    ways = [f"apt install {' '.join(packages)}"] if packages else []
    ways += [] if virtme() else [VIRTME]
    return f"a virtual machine needs more than is installed: {'; '.join(ways)}" if ways else ""


def carried(environment: Mapping[str, str], *, accelerated: bool) -> dict[str, str]:
    """The environment of a command in the guest: the caller's, and how patient to be."""
    found = {name: value for name, value in environment.items() if name not in NOT_CARRIED}
    return found if accelerated else {VARIABLE: EMULATED, **found}


def shared(folder: str, others: Sequence[str] = ()) -> tuple[str, ...]:
    """The folders that the guest may write: the current one, and others. Raises InputError: one cannot be shared."""
    found = [] if folder == "/" else [folder]
    for name in others:
        if not Path(name).is_dir():
            raise InputError([Problem(f"--write {name}: there is no such folder")])
        found.append(str(Path(name).resolve()))
    for path in found:
        if path == "/" or Path(path).is_relative_to(GUEST) or any(Path(path).is_relative_to(f) for f in OF_THE_KERNEL):
            raise InputError([Problem(f"{path} cannot be shared with the guest", hint="run it in another folder")])
    return tuple(found)


def boot(machine: Machine, request: Request, *, timeout: float, image: Callable[[Path], None] | None = None) -> int:
    """Run a command, on our streams, in a machine that is booted for it. Moves us to a mount namespace of our own.

    Args:
        timeout: seconds until it is ended; 0: never.
        image: writes the archive of an image for the guest's engine.

    Returns:
        The command's exit status; TIMED_OUT when its time was up.

    Raises:
        UnsupportedError: something is missing. DeployError: the machine did not boot, or ended before the command.
    """
    if reason := missing():
        raise UnsupportedError(reason)
    _prepare(request, image)
    with _terminal_kept(), run.beside((*run.TIED, *_command(machine)), _environment()) as qemu:
        return _Watch(qemu, request, Deadline(timeout, exact=True) if timeout else None).until_the_end()


def _prepare(request: Request, image: Callable[[Path], None] | None) -> None:
    """A folder to exchange files with the guest, which nobody else sees, and which ends with us."""
    system.unshare(run.CLONE_NEWNS)
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    system.mount("testbed", str(HOST), "tmpfs", data="mode=700")
    for number, folder in enumerate(request.shared):
        place = HOST / exchange.SHARED / str(number)
        place.mkdir(parents=True)
        system.mount(folder, str(place), flags=system.MS_BIND | system.MS_REC)
    exchange.write(request, HOST)
    if image:
        image(HOST / exchange.IMAGE)
    package = Path(testbed.__file__).parent.parent
    settings = [f"PYTHONPATH={package}", f"{VARIABLE}={request.environment.get(VARIABLE, '1')}"]
    guest = shlex.join(["env", *settings, sys.executable, "-P", "-B", "-m", "testbed.vm.guest"])
    (HOST / "start").write_text(f"exec {guest}\n")


def _command(machine: Machine) -> Iterator[str]:
    yield from (virtme(), "--kimg", str(machine.kernel.image), "--mods", "auto", "--force-9p", "--disable-microvm")
    yield from ("--memory", machine.memory, "--cpus", str(machine.processors), "--name", "testbed-vm")
    for folder in IN_MEMORY:
        yield from ("--overlay-rwdir", folder)
    yield from ("--rwdir", f"{str(GUEST).lstrip('/')}={HOST}", "--script-sh", f"exec sh {GUEST}/start")
    if not machine.kvm:
        yield "--disable-kvm"
    if machine.network:
        yield from ("--net", "user")
    if machine.verbose:
        yield from ("--show-boot-console", "--verbose")


def _environment() -> dict[str, str]:
    """Of virtme-run, whose temporary files and cache shall end with us."""
    return {**run.ENVIRONMENT, "HOME": str(HOST), "TMPDIR": str(HOST), "LOGNAME": "root"}


class _Watch:
    """Copies what the guest prints, and sees to it that it boots and ends in time."""

    def __init__(self, qemu: run.Beside, request: Request, deadline: Deadline | None) -> None:
        self._qemu, self._terminal, self._deadline = qemu, request.terminal, deadline
        self._boot = Deadline(BOOT)
        self._copy = Copy({qemu.output: 1, qemu.errors: 2})

    def until_the_end(self) -> int:
        keys_are_ours = bool(self._terminal)
        while self._qemu.status is None or self._copy.pairs:
            if not self._copy.some(PAUSE) and _told(exchange.STATUS):
                (HOST / exchange.DRAINED).touch()
            if keys_are_ours and _told(exchange.STARTED):
                _keys_to_the_guest()
                keys_are_ours = False
            if self._copy.refused:
                return NOT_READ
            if self._late():
                return TIMED_OUT
        if not _told(exchange.STATUS):
            raise DeployError(f"the virtual machine ended before the command did ({self._qemu.status}): see --verbose")
        return int((HOST / exchange.STATUS).read_text())

    def _late(self) -> bool:
        if self._boot.passed and not _told(exchange.STARTED):
            raise DeployError(f"the virtual machine did not boot in {self._boot.seconds:g} s: see --verbose")
        return bool(self._deadline and self._deadline.passed)


def _told(name: str) -> bool:
    return (HOST / name).exists()


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Leave the terminal as it was: QEMU changes it, and may not live to change it back."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, before)


def _keys_to_the_guest() -> None:
    """Let Ctrl-C, Ctrl-Z and Ctrl-\\ go to the command; Ctrl-] ends the machine, as it ends telnet.

    QEMU has put the terminal into a mode in which it passes on all keys but these (termios(3)).
    """
    settings = termios.tcgetattr(0)
    settings[6][termios.VINTR], settings[6][termios.VQUIT], settings[6][termios.VSUSP] = b"\x1d", b"\0", b"\0"
    termios.tcsetattr(0, termios.TCSANOW, settings)
