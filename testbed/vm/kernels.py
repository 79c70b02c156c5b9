"""Finds a kernel to boot: a distribution's, whose modules are installed.

Sources: virtme-ng's list of what a guest needs (virtme/virtmods.py); files are named as Debian and Fedora name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import InputError, Problem, UnsupportedError

BOOT, MODULES = Path("/boot"), Path("/lib/modules")
PACKAGE = "linux-image-amd64"
# Without these a guest finds neither its root file system nor its streams.
NEEDED = ("CONFIG_9P_FS", "CONFIG_NET_9P_VIRTIO", "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_CONSOLE", "CONFIG_OVERLAY_FS")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's image, and its version ("6.1.0-56-amd64")."""

    image: Path
    version: str


def find(wanted: str = "", boot: Path = BOOT, modules: Path = MODULES) -> Kernel:
    """The newest kernel that a guest can run; or the wanted one, by version or by the path of its image.

    Raises:
        InputError: the wanted one is not there, or no guest can run it. UnsupportedError: there is none.
    """
    if wanted:
        image = Path(wanted) if "/" in wanted else boot / f"vmlinuz-{wanted}"
        kernel = Kernel(image, image.name.partition("-")[2])
        if reason := unfit(kernel, modules):
            raise InputError([Problem(f"--kernel {wanted}: {reason}", hint=f"one of {_listed(boot, modules)}")])
        return kernel
    found = installed(boot, modules)
    if not found:
        raise UnsupportedError(f"no kernel in {boot} that a guest can run: apt install {PACKAGE}")
    return found[0]


def installed(boot: Path = BOOT, modules: Path = MODULES) -> list[Kernel]:
    """The kernels that a guest can run, the newest first."""
    kernels = [Kernel(image, image.name.partition("-")[2]) for image in boot.glob("vmlinuz-*")]
    return sorted((one for one in kernels if not unfit(one, modules)), key=_age, reverse=True)


def unfit(kernel: Kernel, modules: Path = MODULES) -> str:
    """Why a guest cannot run a kernel; empty when it can."""
    if not kernel.image.is_file():
        return f"there is no {kernel.image}"
    if not (modules / kernel.version / "modules.dep").is_file():
        return f"its modules are not installed in {modules / kernel.version}"
    config = kernel.image.with_name(f"config-{kernel.version}")
    try:
        built = dict(re.findall(r"^(CONFIG_\w+)=([ym])$", config.read_text(), re.MULTILINE))
    except OSError:
        return f"it does not say how it was built: there is no {config}"
    missing = [name for name in NEEDED if name not in built]
    return f"it was built without {', '.join(missing)}" if missing else ""


def _age(kernel: Kernel) -> list[tuple[int, str]]:
    """Orders versions as people do: 6.9 before 6.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.-]", kernel.version)]


def _listed(boot: Path, modules: Path) -> str:
    return ", ".join(kernel.version for kernel in installed(boot, modules)) or f"those of the package {PACKAGE}"
