"""Which kernel a virtual machine boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import InputError, UnsupportedError
from testbed.vm import kernels


class Machine:
    """Folders like /boot and /lib/modules."""

    def __init__(self, folder: Path) -> None:
        self.boot, self.modules = folder / "boot", folder / "modules"
        self.boot.mkdir()

    def add(self, version: str, *, modules: bool = True, lacks: str = "") -> None:
        (self.boot / f"vmlinuz-{version}").write_text("")
        built = [f"{name}={'y' if 'VIRTIO' in name else 'm'}" for name in kernels.NEEDED if name != lacks]
        (self.boot / f"config-{version}").write_text("\n".join(["# a comment", *built, "CONFIG_OTHER=y", ""]))
        if modules:
            (self.modules / version).mkdir(parents=True)
            (self.modules / version / "modules.dep").write_text("")

    def find(self, wanted: str = "") -> str:
        return kernels.find(wanted, self.boot, self.modules).version


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("6.1.0-9-amd64", "6.1.0-56-amd64"), ("6.9.12-amd64", "6.10.0-amd64"), ("5.10.0-28-amd64", "6.1.0-9-cloud-amd64")],
)
def test_the_newest(machine: Machine, older: str, newer: str):
    machine.add(newer)
    machine.add(older)
    assert machine.find() == newer


def test_what_a_guest_cannot_run_is_passed_over(machine: Machine):
    machine.add("6.1.0-1-amd64")
    machine.add("6.2.0", modules=False)
    machine.add("6.3.0", lacks="CONFIG_9P_FS")
    machine.add("6.4.0")
    (machine.boot / "config-6.4.0").unlink()
    assert machine.find() == "6.1.0-1-amd64"


def test_the_wanted_one_by_version_and_by_path(machine: Machine):
    machine.add("6.1.0-1-amd64")
    machine.add("6.9.0")
    assert machine.find("6.1.0-1-amd64") == "6.1.0-1-amd64"
    assert machine.find(str(machine.boot / "vmlinuz-6.1.0-1-amd64")) == "6.1.0-1-amd64"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("7.0", "--kernel 7.0: there is no .*/vmlinuz-7.0 .one of 6.1.0-1-amd64"),
        ("6.2.0", "--kernel 6.2.0: its modules are not installed in "),
        ("6.3.0", "--kernel 6.3.0: it was built without CONFIG_9P_FS"),
    ],
)
def test_the_wanted_one_is_refused_with_the_reason(machine: Machine, wanted: str, words: str):
    machine.add("6.1.0-1-amd64")
    machine.add("6.2.0", modules=False)
    machine.add("6.3.0", lacks="CONFIG_9P_FS")
    with pytest.raises(InputError, match=words):
        machine.find(wanted)


def test_there_is_none(machine: Machine):
    with pytest.raises(UnsupportedError, match="apt install linux-image-amd64"):
        machine.find()
