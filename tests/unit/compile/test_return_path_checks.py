"""Return paths that cannot be right. (Texts with their positions: tests/golden/labs/return-path-*.)"""

from __future__ import annotations

import lab_texts
import pytest

VRFS = """
    vrfs: [mgmt, sbi]
    nodes:
      r1: {kind: router}
      n1: {kind: kubernetes, sysctls: {SYSCTLS}}
    links:
      - {endpoints: [r1, n1], vrf: mgmt, ipv4: 10.1.0.0/24}
      - {endpoints: [r1, n1], vrf: sbi, ipv4: 10.2.0.0/24}
    cluster: {name: k8s, defaultRoute: mgmt, returnPath: POLICY}
"""
STRICT, LOOSE = "net.ipv4.conf.all.rp_filter: 1", "net.ipv4.conf.all.rp_filter: 2"
BY_MARK = "net.ipv4.conf.all.src_valid_mark: 1"
STATIC = "{mode: static, to: [10.9.0.0/24]}"
ASKED = "{mode: ctorigdst, addresses: [3.3.3.3/32]}"
BALANCED = "{mode: rule-lb-ip, addresses: [3.3.3.3/32]}"

# The same combinations are tried on a live lab in tests/e2e/test_vrf_return_path.py.
RIGHT = [
    ("none", STRICT),
    (STATIC, STRICT),
    (STATIC, f"{STRICT}, {BY_MARK}"),
    ("rule-pod-ip", STRICT),
    ("rule-pod-ip", f"{LOOSE}, {BY_MARK}"),
    ("connmark", LOOSE),
    ("connmark", BY_MARK),
    (ASKED, LOOSE),
    (ASKED, BY_MARK),
    (BALANCED, LOOSE),
    ("connmark", "net.ipv4.conf.eth0.rp_filter: 1"),  # the default uplink
    ("connmark", "net.ipv4.conf.default.rp_filter: 2, net.ipv4.conf.eth1.rp_filter: 0"),
]
DROPS_REQUESTS = [
    ("connmark", STRICT, "net.ipv4.conf.all.rp_filter"),
    ("connmark", "net.ipv4.conf.default.rp_filter: 1", "net.ipv4.conf.default.rp_filter"),
    ("connmark", 'net.ipv4.conf.eth1.rp_filter: "1"', "net.ipv4.conf.eth1.rp_filter"),
    ("connmark-both", STRICT, "net.ipv4.conf.all.rp_filter"),
    (ASKED, STRICT, "net.ipv4.conf.all.rp_filter"),
    (BALANCED, STRICT, "net.ipv4.conf.all.rp_filter"),
]
DROPS_REPLIES = [("connmark", LOOSE), ("connmark-both", LOOSE), (ASKED, LOOSE)]


def messages(policy: str, sysctls: str) -> list[str]:
    return lab_texts.messages(VRFS.replace("POLICY", policy).replace("SYSCTLS", sysctls))


@pytest.mark.parametrize(("policy", "sysctls"), RIGHT)
def test_the_source_check_lets_it_pass(policy: str, sysctls: str) -> None:
    assert messages(policy, sysctls) == []


@pytest.mark.parametrize(("policy", "sysctls", "key"), DROPS_REQUESTS)
def test_the_source_check_drops_requests(policy: str, sysctls: str, key: str) -> None:
    [message] = messages(policy, sysctls)
    assert message.startswith(f"n1: {key} = 1 drops every request on eth1 with the return path ")


@pytest.mark.parametrize(("policy", "sysctls"), DROPS_REPLIES)
def test_the_source_check_drops_replies(policy: str, sysctls: str) -> None:
    [message] = messages(policy, f"{sysctls}, {BY_MARK}")
    assert message.startswith("n1: net.ipv4.conf.all.src_valid_mark = 1 and net.ipv4.conf.all.rp_filter = 2 drop every")


def test_with_ipvs_the_request_has_the_load_balancers_address_when_it_is_checked() -> None:
    text = VRFS.replace("POLICY", f"{BALANCED}, kubeProxyMode: ipvs").replace("SYSCTLS", STRICT)
    assert lab_texts.messages(text) == []


def test_a_host_has_no_cali_interfaces() -> None:
    text = """
        vrfs: [mgmt, sbi]
        nodes:
          r1: {kind: router}
          h1: {kind: host, gateway: r1, returnPath: MODE, sysctls: {SYSCTLS}}
        links:
          - {endpoints: [r1, h1], vrf: mgmt}
          - {endpoints: [r1, h1], vrf: sbi}
    """
    assert lab_texts.messages(text.replace("MODE", "connmark").replace("SYSCTLS", f"{LOOSE}, {BY_MARK}")) == []
    assert lab_texts.messages(text.replace("MODE", "rule-own-ip").replace("SYSCTLS", STRICT)) == []
    [message] = lab_texts.messages(text.replace("MODE", "connmark").replace("SYSCTLS", STRICT))
    assert message.startswith("h1: net.ipv4.conf.all.rp_filter = 1 drops every request on eth1")
