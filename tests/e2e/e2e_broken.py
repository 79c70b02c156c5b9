"""Labs broken in one way each, and what the explanation of a flow must then say. All are labs/edge."""

# ruff: noqa: E501 - commands stand as they are typed

from __future__ import annotations

from e2e_breaking import Broken, Command


def nft(
    node: str, vrf: str | None, hook: str, rule: str, priority: str = "0"
) -> tuple[tuple[Command, ...], tuple[Command, ...]]:
    """A table of one rule, and its end."""
    return (
        (
            (node, vrf, "nft add table ip broken"),
            (node, vrf, f"nft add chain ip broken {hook} {{ type filter hook {hook} priority {priority} ; }}"),
            (node, vrf, f"nft add rule ip broken {hook} {rule}"),
        ),
        ((node, vrf, "nft delete table ip broken"),),
    )


def _filter(node: str, vrf: str | None, hook: str, rule: str, priority: str = "0") -> dict[str, tuple[Command, ...]]:
    do, undo = nft(node, vrf, hook, rule, priority)
    return {"do": do, "undo": undo}


def _one(node: str, vrf: str | None, do: str, undo: str) -> dict[str, tuple[Command, ...]]:
    return {"do": ((node, vrf, do),), "undo": ((node, vrf, undo),)}


SSH, ECHO, NET, EGRESS, FAR, POD, SBI = (
    "ssh-from-amf", "echo-from-amf", "pod-to-internet", "pod-to-sbi", "pod-to-service-far", "pod-to-pod", "smf-from-amf",
)  # fmt: skip
MARK_RULE = "priority 1001 fwmark 0x100/0xf00 lookup 101"

BROKEN = (
    # --- routes and rules
    Broken(
        "rule-missing",
        "ssh-from-smf",
        **_one("n1", None, f"ip rule del {MARK_RULE}", f"ip rule add {MARK_RULE}"),
        kinds=("wrong-vrf",),
        nodes=("n1",),
        words=("eth0 (VRF mgmt)", "VRF sbi"),
    ),
    Broken(
        "wrong-table",
        "ssh-from-smf",
        **_one(
            "n1",
            None,
            "ip route replace default via 172.16.1.1 dev eth0 table 101",
            "ip route replace default via 172.17.1.1 dev eth1 table 101 proto static",
        ),
        kinds=("wrong-vrf",),
        nodes=("n1",),
        words=("table 101",),
    ),
    Broken(
        "egress-by-the-wrong-vrf",
        EGRESS,
        **_one(
            "n1",
            None,
            "ip route del 10.20.20.0/24 via 172.17.1.1",
            "ip route add 10.20.20.0/24 via 172.17.1.1 dev eth1 proto static",
        ),
        kinds=("wrong-vrf",),
        nodes=("n1",),
        words=("VRF mgmt", "VRF sbi"),
    ),
    Broken(
        "route-missing",
        SBI,
        **_one(
            "pe2",
            "sbi",
            "ip route del 10.10.10.0/24 dev eth5",
            "ip route add 10.10.10.0/24 dev eth5 proto kernel scope link src 10.10.10.1",
        ),
        kinds=("no-route",),
        nodes=("pe2",),
        words=("10.10.10.10",),
    ),
    Broken(
        "pod-route-missing",
        SSH,
        **_one(
            "n1",
            None,
            "ip route del {ssh} dev {cali:ssh}",
            "ip route add {ssh} dev {cali:ssh} proto static metric 1024 scope link",
        ),
        kinds=("blackhole",),
        nodes=("n1",),
    ),
    Broken(
        "blackhole",
        SSH,
        **_one("pe2", "sbi", "ip route add blackhole 3.3.3.3/32", "ip route del blackhole 3.3.3.3/32"),
        kinds=("blackhole",),
        nodes=("pe2",),
        words=("blackhole",),
    ),
    Broken(
        "unreachable",
        SSH,
        **_one("pe2", "sbi", "ip route add unreachable 3.3.3.3/32", "ip route del unreachable 3.3.3.3/32"),
        kinds=("unreachable",),
        nodes=("pe2",),
    ),
    Broken(
        "prohibit",
        SSH,
        **_one("leaf1", "sbi", "ip route add prohibit 3.3.3.3/32", "ip route del prohibit 3.3.3.3/32"),
        kinds=("prohibit",),
        nodes=("leaf1",),
    ),
    Broken(
        "wrong-next-hop",
        SSH,
        **_one(
            "leaf1",
            "sbi",
            "ip route add 3.3.3.3/32 via 172.17.1.99 dev br1 metric 1",
            "ip route del 3.3.3.3/32 via 172.17.1.99 dev br1 metric 1",
        ),
        kinds=("unresolved",),
        nodes=("leaf1",),
        words=("172.17.1.99",),
    ),
    Broken(
        "no-arp-answer",
        SBI,
        do=(("smf", None, "ip link set eth0 arp off"), ("pe2", "sbi", "ip neigh flush all")),
        undo=(("smf", None, "ip link set eth0 arp on"),),
        kinds=("unresolved",),
        nodes=("pe2",),
        words=("smf did not answer",),
    ),
    Broken(
        "rp-filter",
        "ssh-from-smf",
        **_one("n1", None, "sysctl -w net.ipv4.conf.eth1.rp_filter=1", "sysctl -w net.ipv4.conf.eth1.rp_filter=0"),
        kinds=("rp-filter",),
        nodes=("n1",),
    ),
    Broken(
        "forwarding-off",
        NET,
        **_one(
            "pe1",
            "mgmt",
            "sysctl -w net.ipv4.conf.eth0.forwarding=0 net.ipv4.conf.eth2.forwarding=0",
            "sysctl -w net.ipv4.conf.eth0.forwarding=1 net.ipv4.conf.eth2.forwarding=1",
        ),
        kinds=("forwarding-off",),
        nodes=("pe1",),
    ),
    Broken(
        "loop",
        SSH,
        do=(("leaf1", "sbi", "ip route add 3.3.3.3/32 via 172.20.0.26 dev eth7 metric 1"),),
        undo=(("leaf1", "sbi", "ip route del 3.3.3.3/32 via 172.20.0.26 dev eth7 metric 1"),),
        kinds=("loop",),
        nodes=("pe2", "leaf1"),
    ),
    # --- rules of netfilter
    Broken(
        "filter-drops",
        SSH,
        **_filter("n1", None, "forward", "tcp dport 22 drop"),
        kinds=("policy",),
        nodes=("n1",),
        words=("tcp dport 22",),
    ),
    Broken(
        "filter-drops-the-reply",
        SSH,
        **_filter("leaf1", "sbi", "forward", "tcp sport 22 drop"),
        kinds=("policy",),
        nodes=("leaf1",),
        words=("reply", "tcp sport 22"),
    ),
    Broken(
        "filter-rejects",
        NET,
        **_filter("leaf1", "mgmt", "forward", "ip daddr 203.0.113.10 reject"),
        kinds=("reject",),
        nodes=("leaf1",),
        words=("203.0.113.10",),
    ),
    Broken(
        "iptables-drops",
        SSH,
        **_one(
            "n1", None, "iptables -I FORWARD -p tcp --dport 22 -j DROP", "iptables -D FORWARD -p tcp --dport 22 -j DROP"
        ),
        kinds=("policy",),
        nodes=("n1",),
        words=("FORWARD",),
    ),
    Broken(
        "server-drops",
        NET,
        **_filter("internet", None, "input", "tcp dport 8080 drop"),
        kinds=("policy",),
        nodes=("internet",),
    ),
    Broken(
        "client-drops-the-reply",
        SBI,
        **_filter("amf", None, "input", "tcp sport 8080 drop"),
        kinds=("policy",),
        nodes=("amf",),
        words=("reply",),
    ),
    Broken(
        "client-sends-nothing",
        SBI,
        **_filter("amf", None, "output", "tcp dport 8080 drop"),
        kinds=("policy",),
        nodes=("amf",),
    ),
    Broken(
        "conntrack-invalid",
        POD,
        **_filter("n2", None, "prerouting", "ip saddr {client} notrack", "-300"),
        kinds=("conntrack-invalid",),
        nodes=("n2",),
    ),
    Broken(
        "connmark-both-ways",
        SSH,
        do=(("n1", None, "nft insert rule ip testbed-return-path prerouting iifname eth1 meta mark set 0x100"),),
        undo=(
            ("n1", None, "nft flush chain ip testbed-return-path prerouting"),
            (
                "n1",
                None,
                'nft add rule ip testbed-return-path prerouting iifname "eth1" ct state new ct mark set ct mark or 0x100',
            ),
            (
                "n1",
                None,
                "nft add rule ip testbed-return-path prerouting ct direction reply ct mark and 0xf00 == 0x100 meta mark set meta mark or 0x100",
            ),
        ),
        kinds=("wrong-mark",),
        nodes=("n1",),
        words=("0x100",),
    ),
    Broken(
        "nat-missing-on-the-gateway",
        NET,
        **_one(
            "pe1",
            "mgmt",
            "nft delete table ip testbed-nat",
            'nft add table ip testbed-nat ; add chain ip testbed-nat postrouting {{ type nat hook postrouting priority srcnat ; }} ; add rule ip testbed-nat postrouting oifname "eth5" masquerade',
        ),
        kinds=("nat-missing",),
        nodes=("pe1",),
    ),
    Broken(
        "nat-outgoing-missing",
        EGRESS,
        **_one(
            "n1",
            None,
            "iptables -t nat -F cali-POSTROUTING",
            "iptables -t nat -A cali-POSTROUTING -j cali-nat-outgoing",
        ),
        kinds=("nat-missing",),
        nodes=("n1",),
    ),
    Broken(
        "dnat-to-a-dead-port",
        "pod-to-service-near",
        **_one(
            "n1",
            None,
            "iptables -t nat -I PREROUTING -d {service:echo-near} -p tcp --dport 80 -j DNAT --to-destination {near}:9999",
            "iptables -t nat -D PREROUTING -d {service:echo-near} -p tcp --dport 80 -j DNAT --to-destination {near}:9999",
        ),
        kinds=("no-listener",),
        nodes=("{near-pod}",),
        words=("9999",),
    ),
    Broken(
        "ttl-too-small",
        NET,
        **_filter("pe1", "mgmt", "prerouting", "ip protocol tcp ip ttl set 1", "-150"),
        kinds=("ttl",),
        nodes=("pe1",),
    ),
    Broken(
        "local-without-local-endpoint",
        SSH,
        **_one(
            "leaf1",
            "sbi",
            "ip route add 3.3.3.3/32 via 172.17.1.3 dev br1 metric 1",
            "ip route del 3.3.3.3/32 via 172.17.1.3 dev br1 metric 1",
        ),
        kinds=("no-local-endpoint",),
        nodes=("n2",),
        words=("default/ssh",),
    ),
    Broken(
        "service-without-endpoints",
        "no-endpoints",
        do=(),
        undo=(),
        kinds=("no-endpoints",),
        nodes=("n1",),
        words=("default/kubernetes",),
    ),
    # --- links, sessions, programs
    Broken(
        "mtu-of-the-far-end",
        SSH,
        **_one("leaf1", "sbi", "ip link set eth7 mtu 600", "ip link set eth7 mtu 1500"),
        kinds=("mtu",),
        nodes=("leaf1",),
        words=("600",),
    ),
    Broken(
        "link-down",
        FAR,
        **_one("n3", None, "ip link set eth0 down", "true"),
        kinds=("link-down",),
        nodes=("n3",),
        wait=True,
    ),
    Broken(
        "bgp-password",
        SSH,
        do=(
            ("leaf1", None, "vtysh -c 'conf t' -c 'router bgp 65001 vrf sbi' -c 'neighbor 172.17.1.2 password wrong'"),
        ),
        undo=(("leaf1", None, "vtysh -c 'conf t' -c 'router bgp 65001 vrf sbi' -c 'no neighbor 172.17.1.2 password'"),),
        kinds=("bgp-session",),
        nodes=("n1", "leaf1"),
        wait=True,
    ),
    Broken(
        "dead-server",
        "pod-to-service-far",
        do=(("kill", None, "far echo"),),
        undo=(),
        kinds=("no-listener", "process"),
        nodes=("{far-pod}",),
        wait=True,
    ),
    Broken(
        "dead-routing-daemon",
        SSH,
        do=(("kill", None, "pe2 bgpd"),),
        undo=(),
        kinds=("process",),
        nodes=("pe2",),
        wait=True,
    ),
    Broken("node-gone", SBI, do=(("node", None, "smf"),), undo=(), kinds=("gone",), nodes=("smf",), wait=True),
    # --- added when the explanation was finished, to see what it makes of faults it was not made with
    Broken(
        "reset-on-the-way-back",
        SSH,
        **_one(
            "n1",
            None,
            "iptables -I FORWARD -p tcp --sport 22 -j REJECT --reject-with tcp-reset",
            "iptables -D FORWARD -p tcp --sport 22 -j REJECT --reject-with tcp-reset",
        ),
        kinds=("reject",),
        nodes=("n1",),
        words=("--sport 22",),
    ),
    Broken(
        "raw-table-drops",
        EGRESS,
        **_one(
            "pe2",
            "sbi",
            "iptables -t raw -I PREROUTING -d 10.20.20.20 -j DROP",
            "iptables -t raw -D PREROUTING -d 10.20.20.20 -j DROP",
        ),
        kinds=("policy",),
        nodes=("pe2",),
        words=("10.20.20.20",),
    ),
    Broken(
        "default-route-missing-at-the-client",
        SSH,
        **_one("amf", None, "ip route del default", "ip route add default via 10.20.20.1 dev eth0 proto static"),
        kinds=("no-route", "not-sent"),
        nodes=("amf",),
    ),
    Broken(
        "wrong-neighbour-entry",
        SBI,
        **_one(
            "pe2",
            "sbi",
            "ip neigh replace 10.10.10.10 lladdr 02:00:00:00:00:01 dev eth5 nud permanent",
            "ip neigh del 10.10.10.10 dev eth5",
        ),
        kinds=("wrong-neighbour",),
        nodes=("pe2", "smf"),
    ),
    Broken(
        "rule-that-drops",
        EGRESS,
        **_one(
            "n1",
            None,
            "ip rule add priority 10 from 192.168.0.0/16 to 10.20.20.20 blackhole",
            "ip rule del priority 10",
        ),
        kinds=("blackhole",),
        nodes=("n1",),
    ),
    Broken(
        "gateway-without-its-address",
        SBI,
        do=(("pe2", "sbi", "ip address del 10.20.20.1/24 dev eth4"), ("amf", None, "ip neigh flush all")),
        undo=(("pe2", "sbi", "ip address add 10.20.20.1/24 dev eth4"),),
        kinds=("address-missing",),
        nodes=("pe2",),
    ),
    Broken(
        "server-frozen",
        EGRESS,
        do=(("stop", None, "amf"),),
        undo=(("cont", None, "amf"),),
        kinds=("no-answer",),
        nodes=("amf",),
    ),
)
