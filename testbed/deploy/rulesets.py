"""Loads the rulesets of a node, and takes away those it no longer has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from testbed.deploy import balancer, remembered
from testbed.errors import CommandError, DeployError
from testbed.plan import Node, Ruleset
from testbed.runtime.base import Runtime
from testbed.wait import Deadline, until

NFT = "/usr/sbin/nft"
NFACCT = "/usr/sbin/nfacct"
IPSET = "/usr/sbin/ipset"
IPVSADM = "/usr/sbin/ipvsadm"
PATIENCE = 2.0  # seconds until what the kernel does not do counts as refused
LOADERS: Mapping[str, tuple[str, ...]] = {
    "nft": (NFT, "-f", "-"),
    "iptables-restore": ("/usr/sbin/iptables-restore",),
    "ip6tables-restore": ("/usr/sbin/ip6tables-restore",),
    "ipset": (IPSET, "restore"),
    "ipvs": (IPVSADM, "--restore"),
}
_SAVERS: Mapping[str, tuple[str, ...]] = {"ipset": (IPSET, "save"), "ipvs": (IPVSADM, "--save", "--numeric")}


def load(runtime: Runtime, node: Node, old: Node | None) -> None:
    """Load what is new or changed, then take away what is not wanted any more, which the rest may have named.

    Args:
        old: the node as it was planned before; None: it is new.

    Raises:
        CommandError, DeployError: naming what was refused, and where.
    """
    before = {(entry.name, entry.tool, entry.vrf): entry for entry in old.rulesets} if old else {}
    changed = []
    for entry in node.rulesets:
        known = before.pop((entry.name, entry.tool, entry.vrf), None)
        if entry != known:
            _load(runtime, node.name, entry if known is None else _instead(runtime, node.name, entry, known))
            changed.append(entry)
    for entry in changed:
        if entry.tool == "ipset":
            _change(runtime, node.name, entry, balancer.sets_to_remove)
    for entry in reversed(before.values()):
        if entry.vrf in (None, *node.vrfs):  # else they went with the VRF
            _unload(runtime, node.name, entry)


def _load(runtime: Runtime, node: str, entry: Ruleset) -> None:
    if entry.tool == "nfacct":
        known = runtime.run(node, entry.vrf, (NFACCT, "list"))
        for name in entry.text.split():
            if f" = {name};" not in known:
                runtime.run(node, entry.vrf, (NFACCT, "add", name))
    elif entry.tool == "ipset":
        _change(runtime, node, entry, balancer.sets_to_add)
    elif entry.tool == "ipvs":
        _change(runtime, node, entry, balancer.servers_to_change)
    else:
        runtime.run(node, entry.vrf, LOADERS[entry.tool], entry.text)


def _unload(runtime: Runtime, node: str, entry: Ruleset) -> None:
    nothing = dataclasses.replace(entry, text="")
    if entry.tool == "nft":
        runtime.run(node, entry.vrf, LOADERS["nft"], f"delete table {entry.name}\n")
    elif entry.tool == "nfacct":
        for name in entry.text.split():
            runtime.run(node, entry.vrf, (NFACCT, "delete", name))
    elif entry.tool == "ipset":
        _change(runtime, node, nothing, balancer.sets_to_remove)
    elif entry.tool == "ipvs":
        _change(runtime, node, nothing, balancer.servers_to_change)
    else:
        runtime.run(node, entry.vrf, LOADERS[entry.tool], _empty(_tables(entry)))


def _change(runtime: Runtime, node: str, entry: Ruleset, difference: balancer.Difference) -> None:
    """Apply the difference between what is wanted and what is there, until there is none.

    What is there is looked at again, because `ipvsadm --restore` goes on after a line the kernel refuses, and may end
    with status 0. A set may be in use for a moment after the rules that named it are gone: nf_tables destroys these in
    the background (Linux net/netfilter/nf_tables_api.c, nf_tables_trans_destroy_work).
    """
    left, said = "", ""

    def done() -> bool:
        nonlocal left, said
        left = difference(entry.text, runtime.run(node, entry.vrf, _SAVERS[entry.tool]))
        if left:
            try:
                said = runtime.run(node, entry.vrf, LOADERS[entry.tool], left)
            except CommandError as error:
                said = error.output
            left = difference(entry.text, runtime.run(node, entry.vrf, _SAVERS[entry.tool]))
        return not left

    if not until(done, Deadline(PATIENCE)):
        raise DeployError(f"{node}: {entry.tool}: not done: {'; '.join(left.splitlines())}: {said.strip()}")


def _instead(runtime: Runtime, node: str, entry: Ruleset, old: Ruleset) -> Ruleset:
    """The ruleset that takes the place of `old`."""
    more = ""
    if entry.tool in ("iptables-restore", "ip6tables-restore"):
        more = _empty(_tables(old) - _tables(entry))  # tables that are not named would be left as they are
    elif entry.tool == "nft" and remembered.timed_sets(old):
        listing = runtime.run(node, entry.vrf, (NFT, "--json", "list", "sets", entry.name.partition(" ")[0]))
        more = remembered.elements(entry, old, listing)
    return dataclasses.replace(entry, text=entry.text + more)


def _tables(entry: Ruleset) -> set[str]:
    """The titles of the tables ("*nat") in a text for iptables-restore."""
    return {line for line in entry.text.splitlines() if line.startswith("*")}


def _empty(tables: Iterable[str]) -> str:
    return "".join(f"{table}\nCOMMIT\n" for table in sorted(tables))
