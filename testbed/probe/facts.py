"""What the labs' echo program tells about itself and its client, read from whatever a server has sent."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """As in Answer; all empty when the server is not the echo program."""

    seen_as: str = ""
    answered_by: str = ""
    answered_on: str = ""
    forwarded_for: str = ""


def facts_of(data: bytes) -> Facts:
    """The facts in one JSON object of the echo program; no facts in anything else."""
    try:
        told = json.loads(data)
    except ValueError:
        return Facts()
    if not isinstance(told, dict):
        return Facts()
    return Facts(
        seen_as=_text(told, "peer"),
        answered_by=_text(told, "pod") or _text(told, "hostname"),
        answered_on=_text(told, "node"),
        forwarded_for=_text(told, "forwardedFor"),
    )


def agnhost_facts(path: str, text: str) -> Facts:
    """The facts in the plain text that agnhost netexec, and the echo program, answer to /hostname and /clientip.

    Source: test/images/agnhost/netexec of Kubernetes: the host's name; the client as "address:port", "[address]:port".
    """
    word = text.strip()
    if path == "/hostname":
        return Facts(answered_by=word)
    if path == "/clientip":
        return Facts(seen_as=word.rpartition(":")[0].strip("[]"))
    return Facts()


def _text(told: dict[str, object], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""
