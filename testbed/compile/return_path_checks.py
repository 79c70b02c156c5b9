"""What cannot be right about a return path: fields its mode does not have, links that are not there, packets that the
kernel's source check is known to drop.

The source check (rp_filter, Documentation/networking/ip-sysctl.rst; fib_validate_source() in net/ipv4/fib_frontend.c)
looks up the way back to a packet's source when the packet comes in, after DNAT, so as from the pod's address. Strict,
it wants that way to be by the same interface; loose, by any. What it drops was measured; see docs/return-path.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.compile.lab_checks import no_vrf
from testbed.compile.return_path import Way
from testbed.compile.uplinks import Uplink
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.lab import HostReturnPath, KubernetesNode, Lab, NodeReturnPath

STRICT, LOOSE = 1, 2
EVERY_WAY = ("connmark", "connmark-both")  # modes that take all uplinks unless told which
MARKING = (*EVERY_WAY, "ctorigdst")
_STRICTLY_RIGHT = ("none", "static", "rule-pod-ip", "rule-own-ip")
# Fields that mean something to these modes alone.
_OWN_FIELDS = {"to": ("static",), "addresses": ("rule-lb-ip", "ctorigdst")}


@dataclass(frozen=True)
class Ground:
    """A node for which a return path is stated: what there is to choose from.

    Args:
        inherited: the policy is its cluster's, so that a node without such a link is left alone.
    """

    lab: Lab
    node: str
    default: Uplink | None
    ways: Sequence[Way]
    inherited: bool = False


def chosen(policy: HostReturnPath | NodeReturnPath, found: Sequence[Way]) -> list[Way]:
    """The uplinks that a policy is about."""
    if policy.mode == "none":
        return []
    return [way for way in found if policy.vrf in (None, way.uplink.vrf)]


def field_problems(policy: HostReturnPath | NodeReturnPath) -> Iterator[Problem]:
    """Fields that mean nothing to the mode, and one that it cannot do without."""
    for field, modes in _OWN_FIELDS.items():
        if field in policy.model_fields_set and policy.mode not in modes:
            message = f"{field} means nothing to the return path {policy.mode}: it is for {' and '.join(modes)}"
            yield Problem(message, policy.origin.at(field))
    if policy.mode == "none" and policy.vrf:
        yield Problem("vrf means nothing to the return path none", policy.origin.at("vrf"))
    if policy.mode == "static" and not policy.to:
        hint = "add to: [PREFIX, ...], those who ask"
        yield Problem("the return path static needs its prefixes", policy.origin.at("mode"), hint)
    if "0.0.0.0/0" in policy.to:
        place = policy.origin.at("to", policy.to.index("0.0.0.0/0"))
        yield Problem("0.0.0.0/0 would replace the node's default route", place, "state the prefixes of those who ask")


def way_problems(policy: HostReturnPath | NodeReturnPath, ground: Ground) -> Iterator[Problem]:
    """A VRF that is not there or not the reply's problem, no link to choose, or several where one is meant."""
    if policy.mode == "none":
        return
    vrfs = [way.uplink.vrf for way in ground.ways]
    if policy.vrf and policy.vrf not in ground.lab.vrfs:
        yield no_vrf(ground.lab, policy.vrf, policy.origin.at("vrf"))
    elif policy.vrf and policy.vrf not in vrfs and ground.default and ground.default.vrf == policy.vrf:
        message = f"the default route of {ground.node} leads into VRF {policy.vrf} already"
        yield Problem(message, policy.origin.at("vrf"), suggest("", vrfs))
    elif not chosen(policy, ground.ways) and not ground.inherited:
        where = f" in VRF {policy.vrf}" if policy.vrf else " beside that of its default route"
        message = f"return path {policy.mode}: {ground.node} has no link to a router{where}"
        yield Problem(message, policy.origin.at("vrf" if policy.vrf else "mode"))
    elif len(chosen(policy, ground.ways)) > 1 and policy.mode not in EVERY_WAY:
        message = f"return path {policy.mode}: {ground.node} has links to routers in several VRFs beside the default"
        yield Problem(message, policy.origin.at("vrf" if policy.vrf else "mode"), f"add vrf: {' or '.join(vrfs)}")


def source_check_problems(
    policy: HostReturnPath | NodeReturnPath, ground: Ground, sysctls: Mapping[str, str | int], *, ipvs: bool = False
) -> Iterator[Problem]:
    """Combinations with the node's own sysctls in which packets are known to be dropped.

    Args:
        sysctls: those the lab file states for the node. All others are off (`testbed.compile.sysctls`).
        ipvs: the node's kube-proxy is in this mode. A request then has the load balancer's address when it is checked.
    """
    origin = ground.lab.nodes[ground.node].origin
    shared = [way for way in chosen(policy, ground.ways) if way.uplink.vrf not in _devices(ground)]
    for way in shared:
        key, strictness = effective(sysctls, "rp_filter", way.uplink.interface)
        right = policy.mode in _STRICTLY_RIGHT or (ipvs and policy.mode == "rule-lb-ip")
        if strictness == STRICT and not right:
            message = (
                f"{ground.node}: {key} = 1 drops every request on {way.uplink.interface} with the return path "
                f"{policy.mode}: checked strictly, the way back to its source must be by that interface, and without "
                "a mark it is the default route"
            )
            yield Problem(message, origin.at("sysctls", key), "set it to 0 or 2, or use the return path static")
    if not shared or policy.mode not in MARKING or not isinstance(policy, NodeReturnPath):
        return
    key, valid_mark = effective(sysctls, "src_valid_mark", "default")
    check, strictness = effective(sysctls, "rp_filter", "default")
    if valid_mark and strictness:
        message = (
            f"{ground.node}: {key} = 1 and {check} = {strictness} drop every reply of a pod with the return path "
            f"{policy.mode}: the way back to the pod is then looked up with the mark, in the uplink's table, and a "
            "cali interface has no IPv4 address that would excuse the difference"
        )
        yield Problem(message, origin.at("sysctls", key), "set either to 0")


def _devices(ground: Ground) -> Sequence[str]:
    """VRFs that the node has as devices (`nodeVrfs`). The check then asks the VRF's own table for the way back to the
    client, and a rule before all marks for the way back to a pod: both are right (tests/e2e/test_node_vrfs_live.py)."""
    cluster = ground.lab.cluster
    return cluster.node_vrfs if cluster and isinstance(ground.lab.nodes[ground.node], KubernetesNode) else ()


def effective(sysctls: Mapping[str, str | int], name: str, interface: str) -> tuple[str, int]:
    """(key that decides, value) of an IPv4 setting for an interface: the larger of that for `all` and its own, which
    is that for `default` unless stated (IN_DEV_MAXCONF and IN_DEV_ORCONF in include/linux/inetdevice.h)."""
    own = f"net.ipv4.conf.{interface}.{name}"
    keys = (f"net.ipv4.conf.all.{name}", own if own in sysctls else f"net.ipv4.conf.default.{name}")
    return max(((key, _number(sysctls.get(key, 0))) for key in keys), key=lambda entry: entry[1])


def _number(value: str | int) -> int:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() else 0  # the kernel refuses what is no number
