"""The end of a tunnel: whether a node has an interface that takes in what came in one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.bpf import VXLAN_PORT, VXLAN_PORTS


def far_end(tunnel: str, links: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the end of a tunnel, as a sentence without its subject; empty: nothing is known to be.

    Args:
        tunnel: as a packet has it: "vxlan 10 10.0.0.1 → 10.0.0.2", "ipip 10.0.0.1 → 10.0.0.2".
        links: of the node that the tunnel's packets are for, as `ip -d -j link` lists them.
    """
    kind, *rest = tunnel.split()
    ends = [link for link in links if _info(link).get("info_kind") == kind]
    if not ends:
        return f"has no interface that takes in {kind.upper()}"
    wrong = [_wrong(kind, rest, link) for link in ends]
    return "" if "" in wrong else wrong[0]


def _info(link: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = link.get("linkinfo", {})
    return found


def _wrong(kind: str, words: Sequence[str], link: Mapping[str, Any]) -> str:
    return next(_reasons(kind, words, link), "")


def _reasons(kind: str, words: Sequence[str], link: Mapping[str, Any]) -> Iterator[str]:
    """Why an interface does not take in the packets of a tunnel."""
    name, data = link.get("ifname", ""), _info(link).get("info_data", {})
    if "UP" not in link.get("flags", ()):
        yield f"has its {kind.upper()} interface {name} down"
    if kind == "vxlan":
        if str(data.get("id", "")) != words[0] and not data.get("external"):
            yield f"has VNI {data.get('id')} on {name}, and the packet has VNI {words[0]}"
        if int(data.get("port", VXLAN_PORT)) not in VXLAN_PORTS:
            yield f"takes in VXLAN on port {data.get('port')} ({name}), and the packet came to another"
    elif data.get("remote", "any") not in ("any", words[0]):
        yield f"takes in {kind.upper()} from {data['remote']} alone ({name}), and the packet came from {words[0]}"
