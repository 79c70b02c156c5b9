"""Which Services, ports and endpoints kube-proxy sees from one node, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from kube_objects import draining, endpoint, endpoints, ingress, node, service

from testbed.compile.kube.kube_proxy.service_ports import Family, ProxyPort, service_ports
from testbed.errors import InputError, Position
from testbed.model.base import Origin
from testbed.model.kube import EndpointSlice, Service

HERE = endpoint("192.168.1.10", "n1")
THERE = endpoint("192.168.2.10", "n2")
FAR = endpoint("192.168.3.10", "n3")


def ports(item: Service, *slices: EndpointSlice, family: Family = 4, zone: str = "a") -> tuple[ProxyPort, ...]:
    return service_ports([item], slices, node(zone=zone), family)


def port(item: Service, *slices: EndpointSlice, zone: str = "a") -> ProxyPort:
    (only,) = ports(item, *slices, zone=zone)
    return only


def last(backends: Sequence[Any]) -> list[str]:
    """The third number of each address: the node it runs on."""
    return [backend.address.split(".")[2] for backend in backends]


def hinted(entry: dict[str, Any], *zones: str, nodes: Sequence[str] = ()) -> dict[str, Any]:
    hints = {"forZones": [{"name": zone} for zone in zones], "forNodes": [{"name": name} for name in nodes]}
    return entry | {"hints": hints}


# Services


@pytest.mark.parametrize(
    "item",
    [
        service(type="ExternalName", externalName="example.test", clusterIP="", ports=[]),
        service(clusterIP="None"),
        service(clusterIP="", clusterIPs=["None"]),
        service(labels={"service.kubernetes.io/service-proxy-name": "mine"}),
    ],
    ids=["external name", "headless", "headless by list", "other proxy"],
)
def test_services_that_are_not_proxied(item: Service) -> None:
    assert ports(item, endpoints(HERE)) == ()
    assert ports(service(), endpoints(HERE)) != ()


def test_a_service_is_in_the_families_of_its_cluster_ips() -> None:
    both = service(clusterIPs=["10.96.0.10", "FD00:0010:96::10"])
    assert [one.cluster_ip for one in ports(both)] == ["10.96.0.10"]
    assert [one.cluster_ip for one in ports(both, family=6)] == ["fd00:10:96::10"]
    assert ports(service(), family=6) == ()


def test_addresses_and_ranges_are_divided_by_family() -> None:
    item = service(
        clusterIPs=["10.96.0.10", "fd00:10:96::10"],
        externalIPs=["198.51.100.7", "2001:db8::7"],
        loadBalancerSourceRanges=["10.1.2.3/8", "2001:db8::/32"],
        status=ingress("3.3.3.3", "fd00:333::3"),
    )
    (four,), (six,) = ports(item), ports(item, family=6)
    assert (four.external_ips, six.external_ips) == (("198.51.100.7",), ("2001:db8::7",))
    assert (four.load_balancer_ips, six.load_balancer_ips) == (("3.3.3.3",), ("fd00:333::3",))
    assert (four.source_ranges, six.source_ranges) == (("10.0.0.0/8",), ("2001:db8::/32",))


def test_an_external_policy_needs_external_traffic() -> None:
    assert not port(service(externalTrafficPolicy="Local")).external_local
    assert port(service(externalTrafficPolicy="Local", externalIPs=["198.51.100.7"])).external_local
    assert port(service(externalTrafficPolicy="Local", type="NodePort")).external_local


def test_only_load_balancers_under_policy_local_have_a_health_check() -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}
    assert port(service(type="LoadBalancer", **local)).health_check_node_port == 32000
    assert port(service(type="NodePort", **local)).health_check_node_port == 0
    assert port(service(type="LoadBalancer", healthCheckNodePort=32000)).health_check_node_port == 0


def test_affinity_lasts_three_hours_unless_said_otherwise() -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    assert port(service(sessionAffinityConfig=config)).affinity_seconds == 0
    assert port(service(sessionAffinity="ClientIP")).affinity_seconds == 10800
    assert port(service(sessionAffinity="ClientIP", sessionAffinityConfig=config)).affinity_seconds == 60


# Endpoints


def test_endpoints_belong_by_label_namespace_port_name_and_protocol() -> None:
    assert port(service(), endpoints(HERE)).backends.anywhere
    for other in (
        endpoints(HERE, of="other"),
        endpoints(HERE, namespace="other"),
        endpoints(HERE, port_name="http"),
        endpoints(HERE, port=None),
        endpoints(HERE, labels={"service.kubernetes.io/headless": ""}),
        endpoints(endpoint("web.example.test"), address_type="FQDN"),
    ):
        assert port(service(), other).backends.every == ()
    udp = service(ports=[{"port": 80, "protocol": "UDP"}])
    assert port(udp, endpoints(HERE)).backends.every == ()


def test_endpoints_are_sorted_as_text() -> None:
    entries = [endpoint(f"192.168.1.{number}") for number in (9, 10, 100)]
    texts = [str(backend) for backend in port(service(), endpoints(*entries)).backends.cluster]
    assert texts == ["192.168.1.100:8080", "192.168.1.10:8080", "192.168.1.9:8080"]


def test_an_unset_condition_means_ready_serving_not_terminating() -> None:
    (backend,) = port(service(), endpoints(endpoint("192.168.1.10"))).backends.every
    assert (backend.ready, backend.serving, backend.terminating, backend.local) == (True, True, False, False)


def test_of_two_that_differ_otherwise_the_slice_of_the_later_name_counts() -> None:
    slices = [endpoints(endpoint("192.168.1.10", ready=False), name="web-1"), endpoints(HERE, name="web-2")]
    for order in (slices, slices[::-1]):
        assert [backend.ready for backend in port(service(), *order).backends.every] == [True]


@pytest.mark.parametrize("names", [("web-1", "web-2"), ("web-2", "web-1")])
def test_of_two_with_one_address_that_which_is_not_terminating_counts(names: tuple[str, str]) -> None:
    old, new = draining("192.168.1.10", "n1"), HERE
    made = port(service(), endpoints(old, name=names[0]), endpoints(new, name=names[1]))
    assert [backend.ready for backend in made.backends.every] == [True]


def test_draining_endpoints_are_used_where_none_is_ready() -> None:
    going, gone = draining("192.168.1.10", "n1"), endpoint("192.168.2.10", "n2", ready=False, serving=False)
    assert last(port(service(), endpoints(going, gone)).backends.cluster) == ["1"]
    assert last(port(service(), endpoints(going, FAR)).backends.cluster) == ["3"]
    assert not port(service(), endpoints(gone)).backends.anywhere


def test_each_policy_falls_back_to_draining_endpoints_by_itself() -> None:
    item = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local")
    backends = port(item, endpoints(draining("192.168.1.10", "n1"), THERE)).backends
    assert (last(backends.cluster), last(backends.local), last(backends.reachable)) == (["2"], ["1"], ["1", "2"])


def test_internal_policy_local_uses_this_node_alone() -> None:
    made = port(service(internalTrafficPolicy="Local"), endpoints(HERE, THERE))
    assert (made.backends.cluster, last(made.backends.local)) == ((), ["1"])
    made = port(service(internalTrafficPolicy="Local"), endpoints(THERE))
    assert made.backends.anywhere
    assert not made.serves_internal
    assert made.backends.reachable == ()


def test_external_traffic_from_the_node_itself_is_under_policy_cluster() -> None:
    item = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], internalTrafficPolicy="Local")
    backends = port(item, endpoints(HERE, THERE)).backends
    assert (last(backends.cluster), last(backends.local)) == (["1", "2"], ["1"])


def test_a_pending_load_balancer_without_node_ports_has_no_external_traffic() -> None:
    item = service(type="LoadBalancer", allocateLoadBalancerNodePorts=False, externalTrafficPolicy="Local")
    backends = port(item, endpoints(draining("192.168.1.10", "n1"), THERE)).backends
    assert (last(backends.cluster), backends.local, last(backends.reachable)) == (["2"], (), ["2"])


# Hints


@pytest.mark.parametrize(
    ("entries", "zone", "expected"),
    [
        ([hinted(HERE, "a"), hinted(THERE, "a"), hinted(FAR, "b")], "a", ["1", "2"]),
        ([hinted(HERE, "a"), hinted(THERE, "a"), hinted(FAR, "b")], "b", ["3"]),
        ([hinted(HERE, "a"), hinted(THERE, "a"), hinted(FAR, "b")], "c", ["1", "2", "3"]),
        ([hinted(HERE, "a"), THERE, hinted(FAR, "b")], "a", ["1", "2", "3"]),
        ([hinted(HERE, "a", nodes=["n1"]), hinted(THERE, "a", nodes=["n2"])], "a", ["1"]),
        ([hinted(HERE, "a", nodes=["n3"]), hinted(THERE, "a", nodes=["n2"])], "a", ["1", "2"]),
        ([hinted(HERE, "b", nodes=["n1"]), hinted(THERE, "a")], "a", ["2"]),
        ([hinted(HERE, "a"), endpoint("192.168.2.10", "n2", ready=False), hinted(FAR, "b")], "a", ["1"]),
        ([hinted(draining("192.168.1.10", "n1"), "b"), hinted(draining("192.168.2.10", "n2"), "a")], "a", ["1", "2"]),
    ],
    ids=[
        "own zone",
        "other zone",
        "zone without endpoints",
        "one without hint",
        "own node before zone",
        "no endpoint for this node",
        "one without node hint",
        "hints of those not ready do not matter",
        "no hints among the draining",
    ],
)
def test_hints(entries: list[dict[str, Any]], zone: str, expected: list[str]) -> None:
    assert last(port(service(), endpoints(*entries), zone=zone).backends.cluster) == expected


def test_hints_do_not_matter_under_policy_local() -> None:
    item = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local")
    backends = port(item, endpoints(hinted(HERE, "b"), hinted(THERE, "a"))).backends
    assert (last(backends.cluster), last(backends.local), last(backends.reachable)) == (["2"], ["1"], ["1", "2"])


# What is refused


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (service(clusterIP="10.96.0.300"), "Service default/web: '10.96.0.300' is not an IP address"),
        (service(externalIPs=["fe80::1%eth0"]), "'fe80::1%eth0' is not an IP address"),
        (service(status=ingress("web")), "'web' is not an IP address"),
        (service(loadBalancerSourceRanges=["10.0.0.0"]), "'10.0.0.0' is not a prefix (such as 10.0.0.0/8)"),
        (service(loadBalancerSourceRanges=["10.0.0.0/33"]), "'10.0.0.0/33' is not a prefix"),
        (service(loadBalancerSourceRanges=["10.0.0.0/255.0.0.0"]), "'10.0.0.0/255.0.0.0' is not a prefix"),
        (service(clusterIP=""), "it has no cluster IP (one is allocated before rules are made)"),
        (service(ports=[{"port": 80}, {"port": 81}]), "2 TCP ports are without a name"),
        (service(ports=[{"name": "a", "port": 80}, {"name": "a", "port": 81}]), "2 TCP ports are named 'a'"),
        (service('we"b'), "'we\"b' is not a name"),
        (service(namespace="x\ny"), "'x\\ny' is not a name"),
        (service(ports=[{"name": "A", "port": 80}]), "'A' is not a name"),
    ],
)
def test_services_that_are_refused(item: Service, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ports(item)
    assert message in str(caught.value)


def test_a_service_that_is_not_proxied_is_not_judged() -> None:
    assert ports(service(clusterIP="None", ports=[{"port": 80}, {"port": 81}])) == ()


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (endpoints({"addresses": []}), "EndpointSlice default/web-1: the endpoint has no address"),
        (endpoints(endpoint("fd00::1")), "'fd00::1' is not an IPv4 address"),
        (endpoints(endpoint("10.0.0.1"), address_type="IPv6"), "'10.0.0.1' is not an IPv6 address"),
        (endpoints(endpoint("web")), "'web' is not an IPv4 address"),
    ],
)
def test_slices_that_are_refused(piece: EndpointSlice, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ports(service(), piece)
    assert message in str(caught.value)


def test_all_problems_are_reported_where_they_were_written() -> None:
    item = service(clusterIP="nowhere", externalIPs=["198.51.100.7", "there"])
    places = {
        ("spec", "clusterIP"): Position("web.yaml", 5, 14),
        ("spec", "externalIPs", 1): Position("web.yaml", 8, 5),
    }
    item._origin = Origin(places)
    with pytest.raises(InputError) as caught:
        ports(item, endpoints(endpoint("web")))
    assert [(str(one.position), one.message) for one in caught.value.problems] == [
        ("None", "EndpointSlice default/web-1: 'web' is not an IPv4 address"),
        ("web.yaml:5:14", "Service default/web: 'nowhere' is not an IP address"),
        ("web.yaml:8:5", "Service default/web: 'there' is not an IP address"),
    ]
