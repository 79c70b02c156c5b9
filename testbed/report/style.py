"""How all terminal reports look: few colours, no lines, headings in bold."""

from __future__ import annotations

from rich.table import Table

GOOD, POOR, QUIET, HEADING = "green", "bold red", "dim", "bold"


def plain_table(title: str = "") -> Table:
    """A table without lines; its columns keep two spaces between them."""
    return Table(
        box=None,
        title=title or None,
        title_justify="left",
        title_style=HEADING,
        header_style=QUIET,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        collapse_padding=True,
    )
