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
