"""Faults of UDP, ICMP, DNS and IPv6 flows, of sockets, segments, tunnels and Services, and what must be said of them.

Those of FAMILIES are of tests/e2e/labs/families, those of SERVICES of tests/e2e/labs/services. In the words of a command,
{port:r2-server} is r2's interface towards server, {mac:b} b's hardware address, and {sep:n1} the rule of n1 that sends
the Service cluster-udp to its endpoint.
"""

# ruff: noqa: E501 - commands stand as they are typed

from __future__ import annotations

from e2e_breaking import Broken, Command

Commands = tuple[Command, ...]


def one(node: str, do: str, undo: str) -> dict[str, Commands]:
    return {"do": ((node, None, do),), "undo": ((node, None, undo),)}


def several(do: tuple[tuple[str, str], ...], undo: tuple[tuple[str, str], ...]) -> dict[str, Commands]:
    return {
        "do": tuple((node, None, text) for node, text in do),
        "undo": tuple((node, None, text) for node, text in undo),
    }


def drops(node: str, family: str, hook: str, rule: str, *, more: str = "", kind: str = "filter") -> dict[str, Commands]:
    """A table of one rule, and its end. `hook` holds what stands between "hook" and ";"."""
    chain = f"add chain {family} broken c {{{{ type {kind} hook {hook} ; }}}}"
    text = f"nft add table {family} broken ; {more}{chain} ; add rule {family} broken c {rule}"
    return one(node, text, f"nft delete table {family} broken")


def and_then(first: dict[str, Commands], node: str, command: str) -> dict[str, Commands]:
    return {**first, "do": (*first["do"], (node, None, command))}


def vxlan(near: int, far: int) -> dict[str, Commands]:
    """What a sends to server goes through a tunnel from r1 to r2; their VNIs; 0: r2 has no end of it."""
    do = [
        ("r1", f"ip link add tun type vxlan id {near} local 10.0.0.0 remote 10.0.0.1 dstport 4789"),
        ("r1", "ip addr add 10.9.0.1/24 dev tun"),
        ("r1", "ip link set tun up"),
        ("r1", "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev tun nud permanent"),
        ("r1", "ip route add 10.2.0.2/32 via 10.9.0.2"),
    ]
    undo = [("r1", "ip link del tun")]
    if far:
        words = f"type vxlan id {far} local 10.0.0.1 remote 10.0.0.0 dstport 4789"
        do += [("r2", f"ip link add tun address 02:00:00:00:00:09 {words}"), ("r2", "ip link set tun up")]
        undo += [("r2", "ip link del tun")]
    return several(tuple(do), tuple(undo))


NEIGHBOUR = "vtysh -c 'configure terminal' -c 'router bgp 65002'"
V6 = "-c 'address-family ipv6 unicast'"
SOFT = "vtysh -c 'clear bgp ipv6 unicast * soft out'"

FAMILIES = (
    # --- rules of netfilter, of every family and at every hook
    Broken("udp4-raw", "udp4", **drops("r2", "ip", "prerouting priority -300", "udp dport 8080 drop"), kinds=("policy",), nodes=("r2",)),
    Broken("udp6-inet", "udp6", **drops("r1", "inet", "forward priority 0", "meta nfproto ipv6 udp dport 8080 drop"), kinds=("policy",), nodes=("r1",)),
    Broken("icmp6-input", "ping6", **drops("server", "ip6", "input priority 0", "icmpv6 type echo-request drop"), kinds=("policy",), nodes=("server",)),
    Broken("icmp4-reply", "ping4", **drops("r1", "ip", "forward priority 0", "icmp type echo-reply drop"), kinds=("policy",), nodes=("r1",)),
    Broken(
        "dns4-answer-by-a-set",
        "dns4",
        **drops("r2", "ip", "forward priority 0", "ip daddr . udp sport @s drop",
                more="add set ip broken s {{ type ipv4_addr . inet_service ; elements = {{ 10.1.0.2 . 53 }} ; }} ; "),
        kinds=("policy",),
        nodes=("r2",),
        words=("@s drop",),
    ),
    Broken("dns6-netdev-ingress", "dns6", **drops("r2", "netdev", "ingress device eth0 priority 0", "meta protocol ip6 udp dport 53 drop"), kinds=("policy",), nodes=("r2",), words=("udp dport 53 drop",)),
    Broken("udp6-netdev-egress", "udp6", **drops("r1", "netdev", "egress device eth0 priority 0", "udp dport 8080 drop"), kinds=("policy",), nodes=("r1",), words=("udp dport 8080 drop",)),
    Broken("dns4-bridge", "dns4", **drops("r2", "bridge", "output priority 0", "udp dport 53 drop"), kinds=("policy",), nodes=("r2",)),
    Broken("tcp6-new", "tcp6", **drops("r2", "inet", "forward priority 0", "ct state new meta l4proto tcp drop"), kinds=("policy",), nodes=("r2",)),
    Broken("tcp6-reject", "tcp6", **drops("r2", "ip6", "forward priority 0", "tcp dport 8080 reject with icmpv6 type admin-prohibited"), kinds=("reject",), nodes=("r2",)),
    Broken("snat-to-nobody", "udp4", **drops("r1", "ip", "postrouting priority srcnat", "ip saddr 10.1.0.2 snat to 198.51.100.9", kind="nat"), kinds=("wrong-nat",), nodes=("r1",), words=("198.51.100.9", "r2")),
    Broken("hop-limit", "ping6", **drops("r1", "ip6", "prerouting priority -150", "ip6 daddr fd02::2 ip6 hoplimit set 1"), kinds=("ttl",), nodes=("r1",)),
    # --- queueing disciplines and their classifiers
    Broken("queue-too-small", "udp4", **one("r1", "tc qdisc add dev eth0 root tbf rate 8bit burst 10 limit 1", "tc qdisc del dev eth0 root"), kinds=("queue",), nodes=("r1",), words=("eth0", "tbf")),
    Broken(
        "classifier",
        "udp6",
        **several((("r2", "tc qdisc add dev eth0 clsact"), ("r2", "tc filter add dev eth0 ingress protocol ipv6 bpf da bytecode '1,6 0 0 2,'")), (("r2", "tc qdisc del dev eth0 clsact"),)),
        kinds=("queue",),
        nodes=("r2",),
        words=("eth0", "clsact"),
    ),
    # --- routing
    Broken("forwarding6-off", "udp6", **one("r2", "sysctl -w net.ipv6.conf.all.forwarding=0", "sysctl -w net.ipv6.conf.all.forwarding=1"), kinds=("forwarding-off",), nodes=("r2",)),
    Broken("blackhole6", "ping6", **one("r1", "ip -6 route add blackhole fd02::2/128", "ip -6 route del blackhole fd02::2/128"), kinds=("blackhole",), nodes=("r1",)),
    Broken("prohibit6", "udp6", **one("r2", "ip -6 route add prohibit fd01::2/128", "ip -6 route del prohibit fd01::2/128"), kinds=("prohibit",), nodes=("r2",)),
    Broken(
        "blackhole-in-a-table",
        "udp6",
        **several((("r1", "ip -6 route add blackhole default table 999"), ("r1", "ip -6 rule add priority 10 to fd02::/64 lookup 999")), (("r1", "ip -6 rule del priority 10"), ("r1", "ip -6 route flush table 999"))),
        kinds=("blackhole",),
        nodes=("r1",),
        words=("table 999", "rule 10"),
    ),
    Broken("rule-by-source", "ping6", **one("r2", "ip -6 rule add priority 9 from fd01::2 unreachable", "ip -6 rule del priority 9"), kinds=("unreachable",), nodes=("r2",)),
    Broken("on-link-instead-of-gateway", "udp6", **one("r1", "ip -6 route add fd02::2/128 dev eth0", "ip -6 route del fd02::2/128 dev eth0"), kinds=("unresolved",), nodes=("r1",), words=("fd02::2",)),
    Broken("wrong-gateway", "udp4", **one("a", "ip route replace default via 10.1.0.3 dev eth0 proto static", "ip route replace default via 10.1.0.1 dev eth0 proto static"), kinds=("no-route",), nodes=("a",), words=("strayed to b", "a sent it there")),
    Broken("reply-to-a-host", "udp4", **several((("r2", "ip route add 10.1.0.2/32 via 10.2.0.3 dev br0"),), (("r2", "ip route del 10.1.0.2/32 via 10.2.0.3 dev br0"), ("server", "ip route flush cache"))), kinds=("no-route",), nodes=("r2",), words=("strayed to dns",)),
    Broken(
        "rp-filter-loose",
        "udp4",
        **several(
            (("a", "ip addr add 198.51.100.7/32 dev lo"), ("a", "ip route replace default via 10.1.0.1 dev eth0 src 198.51.100.7"), ("r1", "sysctl -w net.ipv4.conf.br0.rp_filter=2")),
            (("r1", "sysctl -w net.ipv4.conf.br0.rp_filter=0"), ("a", "ip route replace default via 10.1.0.1 dev eth0 proto static"), ("a", "ip addr del 198.51.100.7/32 dev lo")),
        ),
        kinds=("rp-filter",),
        nodes=("r1",),
        words=("loose", "198.51.100.7"),
    ),
    Broken(
        "mtu-and-no-word-of-it",
        "udp4",
        do=(("r2", None, "ip link set eth0 mtu 100"), *drops("r2", "ip", "output priority 0", "icmp type destination-unreachable drop")["do"]),
        undo=(("r2", None, "ip link set eth0 mtu 1500"), ("r2", None, "nft delete table ip broken")),
        kinds=("mtu",),
        nodes=("r2",),
        words=("eth0, 100",),
    ),
    Broken(
        "bgp-filter",
        "udp6",
        **several(
            (("r2", f"vtysh -c 'configure terminal' -c 'ipv6 prefix-list NONE seq 5 deny any' -c 'route-map NONE permit 10' -c 'match ipv6 address prefix-list NONE' -c 'router bgp 65002' {V6} -c 'neighbor fd00:: route-map NONE out'"), ("r2", SOFT)),
            (("r2", f"{NEIGHBOUR} {V6} -c 'no neighbor fd00:: route-map NONE out'"), ("r2", SOFT)),
        ),
        kinds=("bgp-filter",),
        nodes=("r2",),
        words=("does not announce it to r1",),
        wait=True,
    ),
    Broken("bgp-wrong-as", "udp6", **one("r2", f"{NEIGHBOUR} -c 'neighbor fd00:: remote-as 65999'", f"{NEIGHBOUR} -c 'neighbor fd00:: remote-as 65001' {V6} -c 'neighbor fd00:: activate'"), kinds=("bgp-session",), nodes=("r1", "r2"), wait=True),
    # --- neighbours and segments
    Broken("wrong-entry", "udp6", **one("r2", "ip -6 neigh replace fd02::2 lladdr 02:00:00:00:00:01 dev br0 nud permanent", "ip -6 neigh del fd02::2 dev br0"), kinds=("wrong-neighbour",), nodes=("r2",), words=("02:00:00:00:00:01",)),
    Broken("wrong-entry-for-the-reply", "udp6", **one("server", "ip -6 neigh replace fd02::1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent", "ip -6 neigh del fd02::1 dev eth0"), kinds=("wrong-neighbour",), nodes=("server",), words=("02:00:00:00:00:99",)),
    Broken("solicitation-dropped", "ping6", **and_then(drops("server", "ip6", "input priority 0", "icmpv6 type nd-neighbor-solicit drop"), "r2", "ip -6 neigh flush all"), kinds=("policy",), nodes=("server",), words=("fd02::2", "nd-neighbor-solicit")),
    Broken("wrong-prefix-length", "udp4", **one("a", "ip addr add 10.1.0.2/8 dev eth0", "ip addr del 10.1.0.2/8 dev eth0"), kinds=("unresolved",), nodes=("a",), words=("10.2.0.2", "10.1.0.2/8")),
    Broken(
        "duplicate-address",
        "udp4",
        **several((("b", "ip addr add 10.1.0.2/24 dev eth0"), ("r1", "ip neigh replace 10.1.0.2 lladdr {mac:b} dev br0 nud reachable")), (("b", "ip addr del 10.1.0.2/24 dev eth0"), ("r1", "ip neigh flush all"))),
        kinds=("duplicate-address",),
        nodes=("b",),
        words=("10.1.0.2", "a's"),
    ),
    Broken("not-in-the-bridge", "udp4", **one("r2", "ip link set {port:r2-server} nomaster", "ip link set {port:r2-server} master br0"), kinds=("bridge-port",), nodes=("r2",), words=("{port:r2-server}",)),
    Broken("far-end-down", "udp6", **one("server", "ip link set eth0 down", "true"), kinds=("link-down",), nodes=("server",), wait=True),
    Broken("ipv6-off", "udp6", **one("server", "sysctl -w net.ipv6.conf.eth0.disable_ipv6=1", "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0"), kinds=("address-missing",), nodes=("server",), words=("fd02::2",), wait=True),
    # --- tunnels
    Broken("tunnel-dropped", "ping4", do=(*vxlan(10, 10)["do"], *drops("r2", "ip", "input priority 0", "udp dport 4789 drop")["do"]), undo=(*vxlan(10, 10)["undo"], ("r2", None, "nft delete table ip broken")), kinds=("policy",), nodes=("r2",), words=("4789",)),
    Broken("tunnel-of-another-number", "ping4", **vxlan(10, 11), kinds=("tunnel",), nodes=("r2",), words=("VNI 11", "VNI 10")),
    Broken("tunnel-without-end", "udp4", **vxlan(10, 0), kinds=("tunnel",), nodes=("r2",), words=("VXLAN",)),
    # --- the ends
    Broken("inward-tcp", "inward-tcp", (), (), kinds=("no-listener",), nodes=("inward",), words=("at 127.0.0.1 alone",)),
    Broken("inward-udp", "inward-udp", (), (), kinds=("no-listener",), nodes=("inward",), words=("at 127.0.0.1 alone",)),
    Broken("other-port", "other-port", (), (), kinds=("no-listener",), nodes=("server",), words=("port 9999",)),
    Broken("queue-of-connections", "busy", (), (), kinds=("no-answer",), nodes=("busy",), words=("queue of connections",)),
    Broken("stopped", "udp6", do=(("stop", None, "server"),), undo=(("cont", None, "server"),), kinds=("no-answer",), nodes=("server",)),
    Broken("echo-ignored", "ping4", **one("server", "sysctl -w net.ipv4.icmp_echo_ignore_all=1", "sysctl -w net.ipv4.icmp_echo_ignore_all=0"), kinds=("setting",), nodes=("server",), words=("icmp_echo_ignore_all",)),
    Broken("name-server-dead", "dns6", do=(("kill", None, "dns names"),), undo=(), kinds=("no-listener",), nodes=("dns",), words=("names has ended",), wait=True),
)  # fmt: skip

LB = "lb-cluster-udp"
UNTRACKED = {node: drops(node, "ip", "prerouting priority -300", "udp sport 8080 notrack") for node in ("n1", "n2")}
SERVICES = (
    Broken("rule-of-the-endpoint-lost", LB, **several((("n1", "iptables -t nat -D {sep:n1}"), ("n2", "iptables -t nat -D {sep:n2}")), (("n1", "iptables -t nat -A {sep:n1}"), ("n2", "iptables -t nat -A {sep:n2}"))), kinds=("nat-missing",), nodes=("n1", "n2"), words=("KUBE-SEP",)),
    Broken(
        "rule-of-another-endpoint",
        LB,
        **several((("n1", "iptables -t nat -I {wrong:n1}"), ("n2", "iptables -t nat -I {wrong:n2}")), (("n1", "iptables -t nat -D {wrong:n1}"), ("n2", "iptables -t nat -D {wrong:n2}"))),
        kinds=("blackhole",),
        nodes=("n1",),
        words=("192.168.40.177",),
    ),
    Broken("pod-without-default-route", "cluster-ip-far", **one("inside", "ip route del default", "ip route add default via 169.254.1.1 dev eth0 proto static"), kinds=("no-route",), nodes=("inside",), words=("169.254.1.1",)),
    Broken("pod-drops", LB, **drops("echo", "inet", "input priority 0", "udp dport 8080 drop"), kinds=("policy",), nodes=("echo",)),
    Broken(
        "proxy-arp-off",
        "cluster-ip-far",
        **several((("n2", "sysctl -w net.ipv4.conf.{port:n2-inside}.proxy_arp=0"), ("inside", "ip neigh flush all")), (("n2", "sysctl -w net.ipv4.conf.{port:n2-inside}.proxy_arp=1"),)),
        kinds=("unresolved",),
        nodes=("inside",),
        words=("169.254.1.1", "proxy_arp is 0"),
    ),
    Broken("reply-not-tracked", LB, do=(*UNTRACKED["n1"]["do"], *UNTRACKED["n2"]["do"]), undo=(*UNTRACKED["n1"]["undo"], *UNTRACKED["n2"]["undo"]), kinds=("nat-missing",), nodes=("n1", "n2")),
)  # fmt: skip
