"""Numbers and rows as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """A time span: milliseconds below a second, else seconds with one decimal."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def age(seconds: float) -> str:
    """How long ago something was, in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def count(number: int, noun: str) -> str:
    """A number with its noun, which takes a plural s unless there is one of it."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows as aligned lines, two spaces between columns; columns in which nothing is written are left out."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    padded = ([f"{cell:{width}}" for cell, width in zip(row, widths, strict=True) if width] for row in rows)
    return [(indent + "  ".join(cells)).rstrip() for cells in padded]


def cut(text: str, width: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
