"""A pod's link and the masquerading, as recorded of the CNI plugin and of felix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.compile.kube.calico import network as calico_network
from testbed.model import calico
from testbed.plan import Route

# --- the pod's link, as the CNI plugin makes it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["one", "two-pools", "block-29-fill", "requested-address", "dual-stack", "v6-requested"]
)
def test_like_the_plugin(fixtures: Path, case: str) -> None:
    folder = fixtures / "calico" / "ipam" / case
    sections = recorded_sections((folder / "pod-p1.txt").read_text())
    [result] = [found for found in load(folder / "result.yaml")["operations"] if found["op"].get("add") == "p1"]
    ours = calico_network.pod_network("default", "p1", [address.partition("/")[0] for address in result["ips"]])

    assert f"host {ours.host_interface}" in sections
    host = "\n".join(sections[f"host {ours.host_interface}"])
    assert f"link/ether {ours.host_mac} " in host
    assert set(ours.addresses) == set(result["ips"])
    assert {route_text(route) for route in ours.pod_routes} == set(recorded_pod_routes(sections["pod"]))
    recorded = dict(recorded_changes(sections["sysctls of the host side that differ from a fresh veth"]))
    assert {key.replace(ours.host_interface, "IF"): value for key, value in ours.host_sysctls} == recorded
    dad = next(line for line in sections["sysctls in the pod"] if "eth0.accept_dad" in line).rpartition(" ")[2]
    assert dict(ours.pod_sysctls).get("net/ipv6/conf/eth0/accept_dad", "1") == dad


def recorded_sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            current = found.setdefault(line.removeprefix("## "), [])
        else:
            current.append(line)
    return found


def recorded_pod_routes(lines: list[str]) -> Iterator[str]:
    """What was added: not the kernel's own routes."""
    for line in lines:
        if " dev eth0" in line and "proto kernel" not in line:
            yield (
                line.removesuffix(" pref medium").removesuffix(" scope link").replace("dev eth0 scope link", "dev eth0")
            )


def route_text(route: Route) -> str:
    """As ip-route(8) prints it, without what the kernel adds."""
    to = "default" if route.to in ("0.0.0.0/0", "::/0") else route.to.removesuffix("/32").removesuffix("/128")
    via = f" via {route.via}" if route.via else ""
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{to}{via} dev {route.dev}{metric}"


def recorded_changes(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, change = line.partition(": ")
        yield key, change.rpartition(" ")[2]


# --- the node's side, as felix leaves it -----------------------------------------------------------------------------


def test_like_felix(fixtures: Path) -> None:
    folder = fixtures / "calico" / "policy" / "nat-two-pools"
    pods = {
        f"{found['metadata']['namespace']}/{found['metadata']['name']}": [
            item["ip"] for item in found["status"]["podIPs"]
        ]
        for found in documents(folder / "objects.yaml")
        if found["kind"] == "Pod"
    }
    interfaces = load(folder / "interfaces.yaml")
    assert len(interfaces) == 3
    ours = {pod: calico_network.pod_network(*pod.split("/"), pods[pod]) for pod in interfaces}
    assert {pod: found.host_interface for pod, found in ours.items()} == interfaces
    recorded = {
        line.strip().removesuffix(" pref medium").replace(" scope link", "")
        for line in (folder / "routes.iptables").read_text().splitlines()
        if "dev cali" in line and "proto kernel" not in line
    }
    assert {route_text(route) for found in ours.values() for route in found.host_routes} == recorded
    sysctls = load(folder / "sysctls.iptables.yaml")
    for pod, found in ours.items():
        changes = {key: change.rpartition(" ")[2] for key, change in sysctls[pod.split("/")[1]].items()}
        assert changes.items() <= {key.replace(found.host_interface, "IF"): v for key, v in found.host_sysctls}.items()
    global_changes = {key: change.rpartition(" ")[2] for key, change in sysctls["global"].items()}
    assert dict(calico_network.node_sysctls((4, 6))).items() <= global_changes.items()


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


# --- masquerading ----------------------------------------------------------------------------------------------------

SAMPLES_V4 = ["192.168.0.0", "192.168.1.10", "192.168.127.255", "192.168.128.1", "192.169.0.1", "10.50.3.4", "8.8.8.8"]
SAMPLES_V6 = ["fd00:168::1", "fd00:168:1::10", "fd00:169::1", "fd00:16:1::1", "2001:db8::1"]


@pytest.mark.parametrize("case", ["nat-none", "nat-two-pools", "nat-disabled-pool"])
@pytest.mark.parametrize(("family", "samples"), [(4, SAMPLES_V4), (6, SAMPLES_V6)])
def test_the_same_flows_are_masqueraded(
    fixtures: Path, case: str, family: calico_network.Family, samples: list[str]
) -> None:
    folder = fixtures / "calico" / "policy" / case
    pools = [calico.IPPool.model_validate(f) for f in documents(folder / "objects.yaml") if f["kind"] == "IPPool"]
    ours = calico_network.nat_outgoing(pools, family)
    sets = recorded_sets((folder / "ipsets").read_text(), family)
    rule = "MASQUERADE --random-fully" in (folder / f"iptables.v{family}").read_text()
    for source in samples:
        for destination in samples:
            recorded = (
                rule and within(source, sets["masq-ipam-pools"]) and not within(destination, sets["network-ip-pools"])
            )
            assert masquerades(ours.text, source, destination) == recorded, (source, destination)


def recorded_sets(text: str, family: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in re.findall(rf"^create cali{family}0(\S+)", text, re.MULTILINE):
        found[name] = re.findall(rf"^add cali{family}0{name} (\S+)", text, re.MULTILINE)
    return found


def within(address: str, prefixes: list[str]) -> bool:
    return any(ip_address(address) in ip_network(prefix) for prefix in prefixes)


def masquerades(text: str, source: str, destination: str) -> bool:
    """What the rules of cali-nat-outgoing do with a packet."""
    for option, prefix, target in re.findall(r"^-A cali-nat-outgoing -([ds]) (\S+) -j (\w+)", text, re.MULTILINE):
        if ip_address(destination if option == "d" else source) in ip_network(prefix):
            return bool(target == "MASQUERADE")
    return False


def test_masquerading_goes_before_kube_proxy() -> None:
    pool = {"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "a"}}
    found = calico.IPPool.model_validate({**pool, "spec": {"cidr": "10.1.0.0/16", "natOutgoing": True}})
    ruleset = calico_network.nat_outgoing([found])
    assert ruleset.tool == "iptables-restore"
    assert ruleset.text.splitlines() == [
        "*nat",
        ":cali-POSTROUTING - [0:0]",
        ":cali-nat-outgoing - [0:0]",
        "-I POSTROUTING 1 -j cali-POSTROUTING",
        "-A cali-POSTROUTING -j cali-nat-outgoing",
        "-A cali-nat-outgoing -d 10.1.0.0/16 -j RETURN",
        "-A cali-nat-outgoing -s 10.1.0.0/16 -j MASQUERADE --random-fully",
        "COMMIT",
    ]
    assert calico_network.nat_outgoing([found], 6).tool == "ip6tables-restore"
    assert "MASQUERADE" not in calico_network.nat_outgoing([found], 6).text
