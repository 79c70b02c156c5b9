"""What a test says of a walk: verbs that return what they found, or raise AssertionError with the packet's way.

walk.passes("leaf1").then("n2")
assert walk.dnat_at("n1") == "192.168.40.128:8080"
walk.reply.leaves("n1", vrf="sbi")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from testbed.trace.map import place_name

if TYPE_CHECKING:
    from testbed.trace.walk import Hop, Path


class _HasHops(Protocol):
    @property
    def hops(self) -> tuple[Hop, ...]: ...


def _fail(path: _HasHops, claim: str) -> NoReturn:
    names = ", ".join(hop.name for hop in path.hops)
    raise AssertionError(f"{claim}; the packet went by {names}")


@dataclass(frozen=True)
class Passage:
    """A place on a path, from which more can be claimed."""

    path: Path
    index: int

    @property
    def hop(self) -> Hop:
        return self.path.hops[self.index]

    def then(self, node: str, vrf: str | None = None) -> Passage:
        """That the packet passed `node` later on."""
        return _find(
            self.path, node, vrf, self.index + 1, f"expected it to pass {place_name(node, vrf)} after {self.hop.name}"
        )


def _is(hop: Hop, node: str, vrf: str | None) -> bool:
    """Whether a hop is at a node, or at a pod whose name begins so."""
    named = hop.node == node or hop.node.startswith(f"{node}-")
    return named and vrf in (None, hop.vrf, hop.network_in or None, hop.network_out or None)


def _find(path: Path, node: str, vrf: str | None, start: int, claim: str) -> Passage:
    for index, hop in enumerate(path.hops[start:], start):
        if _is(hop, node, vrf):
            return Passage(path, index)
    _fail(path, claim)


class PathClaims:
    """The claims about one packet. A pod may be named by the beginning of its name."""

    def passes(self: Path, node: str, vrf: str | None = None) -> Passage:  # type: ignore[misc]
        """That it passed a node (in a VRF)."""
        return _find(self, node, vrf, 0, f"expected it to pass {place_name(node, vrf)}")

    def avoids(self: Path, node: str, vrf: str | None = None) -> None:  # type: ignore[misc]
        """That it did not pass a node (in a VRF)."""
        if any(_is(hop, node, vrf) for hop in self.hops):
            _fail(self, f"expected it not to pass {place_name(node, vrf)}")

    def enters(self: Path, node: str, interface: str | None = None, vrf: str | None = None) -> Passage:  # type: ignore[misc]
        """That it came into a node, by this interface, from this VRF."""
        return _by(self, node, "enter", interface, vrf, lambda hop: (hop.interface_in, hop.network_in))

    def leaves(self: Path, node: str, interface: str | None = None, vrf: str | None = None) -> Passage:  # type: ignore[misc]
        """That it left a node, by this interface, into this VRF."""
        return _by(self, node, "leave", interface, vrf, lambda hop: (hop.interface_out, hop.network_out))

    def dnat_at(self: Path, node: str) -> str:  # type: ignore[misc]
        """The destination ("ADDRESS:PORT") that a node wrote into it; empty when it wrote none."""
        return next(
            (_joined(hop.ends.destination, hop.ends.destination_port) for hop in _changed(self, node, "dnat")), ""
        )

    def snat_at(self: Path, node: str) -> str:  # type: ignore[misc]
        """The source ("ADDRESS:PORT") that a node wrote into it; empty when it wrote none."""
        return next((_joined(hop.ends.source, hop.ends.source_port) for hop in _changed(self, node, "snat")), "")


def _changed(path: Path, node: str, change: str) -> list[Hop]:
    passed = [hop for hop in path.hops if _is(hop, node, None)]
    if not passed:
        _fail(path, f"expected it to pass {node}")
    return [hop for hop in passed if change in hop.changes]


def _joined(address: str, port: int) -> str:
    return (f"[{address}]:{port}" if ":" in address else f"{address}:{port}") if port else address


def _by(
    path: Path,
    node: str,
    verb: str,
    interface: str | None,
    vrf: str | None,
    side: Callable[[Hop], tuple[str, str]],
) -> Passage:
    ways = []
    for index, hop in enumerate(path.hops):
        if _is(hop, node, None) and side(hop)[0]:
            name, network = side(hop)
            if interface in (None, name) and vrf in (None, network):
                return Passage(path, index)
            ways.append(f"{name} (VRF {network})" if network else name)
    by = " ".join([*([f"by {interface}"] if interface else []), *([f"VRF {vrf}"] if vrf else [])])
    found = f"it was by {', '.join(ways)}" if ways else "it did not"
    _fail(path, f"expected it to {verb} {node} {by}".rstrip() + f", but {found}")


class Claims:
    """The claims about a flow: those about its first packet, and `reply` for those about the first of the answer."""

    if TYPE_CHECKING:

        @property
        def forward(self) -> Path | None: ...
        @property
        def back(self) -> Path | None: ...

    @property
    def request(self) -> Path:
        """The first packet. Raises AssertionError when none was seen."""
        if self.forward is None:
            raise AssertionError("no packet of the flow was seen anywhere")
        return self.forward

    @property
    def reply(self) -> Path:
        """The first packet of the answer. Raises AssertionError when there was none."""
        if self.back is None:
            raise AssertionError(f"nobody answered; the last place the request was seen is {self.request.last.name}")
        return self.back

    def passes(self, node: str, vrf: str | None = None) -> Passage:
        return self.request.passes(node, vrf)

    def avoids(self, node: str, vrf: str | None = None) -> None:
        self.request.avoids(node, vrf)

    def enters(self, node: str, interface: str | None = None, vrf: str | None = None) -> Passage:
        return self.request.enters(node, interface, vrf)

    def leaves(self, node: str, interface: str | None = None, vrf: str | None = None) -> Passage:
        return self.request.leaves(node, interface, vrf)

    def dnat_at(self, node: str) -> str:
        return self.request.dnat_at(node)

    def snat_at(self, node: str) -> str:
        return self.request.snat_at(node)
