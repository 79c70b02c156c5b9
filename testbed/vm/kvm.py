"""Whether KVM works. That /dev/kvm exists says little: inside of another virtual machine QEMU may stop, or hang.

Tried by booting a kernel without a root file system: it gives up after two seconds (with panic=-1 by a reboot, which is
QEMU's end with -no-reboot). The answer is kept until this machine boots again.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed import run
from testbed.errors import CommandError, UnsupportedError
from testbed.vm import kernels

DEVICE = Path("/dev/kvm")
MEMORY = Path("/run/testbed-kvm.json")  # /run is empty after a boot
QEMU = "/usr/bin/qemu-system-x86_64"
LAST = 10.0  # seconds the kernel has to give up


@dataclass(frozen=True, slots=True)
class Kvm:
    """Whether KVM works, and if not, why."""

    works: bool
    reason: str = ""


def answer() -> Kvm:
    """Try it, or know it from before. Takes up to 10 s the first time.

    Raises:
        UnsupportedError: QEMU or a kernel to try it with is missing.
    """
    if not DEVICE.exists():
        return Kvm(False, f"there is no {DEVICE}")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Kvm(False, f"{DEVICE} may not be used")
    try:
        return Kvm(**json.loads(MEMORY.read_text()))
    except (OSError, ValueError, TypeError):
        found = _tried(kernels.find().image)
    with contextlib.suppress(OSError):  # then it is tried again the next time
        MEMORY.write_text(json.dumps(asdict(found)))
    return found


def _tried(kernel: Path) -> Kvm:
    options = ("console=ttyS0", "panic=-1", "root=/dev/ram0", "quiet")
    argv = (
        *run.TIED,
        *(QEMU, "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "256", "-no-reboot", "-nodefaults"),
        *("-display", "none", "-serial", "stdio", "-kernel", str(kernel), "-append", " ".join(options)),
    )
    try:
        printed = run.run(argv, timeout=LAST)
    except CommandError as error:
        why = "the guest hangs" if error.status == -9 else _words(error.output)
        return Kvm(False, f"{DEVICE} exists, but {why}")
    return Kvm(True) if "panic" in printed else Kvm(False, f"{DEVICE} exists, but the guest did not boot")


def _words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"QEMU ends: {lines[-1]}" if lines else "QEMU ends without a word"


def missing() -> str:
    """Why nothing can be tried here: QEMU is not installed. Empty when it is."""
    return "" if os.access(QEMU, os.X_OK) else "QEMU is not installed: apt install qemu-system-x86"


def demand() -> None:
    """Raise UnsupportedError when QEMU is not installed."""
    if reason := missing():
        raise UnsupportedError(reason)
