"""Rules and routes as text and data: which chain wrote an address, which rule and table decided."""

from __future__ import annotations

import pytest

from testbed.trace.packet import Ends
from testbed.trace.routing import decision, longest, refusal, rule_words, too_late
from testbed.trace.rules import (
    Connection,
    RuleEvent,
    chains,
    comment,
    connection_of,
    denial,
    dnat_chain,
    dnat_target,
    marks,
    snat_chain,
)

SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j cali-POSTROUTING
-A KUBE-SERVICES -d 3.3.3.3/32 -p tcp -m tcp --dport 22 -j KUBE-EXT-A
-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m tcp --dport 22 -j KUBE-SVC-A
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 32000 -j KUBE-EXT-A
-A KUBE-EXT-A -s 192.168.0.0/16 -j KUBE-SVC-A
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-SVC-A
-A KUBE-EXT-A -j KUBE-SVL-A
-A KUBE-SVC-A ! -s 192.168.0.0/16 -d 10.96.0.9/32 -j KUBE-MARK-MASQ
-A KUBE-SVC-A -m comment --comment "default/ssh -> 192.168.1.1:22" -j KUBE-SEP-A
-A KUBE-SVL-A -m comment --comment "default/ssh -> 192.168.1.1:22" -j KUBE-SEP-A
-A KUBE-SEP-A -m comment --comment "default/ssh" -m tcp -j DNAT --to-destination 192.168.1.1:22
-A cali-POSTROUTING -s 192.168.0.0/16 -j MASQUERADE --random-fully
-A KUBE-POSTROUTING -m comment --comment "masquerade, that is SNAT" -j RETURN
COMMIT
"""
NFT = """\
table ip nat {
\tchain KUBE-SEP-A {
\t\tmeta l4proto tcp counter packets 0 bytes 0 xt target "DNAT"
\t}
}
table ip gateway {
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname "eth5" masquerade
\t}
\tchain prerouting {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\ttcp dport 80 dnat to 10.0.0.9:8080
\t}
}
"""


@pytest.mark.parametrize(
    ("came", "local", "expected"),
    [
        (("10.20.20.20", "3.3.3.3", 22), False, ["KUBE-SERVICES", "KUBE-EXT-A", "KUBE-SVL-A", "KUBE-SEP-A"]),
        (("192.168.1.9", "10.96.0.9", 22), False, ["KUBE-SERVICES", "KUBE-SVC-A", "KUBE-SEP-A"]),
        (("192.168.1.9", "10.96.0.9", 23), False, []),
        (
            ("1.1.1.1", "5.5.5.5", 32000),
            False,
            ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXT-A", "KUBE-SVL-A", "KUBE-SEP-A"],
        ),
    ],
)
def test_chains_that_translate(came, local, expected):
    source, destination, port = came
    before = Ends(source, destination, 4000, port)
    assert dnat_chain(SAVED, before, "192.168.1.1", 22, local=local) == expected


def test_what_iptables_shows_better_is_left_out_of_what_nft_shows():
    assert set(chains(NFT)) == {"postrouting", "prerouting"}
    assert snat_chain(NFT) == [("postrouting", 'oifname "eth5" masquerade')]
    assert dnat_chain(NFT, Ends("1.1.1.1", "2.2.2.2", 5, 80), "10.0.0.9", 8080) == ["prerouting"]


MODE_NFTABLES = """\
table ip kube-proxy {
\tmap service-ips {
\t\telements = { 3.3.3.3 . tcp . 22 : goto external-A-default/ssh/tcp/ }
\t}
\tchain service-A-default/ssh/tcp/ {
\t\tmeta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 192.168.1.1 . 22, 1 : 192.168.1.2 . 22 }
\t}
\tchain local-A-default/ssh/tcp/ {
\t\tmeta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 192.168.1.1 . 22 }
\t}
\tchain external-A-default/ssh/tcp/ {
\t\tip saddr 192.168.0.0/16 goto service-A-default/ssh/tcp/ comment "short-circuit pod traffic"
\t\tfib saddr type local goto service-A-default/ssh/tcp/
\t\tgoto local-A-default/ssh/tcp/
\t}
}
"""


@pytest.mark.parametrize(("source", "chain"), [("10.20.20.20", "local"), ("192.168.1.9", "service")])
def test_chains_of_mode_nftables(source, chain):
    before = Ends(source, "3.3.3.3", 4000, 22)
    expected = ["external-A-default/ssh/tcp/", f"{chain}-A-default/ssh/tcp/"]
    assert dnat_chain(MODE_NFTABLES, before, "192.168.1.1", 22) == expected


def test_sources_are_written_by_targets_not_by_comments():
    assert [chain for chain, _ in snat_chain(SAVED)] == ["cali-POSTROUTING"]


def test_the_target_of_the_chains_that_were_passed():
    assert dnat_target(SAVED, ["PREROUTING", "KUBE-SERVICES", "KUBE-SEP-A", "POSTROUTING"]) == ("192.168.1.1", 22)
    assert dnat_target(SAVED, ["PREROUTING", "KUBE-SERVICES"]) is None
    assert comment(SAVED, "KUBE-SEP-A") == "default/ssh"


def test_connections_by_either_end():
    entry = Connection(6, Ends("1.1.1.1", "3.3.3.3", 4000, 22), Ends("192.168.1.1", "1.1.1.1", 22, 4000), 0x100)
    for ends in (entry.original, entry.reply, entry.original.reverse, entry.reply.reverse):
        assert connection_of([entry], ends) is entry
    assert connection_of([entry], Ends("1.1.1.1", "3.3.3.3", 4001, 22)) is None
    assert str(entry) == "1.1.1.1:4000 → 3.3.3.3:22, answer 192.168.1.1:22 → 1.1.1.1:4000, mark 0x100"


def test_events():
    events = [RuleEvent("nat", "A", 3, "rule", "jump", 0), RuleEvent("filter", "B", 4, "rule", "drop", 0x10)]
    assert denial(events) is events[1]
    assert denial(events[:1]) is None
    assert list(marks(events)) == [0x10]


RULES = [
    {"priority": 0, "src": "all", "table": "255"},
    {"priority": 1000, "src": "10.0.0.0", "srclen": 8, "table": "100"},
    {"priority": 1001, "src": "all", "fwmark": "0x100", "fwmask": "0xf00", "table": "101"},
    {"priority": 32766, "src": "all", "table": "254"},
]


@pytest.mark.parametrize(
    ("answer", "mark", "source", "expected"),
    [
        (
            {"dst": "default", "gateway": "172.17.1.1", "dev": "eth1", "table": "101", "protocol": "static"},
            0x100,
            "192.168.1.1",
            "table 101: default via 172.17.1.1 dev eth1 (static), by rule 1001: from all fwmark 0x100/0xf00 lookup 101",
        ),
        (
            {"dst": "default", "gateway": "10.0.0.1", "dev": "eth2", "table": "100"},
            0,
            "10.1.2.3",
            "table 100: default via 10.0.0.1 dev eth2, by rule 1000: from 10.0.0.0/8 lookup 100",
        ),
        (
            {
                "dst": "1.0.0.0/8",
                "protocol": "bgp",
                "nexthops": [{"gateway": "a", "dev": "x"}, {"gateway": "b", "dev": "y"}],
            },
            0,
            "1.1.1.1",
            "table main: 1.0.0.0/8 via a dev x or via b dev y (bgp)",
        ),
        ({"type": "local", "dst": "1.1.1.1", "dev": "eth0"}, 0, "2.2.2.2", "table local: local 1.1.1.1 dev eth0"),
    ],
)
def test_decisions(answer, mark, source, expected):
    assert str(decision([answer], RULES, mark, "eth0", source)) == expected


def test_rules_in_words():
    assert rule_words({"priority": 5, "src": "all", "dst": "10.0.0.0", "dstlen": 8, "iif": "eth1", "table": "254"}) == (
        "5: from all to 10.0.0.0/8 iif eth1 lookup main"
    )


def test_rules_that_refuse():
    rules = [
        RULES[0],
        {"priority": 10, "src": "10.0.0.0", "srclen": 8, "dst": "1.1.1.1", "action": "6"},
        {"priority": 11, "src": "all", "fwmark": "0x1", "action": "7"},
    ]
    assert refusal(rules, 0, "eth0", "10.1.1.1", "1.1.1.1") == ("blackhole", "10: from 10.0.0.0/8 to 1.1.1.1 blackhole")
    assert refusal(rules, 0, "eth0", "10.1.1.1", "1.1.1.2") == ("", "")
    assert refusal(rules, 1, "eth0", "9.9.9.9", "1.1.1.2")[0] == "unreachable"


def test_the_most_specific_route():
    routes = [
        {"dst": "default"},
        {"dst": "10.0.0.0/8"},
        {"dst": "10.1.1.1", "type": "blackhole"},
        {"dst": "10.1.0.0/16"},
    ]
    assert longest(routes) == {"dst": "10.1.1.1", "type": "blackhole"}
    assert longest([]) is None


def test_rules_for_a_source_that_was_written_after_routing():
    """`ip rule from 3.3.3.3` where the source is still the pod's when routing happens."""
    rules = [*RULES, {"priority": 1002, "src": "3.3.3.3", "table": "102"}]
    rules.append({"priority": 1003, "src": "3.3.3.3", "dst": "1.1.1.0", "dstlen": 24, "table": "103"})
    pod, balanced, client = "192.168.1.1", "3.3.3.3", "10.10.10.10"
    assert too_late(rules, 0, "eth0", pod, balanced, client) == ("1002: from 3.3.3.3 lookup 102",)
    assert len(too_late(rules, 0, "eth0", pod, balanced, "1.1.1.1")) == 2
    assert too_late(rules, 0, "eth0", balanced, balanced, client) == ()
    assert too_late(rules, 0, "eth0", pod, "4.4.4.4", client) == ()


@pytest.mark.parametrize(
    ("dropped", "found"),
    [
        ({1: ("10.0.0.1", "10.0.0.2"), 2: ("10.0.0.8", "10.0.0.9")}, 1),  # the other is a stranger's
        ({2: ("10.0.0.8", "10.0.0.9"), 1: ("10.0.0.1", "10.0.0.2")}, 1),
        ({3: ("10.0.0.1", "10.9.9.9"), 1: ("10.0.0.1", "10.0.0.2")}, 1),  # both ends are better than one
        ({3: ("10.0.0.1", "10.9.9.9"), 2: ("10.0.0.8", "10.0.0.9")}, 3),  # translated before it was dropped
        ({2: ("10.0.0.8", "10.0.0.9")}, None),
        ({4: ()}, 4),  # nothing is told of its addresses
    ],
)
def test_whose_packet_was_dropped(dropped, found):
    events = [
        RuleEvent("f", "c", 1, "rule", verdict, packet=number, ends=ends if verdict == "jump" else ())
        for number, ends in dropped.items()
        for verdict in ("jump", "drop")
    ]
    event = denial(events, {"10.0.0.1", "10.0.0.2"})
    assert (event.packet if event else None) == found
