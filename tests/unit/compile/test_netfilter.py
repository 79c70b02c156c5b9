"""Rules of several programs in one transaction."""

from __future__ import annotations

import lab_texts
import pytest

from testbed.compile.kube.netfilter import merge
from testbed.plan import Ruleset

KUBE = """*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:KUBE-POSTROUTING - [0:0]
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -j RETURN
COMMIT
"""
CALI = """# Felix
*nat
:POSTROUTING - [0:0]
:cali-POSTROUTING - [0:0]
-I POSTROUTING 1 -j cali-POSTROUTING
-A cali-POSTROUTING -j RETURN
COMMIT
"""


def rules(tool: str = "iptables-restore") -> tuple[Ruleset, Ruleset]:
    return Ruleset("kube", tool, KUBE), Ruleset("cali", "iptables-restore", CALI)  # type: ignore[arg-type]


def test_tables_are_joined_and_insertions_come_last() -> None:
    made = merge("both", rules())
    assert (made.name, made.tool) == ("both", "iptables-restore")
    assert (
        made.text
        == """*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
COMMIT
*nat
:POSTROUTING - [0:0]
:KUBE-POSTROUTING - [0:0]
:cali-POSTROUTING - [0:0]
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -j RETURN
-A cali-POSTROUTING -j RETURN
-I POSTROUTING 1 -j cali-POSTROUTING
COMMIT
"""
    )


def test_one_alone_stays_as_it_is() -> None:
    assert merge("kube", rules()[:1]).text == KUBE


def test_two_tools_are_refused() -> None:
    with pytest.raises(ValueError, match="one tool is needed"):
        merge("both", rules("ip6tables-restore"))


def test_what_is_no_rule_is_not_dropped_silently() -> None:
    with pytest.raises(ValueError, match="not a line of iptables-restore: '-D FORWARD 1'"):
        merge("x", [Ruleset("x", "iptables-restore", "*filter\n-D FORWARD 1\nCOMMIT\n")])


def test_on_a_node_calico_is_asked_first_and_all_of_kube_proxy_is_there() -> None:
    node = lab_texts.compiled(lab_texts.CLUSTER).node("n1")
    ruleset = next(entry for entry in node.rulesets if entry.tool == "iptables-restore")
    nat = ruleset.text[ruleset.text.index("*nat") :].splitlines()
    assert nat[-2:] == ["-I POSTROUTING 1 -j cali-POSTROUTING", "COMMIT"]
    assert any(line.startswith("-A POSTROUTING") and line.endswith("-j KUBE-POSTROUTING") for line in nat)
    assert "default/kubernetes:https has no endpoints" in ruleset.text
    assert [entry.tool for entry in node.rulesets] == ["nfacct", "iptables-restore"]  # counters before what names them


def test_each_mode_of_kube_proxy_on_a_node() -> None:
    def rulesets(mode: str) -> list[tuple[str, str]]:
        text = lab_texts.CLUSTER.replace("{name: k8s}", f"{{name: k8s, kubeProxyMode: {mode}}}")
        return [(entry.name, entry.tool) for entry in lab_texts.compiled(text).node("n1").rulesets]

    assert rulesets("iptables") == [("kube-proxy-counters", "nfacct"), ("iptables", "iptables-restore")]
    assert rulesets("nftables") == [("ip kube-proxy", "nft"), ("iptables", "iptables-restore")]
    assert rulesets("ipvs") == [
        ("kube-proxy-sets", "ipset"),
        ("iptables", "iptables-restore"),
        ("kube-proxy-servers", "ipvs"),
    ]


def test_ipvs_has_its_interface_and_answers_node_ports_on_every_address() -> None:
    text = lab_texts.CLUSTER.replace("{name: k8s}", "{name: k8s, kubeProxyMode: ipvs}")
    text = text.replace("    cluster:", "      - {endpoints: [r1, n1, n2], ipv4: 10.3.0.0/24}\n    cluster:")
    manifest = """
        apiVersion: v1
        kind: Service
        metadata: {name: web}
        spec: {type: NodePort, clusterIP: 10.96.0.80, ports: [{port: 80, nodePort: 30080}]}
    """
    node = lab_texts.compiled(text, {"web.yaml": manifest}).node("n1")
    (device,) = [entry for entry in node.interfaces if entry.kind == "dummy"]
    assert (device.name, sorted(device.addresses)) == ("kube-ipvs0", ["10.96.0.1/32", "10.96.0.80/32"])
    servers = next(entry.text for entry in node.rulesets if entry.tool == "ipvs")
    at = [line.split()[2] for line in servers.splitlines() if ":30080" in line]
    assert at == ["10.1.0.2:30080", "10.3.0.2:30080"]
    assert ("net/ipv4/vs/conntrack", "1") in node.sysctls
