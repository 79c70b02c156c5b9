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
