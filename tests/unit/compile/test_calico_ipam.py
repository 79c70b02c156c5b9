"""Addresses and blocks: the recorded calls of Calico's CNI plugin, made again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.compile.kube.calico import ipam as calico_ipam
from testbed.compile.kube.calico import random as calico_random
from testbed.compile.kube.calico.ipam import Ipam, Request
from testbed.errors import InputError
from testbed.model import calico, kube

# No recording holds the labels of its namespaces. Case pool-namespace-selector, whose pools select env == 'prod' and
# env != 'prod', gave its first pod (in prod) an address of the former: this label is inferred from that answer.
NAMESPACE_LABELS = {"prod": {"env": "prod"}}

# Not replayed, and why: each is refused or cannot be written.
BY_KIND = {
    "reservation": "IPReservation",
    "strict-no-block-left": "IPAMConfig",
}
BY_ANNOTATION = {
    "mac-annotation": "hwAddr is not supported",
    "requested-no-ipam": "ipAddrsNoIpam is not supported",
    "requested-no-ipam-off": "ipAddrsNoIpam is not supported",
}

# Upstream faults, not copied: operation → what is right.
UPSTREAM_FAULTS = {
    ("add-twice", 1): ("192.168.40.128",),  # upstream gives the pod a second address
    ("add-twice-delete", 1): ("192.168.40.128",),
}
# The queue of free addresses then differs too; and where only the IPv6 half of a call failed upstream keeps the other.
OTHER_QUEUE = {"add-twice", "add-twice-delete", "v6-no-pool"}

# Upstream's words for an error, and ours.
ERRORS = {
    "does not exist, or is not enabled": "does not exist, is disabled",
    "No IPs available in pools": "no address is left in the pools",
    "cannot find a qualified ippool": "there is no enabled IPPool for IPv",
    "no configured Calico pools for node": "no IPv4 IPPool selects node",
    "Address already assigned in block": "is already assigned",
    "cannot have more than one IPv4 address": "at most one address of each family",
}

_CASES = """
add-twice add-twice-delete annotation-disabled-pool annotation-ignores-node-selector annotation-two-pools block-29-fill
borrow-two-nodes conf-pools delete-twice delete-unknown dual-stack exhaust-and-borrow mtu-and-forwarding
namespace-annotation namespace-annotation-cidr natout-pool one pool-annotation-other-block pool-disabled
pool-disabled-only pool-is-one-block pool-namespace-selector pool-node-selector pool-tunnel-only release-block
requested-address requested-in-other-node-block requested-taken requested-two two-pools two-pools-first-full
two-pools-name-order v6-no-pool v6-requested
"""
REPLAYED = _CASES.split()


def load(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


class Replay:
    """The operations of one recording on an Ipam."""

    def __init__(self, folder: Path) -> None:
        objects = load(folder / "objects.yaml")
        self.conf = load(folder / "case.yaml")[0].get("conf", {})
        self.results = load(folder / "result.yaml")[0]["operations"]
        self.metadata = {
            (found["kind"], found["metadata"]["name"]): kube.Metadata.model_validate(found["metadata"])
            for found in objects
            if found["kind"] in ("Node", "Namespace")
        }
        pools = [calico.IPPool.model_validate(found) for found in objects if found["kind"] == "IPPool"]
        self.ipam = Ipam(pools)

    @property
    def families(self) -> tuple[calico_ipam.Family, ...]:
        return (4, 6) if self.conf.get("ipam", {}).get("assign_ipv6") == "true" else (4,)

    def run(self, operation: dict[str, Any]) -> tuple[str, ...]:
        if "put" in operation:
            found = kube.Metadata.model_validate(operation["put"])
            self.metadata["Namespace", found.name] = found
            return ()
        if "del" in operation:
            self.ipam.release(f"{operation['ns']}/{operation['del']}")
            return ()
        return self.ipam.assign(self.request(operation))

    def request(self, operation: dict[str, Any]) -> Request:
        space = operation["ns"]
        found = calico_ipam.request(
            kube.Metadata(name=operation["add"], namespace=space, annotations=operation.get("annotations", {})),
            self.metadata.get(("Namespace", space), kube.Metadata(name=space, labels=NAMESPACE_LABELS.get(space, {}))),
            self.metadata["Node", operation["node"]],
            self.families,
        )
        named = operation.get("conf", {}).get("ipv4_pools")
        return Request(found.pod, found.node, ipv4_pools=tuple(named)) if named else found


def test_no_recording_is_left_out(fixtures: Path) -> None:
    recorded = sorted(path.name for path in (fixtures / "calico" / "ipam").iterdir())
    assert sorted([*REPLAYED, *BY_KIND, *BY_ANNOTATION]) == recorded


@pytest.mark.parametrize("case", REPLAYED)
def test_like_the_recording(fixtures: Path, case: str) -> None:
    folder = fixtures / "calico" / "ipam" / case
    replay = Replay(folder)
    assert replay.results
    for index, result in enumerate(replay.results):
        if "error" in result:
            [ours] = [ours for theirs, ours in ERRORS.items() if theirs in result["error"]]
            with pytest.raises(InputError, match=re.escape(ours)):
                replay.run(result["op"])
        else:
            given_out = replay.run(result["op"])
            recorded = tuple(address.partition("/")[0] for address in result.get("ips") or ())
            assert given_out == UPSTREAM_FAULTS.get((case, index), recorded), f"operation {index}"

    after = load(folder / "ipam.yaml")[0]
    assert sorted(owners(replay.ipam.blocks())) == sorted(
        (affinity["node"], affinity["cidr"]) for affinity in after["affinities"] or ()
    )
    if case not in OTHER_QUEUE:
        for prefix, block in (after["blocks"] or {}).items():
            assert replay.ipam.free(prefix) == tuple(ordinals(block["unallocated"])), prefix


def owners(blocks: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for node, prefixes in blocks.items():
        for prefix in prefixes:
            yield node, prefix


def ordinals(text: str) -> Iterator[int]:
    """The numbers of "1-3,0"."""
    for part in str(text).split(",") if text != "" else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@pytest.mark.parametrize(("case", "kind"), BY_KIND.items())
def test_not_replayed_for_its_kind(fixtures: Path, case: str, kind: str) -> None:
    assert kind in {found["kind"] for found in load(fixtures / "calico" / "ipam" / case / "objects.yaml")}
    assert kind not in {model.__name__ for model in calico.KINDS}


@pytest.mark.parametrize(("case", "message"), BY_ANNOTATION.items())
def test_not_replayed_for_its_annotation(fixtures: Path, case: str, message: str) -> None:
    replay = Replay(fixtures / "calico" / "ipam" / case)
    with pytest.raises(InputError, match=message):
        replay.run(replay.results[0]["op"])


# --- the generator -------------------------------------------------------------------------------------------------


def test_the_generator_starts_as_go_documents_it() -> None:
    """The first word of the table in Go's math/rand (rng.go) is -4181792142133755926."""
    assert calico_random._table()[0] == -4181792142133755926 + (1 << 64)


@pytest.mark.parametrize(("host", "block"), [("n1", "192.168.40.128"), ("n2", "192.168.217.0"), ("n3", "192.168.98.0")])
def test_first_blocks(host: str, block: str) -> None:
    first = next(calico_random.block_indices(host, 1 << 10))
    assert str(ip_address(int(ip_address("192.168.0.0")) + 64 * first)) == block


@given(st.text(min_size=1, max_size=20), st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_every_block_is_tried_once(host: str, bits: int) -> None:
    assert sorted(calico_random.block_indices(host, 1 << bits)) == list(range(1 << bits))


# --- properties ----------------------------------------------------------------------------------------------------


def pool(name: str, **spec: Any) -> calico.IPPool:
    found = {"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name}, "spec": spec}
    return calico.IPPool.model_validate(found)


POOLS = (pool("v4", cidr="10.1.0.0/24", blockSize=29), pool("v6", cidr="fd00:1::/64"))
PODS = st.lists(st.sampled_from(["n1", "n2", "n3", "n4"]), min_size=1, max_size=60)


def requests(nodes: list[str]) -> list[Request]:
    return [Request(f"default/p{index}", node, (4, 6)) for index, node in enumerate(nodes)]


@given(PODS, st.sampled_from(["n1", "n2", "n9"]))
@settings(max_examples=50, deadline=None)
def test_a_pod_more_changes_no_address(nodes: list[str], another: str) -> None:
    before = calico_ipam.assign(POOLS, requests(nodes))
    after = calico_ipam.assign(POOLS, requests([*nodes, another]))
    assert {pod: after.addresses[pod] for pod in before.addresses} == before.addresses


@given(PODS)
@settings(max_examples=50, deadline=None)
def test_addresses_are_unique_and_in_a_block_of_their_node(nodes: list[str]) -> None:
    found = calico_ipam.assign(POOLS, requests(nodes))
    every = [address for addresses in found.addresses.values() for address in addresses]
    assert len(set(every)) == len(every) == 2 * len(nodes)
    for wanted in requests(nodes):
        own = [ip_network(prefix) for prefix in found.blocks[wanted.node]]
        assert all(any(ip_address(address) in block for block in own) for address in found.addresses[wanted.pod])
    prefixes = [prefix for blocks in found.blocks.values() for prefix in blocks]
    assert len(set(prefixes)) == len(prefixes)


def test_all_that_fails_is_reported_at_once() -> None:
    nodes = [Request(f"default/p{index}", "n1") for index in range(5)]
    with pytest.raises(InputError) as caught:
        calico_ipam.assign([pool("a", cidr="10.1.0.0/31", blockSize=31)], nodes)
    assert [problem.message.split(":")[0] for problem in caught.value.problems] == [
        f"pod default/p{i}" for i in (2, 3, 4)
    ]


REQUESTS: list[tuple[Request, str]] = [
    (Request("a/b", "n1", addresses=("ten",)), "'ten' is not an IP address"),
    (Request("a/b", "n1", addresses=("10.9.0.1",)), "10.9.0.1 is in no enabled IPPool"),
    (Request("a/b", "n1", ipv4_pools=("v6",)), "the requested IPPool v6 does not exist"),
]


@pytest.mark.parametrize(("wanted", "message"), REQUESTS)
def test_requests_that_cannot_be_met(wanted: Request, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        calico_ipam.assign(POOLS, [wanted])


def test_a_failed_request_takes_nothing() -> None:
    ipam = Ipam(POOLS)
    with pytest.raises(InputError):
        ipam.assign(Request("a/b", "n1", addresses=("10.1.0.1", "10.9.0.1")))
    assert ipam.assign(Request("a/c", "n1", addresses=("10.1.0.1",))) == ("10.1.0.1",)


def test_selectors_and_annotations_that_cannot_be_read() -> None:
    with pytest.raises(InputError, match="IPPool a: nodeSelector: selector 'zone =='"):
        Ipam([pool("a", cidr="10.1.0.0/16", nodeSelector="zone ==")])
    metadata = kube.Metadata(name="p", annotations={"cni.projectcalico.org/ipv4pools": "a"})
    with pytest.raises(InputError, match="'a' is not a JSON list of strings"):
        calico_ipam.request(metadata, kube.Metadata(name="default"), kube.Metadata(name="n1"), (4,))
