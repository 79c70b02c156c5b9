"""Lab files for leaf-spine fabrics of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SPINE_ASN = 64512  # the first number for private use (RFC 6996)


@dataclass(frozen=True, slots=True)
class Fabric:
    """A leaf-spine fabric: every leaf has a link to every spine (RFC 7938 without its third tier)."""

    spines: int
    leaves: int

    @property
    def routers(self) -> int:
        return self.spines + self.leaves

    @property
    def links(self) -> int:
        return self.spines * self.leaves

    @property
    def name(self) -> str:
        return f"bench-fabric{self.routers}"


FABRICS = (Fabric(4, 16), Fabric(6, 44))


def lab_text(fabric: Fabric) -> str:
    """The lab file of a fabric: eBGP over IPv4, an AS per leaf and one for all spines.

    The leaves originate their loopbacks and their links; the spines pass on what they learn and originate nothing.
    """
    return "\n".join(_lines(fabric)) + "\n"


def _lines(fabric: Fabric) -> Iterator[str]:
    yield "apiVersion: testbed/v1"
    yield f"name: {fabric.name}"
    yield f"description: A leaf-spine fabric, {fabric.spines} spines and {fabric.leaves} leaves."
    yield "addressing:"
    yield "  links: {ipv4: 10.0.0.0/16}"
    yield "  loopbacks: {ipv4: 10.255.0.0/16}"
    yield "nodes:"
    for spine in range(1, fabric.spines + 1):
        yield f"  spine{spine}: {{kind: router, bgp: {{asn: {SPINE_ASN}, redistribute: []}}}}"
    for leaf in range(1, fabric.leaves + 1):
        yield f"  leaf{leaf}: {{kind: router, bgp: {{asn: {SPINE_ASN + leaf}, redistribute: [connected]}}}}"
    yield "links:"
    for leaf in range(1, fabric.leaves + 1):
        for spine in range(1, fabric.spines + 1):
            yield f"  - {{endpoints: [leaf{leaf}, spine{spine}], bgp: true}}"
