"""Addresses of Services: every recording of the real controller, and what the recordings do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metallb_recordings import Replay, balancer, folder, load, made, names, recorded

from testbed.compile.kube.metallb.alloc import Allocation, Counters, allocate, assigned
from testbed.compile.kube.metallb.config import read
from testbed.compile.kube.metallb.services import concerns, families, ingress_addresses
from testbed.errors import Position
from testbed.model.base import Origin
from testbed.model.kube import LoadBalancerIngress, LoadBalancerStatus, Namespace, Service, ServiceStatus
from testbed.model.metallb import IPAddressPool

# Where our reason for giving no address is worded otherwise than the recorded one: what ours must say.
OTHER_WORDS = {
    ("alloc-pool-annotation", "default/c"): "pool q has no IPv6 addresses",  # recorded: ["<nil>"] is not allowed
    ("alloc-ips-annotation", "default/e"): 'same address family ["192.0.2.1" "192.0.2.2"]',
    ("alloc-ips-annotation-dual", "default/e"): 'invalid ips length 3 ["192.0.2.1" "fd00:5::1" "192.0.2.2"]',
}


REFUSALS = ("AllocationFailed", "ClearAssignment")


def test_every_recording_is_compared(fixtures: Path) -> None:
    assert recorded(fixtures, "alloc") == names("alloc")


@pytest.mark.parametrize("name", names("alloc"))
def test_equals_recording(fixtures: Path, name: str) -> None:
    case = folder(fixtures, "alloc", name)
    states = load(case / "allocation.yaml")
    expected = states if isinstance(states, list) else [states]
    replay = Replay(case)
    assert len(expected) == len(replay.steps) + 1
    for state, wanted in zip(replay.states(), expected, strict=True):
        assert _chosen(state) in _outcomes(case, wanted)
        if not (case / "outcomes.yaml").exists():
            _compare_pools(state, wanted)
            _compare_counters(state, wanted)
        _compare_reasons(state, wanted)
        _compare_problems(state)


def _chosen(state: Replay) -> dict[str, list[str]]:
    return {service.key: [one.ip for one in service.status.load_balancer.ingress] for service in state.services}


def _outcomes(case: Path, wanted: dict[str, Any]) -> list[dict[str, list[str]]]:
    """What the recording has, and, where the real program chooses at random, all that it was seen to choose."""
    found = [{key: service["ingress"] for key, service in wanted["services"].items()}]
    if (case / "outcomes.yaml").exists():
        for outcome in load(case / "outcomes.yaml"):
            pairs = dict(pair.split("=") for pair in outcome.split())
            by_name = {key: key.split("/")[1] for key in wanted["services"]}
            found.append({key: [pairs[name]] for key, name in by_name.items()})
    return found


def _compare_pools(state: Replay, wanted: dict[str, Any]) -> None:
    pools = {key: service["pool"] for key, service in wanted["services"].items() if "pool" in service}
    assert state.allocation.pools == pools
    annotations = {service.key: service.metadata.annotations for service in state.services}
    noted = {key: found.get("metallb.io/ip-allocated-from-pool", "") for key, found in annotations.items()}
    assert {key: pool for key, pool in noted.items() if pool} == pools


def _compare_counters(state: Replay, wanted: dict[str, Any]) -> None:
    names = ("assignedIPv4", "assignedIPv6", "availableIPv4", "availableIPv6")
    pools = {pool: Counters(*(status[name] for name in names)) for pool, status in wanted["poolStatus"].items()}
    assert state.allocation.counters == pools


def _compare_reasons(state: Replay, wanted: dict[str, Any]) -> None:
    """Every refusal is one that was recorded, in the same words, and the other way round."""
    for key, service in wanted["services"].items():
        recorded = [event["message"] for event in service["events"]]
        refusals = [one for one in state.allocation.events if one.service == key and one.reason in REFUSALS]
        for event in refusals:
            words = OTHER_WORDS.get((state.case.name, key))
            assert words in event.message if words else event.message in recorded
        if any(event["reason"] == "AllocationFailed" for event in service["events"]) and not service["ingress"]:
            assert "AllocationFailed" in [event.reason for event in refusals]


def _compare_problems(state: Replay) -> None:
    """Each Service that should have an address and has none is a problem, and no other."""
    waiting = [one.key for one in state.services if concerns(one, state.lb_class) and not ingress_addresses(one)]
    problems = [one.message.split()[1].removesuffix(":") for one in state.allocation.problems]
    assert problems == waiting


def pool(name: str, *addresses: str, **spec: Any) -> IPAddressPool:
    return made(IPAddressPool, name, addresses=list(addresses), **spec)


def shared(name: str, key: str, /, port: int = 80, **spec: Any) -> Service:
    metadata = {"annotations": {"metallb.io/allow-shared-ip": key}}
    return balancer(name, metadata, ports=[{"port": port}], **spec)


def holding(service: Service, *addresses: str) -> Service:
    ingress = tuple(LoadBalancerIngress(ip=address) for address in addresses)
    return service.model_copy(update={"status": ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress))})


def given_to(allocation: Allocation) -> dict[str, str]:
    """Addresses by the names of Services of namespace default."""
    return {key.removeprefix("default/"): " ".join(found) for key, found in allocation.ingress.items()}


def test_among_equal_pools_the_first_by_name_is_taken() -> None:
    config = read([pool("q", "198.51.100.0/30"), pool("p", "192.0.2.0/31")])
    services = [balancer(name) for name in ("a", "b", "c")]
    assert given_to(allocate(services, config)) == {"a": "192.0.2.0", "b": "192.0.2.1", "c": "198.51.100.0"}


def test_addresses_held_already_go_before_new_ones() -> None:
    config = read([pool("p", "192.0.2.0/31")])
    services = [balancer("new"), holding(balancer("old"), "192.0.2.0")]
    assert given_to(allocate(services, config)) == {"new": "192.0.2.1", "old": "192.0.2.0"}


def test_services_that_share_need_no_request_for_it() -> None:
    config = read([pool("p", "192.0.2.0/30")])
    services = [shared("a", "k"), shared("b", "k", 443), shared("c", "k", 443), balancer("d")]
    found = given_to(allocate(services, config))
    assert found == {"a": "192.0.2.0", "b": "192.0.2.0", "c": "192.0.2.1", "d": "192.0.2.2"}


def test_policies_local_and_cluster_never_share() -> None:
    config = read([pool("p", "192.0.2.0/30")])
    services = [shared("a", "k", selector={}), shared("b", "k", 443, selector={}, externalTrafficPolicy="Local")]
    assert given_to(allocate(services, config)) == {"a": "192.0.2.0", "b": "192.0.2.1"}


@pytest.mark.parametrize(
    ("selector", "address"),
    [
        ({"matchLabels": {"team": "a"}}, "192.0.2.0"),
        ({"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}, "192.0.2.0"),
        ({"matchLabels": {"team": "b"}}, "198.51.100.0"),
    ],
)
def test_pool_pinned_by_labels_of_namespaces(selector: dict[str, Any], address: str) -> None:
    pinned = pool("p", "192.0.2.0/30", serviceAllocation={"namespaceSelectors": [selector]})
    config = read([pinned, pool("q", "198.51.100.0/30")])
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"team": "a"}}}
    service = balancer("a", {"namespace": "team-a"})
    assert allocate([service], config, [Namespace.model_validate(manifest)]).ingress == {"team-a/a": (address,)}


def test_problem_is_placed_where_the_address_was_asked_for() -> None:
    service = balancer("a", {"annotations": {"metallb.io/loadBalancerIPs": "10.0.0.1"}})
    place = Position("web.yaml", 7, 3)
    path = ("metadata", "annotations", "metallb.io/loadBalancerIPs")
    service._origin = Origin({(): Position("web.yaml", 1, 1), path: place})
    (problem,) = allocate([service], read([pool("p", "192.0.2.0/30")])).problems
    assert problem.position == place
    assert problem.message == 'Service default/a: MetalLB gives it no address: ["10.0.0.1"] is not allowed in config'


def test_another_class_is_left_alone() -> None:
    service = holding(balancer("a", loadBalancerClass="example.com/x"), "10.1.1.1")
    allocation = allocate([service], read([pool("p", "192.0.2.0/30")]))
    assert allocation.ingress == {}
    assert allocation.problems == ()
    assert assigned([service], allocation) == (service,)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (4,)),
        ({"ipFamilyPolicy": "RequireDualStack"}, (4, 6)),
        ({"ipFamilyPolicy": "PreferDualStack"}, (4,)),
        ({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}, (6, 4)),
        ({"clusterIP": "fd00::1", "ipFamilies": ["IPv4"]}, (6,)),
        ({"clusterIPs": ["10.96.0.1", "fd00::1"]}, (4, 6)),
    ],
)
def test_families(spec: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert families(balancer("a", **spec)) == expected


def test_second_address_of_a_service_that_prefers_two() -> None:
    dual = {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}
    config = read([pool("p", "192.0.2.0/31", "fd00::/128")])
    services = [holding(balancer(name, **dual), address) for name, address in (("a", "192.0.2.0"), ("b", "192.0.2.1"))]
    allocation = allocate(services, config)
    assert given_to(allocation) == {"a": "192.0.2.0 fd00::", "b": "192.0.2.1"}
    assert [(event.service, event.reason) for event in allocation.events] == [
        ("default/a", "IPAllocated"),
        ("default/b", "AdditionalAssignFailed"),
    ]


@pytest.mark.parametrize(
    ("metadata", "held"),
    [
        ({}, ("192.0.2.1", "192.0.2.2")),  # two of one family
        ({}, ("fd00::",)),  # not its family
        ({"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.3"}}, ("192.0.2.1",)),
        ({"annotations": {"metallb.io/address-pool": "p"}}, ("198.51.100.1",)),
    ],
)
def test_addresses_that_do_not_fit_are_taken_back(metadata: dict[str, Any], held: tuple[str, ...]) -> None:
    config = read([pool("p", "192.0.2.0/29", "fd00::/126"), pool("q", "198.51.100.0/29")])
    allocation = allocate([holding(balancer("a", metadata), *held)], config)
    assert allocation.problems == ()
    assert given_to(allocation)["a"] in ("192.0.2.0", "192.0.2.3")


def test_nonsense_in_the_request_takes_the_address_back() -> None:
    service = holding(balancer("a", {"annotations": {"metallb.io/loadBalancerIPs": "x"}}), "192.0.2.1")
    allocation = allocate([service], read([pool("p", "192.0.2.0/29")]))
    assert allocation.ingress == {}
    assert 'invalid metallb.io/loadBalancerIPs: "x"' in allocation.problems[0].message


KEYS = st.sampled_from(["", "k", "j"])


@given(st.lists(st.tuples(KEYS, st.integers(80, 82), st.booleans()), max_size=12), st.booleans())
def test_nobody_shares_who_may_not(wishes: list[tuple[str, int, bool]], avoid: bool) -> None:
    pools = [pool("p", "192.0.2.0/30", avoidBuggyIPs=avoid), pool("q", "198.51.100.254-198.51.101.1")]
    services = [
        shared(f"s{index}", key, port, selector={"app": "x"}, externalTrafficPolicy="Local" if local else "Cluster")
        for index, (key, port, local) in enumerate(wishes)
    ]
    config = read(pools)
    allocation = allocate(services, config)
    users: dict[str, list[tuple[str, int, bool]]] = {}
    for service, wish in zip(services, wishes, strict=True):
        for address in allocation.ingress.get(service.key, ()):
            users.setdefault(address, []).append(wish)
    for sharing in users.values():
        assert len({port for _, port, _ in sharing}) == len(sharing)
        assert len(sharing) == 1 or {(key, local) for key, _, local in sharing} == {(sharing[0][0], sharing[0][2])}
        assert len(sharing) == 1 or sharing[0][0]
    assert len(allocation.ingress) + len(allocation.problems) == len(services)
    assert not avoid or "192.0.2.0" not in users
    again = allocate(assigned(services, allocation), config)
    assert again.ingress == allocation.ingress
