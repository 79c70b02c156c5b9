"""kube-proxy's rules against recordings of the real program, and what the recordings do not show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kube_objects import draining, endpoint, endpoints, ingress, node, service
from kube_recordings import RECORDED, api_server, recorded_config, recorded_node, recorded_objects

from testbed.compile.kube.kube_proxy.iptables import ProxyConfig, ProxyRules, iptables
from testbed.errors import InputError
from testbed.model.kube import EndpointSlice, Node, Service

SHARED = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")
CANARY = "KUBE-PROXY-CANARY"
CLUSTER = ProxyConfig(cluster_cidrs=("192.168.0.0/16", "fd00:168::/32"))
THERE = endpoint("192.168.2.10", "n2")
HERE = endpoint("192.168.1.10", "n1")


def compiled(case: Path) -> ProxyRules:
    services, slices = recorded_objects(case / "objects.yaml")
    return iptables(services, slices, recorded_node(case.parent / "nodes.yaml"), recorded_config(case / "proxy.yaml"))


# What may differ


def normal_form(text: str) -> dict[str, tuple[dict[str, str], dict[str, list[str]]]]:
    """Per table: chains with their policies, and the rules of each chain in order, but for what may differ.

    May differ: the order of rules of different service ports in the shared chains (here sorted by the name in the
    comment), canary chains, counters. A table with nothing but built-in chains is left out.
    """
    tables = {}
    for block in text.removesuffix("COMMIT\n").split("COMMIT\n"):
        lines = block.splitlines()
        heads = dict(line[1:].split(" ")[:2] for line in lines if line.startswith(":"))
        heads.pop(CANARY, None)
        rules: dict[str, list[str]] = {chain: [] for chain in heads}
        for line in lines:
            if line.startswith("-A "):
                rules[line.split(" ")[1]].append(line)
        for chain in set(SHARED) & rules.keys():
            rules[chain].sort(key=named)
        if any(rules.values()) or "-" in heads.values():
            assert lines[0] not in tables
            tables[lines[0]] = (heads, rules)
    return tables


def named(rule: str) -> tuple[bool, str]:
    """The service port a rule of a shared chain is for; the jumps to KUBE-NODEPORTS are for none and stay last."""
    found = re.search(r'--comment "([^" ]+)', rule)
    assert found
    return rule.endswith("-j KUBE-NODEPORTS"), found[1]


def nodeports_jump_is_last(text: str) -> bool:
    rules = [line for line in text.splitlines() if line.startswith("-A KUBE-SERVICES ")]
    jumps = [rule.endswith("-j KUBE-NODEPORTS") for rule in rules]
    return any(jumps) and jumps == sorted(jumps)


def test_every_recording_is_compared(fixtures: Path) -> None:
    assert sorted(path.parent.name for path in (fixtures / "kube-proxy").glob("*/iptables.v4")) == RECORDED


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("name", RECORDED)
def test_equals_recording(fixtures: Path, name: str, family: str) -> None:
    case = fixtures / "kube-proxy" / name
    text = getattr(compiled(case), family)
    recording = (case / f"iptables.{family}").read_text()
    assert nodeports_jump_is_last(recording)
    assert nodeports_jump_is_last(text)
    assert normal_form(text) == normal_form(recording)


def test_normal_form_sees_a_difference() -> None:
    text = iptables([service()], [endpoints(HERE, THERE)], node(), CLUSTER).v4
    lines = text.splitlines(keepends=True)
    assert all(normal_form("".join(lines[:i] + lines[i + 1 :])) != normal_form(text) for i in places(lines, "-A KUBE-"))
    first, second = places(lines, "-A KUBE-SVC-")[1:]
    lines[first], lines[second] = lines[second], lines[first]
    assert normal_form("".join(lines)) != normal_form(text)


def places(lines: list[str], start: str) -> list[int]:
    return [index for index, line in enumerate(lines) if line.startswith(start)]


# What the recordings do not show


def rules(text: str, *parts: str) -> list[str]:
    """The rules that hold all parts."""
    return [line for line in text.splitlines() if line.startswith("-A ") and all(part in line for part in parts)]


def load_balancer(**spec: Any) -> Service:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    return service(type="LoadBalancer", ports=[port], status=ingress("3.3.3.3"), **spec)


def test_chain_names_that_kubernetes_documents() -> None:
    objects = [api_server(), service("svc1", namespace="ns1", ports=[{"name": "p80", "port": 80}])]
    slices = [
        endpoints(endpoint("172.16.1.1"), port=6443, port_name="https", of="kubernetes"),
        endpoints(endpoint("10.180.0.1"), port=80, port_name="p80", of="svc1", namespace="ns1"),
    ]
    text = iptables(objects, slices, node(), CLUSTER).v4
    for chain in ("SVC-NPX46M4PTMTKRN6Y", "SVC-XPGD46QRK7WJZT7O", "SEP-SXIVWICOYRO3J4NJ"):
        assert f":KUBE-{chain} - [0:0]\n" in text


def test_same_objects_in_any_order_give_the_same_text() -> None:
    names = ("a", "b", "web")
    objects = [service(name, clusterIP=f"10.96.0.{index}") for index, name in enumerate(names, 20)]
    slices = [endpoints(HERE, name="web-1"), endpoints(THERE, name="web-2")]
    assert iptables(objects, slices, node(), CLUSTER) == iptables(objects[::-1], slices[::-1], node(), CLUSTER)


def test_masquerade_all_marks_traffic_of_pods_as_well() -> None:
    config = ProxyConfig(cluster_cidrs=CLUSTER.cluster_cidrs, masquerade_all=True)
    text = iptables([service()], [endpoints(HERE)], node(), config).v4
    assert rules(text, "cluster IP", "-j KUBE-MARK-MASQ") == [
        "-A KUBE-SVC-LOLE4ISW44XBNF3G -d 10.96.0.10/32 -p tcp -m comment --comment "
        '"default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ'
    ]


def test_interface_name_prefix() -> None:
    config = ProxyConfig(detect_local="InterfaceNamePrefix", local_interface="cali")
    text = iptables([load_balancer(externalTrafficPolicy="Local")], [endpoints(HERE)], node(), config).v4
    assert rules(text, "-d 10.96.0.10/32 ! -i cali+ -p tcp", "-j KUBE-MARK-MASQ")
    assert rules(text, "-A KUBE-EXT-LOLE4ISW44XBNF3G -i cali+ -m comment", "pod traffic", "-j KUBE-SVC-")


def test_node_cidr_of_a_node_without_one_is_refused() -> None:
    with pytest.raises(InputError, match="Node n1 has no podCIDR"):
        iptables([], [], node(), ProxyConfig(detect_local="NodeCIDR"))


def with_addresses(**addresses: str) -> Node:
    pairs = [{"type": kind, "address": text} for kind, text in addresses.items()]
    return Node.model_validate(node().model_dump(by_alias=True) | {"status": {"addresses": pairs}})


def test_node_ip_is_the_internal_one_before_the_external_one() -> None:
    item = load_balancer(loadBalancerSourceRanges=["172.16.0.0/16"])
    for where, expected in (
        (with_addresses(ExternalIP="10.9.9.9", InternalIP="172.16.1.1"), True),
        (with_addresses(ExternalIP="172.16.1.1", InternalIP="10.9.9.9"), False),
        (with_addresses(ExternalIP="172.16.1.1", Hostname="n1"), True),
        (with_addresses(), False),
    ):
        text = iptables([item], [endpoints(HERE)], where, CLUSTER).v4
        assert bool(rules(text, "-A KUBE-FW-", "-s 3.3.3.3/32")) is expected
    with pytest.raises(InputError, match="Node n1: 'n1' is not an IP address"):
        iptables([], [], with_addresses(InternalIP="n1"), CLUSTER)


def test_internal_policy_local_without_local_endpoint_drops() -> None:
    text = iptables([service(internalTrafficPolicy="Local")], [endpoints(THERE)], node(), CLUSTER).v4
    assert rules(text, "-d 10.96.0.10/32") == [
        '-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web has no local endpoints" '
        "-m tcp --dport 80 -j DROP"
    ]


def test_external_ip_under_policy_local_without_local_endpoint() -> None:
    item = service(externalIPs=["198.51.100.7"], externalTrafficPolicy="Local")
    text = iptables([item], [endpoints(THERE)], node(), CLUSTER).v4
    assert [rule.split(" ")[1] for rule in rules(text, "-d 198.51.100.7/32")] == [
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-SERVICES",
    ]
    assert rules(text, "-A KUBE-EXTERNAL-SERVICES", "has no local endpoints", "-j DROP")
    assert not rules(text, "-A KUBE-EXT-", "-j KUBE-SVL-")


def test_draining_endpoints_serve_where_nothing_is_ready() -> None:
    slices = [endpoints(draining("192.168.1.10", "n1"), THERE)]
    text = iptables([load_balancer(externalTrafficPolicy="Local")], slices, node(), CLUSTER).v4
    assert [rule.split('"')[1] for rule in rules(text, "-A KUBE-SVC-", " -> ")] == ["default/web -> 192.168.2.10:8080"]
    assert [rule.split('"')[1] for rule in rules(text, "-A KUBE-SVL-", " -> ")] == ["default/web -> 192.168.1.10:8080"]
    assert len(rules(text, "-j DNAT")) == 2


def test_source_ranges_that_hold_the_node_admit_the_address_itself() -> None:
    item = load_balancer(loadBalancerSourceRanges=["172.16.0.0/16", " fd00::/8 "])
    text = iptables([item], [endpoints(HERE)], node(), CLUSTER).v4
    sources = [rule.split(" ")[3] for rule in rules(text, "-A KUBE-FW-", "-j KUBE-EXT-")]
    assert sources == ["172.16.0.0/16", "3.3.3.3/32"]


def test_source_range_of_everything_is_no_range() -> None:
    item = load_balancer(loadBalancerSourceRanges=["10.0.0.0/8", "0.0.0.0/0"])
    assert "KUBE-FW-" not in iptables([item], [endpoints(HERE)], node(), CLUSTER).v4


def six(**spec: Any) -> Service:
    return service(clusterIP="fd00:10:96::10", **spec)


def test_ipv6_reject_and_affinity() -> None:
    text = iptables([six()], [], node(), CLUSTER).v6
    assert rules(text, "-d fd00:10:96::10/128", "-j REJECT --reject-with icmp6-port-unreachable")
    slices = [endpoints(endpoint("fd00:168:1::10", "n1"), address_type="IPv6")]
    affine = six(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}})
    text = iptables([affine], slices, node(), CLUSTER).v6
    assert rules(text, "-m recent --rcheck --seconds 60 --reap --name KUBE-SEP-", f"--mask {':'.join(['ffff'] * 8)} ")


def many(count: int) -> EndpointSlice:
    return endpoints(*(endpoint(f"192.168.{i // 200}.{i % 200}", "n2") for i in range(count)))


def test_rules_of_endpoints_go_without_comments_beyond_a_thousand() -> None:
    text = iptables([service()], [many(1000)], node(), CLUSTER).v4
    assert rules(text, "-A KUBE-SEP-", "--comment")
    assert rules(text, "-A KUBE-SVC-", " -> ")
    text = iptables([service()], [many(1001)], node(), CLUSTER).v4
    assert not rules(text, "-A KUBE-SEP-", "--comment")
    assert not rules(text, " -> ")
    assert len(rules(text, "-j DNAT")) == 1001


def test_node_ports_on_prefixes_need_the_addresses_of_interfaces() -> None:
    config = ProxyConfig(node_port_addresses=("172.16.0.0/16", "127.0.0.0/8"))
    with pytest.raises(InputError, match=r"nodePortAddresses 172\.16\.0\.0/16, 127\.0\.0\.0/8"):
        iptables([], [], node(), config)
    addresses = ("127.0.0.1", "172.16.1.1", "10.0.0.1", "::1", "fd00:16:1::1")
    made = iptables([], [], node(), config, addresses)
    assert [rule.split(" ")[3] for rule in rules(made.v4, "-A KUBE-SERVICES")] == ["127.0.0.1/32", "172.16.1.1/32"]
    assert rules(made.v6, "-A KUBE-SERVICES ! -d ::1/128", "--dst-type LOCAL")


def test_node_ports_keep_off_localhost_where_it_is_switched_off() -> None:
    prefixes = ("127.0.0.0/8", "172.16.0.0/16", "::/64", "fd00:16:1::/64")
    config = ProxyConfig(node_port_addresses=prefixes, localhost_node_ports=False)
    made = iptables([], [], node(), config, ("127.0.0.1", "172.16.1.1", "::1", "fd00:16:1::1"))
    assert [rule.split(" ")[3] for rule in rules(made.v4, "-A KUBE-SERVICES")] == ["172.16.1.1/32"]
    assert [rule.split(" ")[3] for rule in rules(made.v6, "-A KUBE-SERVICES")] == ["fd00:16:1::1/128"]


def test_probabilities_are_those_the_kernel_keeps() -> None:
    # What iptables-save prints for --probability 0.0227272727, which is how kube-proxy writes 1/44.
    text = iptables([service()], [many(44)], node(), CLUSTER).v4
    assert "--probability 0.02272727247 " in rules(text, "-A KUBE-SVC-", " -> ")[0]


@pytest.mark.parametrize(
    ("config", "localhost"),
    [
        (CLUSTER, True),
        (ProxyConfig(localhost_node_ports=False), False),
        (ProxyConfig(node_port_addresses=("primary",)), False),
        (ProxyConfig(node_port_addresses=("127.0.0.1/32",)), True),
    ],
)
def test_route_localnet_goes_with_its_firewall(config: ProxyConfig, localhost: bool) -> None:
    made = iptables([], [], node(), config, ("127.0.0.1", "172.16.1.1"))
    assert dict(made.sysctls).get("net/ipv4/conf/all/route_localnet") == ("1" if localhost else None)
    assert bool(rules(made.v4, "-A KUBE-FIREWALL")) is localhost
    assert not rules(made.v6, "-A KUBE-FIREWALL")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster_cidrs": ("192.168.0.0/16", "10.0.0.0/8")}, "more than one cluster CIDR of a family"),
        ({"cluster_cidrs": ("192.168.0.0",)}, "cluster CIDR: '192.168.0.0' is not a prefix"),
        ({"node_port_addresses": ("primary", "10.0.0.0/8")}, "node port address: 'primary' is not a prefix"),
        ({"detect_local": "BridgeInterface"}, "BridgeInterface: '' is not the name of an interface"),
        ({"detect_local": "InterfaceNamePrefix", "local_interface": "a b"}, "'a b' is not the name of an interface"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ProxyConfig(**settings)


# On a kernel

RESTORE_AND_SAVE = """
import json, subprocess, sys

def run(argv, text=None):
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=60).stdout

work = json.load(sys.stdin)
for name in work["nfacct"]:
    run(["nfacct", "add", name])
saved = []
for prefix, text in work["tables"]:
    run([prefix + "-restore", "--test"], text)
    run([prefix + "-restore"], text)
    lines = run([prefix + "-save"]).splitlines(keepends=True)
    saved.append("".join(line for line in lines if not line.startswith("#")))
json.dump(saved, sys.stdout)
"""


def unrecorded() -> list[ProxyRules]:
    """Rules of kinds that no recording has."""
    both = [endpoints(HERE, THERE), endpoints(endpoint("fd00:168:1::10", "n1"), name="web-6", address_type="IPv6")]
    prefix = ProxyConfig(detect_local="InterfaceNamePrefix", local_interface="cali", masquerade_all=False)
    everything = ProxyConfig(cluster_cidrs=CLUSTER.cluster_cidrs, masquerade_all=True)
    return [
        iptables([six()], [], node(), CLUSTER),
        iptables([six(sessionAffinity="ClientIP")], both, node(), CLUSTER),
        iptables([load_balancer(externalTrafficPolicy="Local")], both, node(), prefix),
        iptables([load_balancer(loadBalancerSourceRanges=["172.16.0.0/16"])], both, node(), everything),
        iptables([service()], [many(7)], node(), CLUSTER),
        iptables([service()], [many(1001)], node(), CLUSTER),
    ]


@pytest.mark.live
def test_a_loaded_table_is_printed_as_its_text(fixtures: Path) -> None:
    programs = ("unshare", "nfacct", "iptables-restore", "ip6tables-restore")
    if missing := [name for name in programs if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make network namespaces")
    made = [compiled(fixtures / "kube-proxy" / name) for name in RECORDED] + unrecorded()
    tables = [pair for one in made for pair in (("iptables", one.v4), ("ip6tables", one.v6))]
    work = json.dumps({"nfacct": made[0].nfacct, "tables": tables})
    argv = ["unshare", "-n", sys.executable, "-c", RESTORE_AND_SAVE]
    ran = subprocess.run(argv, input=work, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    saved = json.loads(ran.stdout)
    assert len(saved) == len(tables)
    for (_, text), printed in zip(tables, saved, strict=True):
        assert printed == text
