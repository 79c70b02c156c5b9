"""Pictures of a topology, laid out by Graphviz (Debian: graphviz)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from testbed import run
from testbed.errors import UnsupportedError
from testbed.render import configs
from testbed.report.topology import Topology, dot, drawio

GRAPHVIZ = "/usr/bin/dot"


def svg(graph: Topology, path: Sequence[str] = (), *, alone: bool = True) -> str:
    """The graph as SVG.

    Args:
        path: see testbed.report.topology.dot.
        alone: with its own style sheet and XML declaration, as a file; else to be put into a page that has the styles.

    Raises:
        UnsupportedError: Graphviz is not installed.
    """
    return drawing(dot(graph, path), alone=alone)


def drawing(text: str, *, alone: bool = True) -> str:
    """A graph in the DOT language as SVG; `alone` and errors as for `svg`."""
    drawn = laid_out("svg", text)
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<!--.*?-->\n?", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' id="[^"]*"', "", drawn)  # several pictures may stand in one page
    drawn = re.sub(r' width="[^"]*" height="[^"]*"', "", drawn, count=1)
    if not alone:
        return drawn
    styled = drawn.replace(">", f">\n<style>\n{style_sheet()}</style>", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{styled}'


def style_sheet() -> str:
    """The colours of pictures, for light and dark surroundings."""
    return (configs() / "report" / "picture.css").read_text()


def drawio_file(graph: Topology) -> str:
    """The graph as a draw.io file. Raises UnsupportedError when Graphviz is not installed."""
    return drawio(graph, json.loads(laid_out("json", dot(graph))))


def laid_out(form: str, text: str) -> str:
    """What Graphviz makes of a graph in one of its formats. Raises UnsupportedError when it is not installed."""
    try:
        return run.run([GRAPHVIZ, f"-T{form}"], stdin=text)
    except UnsupportedError:
        raise UnsupportedError("pictures are laid out by Graphviz, which is not installed (Debian: graphviz)") from None
