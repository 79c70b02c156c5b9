"""Cluster IPs and node ports that the API server would give."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_objects import service

from testbed.compile.kube.services import NODE_PORTS, api_service, completed
from testbed.model.kube import Service

SUBNET = "10.96.0.0/16"
PORT = {"port": 80}


def made(*services: Service, subnet: str = SUBNET) -> dict[str, Service]:
    """The completed Services by name; nothing is wrong with them."""
    found, problems = completed((api_service(subnet), *services), subnet)
    assert problems == []
    return {entry.name: entry for entry in found}


def messages(*services: Service, subnet: str = SUBNET) -> list[str]:
    _, problems = completed((api_service(subnet), *services), subnet)
    return [problem.message for problem in problems]


def plain(name: str, **spec: object) -> Service:
    return service(name, clusterIP="", **spec)


def test_the_apis_own_service_has_the_first_address() -> None:
    api = api_service(SUBNET)
    assert (api.key, api.spec.cluster_ips) == ("default/kubernetes", ("10.96.0.1",))
    assert [port.port for port in api.spec.ports] == [443]


def test_an_address_for_each() -> None:
    found = made(plain("a"), plain("b"), plain("c", type="LoadBalancer"))
    addresses = [entry.spec.cluster_ip for entry in found.values()]
    assert len(set(addresses)) == 4
    assert all(ip_address(address) in ip_network(SUBNET) for address in addresses)
    assert all(entry.spec.cluster_ips == (entry.spec.cluster_ip,) for entry in found.values())


def test_the_same_addresses_each_time_whatever_else_there_is() -> None:
    names = [f"s{number}" for number in range(50)]
    everything = made(*(plain(name, type="NodePort") for name in names))
    for name in names[::7]:
        alone = made(plain(name, type="NodePort"))[name]
        assert alone.spec == everything[name].spec


def test_what_is_stated_stays_and_others_keep_out_of_its_way() -> None:
    alone = made(plain("a", type="NodePort"))["a"]
    port = alone.spec.ports[0].node_port
    taker = service("b", clusterIP=alone.spec.cluster_ip, type="NodePort", ports=[PORT | {"nodePort": port}])
    found = made(plain("a", type="NodePort"), taker)
    assert found["b"].spec.cluster_ip == alone.spec.cluster_ip
    assert found["b"].spec.ports[0].node_port == port
    assert found["a"].spec.cluster_ip != alone.spec.cluster_ip
    assert found["a"].spec.ports[0].node_port not in (0, port)


@pytest.mark.parametrize(
    ("spec", "node_ports"),
    [
        ({}, False),
        ({"type": "NodePort"}, True),
        ({"type": "LoadBalancer"}, True),
        ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, False),
    ],
)
def test_node_ports(spec: dict[str, object], node_ports: bool) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    found = [port.node_port for port in made(plain("a", ports=ports, **spec))["a"].spec.ports]
    if node_ports:
        assert len(set(found)) == 2
        assert all(number in NODE_PORTS for number in found)
    else:
        assert found == [0, 0]


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIPs": ["None"], "clusterIP": ""}])
def test_headless(spec: dict[str, object]) -> None:
    assert made(service("a", **spec))["a"].spec.cluster_ip == "None"


def test_an_external_name_has_no_address() -> None:
    found = made(service("a", clusterIP="", type="ExternalName", externalName="a.example", ports=[]))["a"]
    assert (found.spec.cluster_ip, found.spec.cluster_ips) == ("", ())


def test_one_node_port_for_two_protocols_of_one_service() -> None:
    ports = [
        {"name": "t", "port": 53, "nodePort": 30053},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053},
    ]
    assert made(plain("a", type="NodePort", ports=ports))["a"].spec.ports[1].node_port == 30053


REFUSED: dict[str, tuple[list[Service], list[str]]] = {
    "an address outside": (
        [service("a", clusterIP="10.97.0.1")],
        ["Service default/a: cluster IP '10.97.0.1' is not in the Service subnet 10.96.0.0/16"],
    ),
    "the broadcast address": (
        [service("a", clusterIP="10.96.255.255")],
        ["Service default/a: cluster IP '10.96.255.255' is not in the Service subnet 10.96.0.0/16"],
    ),
    "no address": (
        [service("a", clusterIP="none")],
        ["Service default/a: cluster IP 'none' is not in the Service subnet 10.96.0.0/16"],
    ),
    "an IPv6 address": (
        [service("a", clusterIP="fd00::1")],
        ["Service default/a: cluster IP 'fd00::1' is not in the Service subnet 10.96.0.0/16"],
    ),
    "two addresses": (
        [service("a", clusterIP="10.96.0.9", clusterIPs=["10.96.0.9", "10.96.0.8"])],
        ["Service default/a: clusterIPs must be the one address that clusterIP is"],
    ),
    "the API's address": (
        [service("a", clusterIP="10.96.0.1")],
        ["Service default/a: cluster IP 10.96.0.1 is that of Service default/kubernetes"],
    ),
    "another's address": (
        [service("a", clusterIP="10.96.0.9"), service("b", clusterIP="", clusterIPs=["10.96.0.9"])],
        ["Service default/b: cluster IP 10.96.0.9 is that of Service default/a"],
    ),
    "another's node port": (
        [plain(name, type="NodePort", ports=[PORT | {"nodePort": 30080}]) for name in "ab"],
        ["Service default/b: nodePort 30080 is that of Service default/a already"],
    ),
    "its own node port twice": (
        [plain("a", type="NodePort", ports=[{"name": str(n), "port": n, "nodePort": 30080} for n in (1, 2)])],
        ["Service default/a: nodePort 30080 is that of Service default/a already"],
    ),
    "a node port out of range": (
        [plain("a", type="NodePort", ports=[PORT | {"nodePort": 80}])],
        ["Service default/a: nodePort 80 is not in 30000-32767"],
    ),
    "a node port without need": (
        [plain("a", ports=[PORT | {"nodePort": 30080}])],
        ["Service default/a: a Service of type ClusterIP has no node ports"],
    ),
    "a port twice": (
        [plain("a", ports=[{"name": "x", "port": 80}, {"name": "y", "port": 80}])],
        ["Service default/a: port 80/TCP is there twice"],
    ),
    "no ports": ([plain("a", ports=[])], ["Service default/a: it has no ports"]),
    "IPv6": ([plain("a", ipFamilies=["IPv6"])], ["Service default/a: IPv6 Services are not supported yet"]),
    "dual stack": (
        [plain("a", ipFamilyPolicy="RequireDualStack")],
        ["Service default/a: the cluster has IPv4 alone: RequireDualStack is not possible"],
    ),
    "a health check": (
        [plain("a", healthCheckNodePort=30000)],
        ["Service default/a: healthCheckNodePort is not supported yet: no health check server runs on the nodes"],
    ),
    "a headless load balancer": (
        [service("a", clusterIP="None", type="LoadBalancer")],
        ["Service default/a: a Service of type LoadBalancer cannot be headless"],
    ),
    "an external name without a name": (
        [plain("a", type="ExternalName", ports=[])],
        ["Service default/a: externalName is missing"],
    ),
    "the API's name": ([plain("kubernetes")], ["Service default/kubernetes: every cluster has it by itself"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    services, expected = REFUSED[name]
    assert messages(*services) == expected


def test_prefer_dual_stack_gets_the_one_family_there_is() -> None:
    assert len(made(plain("a", ipFamilyPolicy="PreferDualStack"))["a"].spec.cluster_ips) == 1


def test_a_subnet_that_is_full() -> None:
    services = [plain(f"s{number}") for number in range(6)]
    assert len(made(*services[:5], subnet="10.96.0.0/29")) == 6
    assert messages(*services, subnet="10.96.0.0/29") == [
        "Service default/s5: the Service subnet 10.96.0.0/29 has no address left"
    ]


def test_no_node_port_is_left() -> None:
    taken = [
        plain("a", type="NodePort", ports=[{"name": f"p{n}", "port": n - 29999, "nodePort": n} for n in NODE_PORTS])
    ]
    assert messages(*taken, plain("b", type="NodePort")) == ["Service default/b: no node port is left of 30000-32767"]


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), unique=True, max_size=5))
def test_no_two_have_one_address_in_the_smallest_subnet(names: list[str]) -> None:
    found = made(*(plain(name) for name in names if name != "kubernetes"), subnet="10.96.0.0/29")
    addresses = [entry.spec.cluster_ip for entry in found.values()]
    assert len(set(addresses)) == len(addresses)
    assert "10.96.0.0" not in addresses
    assert "10.96.0.7" not in addresses
