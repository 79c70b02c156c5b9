"""VXLAN tunnels of a Plan: they carry packets, peers change in place, and what cannot change is made anew."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from conftest import assert_flows, own_name, running

from testbed.plan import Endpoint, Flow, Interface, Link, Node, Plan, Route, Tunnel, TunnelPeer
from testbed.session import Session

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns", "vxlan")]

HOSTS = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}
BEHIND = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}  # what only the tunnel leads to
RUNTIMES = [
    pytest.param("netns"),
    pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.testbed_needs("docker")]),
]


def peer(name: str) -> TunnelPeer:
    return TunnelPeer(HOSTS[name], f"02:00:0a:00:00:0{HOSTS[name][-1]}")


def host(name: str, vni: int, to: str) -> Node:
    """A host on the common link, with an end of the tunnel that leads to another host, or to nobody."""
    peers = (peer(to),) if to else ()
    tunnel = Tunnel(vni, HOSTS[name], 14789, peers)
    ports = (
        Interface("lo", "loopback", addresses=(f"{BEHIND[name]}/32",)),
        Interface("eth0", addresses=(f"{HOSTS[name]}/24",)),
        Interface("tun0", "vxlan", addresses=(f"{HOSTS[name]}/32",), mac=peer(name).mac, mtu=1450, tunnel=tunnel),
    )
    ways = [Route(f"{BEHIND[to]}/32", via=HOSTS[to], dev="tun0", onlink=True)] if to else []
    return Node(name, "host", interfaces=ports, routes=tuple(ways), sysctls=(("net/ipv4/conf/all/rp_filter", "0"),))


def plan(name: str, to: str, vni: int = 7) -> Plan:
    """a puts what is for a host behind the tunnel into it."""
    ports = (Interface("br0", "bridge"), *(Interface(f"p{end}", master="br0") for end in HOSTS))
    nodes = (Node("s", "switch", interfaces=ports), *(host(end, vni, to if end == "a" else "") for end in HOSTS))
    links = tuple(Link(Endpoint(end, "eth0"), Endpoint("s", f"p{end}")) for end in HOSTS)
    return Plan(name, nodes=nodes, links=links, flows=(Flow("there", "a", BEHIND[to], "icmp"),))


def ask(session: Session, *argv: str) -> list[dict]:
    return json.loads(session.runtime.run("a", None, argv))


def known(session: Session) -> tuple[int, set[str], set[str]]:
    """The index of a's tunnel, its neighbours, and where its forwarding entries lead."""
    [link] = ask(session, "ip", "-j", "link", "show", "tun0")
    neighbours = {entry["dst"] for entry in ask(session, "ip", "-j", "-4", "neigh", "show", "dev", "tun0")}
    stations = {entry["dst"] for entry in ask(session, "bridge", "-j", "fdb", "show", "dev", "tun0")}
    return link["ifindex"], neighbours, stations


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_tunnel_changes(runtime):
    first = plan(own_name(f"tunnels-{runtime}"), "b")
    with running(first, runtime) as session:
        assert_flows(session)
        index, *peers = known(session)
        assert peers == [{HOSTS["b"]}] * 2
        session.up(plan(first.name, "c"))
        assert_flows(session)
        assert known(session) == (index, {HOSTS["c"]}, {HOSTS["c"]})
        session.up(plan(first.name, "b", vni=8))
        assert_flows(session)
        [link] = ask(session, "ip", "-j", "-d", "link", "show", "tun0")
        assert link["linkinfo"]["info_data"]["id"] == 8
        assert known(session)[1:] == ({HOSTS["b"]}, {HOSTS["b"]})
        bare = tuple(replace(node, interfaces=node.interfaces[:2], routes=()) for node in first.nodes[1:])
        session.up(replace(first, nodes=(first.nodes[0], *bare), flows=()))
        assert "tun0" not in {link["ifname"] for link in ask(session, "ip", "-j", "link", "show")}
