"""Announcements and FRR configurations: every recording of the real speakers, and what the recordings do not show."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import frr_meaning
import pytest
from metallb_recordings import Replay, balancer, folder, load, made, names, recorded

from testbed.compile.kube.metallb.alloc import allocate, assigned
from testbed.compile.kube.metallb.announce import Announcements, Route, Speakers, announce, can_serve
from testbed.compile.kube.metallb.config import read
from testbed.compile.kube.metallb.frr import MetalLBSession, frr, sessions
from testbed.model.kube import EndpointConditions, EndpointSlice, KubeObject, Node, Service
from testbed.model.metallb import BFDProfile, BGPAdvertisement, BGPPeer, IPAddressPool, L2Advertisement

# Recorded as accepted by MetalLB, and refused here: what our refusal must say.
REFUSED_HERE = {
    "bgp-password-with-space": "FRR refuses a password with white space",  # FRR 8.4 does not load the recorded frr.conf
}

ALL = [(group, name) for group in ("bgp", "l2") for name in names(group)]


@pytest.mark.parametrize("group", ["bgp", "l2"])
def test_every_recording_is_compared(fixtures: Path, group: str) -> None:
    assert recorded(fixtures, group) == names(group)


@pytest.mark.parametrize(("group", "name"), ALL)
def test_equals_recording(fixtures: Path, group: str, name: str) -> None:
    case = folder(fixtures, group, name)
    state = Replay(case).finish()
    if case.name in REFUSED_HERE:
        assert REFUSED_HERE[case.name] in state.problems[0].message
        return
    _compare_addresses(state, load(case / "allocation.yaml"))
    announcements = state.announcements()
    assert _bgp(announcements) == _recorded_bgp(case)
    assert _l2(announcements) == _recorded_l2(case)
    confs = sorted(case.glob("frr-*.conf"))
    assert confs
    nodes = {node.name: node for node in state.of(Node)}
    for conf in confs:
        node = nodes[conf.stem.removeprefix("frr-")]
        ours = frr_meaning.read(frr(node, state.config, announcements, state.extras()))
        assert list(frr_meaning.differences(ours, frr_meaning.read(conf.read_text()))) == []


def _compare_addresses(state: Replay, allocation: Any) -> None:
    last = allocation[-1] if isinstance(allocation, list) else allocation
    ours = {service.key: [one.ip for one in service.status.load_balancer.ingress] for service in state.services}
    assert ours == {key: service["ingress"] for key, service in last.get("services", {}).items()}


def _bgp(announcements: Announcements) -> dict[str, dict[str, list[str]]]:
    found = {key: {node: list(peers) for node, peers in one.bgp.items()} for key, one in announcements.services.items()}
    return {key: nodes for key, nodes in found.items() if nodes}


def _recorded_bgp(case: Path) -> dict[str, dict[str, list[str]]]:
    return {key: one["bgp"] for key, one in load(case / "announce.yaml").items() if one.get("bgp")}


def _l2(announcements: Announcements) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {key: (one.l2, one.interfaces) for key, one in announcements.services.items() if one.l2}


def _recorded_l2(case: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    found = {key: one["layer2"] for key, one in load(case / "announce.yaml").items() if one.get("layer2")}
    assert all(len(entries) == 1 for entries in found.values())
    return {key: (entries[0]["node"], tuple(entries[0].get("interfaces", ()))) for key, entries in found.items()}


POOL = made(IPAddressPool, "p", addresses=["192.0.2.0/24", "fd00:5::/120"])
TOR = {"myASN": 64512, "peerASN": 64513, "peerAddress": "172.16.1.254"}
GOLD = {"serviceSelectors": [{"matchLabels": {"class": "gold"}}]}
WEB = {"serviceSelectors": [{"matchLabels": {"app": "web"}}]}


def node(name: str) -> Node:
    return Node.model_validate({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


NODES = [node("n1"), node("n2"), node("n3")]


def endpoints(of: str, *nodes: str) -> EndpointSlice:
    """One ready endpoint on each of the nodes."""
    return EndpointSlice.model_validate(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{of}-1", "labels": {"kubernetes.io/service-name": of}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.168.1.1"], "nodeName": name} for name in nodes],
        }
    )


def decided(services: list[Service], *resources: KubeObject, speakers: Speakers | None = None) -> Announcements:
    """The decisions for Services with an endpoint on n1."""
    config = read([POOL, *NODES, *resources])
    with_addresses = assigned(services, allocate(services, config))
    slices = [endpoints(service.name, "n1") for service in services]
    return announce(with_addresses, slices, config, NODES, speakers)


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("hostname n1", "hostname n2"),
        ("ipv6 nht resolve-via-default", ""),
        ("set local-preference 77", "set local-preference 78"),
        ("set community 64512:1 additive", "set community 64512:2 additive"),
        ("set large-community 1:2:3 additive", ""),
        ("on-match next", ""),
        ("permit 192.0.2.0/32", "permit 192.0.2.0/31"),
        ("permit fd00:7::/124", "deny fd00:7::/124"),
        ("-in deny 20", "-in permit 20"),
        ("out permit 5", "out deny 5"),
        ("match ip address", "match ipv6 address"),
        ("router bgp 65000 vrf red", "router bgp 65000 vrf blue"),
        ("bgp graceful-restart preserve-fw-state", ""),
        ("remote-as 65001", "remote-as 65002"),
        ("timers 10 30", "timers 10 31"),
        ("neighbor 10.0.0.1 password x", ""),
        ("neighbor 10.0.0.1 activate", ""),
        ("route-map 10.0.0.1-out out", "route-map 10.0.0.1-out in"),
        ("network 203.0.113.0/28", ""),
        ("receive-interval 100", "receive-interval 200"),
    ],
)
def test_the_comparison_sees_a_change(fixtures: Path, written: str, changed: str) -> None:
    text = (folder(fixtures, "bgp", "everything") / "frr-n1.conf").read_text()
    assert written in text
    altered = frr_meaning.read(text.replace(written, changed))
    assert list(frr_meaning.differences(altered, frr_meaning.read(text)))


def test_the_comparison_does_not_see_names(fixtures: Path) -> None:
    text = (folder(fixtures, "bgp", "everything") / "frr-n1.conf").read_text()
    renamed = text.replace("10.0.0.1-", "tor-").replace("-community-prefixes", "-c")
    assert renamed != text
    assert list(frr_meaning.differences(frr_meaning.read(renamed), frr_meaning.read(text))) == []


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True}, True),
        ({"ready": False, "serving": False}, False),
    ],
)
def test_can_serve(conditions: dict[str, bool], serves: bool) -> None:
    assert can_serve(EndpointConditions.model_validate(conditions)) is serves


def test_too_many_communities_are_not_announced(fixtures: Path) -> None:
    state = Replay(folder(fixtures, "invalid", "more-than-63-communities")).finish()
    announcements = state.announcements()
    assert announcements.services == {}
    (problem,) = announcements.problems
    assert "max supported communities is 63, got 64" in problem.message


def test_advertisements_for_services_may_not_disagree() -> None:
    one = made(BGPAdvertisement, "one", localPref=100, **GOLD)
    two = made(BGPAdvertisement, "two", localPref=200, nodeSelectors=[{"matchLabels": {"edge": "yes"}}])
    edge = Node.model_validate(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"edge": "yes"}}}
    )
    objects = [POOL, one, two, made(BGPPeer, "t", **TOR), edge, *NODES[1:]]
    config = read(objects)
    services = [balancer("a", {"labels": {"class": "gold"}}), balancer("b")]
    with_addresses = assigned(services, allocate(services, config))
    slices = [endpoints("a", "n1"), endpoints("b", "n1")]
    announcements = announce(with_addresses, slices, config, [edge, *NODES[1:]])
    assert dict(announcements.services["default/a"].bgp) == {"n2": ("t",), "n3": ("t",)}
    assert dict(announcements.services["default/b"].bgp) == {"n1": ("t",)}
    (problem,) = announcements.problems
    assert problem.message.endswith("BGPAdvertisements one and two give it different local preferences")


def test_services_on_one_address_may_not_disagree() -> None:
    advertisements = [made(BGPAdvertisement, "gold", localPref=100, **GOLD), made(BGPAdvertisement, "web", **WEB)]
    sharing = {"metallb.io/allow-shared-ip": "k"}
    services = [
        balancer("a", {"labels": {"class": "gold"}, "annotations": sharing}),
        balancer("b", {"labels": {"app": "web"}, "annotations": sharing}, ports=[{"port": 443}]),
    ]
    announcements = decided(services, made(BGPPeer, "t", **TOR), *advertisements)
    assert list(announcements.services) == ["default/a"]
    assert announcements.routes["n3"] == {"t": (Route(ip_network("192.0.2.0/32"), 100),)}
    (problem,) = announcements.problems
    assert "192.0.2.0/32 would be told to peer t with the local preferences 100 and 0" in problem.message


def test_address_outside_the_pools_is_not_announced() -> None:
    config = read([POOL, made(BGPAdvertisement, "a"), made(BGPPeer, "t", **TOR), *NODES])
    status = {"loadBalancer": {"ingress": [{"ip": "10.1.1.1"}]}}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"type": "LoadBalancer"}}
    service = Service.model_validate(manifest | {"status": status})
    announcements = announce([service], [endpoints("a", "n1")], config, NODES)
    assert announcements.services == {}
    assert [problem.message for problem in announcements.problems] == [
        'Service default/a: MetalLB does not announce it: no pool holds its addresses ["10.1.1.1"]'
    ]


def test_without_memberlist_the_winner_may_be_missing() -> None:
    services, l2 = [balancer("a")], made(L2Advertisement, "l2")
    winner = decided(services, l2).services["default/a"].l2
    others = frozenset(one.name for one in NODES if one.name != winner)
    elected = decided(services, l2, speakers=Speakers(others)).services["default/a"].l2
    assert elected in others
    unanswered = decided(services, l2, speakers=Speakers(others, memberlist=False))
    assert unanswered.services == {}
    assert f"node {winner}, which should answer for it, has no speaker" in unanswered.problems[0].message


def test_interfaces_of_all_advertisements_are_used() -> None:
    advertisements = [made(L2Advertisement, name, interfaces=[name]) for name in ("eth1", "eth0")]
    assert decided([balancer("a")], *advertisements).services["default/a"].interfaces == ("eth0", "eth1")


def test_bfd_profile_with_everything() -> None:
    spec = {
        "receiveInterval": 10,
        "transmitInterval": 20,
        "detectMultiplier": 5,
        "echoInterval": 30,
        "echoMode": True,
        "passiveMode": True,
        "minimumTtl": 250,
    }
    config = read([made(BFDProfile, "b", **spec)])
    assert frr_meaning.read(frr(NODES[0], config, Announcements())).bfd == {
        "b": {
            "receive-interval 10",
            "transmit-interval 20",
            "detect-multiplier 5",
            "echo transmit-interval 30",
            "echo receive-interval 30",
            "echo-mode",
            "passive-mode",
            "minimum-ttl 250",
        }
    }


def test_sessions() -> None:
    first = {"nodeSelectors": [{"matchExpressions": [{"key": "edge", "operator": "DoesNotExist"}]}]}
    second: dict[str, Any] = {
        "myASN": 65000,
        "localASN": 65009,
        "dynamicASN": "external",
        "interface": "eth1",
        "vrf": "red",
        "password": "secret",
        "keepaliveTime": "1500ms",
        "connectTime": "5s",
        "sourceAddress": "172.16.1.1",
        "ebgpMultiHop": True,
        "peerPort": 1179,
        "enableGracefulRestart": True,
    }
    config = read([made(BGPPeer, "a", **TOR, **first), made(BGPPeer, "b", **second), *NODES])
    assert sessions(NODES[0], config) == (
        MetalLBSession("n1", "a", "172.16.1.254", "", 64513, 64512),
        MetalLBSession(
            "n1",
            "b",
            "",
            "eth1",
            "external",
            65009,
            vrf="red",
            source_address="172.16.1.1",
            password="secret",
            hold=4,
            keepalive=1,
            connect=5,
            multihop=True,
            port=1179,
            families=(4, 6),
            graceful_restart=True,
        ),
    )
    assert "secret" not in repr(sessions(NODES[0], config))
