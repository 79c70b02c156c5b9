"""The cluster in the Plan: nodes, pods, and the sessions they open towards the lab's routers."""

from __future__ import annotations

import lab_texts
import pytest

from testbed.plan import BgpSession, Interface, Link, Node, Plan, Route

WEB = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web}
    spec:
      replicas: 2
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web}}
        spec: {containers: [{name: web, image: echo}]}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec:
      type: LoadBalancer
      selector: {app: web}
      ports: [{port: 80, targetPort: 8080}]
"""
PEER = """
    apiVersion: projectcalico.org/v3
    kind: BGPPeer
    metadata: {name: leaf}
    spec: {peerIP: 10.1.0.1, asNumber: 65001, numAllowedLocalASNumbers: 1}
"""
METALLB = """
    apiVersion: metallb.io/v1beta1
    kind: IPAddressPool
    metadata: {name: pool, namespace: metallb-system}
    spec: {addresses: [3.3.3.0/28], avoidBuggyIPs: true}
    ---
    apiVersion: metallb.io/v1beta1
    kind: BGPAdvertisement
    metadata: {name: all, namespace: metallb-system}
    spec: {}
    ---
"""
PEER_OF_METALLB = """
    apiVersion: metallb.io/v1beta2
    kind: BGPPeer
    metadata: {name: leaf, namespace: metallb-system}
    spec: {myASN: 64513, peerASN: 65001, peerAddress: 10.1.0.1, password: secret}
"""
METALLB += PEER_OF_METALLB


@pytest.fixture(scope="module")
def plan() -> Plan:
    return lab_texts.compiled(lab_texts.CLUSTER, {"web.yaml": WEB, "metallb.yaml": METALLB})


def pods(plan: Plan) -> list[Node]:
    return [node for node in plan.nodes if node.kind == "pod"]


def test_a_pod_is_linked_to_its_node(plan: Plan) -> None:
    found = pods(plan)
    assert sorted(pod.parent for pod in found) == ["n1", "n2"]
    for pod in found:
        [eth0] = pod.interfaces
        assert eth0.addresses[0].endswith("/32")
        [link] = [entry for entry in plan.links if entry.b.node == pod.name]
        node = plan.node(pod.parent)
        [cali] = [entry for entry in node.interfaces if entry.name == link.a.interface]
        assert link == Link(link.a, link.b)
        assert cali == Interface(cali.name, mac="ee:ee:ee:ee:ee:ee")
        assert cali.name.startswith("cali")
        assert [(route.to, route.dev) for route in node.routes if route.dev == cali.name] == [
            (eth0.addresses[0], cali.name)
        ]


def test_the_nodes_way_out(plan: Plan) -> None:
    assert Route("0.0.0.0/0", via="10.1.0.1", dev="eth0") in plan.node("n1").routes
    assert [process.name for process in plan.node("n1").processes] == ["bird", "zebra", "bgpd"]


def test_without_metallb_a_node_runs_bird_alone() -> None:
    node = lab_texts.compiled(lab_texts.CLUSTER).node("n1")
    assert [process.name for process in node.processes] == ["bird"]
    assert ("/etc/frr", "frr") not in node.directories


def test_services_as_status_shows_them(plan: Plan) -> None:
    found = {(entry.namespace, entry.name): entry for entry in plan.services}
    web = found["default", "web"]
    assert (web.type, web.ports, web.addresses, web.announced_by) == (
        "LoadBalancer",
        ("80/TCP",),
        ("3.3.3.1",),
        ("n1", "n2"),
    )
    assert sorted(web.endpoints) == sorted(
        f"{pod.interfaces[0].addresses[0].removesuffix('/32')}:8080" for pod in pods(plan)
    )
    assert found["default", "kubernetes"].cluster_ips == ("10.96.0.1",)


def test_the_router_gets_the_other_end_of_metallbs_sessions(plan: Plan) -> None:
    text = lab_texts.file(plan.node("r1"), "/etc/frr/bgpd.conf")
    for address, name in (("10.1.0.2", "n1"), ("10.1.0.3", "n2")):
        assert f"neighbor {address} remote-as 64513\n neighbor {address} description {name}\n" in text
        assert f"neighbor {address} password secret\n" in text
    socket = "/run/frr/bgpd.vty"
    assert {entry for entry in plan.sessions if "bird" not in entry.daemon} == {
        BgpSession("r1", None, "10.1.0.2", "n1", "frr", socket),
        BgpSession("r1", None, "10.1.0.3", "n2", "frr", socket),
        BgpSession("n1", None, "10.1.0.1", "r1", "frr", socket),
        BgpSession("n2", None, "10.1.0.1", "r1", "frr", socket),
    }


@pytest.mark.parametrize(
    ("spec", "next_hops"),
    [
        ("{}", 2),
        ("{nodeSelectors: [{matchLabels: {kubernetes.io/hostname: n2}}]}", 1),
        pytest.param("{communities: ['65535:65281']}", 1, id="what others make of a community is not known"),
    ],
)
def test_what_metallb_announces_is_expected_on_the_router(spec: str, next_hops: int) -> None:
    manifests = {"web.yaml": WEB, "metallb.yaml": METALLB.replace("spec: {}", f"spec: {spec}")}
    plan = lab_texts.compiled(lab_texts.CLUSTER, manifests)
    found = {(entry.node, entry.prefix): entry.next_hops for entry in plan.routes}
    assert found["r1", "3.3.3.1/32"] == next_hops


def test_what_metallb_tells_only_one_peer() -> None:
    """Nodes tell r2 nothing; r1 does, by whom alone it has a route."""
    lab = """
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      r2: {kind: router, bgp: {asn: 65002}}
      n1: {kind: kubernetes}
      n2: {kind: kubernetes}
    links:
      - {endpoints: [r1, n1, n2], ipv4: 10.1.0.0/24}
      - {endpoints: [r2, n1, n2], ipv4: 10.2.0.0/24}
      - {endpoints: [r1, r2], ipv4: 10.3.0.0/24, bgp: true}
    cluster: {name: k8s}
    """
    second = PEER_OF_METALLB.replace("leaf", "other").replace("65001", "65002").replace("10.1.0.1", "10.2.0.1")
    for spec, next_hops in (("{}", 2), ("{peers: [leaf]}", 1)):
        metallb = METALLB.replace("spec: {}", f"spec: {spec}") + "    ---" + second
        plan = lab_texts.compiled(lab, {"web.yaml": WEB, "metallb.yaml": metallb})
        found = {(entry.node, entry.prefix): entry.next_hops for entry in plan.routes}
        assert found["r2", "3.3.3.1/32"] == next_hops, spec


def test_the_mesh_of_calico(plan: Plan) -> None:
    mesh = {
        (entry.node, entry.peer, entry.peer_name, entry.protocol) for entry in plan.sessions if entry.daemon == "bird"
    }
    assert mesh == {
        ("n1", "10.1.0.3", "n2", "Mesh_10_1_0_3"),
        ("n2", "10.1.0.2", "n1", "Mesh_10_1_0_2"),
    }
    blocks = {entry.prefix for entry in plan.routes if entry.node == "n1"}
    assert len(blocks) == 1  # of the other node


def test_calico_peers_with_a_router() -> None:
    configuration = """
    apiVersion: projectcalico.org/v3
    kind: BGPConfiguration
    metadata: {name: default}
    spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
    """
    plan = lab_texts.compiled(
        lab_texts.CLUSTER,
        {"web.yaml": WEB.replace("LoadBalancer", "ClusterIP"), "a.yaml": configuration, "b.yaml": PEER},
    )
    text = lab_texts.file(plan.node("r1"), "/etc/frr/bgpd.conf")
    assert "neighbor 10.1.0.2 remote-as 64512\n" in text
    expected = {(entry.node, entry.prefix) for entry in plan.routes}
    blocks = {prefix for node, prefix in expected if node == "r1"}
    assert len(blocks) == 2
    # The other node's block comes by the router, with this node's AS number in its path, which it allows.
    assert len(blocks & {prefix for node, prefix in expected if node == "n1"}) == 1


def test_what_the_address_of_a_session_means_depends_on_the_node() -> None:
    """Two VRFs have the same addresses; each node's peer is the router on its own link."""
    plan = lab_texts.compiled(
        """
        vrfs: [red, blue]
        nodes:
          r1: {kind: router, bgp: {asn: 65001}}
          r2: {kind: router, bgp: {asn: 65001}}
          h1: {kind: host}
          n1: {kind: kubernetes}
        links:
          - {endpoints: [r2, h1], vrf: blue, ipv4: 10.1.0.0/24}
          - {endpoints: [r1, n1], vrf: red, ipv4: 10.1.0.0/24}
        cluster: {name: k8s}
        """,
        {"metallb.yaml": METALLB},
    )
    assert {(entry.node, entry.peer_name, entry.vrf) for entry in plan.sessions} == {
        ("r1", "n1", "red"),
        ("n1", "r1", None),
    }


def test_routes_into_vrfs() -> None:
    node = lab_texts.compiled("""
        vrfs: [mgmt, sbi]
        nodes: {r1: {kind: router}, n1: {kind: kubernetes}}
        links:
          - {endpoints: [r1, n1], vrf: sbi, ipv4: 10.2.0.0/24}
          - {endpoints: [r1, n1], vrf: mgmt, ipv4: 10.1.0.0/24}
        cluster: {name: k8s, defaultRoute: mgmt, routes: [{to: 10.9.0.0/16, vrf: sbi}, {to: 0.0.0.0/1, vrf: mgmt}]}
    """).node("n1")
    assert node.routes == (
        Route("0.0.0.0/0", via="10.1.0.1", dev="eth1"),
        Route("10.9.0.0/16", via="10.2.0.1", dev="eth0"),
        Route("0.0.0.0/1", via="10.1.0.1", dev="eth1"),
    )
    config = lab_texts.file(node, "/etc/calico/confd/config/bird.cfg")
    assert "router id 10.1.0.2;" in config  # its InternalIP is that of the default VRF


def test_pods_of_other_namespaces_have_them_in_their_names() -> None:
    pod = """
    apiVersion: v1
    kind: Pod
    metadata: {name: web, namespace: prod}
    spec: {containers: [{name: main, image: echo}]}
    """
    plan = lab_texts.compiled(lab_texts.CLUSTER, {"a.yaml": pod, "b.yaml": pod.replace("prod", "default")})
    assert {node.name: node.hostname for node in pods(plan)} == {"prod.web": "web", "web": "web"}


def test_a_pod_with_the_hosts_network_is_a_program_of_its_node() -> None:
    pod = """
    apiVersion: v1
    kind: Pod
    metadata: {name: agent}
    spec: {nodeName: n2, hostNetwork: true, containers: [{name: main, image: echo}]}
    """
    plan = lab_texts.compiled(lab_texts.CLUSTER, {"a.yaml": pod})
    assert pods(plan) == []
    assert [process.name for process in plan.node("n2").processes] == ["bird", "agent.main"]


def test_everything_wrong_with_the_objects_is_told_at_once() -> None:
    found = lab_texts.problems(
        lab_texts.CLUSTER,
        {
            "a.yaml": WEB.replace("image: echo", "image: nothing"),
            "b.yaml": METALLB.replace("3.3.3.0/28", "3.3.3.0/33"),
            "c.yaml": PEER.replace("BGPPeer", "IPPool").replace(
                "{peerIP: 10.1.0.1, asNumber: 65001, numAllowedLocalASNumbers: 1}", "{cidr: 10.244.0.0/16}"
            ),
        },
    )
    assert [problem.position.file for problem in found if problem.position] == ["a.yaml", "b.yaml", "c.yaml"]
