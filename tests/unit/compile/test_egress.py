"""EgressServices: who is chosen, what each node gets, and what is refused, with where it was written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lab_texts
import pytest

from testbed.compile.kube.egress.tables import Leg, node_egress
from testbed.errors import InputError
from testbed.plan import Interface, Plan, Route, Rule, Tunnel, TunnelPeer

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
PODS = ("192.168.1.1", "192.168.2.1")
NEAR = ("10.96.0.0/16", "192.168.0.0/16")
TUNNEL = "testbed-egress"
BARE = Leg(1, "default/app", PODS, balanced="3.3.3.3")
TRANSLATES = Leg(
    1,
    "default/app",
    PODS,
    gateway="10.2.0.1",
    interface="eth1",
    networks=("10.2.0.0/24",),
    source="3.3.3.3",
    strangers=("10.1.0.3", "10.2.0.3"),
    balanced="3.3.3.3",
)
HANDS_OVER = Leg(1, "default/app", PODS, gateway="10.1.0.2", interface="eth0", balanced="3.3.3.3")
BY_TUNNEL = replace(HANDS_OVER, interface=TUNNEL)

HEAD = """table ip testbed-egress
delete table ip testbed-egress
table ip testbed-egress {
  chain separated {
    type filter hook prerouting priority raw; policy accept;
    ip saddr { 192.168.1.1, 192.168.2.1 } ip daddr != { 10.96.0.0/16, 192.168.0.0/16 } ct original zone set ZONE
  }
  chain marked {
    type filter hook prerouting priority mangle; policy accept;
    ip saddr { 192.168.1.1, 192.168.2.1 } ip daddr != { 10.96.0.0/16, 192.168.0.0/16 } \
ct direction original meta mark set meta mark or 0x1
  }
  chain guarded {
    type filter hook forward priority filter - 10; policy accept;
    ip saddr 3.3.3.3 drop
    ip daddr 3.3.3.3 drop
"""
TRANSLATED = """    meta mark & 0xff == 0x1 oifname != "eth1" drop
    meta mark & 0xff == 0x1 rt ip nexthop { 10.1.0.3, 10.2.0.3 } drop
  }
  chain translated {
    type nat hook postrouting priority srcnat - 10; policy accept;
    meta mark & 0xff == 0x1 snat to 3.3.3.3
  }
  chain checked {
    type filter hook postrouting priority srcnat + 10; policy accept;
    meta mark & 0xff == 0x1 ip saddr != 3.3.3.3 drop
  }
}
"""
HANDED_OVER = """    meta mark & 0xff == 0x1 oifname != "eth0" drop
    meta mark & 0xff == 0x1 rt ip nexthop != 10.1.0.2 drop
  }
  chain translated {
    type nat hook postrouting priority srcnat - 10; policy accept;
    meta mark & 0xff == 0x1 snat to ip saddr
  }
  chain checked {
    type filter hook postrouting priority srcnat + 10; policy accept;
    meta mark & 0xff == 0x1 ip saddr != { 192.168.1.1, 192.168.2.1 } drop
  }
}
"""
UNMARKED = """  chain unmarked {
    type filter hook postrouting priority srcnat + 20; policy accept;
    oifname "testbed-egress" meta mark set 0
  }
}
"""
STRAY = '    iifname "testbed-egress" meta mark & 0xff == 0 drop\n'
DROPPED = "    meta mark & 0xff == 0x1 drop\n  }\n}\n"
CASES = [
    (TRANSLATES, TRANSLATED, (Route("10.2.0.0/24", dev="eth1", table=201),), Route),
    (HANDS_OVER, HANDED_OVER, (), Route),
    (BARE, DROPPED, (), None),
]


@pytest.mark.parametrize(("leg", "text", "on_link", "way"), CASES)
def test_a_node(leg: Leg, text: str, on_link: tuple[Route, ...], way: type[Route] | None) -> None:
    found = node_egress([leg], NEAR)
    [ruleset] = found.rulesets
    assert ruleset.text == HEAD.replace("ZONE", str(leg.zone)) + text
    assert ruleset.before_routes
    default = (Route("0.0.0.0/0", via=leg.gateway, dev=leg.interface, table=201),) if way else ()
    assert found.routes == (*on_link, *default)
    assert found.rules == ((Rule(801, 201, fwmark=1, fwmask=0xFF),) if way else ())


@pytest.mark.parametrize(("leg", "text"), [(TRANSLATES, TRANSLATED), (BY_TUNNEL, HANDED_OVER)])
def test_an_end_of_the_tunnel(leg: Leg, text: str) -> None:
    """Only what is marked comes out of it, and what carries a packet has no mark."""
    found = node_egress([leg], NEAR, tunnelled=True)
    head, guarded = HEAD.replace("ZONE", str(leg.zone)), "    ip saddr 3.3.3.3 drop\n"
    text = text.replace('"eth0"', f'"{leg.interface}"').removesuffix("}\n")
    assert found.rulesets[0].text == head.replace(guarded, STRAY + guarded) + text + UNMARKED
    onlink = leg.interface == TUNNEL
    assert found.routes[-1] == Route("0.0.0.0/0", via=leg.gateway, dev=leg.interface, table=201, onlink=onlink)


def test_nothing_without_egress_services() -> None:
    found = node_egress([], NEAR)
    assert (found.routes, found.rules, found.rulesets) == ((), (), ())


def test_another_translation_is_another_zone() -> None:
    zones = [leg.zone for leg in (BARE, TRANSLATES, HANDS_OVER)]
    assert len(set(zones)) == 3
    assert all(0 < zone <= 0xFFFF for zone in zones)


@pytest.mark.skipif(shutil.which("nft") is None, reason="not run: no nft here")
@pytest.mark.parametrize("leg", [TRANSLATES, HANDS_OVER, BARE, BY_TUNNEL])
def test_nft_takes_it(leg: Leg) -> None:
    [ruleset] = node_egress([leg], NEAR, tunnelled=leg.interface == TUNNEL).rulesets
    argv = ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "--file", "-"]
    subprocess.run(argv, input=ruleset.text.encode(), check=True, timeout=20)


# --- who is chosen ----------------------------------------------------------------------------------------------------

LAB = """
    vrfs: [mgmt, sbi]
    nodes:
      r1: {kind: router}
      r2: {kind: router, bgp: {asn: 65002}}
      n1: {kind: kubernetes, labels: {rack: a}}
      n2: {kind: kubernetes, labels: {rack: b}}
      n3: {kind: kubernetes, labels: {rack: b}}
    links:
      - {endpoints: [r1, n1, n2, n3], vrf: mgmt, ipv4: 10.1.0.0/24}
      - {endpoints: [r2, n1, n2], vrf: sbi, ipv4: 10.2.0.0/24}
    cluster: {name: k8s, defaultRoute: mgmt}
"""
WORKLOAD = """
    apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: app}
    spec:
      selector: {matchLabels: {app: app}}
      template:
        metadata: {labels: {app: app}}
        spec: {containers: [{name: app, image: echo}]}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: app}
    spec:
      type: LoadBalancer
      externalTrafficPolicy: Cluster
      selector: {app: app}
      ports: [{port: 8080}]
"""
METALLB = """
    apiVersion: metallb.io/v1beta1
    kind: IPAddressPool
    metadata: {name: pool, namespace: metallb-system}
    spec: {addresses: [3.3.3.3/32]}
    ---
    apiVersion: metallb.io/v1beta1
    kind: BGPAdvertisement
    metadata: {name: all, namespace: metallb-system}
    spec: {}
    ---
    apiVersion: metallb.io/v1beta2
    kind: BGPPeer
    metadata: {name: r2, namespace: metallb-system}
    spec:
      myASN: 64513
      peerASN: 65002
      peerAddress: 10.2.0.1
      nodeSelectors: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n1, n2]}]}]
"""
EGRESS = """
    apiVersion: k8s.ovn.org/v1
    kind: EgressService
    metadata: {name: app}
    spec: {sourceIPBy: LoadBalancerIP, network: sbi}
"""
POOL = METALLB.replace("3.3.3.3/32", "3.3.3.0/28")
EXCLUDE = 'node.kubernetes.io/exclude-from-external-load-balancers: ""'


def manifests(egress: str = EGRESS, metallb: str = METALLB, workload: str = WORKLOAD) -> dict[str, str]:
    return {"workload.yaml": workload, "metallb.yaml": metallb, "egress.yaml": egress}


def announced_by(plan: Plan, name: str = "app") -> tuple[str, ...]:
    return next(service.announced_by for service in plan.services if service.name == name)


def with_spec(text: str) -> str:
    return EGRESS.replace("network: sbi", text)


CHOSEN = [
    ("network: sbi", LAB, "n1"),
    ("network: sbi", LAB.replace("rack: a}", f"rack: a, {EXCLUDE}}}"), "n2"),
    ("network: sbi, nodeSelector: {matchLabels: {rack: b}}", LAB, "n2"),
    ("network: sbi, nodeSelector: {matchExpressions: [{key: rack, operator: NotIn, values: [a]}]}", LAB, "n2"),
]


@pytest.mark.parametrize(("spec", "lab", "node"), CHOSEN)
def test_one_node_announces_and_translates(spec: str, lab: str, node: str) -> None:
    plan = lab_texts.compiled(lab, manifests(with_spec(spec)))
    assert announced_by(plan) == (node,)
    for name in ("n1", "n2", "n3"):
        text = next(entry.text for entry in plan.node(name).rulesets if entry.name == "ip testbed-egress")
        assert ("snat to 3.3.3.3" in text, "snat to ip saddr" in text) == (name == node, name != node)
        [default] = [route for route in plan.node(name).routes if route.table == 201 and route.to == "0.0.0.0/0"]
        by_node = {"n1": "10.1.0.2", "n2": "10.1.0.3"}[node]
        assert (default.via, default.dev) == (("10.2.0.1", "eth1") if name == node else (by_node, "eth0"))


def test_without_it_all_announce() -> None:
    assert announced_by(lab_texts.compiled(LAB, manifests(egress=""))) == ("n1", "n2")


def test_other_services_are_announced_as_before() -> None:
    other = WORKLOAD.partition("---")[2].replace("metadata: {name: app}", "metadata: {name: other}")
    more = manifests(metallb=METALLB.replace("3.3.3.3/32", "3.3.3.0/28")) | {"other.yaml": other}
    plan = lab_texts.compiled(LAB, more)
    assert (announced_by(plan), announced_by(plan, "other")) == (("n1",), ("n1", "n2"))


def test_the_label_of_the_chosen_node_can_be_selected() -> None:
    selector = "spec: {nodeSelectors: [{matchLabels: {egress-service.k8s.ovn.org/default-app: ''}}]}"
    plan = lab_texts.compiled(LAB, manifests(metallb=METALLB.replace("spec: {}", selector)))
    assert announced_by(plan) == ("n1",)


def test_policy_local_chooses_a_node_with_a_pod() -> None:
    workload = WORKLOAD.replace("Cluster", "Local").replace("{containers:", "{nodeName: n2, containers:")
    workload = workload.replace("DaemonSet", "Deployment")
    assert announced_by(lab_texts.compiled(LAB, manifests(workload=workload))) == ("n2",)


def test_a_service_without_pods_needs_no_node() -> None:
    workload = WORKLOAD.replace("DaemonSet", "Deployment").replace(
        "      selector:", "      replicas: 0\n      selector:", 1
    )
    plan = lab_texts.compiled(LAB, manifests(workload=workload))
    assert not any(entry.name == "ip testbed-egress" for entry in plan.node("n1").rulesets)


def test_pods_with_the_nodes_network_are_left_alone() -> None:
    workload = WORKLOAD.replace("{containers:", "{hostNetwork: true, containers:")
    plan = lab_texts.compiled(LAB, manifests(workload=workload))
    assert not any(entry.name == "ip testbed-egress" for entry in plan.node("n1").rulesets)


def test_each_node_by_its_own_address() -> None:
    workload = WORKLOAD.replace("DaemonSet", "Deployment").replace("{containers:", "{nodeName: n2, containers:")
    egress = EGRESS.replace("LoadBalancerIP", "Network")
    plan = lab_texts.compiled(LAB, manifests(egress, workload=workload))
    assert announced_by(plan) == ("n1", "n2")
    [text] = [entry.text for entry in plan.node("n2").rulesets if entry.name == "ip testbed-egress"]
    assert "snat to 10.2.0.3" in text
    [text] = [entry.text for entry in plan.node("n3").rulesets if entry.name == "ip testbed-egress"]
    assert "snat" not in text  # it has no link into sbi, and nothing to send
    assert "meta mark & 0xff == 0x1 drop" in text


# --- nodes that share no link -----------------------------------------------------------------------------------------

FAR = LAB.replace("r1, n1, n2, n3], vrf", "r1, n1, n2], vrf").replace(
    "    cluster:", "      - {endpoints: [r1, n3], vrf: mgmt, ipv4: 10.3.0.0/24}\n    cluster:"
)
ENDS = {
    "n1": ("10.1.0.2", "02:00:0a:01:00:02"),
    "n2": ("10.1.0.3", "02:00:0a:01:00:03"),
    "n3": ("10.3.0.2", "02:00:0a:03:00:02"),
}


def end(node: str, *peers: str, mtu: int = 1450) -> Interface:
    address, mac = ENDS[node]
    others = tuple(TunnelPeer(*ENDS[peer]) for peer in peers)
    return Interface(TUNNEL, "vxlan", None, (f"{address}/32",), mac, mtu, tunnel=Tunnel(200, address, 14789, others))


def ends(plan: Plan) -> dict[str, Interface]:
    """Node → its end of the tunnel, if it has one."""
    return {node.name: entry for node in plan.nodes for entry in node.interfaces if entry.kind == "vxlan"}


WITHOUT_N1 = FAR.replace("rack: a}", f"rack: a, {EXCLUDE}}}")
RACK_A_ALONE = WORKLOAD.replace("{containers:", "{nodeSelector: {rack: a}, containers:")
TUNNELS = [
    ("one hands over", FAR, manifests(), {"n1": end("n1"), "n3": end("n3", "n1")}),
    ("to another", WITHOUT_N1, manifests(), {"n2": end("n2"), "n3": end("n3", "n2")}),
    ("all share a link", LAB, manifests(), {}),
    ("each for itself", FAR, manifests(EGRESS.replace("LoadBalancerIP, network: sbi", "Network")), {}),
    ("no pods there", FAR, manifests(workload=RACK_A_ALONE), {}),
    (
        "a small link",
        FAR.replace("ipv4: 10.1.0.0/24}", "ipv4: 10.1.0.0/24, mtu: 1400}"),
        manifests(),
        {"n1": end("n1", mtu=1350), "n3": end("n3", "n1", mtu=1350)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lab", "texts", "found"), [entry[1:] for entry in TUNNELS], ids=[entry[0] for entry in TUNNELS]
)
def test_a_tunnel_where_no_link_is_shared(lab: str, texts: dict[str, str], found: dict[str, Interface]) -> None:
    plan = lab_texts.compiled(lab, texts)
    assert ends(plan) == found
    for name in ("n1", "n2", "n3"):
        [text] = [entry.text for entry in plan.node(name).rulesets if entry.name == "ip testbed-egress"]
        checked = ("net/ipv4/conf/testbed-egress/rp_filter", "2") in plan.node(name).sysctls
        assert ("chain unmarked" in text, STRAY in text, checked) == (name in found,) * 3
        [*others] = [route for route in plan.node(name).routes if route.dev == TUNNEL]
        peers = found[name].tunnel.peers if name in found and found[name].tunnel else ()
        assert others == [Route("0.0.0.0/0", via=peer.address, dev=TUNNEL, table=201, onlink=True) for peer in peers]


def test_a_node_can_be_both_who_hands_over_and_to_whom() -> None:
    lab = FAR.replace("    cluster:", "      - {endpoints: [r2, n3], vrf: sbi, ipv4: 10.4.0.0/24}\n    cluster:")
    far = METALLB.partition("kind: BGPPeer")[2].replace("name: r2", "name: far").replace("10.2.0.1", "10.4.0.1")
    far = "    ---\n    apiVersion: metallb.io/v1beta2\n    kind: BGPPeer" + far.replace("[n1, n2]", "[n3]")
    other = with_spec(
        "network: sbi, nodeSelector: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n3]}]}"
    )
    egress = (
        with_spec("network: sbi, nodeSelector: {matchLabels: {rack: a}}")
        + "    ---"
        + other.replace("{name: app}", "{name: other}")
    )
    workload = WORKLOAD.replace("name: app", "name: other").replace("app: app", "app: other")
    texts = manifests(egress, POOL + far) | {"other.yaml": workload}
    plan = lab_texts.compiled(lab, texts)
    assert (announced_by(plan), announced_by(plan, "other")) == (("n1",), ("n3",))
    assert ends(plan) == {"n1": end("n1", "n3"), "n2": end("n2", "n3"), "n3": end("n3", "n1")}


def test_a_node_that_has_no_pods_gets_no_tunnel() -> None:
    """And drops what it would have to hand over."""
    plan = lab_texts.compiled(FAR, manifests(workload=RACK_A_ALONE))
    [text] = [entry.text for entry in plan.node("n3").rulesets if entry.name == "ip testbed-egress"]
    assert "meta mark & 0xff == 0x1 drop" in text


# --- what is refused --------------------------------------------------------------------------------------------------

APART = FAR.replace("{endpoints: [r1, n3], vrf: mgmt,", "{endpoints: [r1, n3], vrf: sbi,").replace(
    ", defaultRoute: mgmt", ""
)
NONE_LEFT = LAB.replace("rack: a}", f"rack: a, {EXCLUDE}}}").replace(
    "n2: {kind: kubernetes, labels: {rack: b}}", f"n2: {{kind: kubernetes, labels: {{{EXCLUDE}}}}}"
)
SECOND = {"other.yaml": WORKLOAD.partition("---")[2].replace("metadata: {name: app}", "metadata: {name: other}")}
BY_CALICO = {
    "calico.yaml": """
    apiVersion: projectcalico.org/v3
    kind: BGPConfiguration
    metadata: {name: default}
    spec: {serviceLoadBalancerIPs: [{cidr: 3.3.3.0/28}]}
    """
}
BOTH = EGRESS + "    ---" + EGRESS.replace("name: app", "name: other")
BY_NETWORK = EGRESS.replace("LoadBalancerIP", "Network")


def checked(settings: str) -> str:
    """The lab, its first node with these sysctls."""
    return LAB.replace("{rack: a}", f"{{rack: a}}, sysctls: {{{settings}}}")


TUNNEL_CHECKED = FAR.replace(
    "{rack: a}", "{rack: a}, sysctls: {net.ipv4.conf.eth0.rp_filter: 1, net.ipv4.conf.testbed-egress.rp_filter: 1}"
)


REFUSED = [
    ("no Service of the name", LAB, manifests(EGRESS.replace("{name: app}", "{name: ap}"))),
    ("not a LoadBalancer", LAB, manifests(workload=WORKLOAD.replace("type: LoadBalancer", "type: NodePort"))),
    ("no such VRF", LAB, manifests(with_spec("network: sbj"))),
    ("a table's number", LAB, manifests(with_spec('network: "102"'))),
    ("no sourceIPBy", LAB, manifests(EGRESS.replace("sourceIPBy: LoadBalancerIP, ", ""))),
    ("another sourceIPBy", LAB, manifests(EGRESS.replace("LoadBalancerIP", "NodeIP"))),
    ("an unknown field", LAB, manifests(with_spec("netwrok: sbi"))),
    ("a status", LAB, manifests(EGRESS + "    status: {host: n1}\n")),
    ("no node selected", LAB, manifests(with_spec("network: sbi, nodeSelector: {matchLabels: {rack: c}}"))),
    ("all nodes excluded", NONE_LEFT, manifests()),
    ("pods on a node that shares neither a link nor the default route's network", APART, manifests()),
    ("not announced", LAB, manifests(metallb=METALLB.replace("[n1, n2]", "[n3]"))),
    ("aggregated with another Service", LAB, manifests(metallb=POOL.replace("{}", "{aggregationLength: 28}")) | SECOND),
    ("advertised by Calico", LAB, manifests() | BY_CALICO),
    ("pods behind two", LAB, manifests(BOTH, POOL) | SECOND),
    ("nodeSelector with Network", LAB, manifests(BY_NETWORK.replace("sbi}", "sbi, nodeSelector: {}}"))),
    ("no link into the network", LAB, manifests(BY_NETWORK)),
    ("strict source check", checked("net.ipv4.conf.all.rp_filter: 1"), manifests()),
    ("strict source check on the tunnel", TUNNEL_CHECKED, manifests()),
    (
        "an interface of the tunnel's name",
        FAR.replace("[r1, n3]", f"[r1, {{node: n3, interface: {TUNNEL}}}]"),
        manifests(),
    ),
    ("mark in the check", checked("net.ipv4.conf.all.rp_filter: 2, net.ipv4.conf.all.src_valid_mark: 1"), manifests()),
    ("a cluster of kind's", LAB.replace("{name: k8s,", "{name: k8s, provider: kind,"), manifests()),
]


def test_refusals(golden: Callable[[Path, str], None]) -> None:
    lines = []
    for title, lab, texts in REFUSED:
        found = refusals(lab, texts)
        assert found, f"{title}: not refused"
        lines += [f"# {title}", *found, ""]
    golden(GOLDEN / "egress" / "refused.err", "\n".join(lines))


def refusals(lab: str, texts: dict[str, str]) -> list[str]:
    try:
        return [str(problem) for problem in lab_texts.problems(lab, texts)]
    except InputError as error:  # what reading a manifest refuses
        return [str(problem) for problem in error.problems]
