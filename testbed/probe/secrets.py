"""What the ssh probe needs to know that does not stand in the Plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys of one lab.

    Args:
        private_key: the client's private key, as text or as the path of a file (never shown in a repr).
        host_keys: public keys ("ssh-ed25519 AAAA…"), any of which a server must prove to hold. A server that has
            several keys shows one of the first kind named here that it has.
    """

    private_key: str | Path = field(default="", repr=False)
    host_keys: tuple[str, ...] = ()


NO_SECRETS = Secrets()
