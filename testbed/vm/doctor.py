"""Whether `testbed vm` can be used: QEMU, virtme-ng, a kernel, and KVM, which makes it fast."""

from __future__ import annotations

import os
from collections.abc import Iterator

from testbed.errors import TestbedError, UnsupportedError
from testbed.runtime.doctor import Finding
from testbed.vm import kernels, kvm, machine

PURPOSES = {"qemu-system-x86": "the machine", "busybox-static": "its first steps", "file": "to know the kernel"}

NAME = "distribution's kernel"


def examine() -> list[Finding]:
    """Look at everything. Takes up to 10 s where KVM has to be tried, and only the first time."""
    return [*_programs(), _kernel(), _kvm()]


def _finding(name: str, purpose: str, *, works: bool, state: str = "", detail: str = "", advice: str = "") -> Finding:
    return Finding(name, "vm", works, False, purpose, detail, "" if works else advice, "" if works else state)


def _programs() -> Iterator[Finding]:
    for path, package in machine.PACKAGES.items():
        there = os.access(path, os.X_OK)
        yield _finding(path, PURPOSES[package], works=there, advice=f"apt install {package}")
    yield _finding("virtme-ng", "its file system, its streams", works=bool(machine.virtme()), advice=machine.VIRTME)


def _kernel() -> Finding:
    purpose = "what it boots"
    try:
        return _finding(NAME, purpose, works=True, detail=kernels.find().version)
    except TestbedError:
        return _finding(NAME, purpose, works=False, advice=f"apt install {kernels.PACKAGE}")


def _kvm() -> Finding:
    purpose = "its speed"
    slow = "it is emulated, ten times slower"
    if reason := kvm.missing():
        return _finding("KVM", purpose, works=False, state="unknown", advice=reason)
    try:
        found = kvm.answer()
    except UnsupportedError as error:
        return _finding("KVM", purpose, works=False, state="unknown", advice=str(error))
    state = "unusable" if kvm.DEVICE.exists() else ""
    return _finding("KVM", purpose, works=found.works, state=state, advice=f"{found.reason}: {slow}")
