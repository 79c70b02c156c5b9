"""The way back of replies: what each policy adds to a node."""

from __future__ import annotations

import os
import shutil
import subprocess

import lab_texts
import pytest

from testbed.compile.return_path import (
    MOST_UPLINKS,
    ReturnPath,
    Way,
    by_source,
    connmark,
    connmark_both,
    ctorigdst,
    static,
    ways,
)
from testbed.compile.uplinks import Uplink
from testbed.plan import Node, Route, Rule

MGMT = Uplink("eth0", "mgmt", "10.1.0.1", ("10.1.0.0/24",), "10.1.0.2")
SBI = Uplink("eth1", "sbi", "10.2.0.1", ("10.2.0.0/24",), "10.2.0.2")
OAM = Uplink("eth2", "oam", "10.3.0.1", ("10.3.0.0/24",), "10.3.0.2")
BOTH = ways([MGMT, SBI, OAM], MGMT)

HEAD = """table ip testbed-return-path
delete table ip testbed-return-path
table ip testbed-return-path {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
"""
MIDDLE = """  }
  chain output {
    type route hook output priority mangle; policy accept;
"""
FOOT = "  }\n}\n"
SAVE = """    iifname "eth1" ct state new ct mark set ct mark or 0x100
    iifname "eth2" ct state new ct mark set ct mark or 0x200
"""
RESTORE = """    ct direction reply ct mark & 0xf00 == 0x100 meta mark set meta mark or 0x100
    ct direction reply ct mark & 0xf00 == 0x200 meta mark set meta mark or 0x200
"""
BLINDLY = "    ct mark != 0 meta mark set ct mark\n"
ASKED = """    ct direction reply ct original ip daddr { 3.3.3.3, 4.4.4.0/28 } meta mark set meta mark or 0x100
"""


def text(made: ReturnPath) -> str:
    [ruleset] = made.rulesets
    assert (ruleset.name, ruleset.tool) == ("ip testbed-return-path", "nft")
    return ruleset.text


def test_ways_are_the_uplinks_beside_the_default_one() -> None:
    assert [Way(1, SBI), Way(2, OAM)] == BOTH
    assert [(way.table, way.mark) for way in BOTH] == [(101, 0x100), (102, 0x200)]


def test_no_uplinks_no_rules() -> None:
    assert connmark([]) == connmark_both([]) == ReturnPath()


def test_static() -> None:
    to = ("10.9.0.0/24", "10.8.0.0/24")
    assert static(BOTH[1], to) == ReturnPath(routes=tuple(Route(prefix, "10.3.0.1", "eth2") for prefix in to))


def test_by_source() -> None:
    made = by_source(BOTH[1], ("3.3.3.3/32",))
    assert made.rules == (Rule(1002, 102, source="3.3.3.3/32"),)
    assert made.routes == BOTH[1].routes
    assert made.rulesets == ()


def test_what_is_near_stays_and_comes_after_the_kernels_rule_for_vrfs() -> None:
    made = by_source(BOTH[0], ("192.168.0.0/16",), ("192.168.0.0/16", "10.1.0.0/24"))
    assert made.rules == (
        Rule(1001, 254, destination="192.168.0.0/16"),
        Rule(1001, 254, destination="10.1.0.0/24"),
        Rule(1002, 101, source="192.168.0.0/16"),
    )


def test_connmark_restores_on_replies_alone() -> None:
    assert text(connmark(BOTH)) == HEAD + SAVE + RESTORE + MIDDLE + RESTORE + FOOT


def test_connmark_both_restores_on_everything_and_compares_the_whole_mark() -> None:
    made = connmark_both(BOTH)
    assert text(made) == HEAD + SAVE + BLINDLY + MIDDLE + BLINDLY + FOOT
    assert [(rule.fwmark, rule.fwmask) for rule in made.rules] == [(0x100, 0xFFFFFFFF), (0x200, 0xFFFFFFFF)]


def test_ctorigdst() -> None:
    made = ctorigdst(BOTH[0], ("3.3.3.3/32", "4.4.4.0/28"))
    assert text(made) == HEAD + ASKED + MIDDLE + ASKED + FOOT
    assert made.rules == (Rule(1001, 101, fwmark=0x100, fwmask=0xF00),)


def test_a_table_for_each_uplink() -> None:
    made = connmark(BOTH)
    assert made.routes == (
        Route("10.2.0.0/24", dev="eth1", table=101),
        Route("0.0.0.0/0", via="10.2.0.1", dev="eth1", table=101),
        Route("10.3.0.0/24", dev="eth2", table=102),
        Route("0.0.0.0/0", via="10.3.0.1", dev="eth2", table=102),
    )
    assert made.rules == (Rule(1001, 101, fwmark=0x100, fwmask=0xF00), Rule(1002, 102, fwmark=0x200, fwmask=0xF00))


def test_marks_stay_in_their_bits_and_out_of_others() -> None:
    links = [Uplink(f"eth{number}", f"v{number}", "10.0.0.1", ()) for number in range(MOST_UPLINKS)]
    marks = [rule.fwmark for rule in connmark(ways(links, None)).rules]
    assert len(set(marks)) == MOST_UPLINKS == 15
    assert all(mark & ~0xF00 == 0 and mark for mark in marks)
    assert not any(mark & 0xFFFF4000 for mark in marks)  # kube-proxy's 0x4000, Calico's 0xffff0000


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nftables")
@pytest.mark.parametrize(
    "made", [connmark(BOTH), connmark_both(BOTH), ctorigdst(BOTH[0], ("3.3.3.3/32", "4.4.4.0/28"))]
)
def test_nft_accepts_it(made: ReturnPath) -> None:
    argv = ["unshare", "--net", "nft", "--check", "--file", "-"]
    done = subprocess.run(argv, input=text(made), capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- on the nodes of a lab --------------------------------------------------------------------------------------------

VRFS = """
    vrfs: [mgmt, sbi]
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      n1: {kind: kubernetes}
      n2: {kind: kubernetes, OWN}
    links:
      - {endpoints: [r1, n1, n2], vrf: mgmt, ipv4: 10.1.0.0/24}
      - {endpoints: [r1, n1, n2], vrf: sbi, ipv4: 10.2.0.0/24}
    cluster: {name: k8s, defaultRoute: mgmt, returnPath: POLICY, manifests: []}
"""
LOAD_BALANCER = """
    apiVersion: metallb.io/v1beta1
    kind: IPAddressPool
    metadata: {name: pool, namespace: metallb-system}
    spec: {addresses: [3.3.3.0/28]}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
"""
[WAY] = ways([MGMT, SBI], MGMT)
NEAR = ("192.168.0.0/16", "10.1.0.0/24")

POLICIES = {
    "none": ("none", ReturnPath()),
    "static": ("{mode: static, to: [10.9.0.0/24]}", static(WAY, ("10.9.0.0/24",))),
    "rule-lb-ip": ("rule-lb-ip", by_source(WAY, ("3.3.3.0/32",))),
    "rule-lb-ip, stated": ("{mode: rule-lb-ip, addresses: [3.3.3.0/28]}", by_source(WAY, ("3.3.3.0/28",))),
    "rule-pod-ip": ("rule-pod-ip", by_source(WAY, ("192.168.0.0/16",), NEAR)),
    "connmark": ("connmark", connmark([WAY])),
    "connmark, long form": ("{mode: connmark, vrf: sbi}", connmark([WAY])),
    "connmark-both": ("connmark-both", connmark_both([WAY])),
    "ctorigdst": ("ctorigdst", ctorigdst(WAY, ("3.3.3.0/32",))),
    "ctorigdst, stated": ("{mode: ctorigdst, addresses: [3.3.3.0/28]}", ctorigdst(WAY, ("3.3.3.0/28",))),
}


def own_part(node: Node) -> ReturnPath:
    """What of a node belongs to its return path: the rest is there without one, too."""
    default = Route("0.0.0.0/0", via="10.1.0.1", dev="eth0")
    assert default in node.routes
    rulesets = tuple(entry for entry in node.rulesets if entry.name == "ip testbed-return-path")
    return ReturnPath(tuple(route for route in node.routes if route != default), node.rules, rulesets)


@pytest.mark.parametrize(("policy", "expected"), POLICIES.values(), ids=POLICIES)
def test_on_every_node_of_a_cluster(policy: str, expected: ReturnPath) -> None:
    plan = lab_texts.compiled(VRFS.replace("POLICY", policy).replace("OWN", ""), {"lb.yaml": LOAD_BALANCER})
    assert own_part(plan.node("n1")) == own_part(plan.node("n2")) == expected


def test_a_node_of_its_own_mind() -> None:
    text = VRFS.replace("POLICY", "connmark").replace("OWN", "returnPath: rule-pod-ip")
    plan = lab_texts.compiled(text, {"lb.yaml": LOAD_BALANCER})
    assert own_part(plan.node("n1")) == connmark([WAY])
    assert own_part(plan.node("n2")) == by_source(WAY, ("192.168.0.0/16",), NEAR)


def test_a_node_without_such_a_link_is_left_alone() -> None:
    text = (
        VRFS.replace("POLICY", "rule-pod-ip").replace("OWN", "").replace("[r1, n1, n2], vrf: sbi", "[r1, n1], vrf: sbi")
    )
    plan = lab_texts.compiled(text, {"lb.yaml": LOAD_BALANCER})
    assert own_part(plan.node("n1")) == by_source(WAY, ("192.168.0.0/16",), NEAR)
    assert own_part(plan.node("n2")) == ReturnPath()


HOST = """
    vrfs: [mgmt, sbi]
    nodes:
      r1: {kind: router}
      n1: {kind: host, gateway: r1, returnPath: POLICY}
    links:
      - {endpoints: [r1, n1], vrf: mgmt, ipv4: 10.1.0.0/24}
      - {endpoints: [r1, n1], vrf: sbi, ipv4: 10.2.0.0/24}
"""
HOST_POLICIES = {
    "none": ("none", ReturnPath()),
    "static": ("{mode: static, to: [10.9.0.0/24], vrf: sbi}", static(WAY, ("10.9.0.0/24",))),
    "rule-own-ip": ("rule-own-ip", by_source(WAY, ("10.2.0.2/32",))),
    "connmark": ("connmark", connmark([WAY])),
}


@pytest.mark.parametrize(("policy", "expected"), HOST_POLICIES.values(), ids=HOST_POLICIES)
def test_on_a_host(policy: str, expected: ReturnPath) -> None:
    assert own_part(lab_texts.compiled(HOST.replace("POLICY", policy)).node("n1")) == expected
