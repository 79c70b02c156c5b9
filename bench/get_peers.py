"""Puts munet and Mininet below .cache, where nothing of the system sees them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.peers import CACHE

MUNET = "munet==0.17.3"


def get() -> None:
    """munet from PyPI into a virtual environment of its own; Mininet from Debian, unpacked and not installed."""
    if not (CACHE / "munet" / "bin" / "munet").exists():
        subprocess.run((sys.executable, "-m", "venv", str(CACHE / "munet")), check=True)
        subprocess.run((str(CACHE / "munet" / "bin" / "pip"), "install", "--quiet", MUNET), check=True)
    if not (CACHE / "mininet" / "usr").exists():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o777)  # apt downloads as a user of its own
            if subprocess.run(("apt-get", "download", "mininet"), cwd=folder, check=False).returncode:
                subprocess.run(("apt-get", "update"), check=True)
                subprocess.run(("apt-get", "download", "mininet"), cwd=folder, check=True)
            (package,) = Path(folder).glob("mininet_*.deb")
            subprocess.run(("dpkg-deb", "-x", str(package), str(CACHE / "mininet")), check=True)
