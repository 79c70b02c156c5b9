"""kube-proxy's mode nftables against recordings of the real program, and what the recordings do not show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kube_objects import draining, endpoint, endpoints, ingress, node, service
from kube_recordings import RECORDED, recorded_config, recorded_node, recorded_objects

from testbed.compile.kube.kube_proxy.config import ProxyConfig
from testbed.compile.kube.kube_proxy.nftables import NftablesRules, nftables
from testbed.compile.kube.kube_proxy.nftables_text import duration
from testbed.errors import InputError
from testbed.model.kube import Service

SERVICE_CIDRS = ("10.96.0.0/12", "fd00:10:96::/112")  # of the API server of the recordings
CLUSTER = ProxyConfig(cluster_cidrs=("192.168.0.0/16", "fd00:168::/32"), service_cidrs=SERVICE_CIDRS)
THERE = endpoint("192.168.2.10", "n2")
HERE = endpoint("192.168.1.10", "n1")
OVERLAPPING = ["10.9.0.0/16", "10.8.0.0/16", "10.9.1.0/24", "10.1.1.1/32"]
WEB = "PFISGYVC-default/web/tcp/"


def compiled(case: Path) -> NftablesRules:
    services, slices = recorded_objects(case / "objects.yaml")
    config = replace(recorded_config(case / "proxy.yaml"), service_cidrs=SERVICE_CIDRS)
    return nftables(services, slices, recorded_node(case.parent / "nodes.yaml"), config)


# What may differ

Block = tuple[tuple[str, ...], frozenset[str]]


def normal_form(text: str) -> dict[str, dict[str, Block]]:
    """Per table, its sets, maps and chains: lines in order, and elements without order. Nothing else may differ."""
    tables: dict[str, dict[str, Block]] = {}
    for title, body in re.findall(r"^table (.+?) \{\n(.*?)^\}$", text, re.M | re.S):
        joined = re.sub(r",\n\s+", ", ", body)
        blocks = re.findall(r"^\t(\w+ \S+) \{\n(.*?)^\t\}$", joined, re.M | re.S)
        head = "".join(line for line in joined.splitlines() if re.match(r"\t\w+ \"", line))
        found: dict[str, Block] = {"": ((head,), frozenset())}
        for name, inner in blocks:
            assert name not in found
            lines = [line.strip() for line in inner.splitlines()]
            elements = [line for line in lines if line.startswith("elements = ")]
            held = elements[0].removeprefix("elements = { ").removesuffix(" }").split(", ") if elements else []
            assert len(held) == len(set(held))
            found[name] = (tuple(line for line in lines if line not in elements), frozenset(held))
        counted = sum(line.endswith("{") for line in joined.splitlines())
        assert counted == len(blocks)
        tables[title] = found
    return tables


def both(rules: NftablesRules) -> str:
    return rules.v4 + rules.v6


def test_every_recording_is_compared(fixtures: Path) -> None:
    assert sorted(path.parent.name for path in (fixtures / "kube-proxy").glob("*/nftables.nft")) == RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_equals_recording(fixtures: Path, name: str) -> None:
    case = fixtures / "kube-proxy" / name
    recording = normal_form((case / "nftables.nft").read_text())
    assert recording.keys() == {"ip kube-proxy", "ip6 kube-proxy"}
    assert normal_form(both(compiled(case))) == recording


def test_normal_form_sees_a_difference() -> None:
    text = nftables([service()], [endpoints(HERE, THERE)], node(), CLUSTER).v4
    lines = text.splitlines(keepends=True)
    told = [i for i, line in enumerate(lines) if line.startswith(("\t\t", "\tcomment"))]
    assert len(told) > 50
    assert all(normal_form("".join(lines[:i] + lines[i + 1 :])) != normal_form(text) for i in told)


# What the recordings do not show


def rules(text: str, chain: str) -> list[str]:
    """The lines of a chain, set or map."""
    found = re.search(rf"^\t(?:chain|set|map) {re.escape(chain)} \{{\n(.*?)^\t\}}$", text, re.M | re.S)
    return [line.strip() for line in found[1].splitlines()] if found else []


def load_balancer(**spec: Any) -> Service:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    return service(type="LoadBalancer", ports=[port], status=ingress("3.3.3.3"), **spec)


def six(**spec: Any) -> Service:
    return service(clusterIP="fd00:10:96::10", **spec)


SIX = endpoints(endpoint("fd00:168:1::10", "n1"), endpoint("fd00:168:2::10", "n2"), address_type="IPv6", name="web-6")


def test_same_objects_in_any_order_give_the_same_text() -> None:
    objects = [service(name, clusterIP=f"10.96.0.{index}") for index, name in enumerate(("a", "b", "web"), 20)]
    slices = [endpoints(HERE, name="web-1"), endpoints(THERE, name="web-2")]
    assert nftables(objects, slices, node(), CLUSTER) == nftables(objects[::-1], slices[::-1], node(), CLUSTER)


def test_masquerade_all_is_refused() -> None:
    with pytest.raises(InputError, match="masqueradeAll is not supported in kube-proxy's mode nftables"):
        nftables([], [], node(), ProxyConfig(masquerade_all=True))


def test_internal_policy_local_without_local_endpoint_drops() -> None:
    text = nftables([service(internalTrafficPolicy="Local")], [endpoints(THERE)], node(), CLUSTER).v4
    assert rules(text, "no-endpoint-services")[2:] == [
        'elements = { 10.96.0.10 . tcp . 80 comment "default/web" : drop }'
    ]
    assert not rules(text, f"local-{WEB}")


def test_external_ip_under_policy_local_without_local_endpoint() -> None:
    item = service(externalIPs=["198.51.100.7"], externalTrafficPolicy="Local")
    text = nftables([item], [endpoints(THERE)], node(), CLUSTER).v4
    assert '198.51.100.7 . tcp . 80 comment "default/web" : drop' in rules(text, "no-endpoint-services")[2]
    assert f"198.51.100.7 . tcp . 80 : goto external-{WEB}" in rules(text, "service-ips")[2]
    assert not any(line.startswith("goto") for line in rules(text, f"external-{WEB}"))


def test_draining_endpoints_serve_where_nothing_is_ready() -> None:
    slices = [endpoints(draining("192.168.1.10", "n1"), THERE)]
    text = nftables([load_balancer(externalTrafficPolicy="Local")], slices, node(), CLUSTER).v4
    assert "0 : 192.168.2.10 . 8080 }" in rules(text, f"service-{WEB}")[0]
    assert "0 : 192.168.1.10 . 8080 }" in rules(text, f"local-{WEB}")[0]


def test_source_ranges_that_hold_the_node_admit_the_address_itself() -> None:
    item = load_balancer(loadBalancerSourceRanges=["172.16.0.0/16"])
    text = nftables([item], [endpoints(HERE)], node(), CLUSTER).v4
    assert rules(text, f"firewall-{WEB}") == ["ip saddr != { 3.3.3.3, 172.16.0.0/16 } drop"]


def test_node_ports_on_every_address_keep_off_localhost() -> None:
    config = ProxyConfig(node_port_addresses=("0.0.0.0/0",))
    made = nftables([], [], node(), config)
    assert rules(made.v4, "services")[-1] == (
        "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports"
    )
    assert "set nodeport-ips" not in made.v4
    made = nftables([], [], node(), ProxyConfig(node_port_addresses=("::/0",)))
    assert rules(made.v6, "nodeport-endpoints-check") == [
        "fib daddr type local ip6 daddr != ::1 meta l4proto . th dport vmap @no-endpoint-nodeports"
    ]


def test_node_ports_on_prefixes_are_matched_against_the_addresses() -> None:
    config = ProxyConfig(node_port_addresses=("172.16.0.0/16", "127.0.0.0/8"))
    with pytest.raises(InputError, match=r"nodePortAddresses 172\.16\.0\.0/16, 127\.0\.0\.0/8"):
        nftables([], [], node(), config)
    made = nftables([], [], node(), config, ("127.0.0.1", "172.16.1.1", "10.0.0.1"))
    assert rules(made.v4, "nodeport-ips")[2:] == ["elements = { 172.16.1.1 }"]


def test_ipv6_affinity_and_its_names() -> None:
    affine = six(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 90}})
    text = nftables([affine], [SIX], node(), CLUSTER).v6
    (chain,) = re.findall(r"chain (endpoint-\S+__fd00\.168\.1\.\.10/8080)", text)
    clients = chain.replace("endpoint", "affinity")
    assert rules(text, chain) == [
        f"update @{clients} {{ ip6 saddr }}",
        "meta l4proto tcp dnat to [fd00:168:1::10]:8080",
    ]
    assert rules(text, clients) == ["type ipv6_addr", "size 65535", "flags dynamic,timeout", "timeout 1m30s"]


def test_interface_name_prefix() -> None:
    config = ProxyConfig(detect_local="InterfaceNamePrefix", local_interface="cali")
    text = nftables([load_balancer(externalTrafficPolicy="Local")], [endpoints(HERE)], node(), config).v4
    assert 'iifname != "cali*"' in rules(text, "services")[0]
    assert rules(text, f"external-{WEB}")[0].startswith(f'iifname "cali*" goto service-{WEB} ')


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (1, "1s"), (60, "1m"), (90, "1m30s"), (10800, "3h"), (86400, "1d"), (90061, "1d1h1m1s")],
)
def test_durations_as_nft_prints_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


# On a kernel

LOAD_AND_LIST = """
import json, subprocess, sys

def run(argv, text=None):
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=60).stdout

listed = []
for text in json.load(sys.stdin):
    run(["nft", "flush ruleset"])
    run(["nft", "-f", "-"], text)
    listed.append(run(["nft", "list", "ruleset"]))
json.dump(listed, sys.stdout)
"""


def unrecorded() -> list[NftablesRules]:
    """Rules of kinds that no recording has."""
    prefix = ProxyConfig(detect_local="InterfaceNamePrefix", local_interface="cali")
    everywhere = ProxyConfig(node_port_addresses=("0.0.0.0/0", "::/0"))
    affinity = {"clientIP": {"timeoutSeconds": 90061}}
    here = [endpoints(HERE, THERE)]
    return [
        nftables([six()], [], node(), CLUSTER),
        nftables([six(sessionAffinity="ClientIP", sessionAffinityConfig=affinity)], [SIX], node(), CLUSTER),
        nftables([load_balancer(externalTrafficPolicy="Local")], here, node(), prefix),
        nftables([load_balancer(loadBalancerSourceRanges=["172.16.0.0/16"])], here, node(), everywhere),
        nftables([load_balancer(loadBalancerSourceRanges=["10.9.0.0/16"])], here, node(), CLUSTER),
        nftables([load_balancer(loadBalancerSourceRanges=OVERLAPPING)], here, node(), CLUSTER),
        nftables([service(internalTrafficPolicy="Local")], [endpoints(THERE)], node(), CLUSTER),
    ]


@pytest.mark.live
def test_a_loaded_table_is_printed_as_its_text(fixtures: Path) -> None:
    if missing := [name for name in ("unshare", "nft") if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make network namespaces")
    made = [both(compiled(fixtures / "kube-proxy" / name)) for name in RECORDED]
    made += [both(one) for one in unrecorded()]
    argv = ["unshare", "-n", sys.executable, "-c", LOAD_AND_LIST]
    ran = subprocess.run(argv, input=json.dumps(made), capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    listed = json.loads(ran.stdout)
    assert len(listed) == len(made)
    for text, printed in zip(made, listed, strict=True):
        assert normal_form(printed) == normal_form(text)
