"""The way back of replies, by connection mark."""

from __future__ import annotations

import os
import shutil
import subprocess

import lab_texts
import pytest

from testbed.compile.return_path import MOST_UPLINKS, ReturnPath, connmark, ways
from testbed.compile.uplinks import Uplink
from testbed.plan import Route, Rule

SBI = Uplink("eth1", "sbi", "10.2.0.1", ("10.2.0.0/24",))
OAM = Uplink("eth2", "oam", "10.3.0.1", ("10.3.0.0/24",))

TEXT = """table ip testbed-return-path
delete table ip testbed-return-path
table ip testbed-return-path {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    iifname "eth1" ct state new ct mark set ct mark or 0x100
    iifname "eth2" ct state new ct mark set ct mark or 0x200
    ct direction reply ct mark & 0xf00 == 0x100 meta mark set meta mark or 0x100
    ct direction reply ct mark & 0xf00 == 0x200 meta mark set meta mark or 0x200
  }
  chain output {
    type route hook output priority mangle; policy accept;
    ct direction reply ct mark & 0xf00 == 0x100 meta mark set meta mark or 0x100
    ct direction reply ct mark & 0xf00 == 0x200 meta mark set meta mark or 0x200
  }
}
"""


def test_no_uplinks_no_rules() -> None:
    assert connmark([]) == ReturnPath()


def test_text() -> None:
    [ruleset] = connmark([SBI, OAM]).rulesets
    assert (ruleset.name, ruleset.tool, ruleset.text) == ("ip testbed-return-path", "nft", TEXT)


def test_a_table_for_each_uplink() -> None:
    made = connmark([SBI, OAM])
    assert made.routes == (
        Route("10.2.0.0/24", dev="eth1", table=101),
        Route("0.0.0.0/0", via="10.2.0.1", dev="eth1", table=101),
        Route("10.3.0.0/24", dev="eth2", table=102),
        Route("0.0.0.0/0", via="10.3.0.1", dev="eth2", table=102),
    )
    assert made.rules == (Rule(1001, 101, fwmark=0x100, fwmask=0xF00), Rule(1002, 102, fwmark=0x200, fwmask=0xF00))


def test_marks_stay_in_their_bits_and_out_of_others() -> None:
    made = connmark([Uplink(f"eth{number}", f"v{number}", "10.0.0.1", ()) for number in range(MOST_UPLINKS)])
    marks = [rule.fwmark for rule in made.rules]
    assert len(set(marks)) == MOST_UPLINKS == 15
    assert all(mark & ~0xF00 == 0 and mark for mark in marks)
    assert not any(mark & 0xFFFF4000 for mark in marks)  # kube-proxy's 0x4000, Calico's 0xffff0000


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nftables")
def test_nft_accepts_it() -> None:
    [ruleset] = connmark([SBI, OAM]).rulesets
    argv = ["unshare", "--net", "nft", "--check", "--file", "-"]
    done = subprocess.run(argv, input=ruleset.text, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")


VRFS = """
    vrfs: [mgmt, sbi]
    nodes: {r1: {kind: router}, n1: {kind: kubernetes}}
    links:
      - {endpoints: [r1, n1], vrf: mgmt, ipv4: 10.1.0.0/24}
      - {endpoints: [r1, n1], vrf: sbi, ipv4: 10.2.0.0/24}
    cluster: {name: k8s, defaultRoute: mgmt, returnPath: METHOD}
"""


def test_on_a_node_of_a_cluster() -> None:
    node = lab_texts.compiled(VRFS.replace("METHOD", "connmark")).node("n1")
    made = connmark([Uplink("eth1", "sbi", "10.2.0.1", ("10.2.0.0/24",))])
    assert node.rules == made.rules
    assert set(made.routes) <= set(node.routes)
    assert made.rulesets[0] in node.rulesets
    assert Route("0.0.0.0/0", via="10.1.0.1", dev="eth0") in node.routes


def test_none() -> None:
    node = lab_texts.compiled(VRFS.replace("METHOD", "none")).node("n1")
    assert node.rules == ()
    assert all(ruleset.name != "ip testbed-return-path" for ruleset in node.rulesets)
