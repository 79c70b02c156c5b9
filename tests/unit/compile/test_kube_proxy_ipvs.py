"""kube-proxy's mode ipvs against recordings of the real program, and what the recordings do not show."""

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
from kube_objects import endpoint, endpoints, ingress, node, service
from kube_recordings import RECORDED, recorded_config, recorded_node, recorded_objects

from testbed.compile.kube.kube_proxy.config import ProxyConfig
from testbed.compile.kube.kube_proxy.ipvs import IpvsRules, ipvs
from testbed.errors import InputError
from testbed.model.kube import Service
from testbed.runtime import kernel

SCHEDULERS = ["dh", "nq", "rr", "wlc", "wrr"]
OWN = [*(f"ipvs-scheduler-{name}" for name in SCHEDULERS), "ipvs-strict-arp-exclude"]
CASES = sorted([*RECORDED, *OWN])
ADDRESSES = ("127.0.0.1", "172.16.1.1")  # of node n1 in every recording
CLUSTER = ProxyConfig(cluster_cidrs=("192.168.0.0/16",))
HERE = endpoint("192.168.1.10", "n1")
THERE = endpoint("192.168.2.10", "n2")


def compiled(case: Path) -> IpvsRules:
    services, slices = recorded_objects(case / "objects.yaml")
    where = recorded_node(case.parent / "nodes.yaml")
    return ipvs(services, slices, where, recorded_config(case / "proxy.yaml"), ADDRESSES)


def servers(text: str) -> dict[str, set[str]]:
    """Virtual servers and the real servers of each; neither has an order."""
    found: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for line in text.splitlines():
        command, protocol, at, *rest = line.split(" ")
        if command == "-A":
            assert f"{protocol} {at}" not in names
            names[f"{protocol} {at}"] = line
            found[line] = set()
        else:
            assert command == "-a"
            own = found[names[f"{protocol} {at}"]]
            assert line not in own
            own.add(line)
        assert rest
    return found


def test_every_recording_is_compared(fixtures: Path) -> None:
    assert sorted(path.parent.name for path in (fixtures / "kube-proxy").glob("*/ipvs.v4")) == CASES


@pytest.mark.parametrize("name", CASES)
def test_equals_recording(fixtures: Path, name: str) -> None:
    case = fixtures / "kube-proxy" / name
    made = compiled(case)
    assert made.v4 == (case / "ipvs.v4").read_text()
    assert servers(made.servers) == servers((case / "ipvs.services").read_text())
    assert sorted(made.sets.splitlines()) == (case / "ipvs.sets").read_text().splitlines()
    assert sorted(f"inet {address}/32" for address in made.addresses) == (case / "ipvs.dummy").read_text().splitlines()


@pytest.mark.parametrize("name", CASES)
def test_the_recorded_program_made_no_rule_for_ipv6(fixtures: Path, name: str) -> None:
    """It had stopped after making chains: what it does for IPv6 is not known, and so not compiled."""
    case = fixtures / "kube-proxy" / name
    assert not [line for line in (case / "ipvs.v6").read_text().splitlines() if line.startswith("-A")]
    assert "inet6" not in (case / "ipvs.sets").read_text() + (case / "ipvs.dummy").read_text()


# What the recordings do not show


def rules(text: str, *parts: str) -> list[str]:
    """The lines that hold all parts."""
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def entries(made: IpvsRules, name: str) -> list[str]:
    return [line.split(" ")[2] for line in made.sets.splitlines() if line.startswith(f"add {name} ")]


def load_balancer(**spec: Any) -> Service:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    return service(type="LoadBalancer", ports=[port], status=ingress("3.3.3.3"), **spec)


def test_strict_arp() -> None:
    assert not rules("\n".join(key for key, _ in ipvs([], [], node(), CLUSTER, ADDRESSES).sysctls), "arp")
    made = ipvs([], [], node(), replace(CLUSTER, strict_arp=True), ADDRESSES)
    assert dict(made.sysctls)["net/ipv4/conf/all/arp_ignore"] == "1"
    assert dict(made.sysctls)["net/ipv4/conf/all/arp_announce"] == "2"


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(InputError, match="IPVS scheduler 'mh': choose from rr, wrr"):
        ProxyConfig(scheduler="mh")


def test_masquerade_all_does_not_ask_where_traffic_comes_from() -> None:
    made = ipvs([service()], [endpoints(HERE)], node(), replace(CLUSTER, masquerade_all=True), ADDRESSES)
    assert rules(made.v4, "KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ") == [
        '-A KUBE-SERVICES -m comment --comment "Kubernetes service cluster ip + port for masquerade purpose" '
        "-m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ"
    ]


def test_source_ranges_that_hold_the_node_admit_the_address_itself() -> None:
    item = load_balancer(loadBalancerSourceRanges=["172.16.0.0/16", "10.1.1.1/32"])
    made = ipvs([item], [endpoints(HERE)], node(), CLUSTER, ADDRESSES)
    assert entries(made, "KUBE-LOAD-BALANCER-SOURCE-IP") == ["3.3.3.3,tcp:80,3.3.3.3"]
    ranges = ["3.3.3.3,tcp:80,172.16.0.0/16", "3.3.3.3,tcp:80,10.1.1.1"]
    assert entries(made, "KUBE-LOAD-BALANCER-SOURCE-CIDR") == ranges
    assert rules(made.v4, "-A KUBE-SOURCE-RANGES-FIREWALL", "KUBE-LOAD-BALANCER-SOURCE-IP dst,dst,src -j RETURN")
    assert not rules(made.v4, "-A KUBE-IPVS-OUT-FILTER")


def test_node_ports_answer_on_every_address_but_loopback() -> None:
    made = ipvs([load_balancer()], [endpoints(HERE)], node(), CLUSTER, ("127.0.0.1", "172.16.1.1", "172.17.1.1"))
    assert [line.split(" ")[2] for line in rules(made.servers, "-A ", ":30080")] == [
        "172.16.1.1:30080",
        "172.17.1.1:30080",
    ]


def test_an_address_of_another_interface_is_not_put_on_the_dummy() -> None:
    item = service(externalIPs=["172.17.1.1"])
    made = ipvs([item], [endpoints(HERE)], node(), CLUSTER, ("172.16.1.1", "172.17.1.1"))
    assert made.addresses == ("10.96.0.10",)
    assert rules(made.servers, "-A -t 172.17.1.1:80")
    assert entries(made, "KUBE-IPVS-IPS") == ["10.96.0.10"]


def test_external_ip_under_policy_local() -> None:
    item = service(externalIPs=["198.51.100.7"], externalTrafficPolicy="Local")
    made = ipvs([item], [endpoints(HERE, THERE)], node(), CLUSTER, ADDRESSES)
    assert entries(made, "KUBE-EXTERNAL-IP-LOCAL") == ["198.51.100.7,tcp:80"]
    assert not entries(made, "KUBE-EXTERNAL-IP")
    found = rules(made.v4, "-A KUBE-SERVICES", "KUBE-EXTERNAL-IP-LOCAL")
    assert [line.split(" ")[-1] for line in found] == ["ACCEPT", "ACCEPT"]
    assert len(rules(made.servers, "-a -t 198.51.100.7:80")) == 1


def test_internal_policy_local_without_local_endpoint_has_no_server() -> None:
    made = ipvs([service(internalTrafficPolicy="Local")], [endpoints(THERE)], node(), CLUSTER, ADDRESSES)
    assert made.servers == "-A -t 10.96.0.10:80 -s rr\n"


def test_sctp_node_port_is_set_by_address() -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080, "protocol": "SCTP"}
    item = service(type="NodePort", ports=[port], externalTrafficPolicy="Local")
    made = ipvs([item], [endpoints(HERE)], node(), CLUSTER, ADDRESSES)
    assert entries(made, "KUBE-NODE-PORT-SCTP-HASH") == ["172.16.1.1,sctp:30080"]
    assert entries(made, "KUBE-NODE-PORT-LOCAL-SCTP-HASH") == ["172.16.1.1,sctp:30080"]
    assert rules(made.servers, "-A --sctp-service 172.16.1.1:30080")
    assert re.search(r"-A KUBE-NODE-PORT -p sctp .*'hash ip:port'\" -m set .* dst,dst -j RETURN", made.v4)


def test_ipv6_is_left_out() -> None:
    slices = [endpoints(endpoint("fd00:168:1::10", "n1"), address_type="IPv6")]
    made = ipvs([service(clusterIP="fd00:10:96::10")], slices, node(), CLUSTER, ADDRESSES)
    assert not made.servers
    assert not made.addresses


# On a kernel

RESTORE_AND_SAVE = """
import json, subprocess, sys

def run(argv, text=None):
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=60).stdout

work = json.load(sys.stdin)
saved = []
for sets, tables in work:
    run(["iptables-restore"], "*filter\\nCOMMIT\\n*nat\\nCOMMIT\\n")
    run(["ipset", "destroy"])
    run(["ipset", "restore"], sets)
    run(["iptables-restore"], tables)
    lines = run(["iptables-save"]).splitlines(keepends=True)
    saved.append((run(["ipset", "save"]), "".join(line for line in lines if not line.startswith("#"))))
json.dump(saved, sys.stdout)
"""


def without_ipvs(text: str) -> str:
    """The tables without the match on IPVS, which not every kernel with IP sets has."""
    return "".join(line for line in text.splitlines(keepends=True) if " -m ipvs " not in line)


@pytest.mark.live
def test_loaded_sets_and_tables_are_printed_as_their_text(fixtures: Path) -> None:
    if missing := [name for name in ("unshare", "ipset", "iptables-restore") if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    answers = kernel.try_all({"ipset": kernel.IPSETS})
    if not answers["ipset"].works:
        pytest.skip(f"no IP sets: {answers['ipset'].detail}")
    made = [compiled(fixtures / "kube-proxy" / name) for name in CASES]
    work = json.dumps([(one.sets, without_ipvs(one.v4)) for one in made])
    argv = ["unshare", "-n", sys.executable, "-c", RESTORE_AND_SAVE]
    ran = subprocess.run(argv, input=work, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    saved = json.loads(ran.stdout)
    assert len(saved) == len(made)
    for one, (sets, tables) in zip(made, saved, strict=True):
        assert tables == without_ipvs(one.v4)
        printed = [re.sub(r" initval \S+", "", line) for line in sets.splitlines()]
        assert sorted(printed) == sorted(one.sets.splitlines())
