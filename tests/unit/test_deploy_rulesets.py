"""Which loaders are run, in which order, for the rulesets of a node; and which kernel features a Plan asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from testbed.deploy import needs, rulesets
from testbed.errors import CommandError, DeployError, UnsupportedError
from testbed.plan import Interface, Node, Plan, Ruleset
from testbed.runtime import kernel

FILTER = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n"
NAT = "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n"
SETS = "create A bitmap:port range 0-65535\nadd A 80\n"
SERVERS = "-A -t 10.96.0.10:80 -s rr\n"

COUNTERS = Ruleset("counters", "nfacct", "one\ntwo")
TABLE = Ruleset("ip kube-proxy", "nft", "table ip kube-proxy {\n}\n")
IPTABLES = Ruleset("iptables", "iptables-restore", FILTER + NAT)
IPSET = Ruleset("sets", "ipset", SETS)
IPVS = Ruleset("servers", "ipvs", SERVERS)


TIMED = "\ttype ipv4_addr\n\t\tsize 65535\n\t\tflags dynamic,timeout\n\t\ttimeout 3h\n"


def listed(table: str, name: str, *held: dict[str, Any] | str) -> dict[str, Any]:
    entries = [entry if isinstance(entry, str) else {"elem": entry} for entry in held]
    return {"set": {"family": "ip", "name": name, "table": table, **({"elem": entries} if entries else {})}}


LISTING = json.dumps(
    {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            listed(
                "kube-proxy",
                "affinity-A/80",
                {"val": "10.10.10.10", "timeout": 10800, "expires": 10790},
                {"val": "10.10.10.11", "expires": 7},
                {"val": "10.10.10.12", "expires": 0},  # in this very moment
            ),
            listed("kube-proxy", "affinity-B/80", {"val": "10.1.1.1", "expires": 9}),
            listed("kube-proxy", "affinity-C/80"),
            listed("other", "affinity-A/80", {"val": "10.9.9.9", "expires": 9}),
            listed("kube-proxy", "cluster-ips", "10.96.0.1"),
        ]
    }
)


def table(*sets: str) -> Ruleset:
    blocks = "".join(f"\tset {name} {{\n\t{TIMED}\t}}\n" for name in sets)
    return replace(TABLE, text=f"table ip kube-proxy {{\n{blocks}\tset cluster-ips {{\n\t\ttype ipv4_addr\n\t}}\n}}\n")


class Machine:
    """A runtime that only notes what is run; what `ipset` and `ipvsadm` hold is what they were last given."""

    def __init__(self, sets: str = "", servers: str = "", *, deaf: bool = False, busy: int = 0) -> None:
        self.held = {"/usr/sbin/ipset": sets, "/usr/sbin/ipvsadm": servers}
        self.ran: list[tuple[str, str]] = []
        self.deaf = deaf
        self.busy = busy

    def run(self, node: str, vrf: str | None, argv: Sequence[str], stdin: str = "") -> str:
        assert (node, vrf) == ("n1", None)
        program = argv[0]
        if argv[1:] == ("list",):
            return "{ pkts = 0, bytes = 0 } = one;\n"
        if argv[1:] == ("--json", "list", "sets", "ip"):
            return LISTING
        if argv[1:2] in (("save",), ("--save",)):
            return self.held[program]
        self.ran.append((" ".join((program.rpartition("/")[2], *argv[1:])), stdin))
        if self.busy:
            self.busy -= 1
            raise CommandError(argv, 1, "Set cannot be destroyed: it is in use by a kernel component")
        if not self.deaf and program in self.held:
            self._change(program, stdin)
        return ""

    def _change(self, program: str, commands: str) -> None:
        lines = self.held[program].splitlines()
        for line in commands.splitlines():
            verb, rest = line.split(" ", 1)
            if verb in ("create", "add", "-A", "-a"):
                lines.append(line)
            else:
                lines = [kept for kept in lines if rest not in kept]
        self.held[program] = "".join(f"{line}\n" for line in lines)


def load(new: Sequence[Ruleset], old: Sequence[Ruleset] | None = None, machine: Machine | None = None) -> Machine:
    machine = machine or Machine()
    before = None if old is None else Node("n1", "kubernetes", rulesets=tuple(old))
    rulesets.load(cast("Any", machine), Node("n1", "kubernetes", rulesets=tuple(new)), before)
    return machine


def test_a_new_node_gets_all_in_order() -> None:
    assert load([COUNTERS, TABLE, IPTABLES, IPSET, IPVS]).ran == [
        ("nfacct add two", ""),  # "one" is there
        ("nft -f -", TABLE.text),
        ("iptables-restore", IPTABLES.text),
        ("ipset restore", SETS),
        ("ipvsadm --restore", SERVERS),
    ]


def test_what_did_not_change_is_not_loaded_again() -> None:
    assert load([TABLE, IPTABLES], [TABLE, IPTABLES]).ran == []


def test_a_table_that_is_no_longer_there_is_emptied() -> None:
    new = Ruleset("iptables", "iptables-restore", NAT)
    assert load([new], [IPTABLES]).ran == [("iptables-restore", f"{NAT}*filter\nCOMMIT\n")]


def test_what_is_named_goes_after_what_names_it() -> None:
    new = Ruleset("iptables", "iptables-restore", NAT)
    machine = Machine(SETS, SERVERS)
    assert load([TABLE, new], [IPSET, IPTABLES, IPVS], machine).ran == [
        ("nft -f -", TABLE.text),
        ("iptables-restore", f"{NAT}*filter\nCOMMIT\n"),
        ("ipvsadm --restore", "-D -t 10.96.0.10:80\n"),
        ("ipset restore", "destroy A\n"),
    ]
    assert load([TABLE], [COUNTERS, IPTABLES]).ran[1:] == [
        ("iptables-restore", "*filter\nCOMMIT\n*nat\nCOMMIT\n"),
        ("nfacct delete one", ""),
        ("nfacct delete two", ""),
    ]
    assert load([], [TABLE]).ran == [("nft -f -", "delete table ip kube-proxy\n")]


def test_new_entries_come_before_the_rules_and_stale_ones_go_after() -> None:
    new = [Ruleset("sets", "ipset", SETS.replace("80", "90")), Ruleset("iptables", "iptables-restore", NAT + FILTER)]
    assert load(new, [IPSET, IPTABLES], Machine(SETS)).ran == [
        ("ipset restore", "add A 90\n"),
        ("iptables-restore", NAT + FILTER),
        ("ipset restore", "del A 80\n"),
    ]


def test_what_was_refused_in_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulesets, "PATIENCE", 0.0)
    with pytest.raises(DeployError, match=r"n1: ipvs: not done: -A -t 10\.96\.0\.10:80 -s rr"):
        load([IPVS], machine=Machine(deaf=True))


def test_clients_keep_their_endpoints_when_a_table_is_replaced() -> None:
    """But for endpoints that are gone, and those whose clients are to be kept for another time."""
    new = table("affinity-A/80", "affinity-C/80", "affinity-D/80")
    kept = "add element ip kube-proxy affinity-A/80 { 10.10.10.10 expires 10790s, 10.10.10.11 expires 7s }\n"
    assert load([new], [table("affinity-A/80", "affinity-B/80", "affinity-C/80")]).ran == [
        ("nft -f -", new.text + kept)
    ]
    other = replace(new, text=new.text.replace("3h", "1h"))
    assert load([other], [table("affinity-A/80")]).ran == [("nft -f -", other.text)]


def test_a_set_that_is_in_use_for_a_moment_is_destroyed_a_moment_later() -> None:
    machine = Machine(SETS, busy=2)
    load([], [IPSET], machine)
    assert machine.ran == [("ipset restore", "destroy A\n")] * 3
    assert machine.held["/usr/sbin/ipset"] == ""


# What a kernel must have


def plan(*entries: Ruleset, interfaces: Sequence[Interface] = ()) -> Plan:
    return Plan("test", nodes=(Node("n1", "kubernetes", rulesets=entries, interfaces=tuple(interfaces)),))


def test_only_what_a_plan_uses_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs.features(plan(TABLE, IPTABLES, COUNTERS)) == {}
    assert list(needs.features(plan(IPVS))) == ["IPVS"]
    dummy = Interface("kube-ipvs0", "dummy")
    assert list(needs.features(plan(IPSET, IPVS, interfaces=[dummy]))) == ["IPVS", "IP sets", "dummy interfaces"]
    assert list(needs.features(plan(interfaces=[Interface("tun0", "vxlan")]))) == ["VXLAN devices"]
    monkeypatch.setattr(kernel, "try_all", lambda _: pytest.fail("nothing is to be tried"))
    needs.refuse(plan(TABLE))


def test_what_is_lacking_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"IPVS": kernel.Answer(False, "the kernel has no IPVS"), "IP sets": kernel.Answer(True)}
    monkeypatch.setattr(kernel, "try_all", lambda _: answers)
    with pytest.raises(UnsupportedError) as caught:
        needs.refuse(plan(IPSET, IPVS))
    assert str(caught.value) == (
        "kube-proxy's mode ipvs needs IPVS (the kernel has no IPVS): run the lab under Debian's own kernel "
        "(testbed vm), or choose another kubeProxyMode"
    )


def test_what_tunnels_lack_is_named_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "try_all", lambda trials: {name: kernel.Answer(False, "none") for name in trials})
    with pytest.raises(UnsupportedError) as caught:
        needs.refuse(plan(IPVS, interfaces=[Interface("tun0", "vxlan")]))
    assert str(caught.value) == (
        "kube-proxy's mode ipvs needs IPVS (none): run the lab under Debian's own kernel (testbed vm), or choose "
        "another kubeProxyMode; an EgressService between nodes that share no link needs VXLAN devices (none): run the "
        "lab under Debian's own kernel (testbed vm), or give the nodes a link in common"
    )
