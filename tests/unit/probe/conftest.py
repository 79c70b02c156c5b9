"""Sockets of the test's own namespace, and the echo program as a real process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from probe_servers import Echo, HostSockets, started_echo

from testbed.plan import Flow


@pytest.fixture
def sockets() -> HostSockets:
    return HostSockets()


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    """The echo program on loopback, on a TCP and a UDP port of its choice."""
    with started_echo() as echo:
        yield echo


@pytest.fixture
def flow(echo: Echo) -> Callable[..., Flow]:
    """Makes a flow to the echo program; any field can be given another value."""

    def make(protocol: str, **fields: Any) -> Flow:
        port = 0 if protocol == "icmp" else echo.udp_port if protocol in {"udp", "dns"} else echo.port
        defaults = {"name": "f", "source": "here", "address": "127.0.0.1", "port": port}
        return Flow(protocol=protocol, **{**defaults, **fields})

    return make
