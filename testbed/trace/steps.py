"""The numbered steps that a flow's packets must take, compared with its walk. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.plan import FlowStep
from testbed.trace.walk import Hop, Walk


def unmet(walk: Walk, steps: Sequence[FlowStep]) -> list[str]:
    """A sentence for each step that was not taken, in the order in which the steps stand; empty when all were.

    The steps of the request must be taken one after the other, those of the reply likewise; hops that no step names
    may lie between them.
    """
    found: list[str] = []
    for reply in (False, True):
        wanted = [(number, step) for number, step in enumerate(steps, 1) if step.reply == reply]
        path = walk.back if reply else walk.forward
        found += _unmet(wanted, path.hops if path else (), "reply" if reply else "request")
    return found


def _unmet(wanted: Sequence[tuple[int, FlowStep]], hops: Sequence[Hop], what: str) -> Iterator[str]:
    start = 0
    for number, step in wanted:
        near: list[str] = []
        for index, hop in enumerate(hops[start:], start):
            if hop.node == step.node:
                wrong = list(_differences(step, hop))
                if not wrong:
                    start = index + 1
                    break
                near = near or wrong
        else:
            after = f" after {hops[start - 1].name}" if start else ""
            yield f"step {number}: " + (
                f"at {step.node}, {'; '.join(near)}" if near else f"the {what} did not pass {step.node}{after}"
            )


def _differences(step: FlowStep, hop: Hop) -> Iterator[str]:
    if step.vrf and step.vrf not in (hop.vrf, hop.network_in, hop.network_out):
        yield f"it was in {_vrfs(hop)}, not in VRF {step.vrf}"
    for word, wanted, interface, network in (
        ("in", step.enters, hop.interface_in, hop.network_in),
        ("out", step.leaves, hop.interface_out, hop.network_out),
    ):
        if wanted and wanted not in (interface, network):
            yield f"it went {word} by {interface or 'no interface'}" + (f" (VRF {network})" if network else "")
            yield f"not by {wanted}"
    for what, addresses, found in (
        ("source", step.source, hop.ends.source),
        ("destination", step.destination, hop.ends.destination),
    ):
        if addresses and found not in addresses:
            yield f"its {what} was {found}, not {' or '.join(addresses)}"
    if step.port and hop.ends.destination_port != step.port:
        yield f"its destination port was {hop.ends.destination_port}, not {step.port}"


def _vrfs(hop: Hop) -> str:
    names = dict.fromkeys(name for name in (hop.vrf, hop.network_in, hop.network_out) if name)
    return " and ".join(f"VRF {name}" for name in names) or "no VRF"
