"""The rule for names that become host names: of labs, nodes and flows. Light to import: the command line needs it."""

from __future__ import annotations

import re

HOST_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def host_label(value: str) -> str:
    """The value, when it is a host name label (RFC 1123).

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(HOST_LABEL, value):
        raise ValueError(f"{value!r} is no legal name: lower-case letters, digits and inner hyphens, at most 63")
    return value
