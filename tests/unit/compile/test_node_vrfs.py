"""VRFs of a cluster's nodes, and MetalLB's sessions in them."""

from __future__ import annotations

import lab_texts
import pytest

from testbed.compile import compile_lab
from testbed.errors import InputError
from testbed.load.images import catalogue
from testbed.load.manifests import load_manifests
from testbed.plan import BgpSession, ExpectedRoute, Interface, Node, Plan, Route, Rule, VrfDriver

LAB = """
    vrfs: [mgmt, sbi]
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      n1: {kind: kubernetes}
    links:
      - {endpoints: [r1, n1], vrf: mgmt, ipv4: 10.1.0.0/24}
      - {endpoints: [r1, n1], vrf: sbi, ipv4: 10.2.0.0/24}
    cluster: {name: k8s, defaultRoute: mgmt, returnPath: connmark, nodeVrfs: [sbi]}
"""
METALLB = """
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.0.2.0/28]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: all, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: r1, namespace: metallb-system}
spec: {myASN: 64513, peerASN: 65001, peerAddress: 10.2.0.1, vrf: sbi}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, image: echo, ports: [{containerPort: 80}]}]}
"""
CALICO = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: r1}
spec: {peerIP: ADDRESS, asNumber: 65001}
"""


def compiled(text: str = LAB, manifests: str = METALLB, driver: VrfDriver = "device") -> Plan:
    made = lab_texts.lab(text)
    return compile_lab(made, load_manifests([("all.yaml", manifests)]), catalogue(made.images), vrf_driver=driver)


def refused(text: str = LAB, manifests: str = METALLB, driver: VrfDriver = "device") -> list[str]:
    with pytest.raises(InputError) as error:
        compiled(text, manifests, driver)
    return [problem.message for problem in error.value.problems]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compiled()


@pytest.fixture(scope="module")
def n1(plan: Plan) -> Node:
    return plan.node("n1")


def test_the_wiring_of_a_node(n1: Node) -> None:
    assert n1.vrfs == n1.vrf_devices == ("sbi",)
    device = n1.interfaces[0]
    assert n1.interfaces[1:3] == (
        Interface("eth0", addresses=("10.1.0.2/24",)),
        Interface("eth1", vrf="sbi", addresses=("10.2.0.2/24",), master="sbi"),
    )
    assert Route("0.0.0.0/0", via="10.1.0.1", dev="eth0") in n1.routes
    assert Route("0.0.0.0/0", via="10.2.0.1", dev="eth1", table=device.table, vrf="sbi") in n1.routes
    assert [route.kind for route in n1.routes if route.table == device.table] == [
        "unicast",
        "unreachable",
        "unreachable",
    ]
    assert n1.rules[0] == Rule(900, 254, destination="192.168.0.0/16"), "before the kernel's rule for VRFs"
    assert all(rule.table != 255 for rule in n1.rules), "the local table stays first"
    assert ("net/ipv4/tcp_l3mdev_accept", "1") in n1.sysctls


def test_metallb_speaks_in_the_vrf(plan: Plan, n1: Node) -> None:
    text = lab_texts.file(n1, "/etc/frr/bgpd.conf")
    assert [line for line in text.splitlines() if line.startswith("router bgp")] == ["router bgp 64513 vrf sbi"] * 2
    assert BgpSession("n1", "sbi", "10.2.0.1", "r1", "frr", "/run/frr/bgpd.vty") in plan.sessions
    assert BgpSession("r1", "sbi", "10.2.0.2", "n1", "frr", "/run/frr/bgpd.vty") in plan.sessions
    sbi = next(entry.table for entry in plan.node("r1").interfaces if entry.name == "sbi")
    assert ExpectedRoute("r1", "sbi", "192.0.2.0/32", sbi) in plan.routes


def test_a_node_without_vrfs_is_as_before() -> None:
    without = METALLB.replace(", vrf: sbi", "")
    text = LAB.replace(", nodeVrfs: [sbi]", "")
    assert compiled(text, without).node("n1") == compiled(text, without, "netns").node("n1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nodeVrfs: [sbi]", "nodeVrfs: [oam]", "no VRF 'oam'"),
        ("nodeVrfs: [sbi]", "nodeVrfs: [sbi, sbi]", "VRF sbi is named twice"),
        (
            "defaultRoute: mgmt, ",
            "",
            "nodeVrfs: the nodes' own address and default route are in the default routing instance",
        ),
        (
            "nodeVrfs: [sbi]",
            "nodeVrfs: [sbi, mgmt]",
            "nodeVrfs: the nodes' own address and default route are in the default routing instance",
        ),
        ("sbi", "cali1", "a VRF of the nodes cannot be named cali1: they have an interface of that name"),
        ("[mgmt, sbi]", "[mgmt, sbi, oam]", ""),
    ],
)
def test_what_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    manifests = METALLB.replace("vrf: sbi", f"vrf: {new}") if old == "sbi" else METALLB
    if message:
        assert message in refused(LAB.replace(old, new), manifests)
    else:
        [problem] = refused(LAB.replace(old, new).replace("nodeVrfs: [sbi]", "nodeVrfs: [sbi, oam]"))
        assert problem == "n1 has no link in VRF oam"


def test_namespaces_cannot_do_it() -> None:
    [message] = refused(driver="netns")
    assert message == "nodeVrfs needs VRF devices: pods and VRFs share the nodes' network namespace (VRF driver netns)"


def test_nodes_of_kind_are_not_the_labs_to_wire() -> None:
    [message, *_] = refused(LAB.replace("name: k8s,", "name: k8s, provider: kind,"))
    assert message == "nodeVrfs is not supported with provider kind: its nodes' network is not the lab's to wire"


def test_sessions_in_another_instance_than_their_link() -> None:
    assert refused(LAB.replace(", nodeVrfs: [sbi]", "")) == [
        "MetalLB's BGPPeer r1: n1 has no VRF 'sbi' (the cluster's nodeVrfs name those of its nodes)"
    ]
    assert refused(manifests=METALLB.replace(", vrf: sbi", "")) == [
        "MetalLB's BGPPeer r1: 10.2.0.1 is on a link of n1's VRF sbi, and this session is one of the default instance"
    ]
    assert refused(manifests=METALLB.replace("10.2.0.1", "10.1.0.1")) == [
        "MetalLB's BGPPeer r1: 10.1.0.1 is on a link of n1's default instance, and this session is one of VRF sbi"
    ]
    assert refused(manifests=METALLB + "---" + CALICO.replace("ADDRESS", "10.2.0.1")) == [
        "Calico's BGPPeer r1: 10.2.0.1 is on a link of n1's VRF sbi, and this session is one of the default instance"
    ]
    assert compiled(manifests=METALLB + "---" + CALICO.replace("ADDRESS", "10.1.0.1"))


STRICT, LOOSE = "net.ipv4.conf.all.rp_filter: 1", "net.ipv4.conf.all.rp_filter: 2"
BY_MARK = "net.ipv4.conf.all.src_valid_mark: 1"
MODES = ("{mode: static, to: [10.9.0.0/24]}", "rule-lb-ip", "rule-pod-ip", "connmark", "connmark-both", "ctorigdst")


@pytest.mark.parametrize("sysctls", [STRICT, LOOSE, f"{STRICT}, {BY_MARK}", f"{LOOSE}, {BY_MARK}"])
@pytest.mark.parametrize("mode", MODES)
def test_the_source_check_has_the_vrfs_own_table(mode: str, sysctls: str) -> None:
    """What is refused without the VRF devices (test_return_path_checks) is right with them: test_node_vrfs_live."""
    text = LAB.replace("n1: {kind: kubernetes}", f"n1: {{kind: kubernetes, sysctls: {{{sysctls}}}}}")
    text = text.replace("returnPath: connmark", f"returnPath: {mode}")
    assert compiled(text).node("n1").vrf_devices == ("sbi",)


def test_the_source_check_of_a_node_that_has_not_all_its_vrfs_as_devices() -> None:
    text = LAB.replace("vrfs: [mgmt, sbi]", "vrfs: [mgmt, sbi, oam]").replace(
        "    cluster:", "      - {endpoints: [r1, n1], vrf: oam, ipv4: 10.3.0.0/24}\n    cluster:"
    )
    text = text.replace("n1: {kind: kubernetes}", f"n1: {{kind: kubernetes, sysctls: {{{STRICT}}}}}")
    [message] = refused(text)
    assert message.startswith("n1: net.ipv4.conf.all.rp_filter = 1 drops every request on eth2 with the return path ")


def test_the_source_check_of_a_host_in_a_vrf_of_that_name() -> None:
    """Hosts have no VRF devices."""
    text = LAB.replace(
        "    links:",
        f"      h1: {{kind: host, gateway: r2, returnPath: connmark, sysctls: {{{STRICT}}}}}\n"
        "      r2: {kind: router}\n    links:\n      - {endpoints: [r2, h1], vrf: mgmt}\n"
        "      - {endpoints: [r2, h1], vrf: sbi}",
    )
    [message] = refused(text)
    assert message.startswith("h1: net.ipv4.conf.all.rp_filter = 1 drops every request on eth1 with the return path ")
