"""Flows: every name in them resolved."""

from __future__ import annotations

from typing import Any

import lab_texts
import pytest

from testbed.plan import Flow, Plan

LAB = """
    vrfs: [red, blue]
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      r2: {kind: router}
      h1: {kind: host}
      n1: {kind: kubernetes}
      n2: {kind: kubernetes}
    links:
      - {endpoints: [r1, n1, n2], ipv4: 10.1.0.0/24}
      - {endpoints: [r1, h1], ipv4: 10.2.0.0/24, ipv6: "fd02::/64"}
      - {endpoints: [r1, r2], vrfs: [red, blue]}
      - {endpoints: [r2, h1], vrf: red, ipv4: 10.3.0.0/24}
    cluster: {name: k8s}
    flows:
      - {name: flow, FLOW}
"""
LAB = LAB.replace("h1: {kind: host}", "h1: {kind: host, gateway: r1}")

WEB = """
    apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: web}
    spec:
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web}}
        spec: {containers: [{name: web, image: echo}]}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: web-host, namespace: other}
    spec: {nodeName: n2, hostNetwork: true, containers: [{name: web, image: echo}]}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec:
      type: LoadBalancer
      clusterIP: 10.96.0.10
      selector: {app: web}
      ports: [{port: 81, targetPort: 8080}]
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: many}
    spec:
      clusterIP: 10.96.0.11
      selector: {app: web}
      ports: [{name: a, port: 81}, {name: b, port: 82}]
    ---
    apiVersion: metallb.io/v1beta1
    kind: IPAddressPool
    metadata: {name: pool, namespace: metallb-system}
    spec: {addresses: [3.3.3.0/28]}
"""


def plan_with(flow: str) -> Plan:
    return lab_texts.compiled(LAB.replace("FLOW", flow), {"web.yaml": WEB})


def one(flow: str) -> Flow:
    [found] = plan_with(flow).flows
    return found


PODS = {pod.parent: pod for pod in plan_with("from: h1, to: r1, protocol: icmp").nodes if pod.kind == "pod"}
IPS = {name: pod.interfaces[0].addresses[0].partition("/")[0] for name, pod in PODS.items()}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("from: h1, to: r1, protocol: icmp", {"source": "h1", "address": "10.1.0.1", "port": 0, "target": "r1"}),
    ("from: n1, to: h1, protocol: icmp", {"source": "n1", "address": "10.2.0.2"}),
    ("from: h1, to: r1, protocol: icmp, family: IPv6", {"address": "fd02::1"}),
    ("from: n1, to: {node: h1, vrf: red}, protocol: icmp", {"address": "10.3.0.2", "target": "h1 in VRF red"}),
    ("from: h1, to: 192.0.2.1, protocol: ssh", {"address": "192.0.2.1", "port": 22, "target": "192.0.2.1"}),
    ("from: h1, to: 'fd00:0:0::1', family: IPv6, protocol: icmp", {"address": "fd00::1"}),
    ("from: h1, to: n1, protocol: http", {"port": 80}),
    ("from: h1, to: n1, protocol: http, port: 8080", {"port": 8080}),
    ("from: h1, to: n1, protocol: dns, query: a.example", {"port": 53, "query": "a.example"}),
    ("from: h1, to: n1, protocol: udp, port: 9", {"port": 9}),
    # Services: their load balancer's address from outside, their cluster IP from inside; their only port.
    ("from: h1, to: service/web, protocol: tcp", {"address": "3.3.3.0", "port": 81, "target": "Service web"}),
    ("from: n1, to: service/web, protocol: tcp", {"address": "10.96.0.10", "port": 81}),
    ("from: daemonset/web, to: {service: web}, protocol: tcp, port: 82", {"address": "10.96.0.10", "port": 82}),
    ("from: n1, to: service/default/web, protocol: http", {"address": "10.96.0.10", "port": 81}),
    ("from: n1, to: service/many, protocol: http", {"address": "10.96.0.11", "port": 80}),
    # Pods: by their workload, on a node where one is named.
    ("from: daemonset/web, to: h1, protocol: icmp", {"source": PODS["n1"].name}),
    ("from: {daemonset: web, node: n2}, to: h1, protocol: icmp", {"source": PODS["n2"].name}),
    ("from: pod/other/web-host, to: h1, protocol: icmp", {"source": "n2"}),
    ("from: h1, to: {daemonset: web, node: n2}, protocol: tcp, port: 8080", {"address": IPS["n2"]}),
    # Whom the server must have seen, and who must have answered.
    ("from: n1, to: service/web, protocol: http, seenAs: h1", {"seen_as": ("10.2.0.2", "10.3.0.2")}),
    ("from: n1, to: service/web, protocol: http, seenAs: {node: h1, vrf: red}", {"seen_as": ("10.3.0.2",)}),
    (
        "from: n1, to: service/web, protocol: http, seenAs: [n1, n2, 192.0.2.1]",
        {"seen_as": ("10.1.0.2", "10.1.0.3", "192.0.2.1")},
    ),
    ("from: n1, to: h1, protocol: tcp, port: 9, seenAs: daemonset/web", {"seen_as": (IPS["n1"], IPS["n2"])}),
    ("from: n1, to: h1, protocol: tcp, port: 9, seenAs: service/web", {"seen_as": ("10.96.0.10", "3.3.3.0")}),
    ("from: h1, to: r1, family: IPv6, protocol: tcp, port: 9, seenAs: h1", {"seen_as": ("fd02::2",)}),
    (
        "from: n1, to: service/web, protocol: http, answeredBy: daemonset/web",
        {"answered_by": (PODS["n1"].hostname, PODS["n2"].hostname)},
    ),
    (
        "from: n1, to: service/web, protocol: http, answeredBy: {daemonset: web, node: n2}",
        {"answered_by": (PODS["n2"].hostname,)},
    ),
    ("from: n1, to: h1, protocol: ssh, answeredBy: [h1, pod/other/web-host]", {"answered_by": ("h1", "n2")}),
    ("from: n1, to: service/web, protocol: http, forwardedFor: n1", {"forwarded_for": ("10.1.0.2",)}),
    # Where the packets go.
    ("from: h1, to: n1, protocol: icmp, via: [n1]", {"via": (("n1", None),)}),
    ("from: h1, to: n1, protocol: icmp, via: [r1]", {"via": (("r1", None),)}),  # it has a default instance, too
    ("from: h1, to: n1, protocol: icmp, via: [r1, r2], vrf: red", {"via": (("r1", "red"), ("r2", "red"))}),
    ("from: h1, to: n1, protocol: icmp, via: [r1, n1], vrf: red", {"via": (("r1", "red"), ("n1", None))}),
    (
        "from: h1, to: n1, protocol: icmp, notVia: [r1]",
        {"not_via": (("r1", None), ("r1", "red"), ("r1", "blue"))},
    ),
    ("from: h1, to: n1, protocol: icmp, notVia: [r1], vrf: blue", {"not_via": (("r1", "blue"),)}),
    # Fields of the protocols.
    (
        "from: h1, to: n1, protocol: http, host: a.example, path: /x, status: 404",
        {"http_host": "a.example", "http_path": "/x", "status": 404},
    ),
    (
        "from: h1, to: n1, protocol: ssh, user: admin, command: id, output: uid",
        {"user": "admin", "command": "id", "output": "uid"},
    ),
    (
        "from: h1, to: n1, protocol: dns, query: a.example, answer: 'fd00:0::1', timeout: 2.5",
        {"answer": "fd00::1", "timeout": 2.5},
    ),
    ("from: h1, to: n1, protocol: icmp, expect: unreachable", {"expect": "unreachable"}),
]


@pytest.mark.parametrize(("flow", "expected"), CASES, ids=[flow for flow, _ in CASES])
def test_resolved(flow: str, expected: dict[str, Any]) -> None:
    found = one(flow)
    assert {name: getattr(found, name) for name in expected} == expected


def test_every_source_and_passage_is_in_the_plan() -> None:
    for flow, _ in CASES:
        plan = plan_with(flow)
        names = {node.name: node for node in plan.nodes}
        [found] = plan.flows
        assert found.source in names
        for name, vrf in (*found.via, *found.not_via):
            assert vrf is None or vrf in names[name].vrfs


def test_an_ssh_flow_needs_keys() -> None:
    assert plan_with("from: h1, to: n1, protocol: ssh").secrets == ("ssh", "ssh-host")
    assert plan_with("from: h1, to: n1, protocol: tcp, port: 9").secrets == ()


@pytest.mark.parametrize(
    ("flow", "messages"),
    [
        ("from: h1, to: h9, protocol: icmp", ["no node 'h9'"]),
        ("from: h1, to: service/wbe, protocol: http", ["no Service 'wbe'"]),
        (
            "from: h1, to: service/many, protocol: http",
            ["Service many has no load balancer address, and the flow starts outside the cluster"],
        ),
        ("from: n1, to: service/many, protocol: tcp", ["a tcp flow to Service many needs a port"]),
        ("from: n1, to: n2, protocol: icmp, family: IPv6", ["n2 has no IPv6 address"]),
        ("from: n1, to: deployment/web, protocol: http", ["no Deployment 'web' with pods in namespace default"]),
        ("from: h1, to: n1, protocol: icmp, via: [r2]", ["r2 has several VRFs"]),
        # The server of a flow has seen nothing of a family that its client does not have: that can be no wish.
        (
            "from: h1, to: r1, family: IPv6, protocol: tcp, port: 9, seenAs: [h1, n1]",
            ["n1 has no IPv6 address"],
        ),
    ],
)
def test_refused(flow: str, messages: list[str]) -> None:
    found = lab_texts.problems(LAB.replace("FLOW", flow), {"web.yaml": WEB})
    assert [problem.message for problem in found] == messages
    assert all(problem.position and problem.position.file == "lab.yaml" for problem in found)


@pytest.mark.parametrize("field", ["seenAs", "answeredBy", "forwardedFor"])
def test_the_place_that_is_wrong_is_the_one_that_is_pointed_at(field: str) -> None:
    text = LAB.replace("FLOW", f"from: n1, to: h1, protocol: http, {field}: [n1, n2, h7]")
    [problem] = lab_texts.problems(text, {"web.yaml": WEB})
    assert problem.position is not None
    line = (lab_texts.HEAD + lab_texts.textwrap.dedent(text)).splitlines()[problem.position.line - 1]
    assert line[problem.position.column - 1 :].startswith("h7")


def test_names_read_the_same_in_their_short_and_long_form() -> None:
    pairs: list[tuple[str, str]] = [
        ("h1", "{node: h1}"),
        ("daemonset/web", "{daemonset: web}"),
        ("pod/other/web-host", "{pod: other/web-host}"),
        ("service/web", "{service: web}"),
        ("192.0.2.7", "{address: 192.0.2.7}"),
    ]
    for short, long in pairs:
        assert to_place(short) == to_place(long)


def to_place(place: str) -> Flow:
    return one(f"from: n1, to: {place}, protocol: tcp, port: 9")
