"""Flows that are typed on a command line."""

from __future__ import annotations

import pytest

from testbed.errors import InputError
from testbed.plan import Endpoint, Interface, Link, Node, Plan, Service
from testbed.questions import asked

PLAN = Plan(
    "lab",
    nodes=(
        Node("h1", "host", interfaces=(Interface("eth0", addresses=("10.0.0.2/24",)),)),
        Node("r1", "router", vrfs=("red",), interfaces=(Interface("eth0", vrf="red", addresses=("10.0.0.1/24",)),)),
        Node("n1", "kubernetes", interfaces=(Interface("eth0", addresses=("10.1.0.2/24",)),)),
        Node("web-1", "pod", parent="n1", interfaces=(Interface("eth0", addresses=("192.168.0.1/32",)),)),
        Node("bare", "host"),
    ),
    links=(Link(Endpoint("h1", "eth0"), Endpoint("r1", "eth0")),),
    services=(
        Service("web", "default", "LoadBalancer", ("10.96.0.5",), ("80/TCP",), ("3.3.3.3",)),
        Service("two", "other", "ClusterIP", ("10.96.0.6",), ("80/TCP", "81/TCP")),
    ),
)


@pytest.mark.parametrize(
    ("source", "to", "protocol", "port", "expected"),
    [
        ("h1", "10.9.9.9", "tcp", 22, ("10.9.9.9", 22)),
        ("h1", "fd00::0:1", "udp", 53, ("fd00::1", 53)),
        ("h1", "n1", "icmp", 0, ("10.1.0.2", 0)),
        ("n1", "h1/red", "http", 0, ("10.0.0.2", 80)),
        ("h1", "web", "tcp", 8080, ("192.168.0.1", 8080)),
        ("h1", "service/web", "tcp", 0, ("3.3.3.3", 80)),
        ("web-1", "service/web", "http", 0, ("10.96.0.5", 80)),
        ("n1", "service/other/two", "tcp", 81, ("10.96.0.6", 81)),
    ],
)
def test_targets(source, to, protocol, port, expected):
    flow = asked(PLAN, source, to, protocol, port)
    assert (flow.source, flow.protocol) == (source, protocol)
    assert (flow.address, flow.port) == expected


@pytest.mark.parametrize(
    ("to", "protocol", "message"),
    [
        ("10.0.0.1", "tcp", "tcp to 10.0.0.1 needs a port (add --port NUMBER)"),
        ("n1", "ssh", "the protocol 'ssh' cannot be asked without a flow (give a flow of the lab file)"),
        ("n1", "sctp", "the protocol 'sctp' cannot be asked without a flow (use tcp, udp, icmp, http)"),
        ("nobody", "icmp", "'nobody' is no address, node or service of lab lab"),
        ("n1/blue", "icmp", "n1 has no address in VRF blue"),
        ("bare", "icmp", "bare has no address"),
        ("service/none", "tcp", "lab lab has no service 'none'"),
        ("service/other/two", "tcp", "service other/two has no address that h1 could ask"),
    ],
)
def test_refusals(to, protocol, message):
    with pytest.raises(InputError) as raised:
        asked(PLAN, "h1", to, protocol, 0)
    assert str(raised.value) == message
