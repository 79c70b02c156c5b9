"""The labs that come with the project. Light to import: shell completion lists them."""

from __future__ import annotations

from pathlib import Path

FILE = "lab.yaml"
_PACKAGE = Path(__file__).resolve().parent.parent


def labs_folder() -> Path:
    """Where they are: in the installed package, else beside it in the checkout."""
    installed = _PACKAGE / "labs"
    return installed if installed.is_dir() else _PACKAGE.parent / "labs"


def shipped_labs() -> list[str]:
    """Their names, sorted."""
    return sorted(entry.parent.name for entry in labs_folder().glob(f"*/{FILE}"))
