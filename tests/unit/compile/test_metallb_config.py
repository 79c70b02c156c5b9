"""What is refused: every recording of the real program's checks, and what the recordings do not show."""

from __future__ import annotations

import re
from fractions import Fraction
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metallb_recordings import folder, load, made, names, recorded, refusal
from pydantic import ValidationError

from testbed.compile.kube.metallb.config import read, validate
from testbed.compile.kube.metallb.pools import confuses_buggy_devices, parse_block, read_pool
from testbed.errors import Position
from testbed.model.base import Origin
from testbed.model.kube import KubeObject, Node
from testbed.model.metallb import (
    BGPAdvertisement,
    BGPPeer,
    Community,
    IPAddressPool,
    L2Advertisement,
    LabelSelector,
    seconds,
)
from testbed.model.workloads import Secret

# The real program reads these and then does not work: it says so in its log only. Here they are refused.
BROKEN_WHEN_ACCEPTED = {
    "invalid-peer-bad-selector": "for In, values can't be empty",
    "invalid-peer-hold-time-bad": 'invalid duration "soon"',
}

# Recorded of BGP mode "native", which is not offered: the same resources are checked as in FRR mode.
NATIVE = ("invalid-large-community-native", "invalid-peer-vrf-native", "invalid-v6-advertisement-native")

# Where our reason is worded otherwise than the recorded one: what ours must say.
OTHER_WORDS = {
    "invalid-aggregation-v6-129": "invalid aggregation length 129 for IPv6",  # recorded: the byte 129 as a character
    "invalid-aggregation-v6-shorter": "invalid aggregation length 64: prefix 112",  # recorded: the length for IPv4
    "invalid-aggregation-with-service-selectors": "serviceSelectors and aggregationLength are mutually exclusive",
    "invalid-bfd-interval": "spec.receiveInterval: Input should be greater than or equal to 10",
    "invalid-bfd-multiplier": "spec.detectMultiplier: Input should be greater than or equal to 2",
    "invalid-community-bad-value": 'invalid section "70000" of community "64512:70000"',
    "invalid-l2-duplicate-node-selector": "duplicate definition of nodeSelectors {'matchLabels': {'a': 'b'}}",
    "invalid-l2-weight": "spec.preferredNodeSelectors.0.weight: Input should be less than or equal to 100",
    "invalid-local-pref-conflict": "invalid local preference 200: local preference 100 was already set",
    "invalid-peer-connect-time-fraction": "connect time should contain a whole number of seconds",
    "invalid-peer-dynamic-asn-word": "spec.dynamicASN: Input should be '', 'internal' or 'external'",
    "invalid-peer-keepalive-longer": 'invalid keepaliveTime "10s", must be lower than holdTime "9s"',
    "invalid-peer-no-my-asn": "spec.myASN: Field required",
    "invalid-peer-password-and-secret": "can not have both password and secret ref set",
    "invalid-peer-port-range": "spec.peerPort: Input should be less than or equal to 16384",
}

# What the real program wraps around its reasons: the kind and name of the resource, which ours name in their own way.
WRAPPED = re.compile(
    r".*?(?:is invalid: |configuration error: )"
    r"(?:parsing (?:peer|address pool) \w+:? )?"
    r'(?:invalid CIDR "[^"]*" in pool "\w+": |invalid community value: )?'
    r"(?P<reason>.*)"
)


def test_every_recording_is_compared(fixtures: Path) -> None:
    assert recorded(fixtures, "invalid") == names("invalid")


@pytest.mark.parametrize("name", names("invalid"))
def test_equals_recording(fixtures: Path, name: str) -> None:
    case = folder(fixtures, "invalid", name)
    ours = refusal(case)
    reason = _recorded_reason(case)
    if case.name in NATIVE:
        assert load(case / "case.yaml") == {"bgp": "native"}
        assert ours == ""
    elif case.name in BROKEN_WHEN_ACCEPTED:
        assert BROKEN_WHEN_ACCEPTED[case.name] in ours
    elif reason:
        assert OTHER_WORDS.get(case.name, reason) in ours
    else:
        assert ours == ""


def _recorded_reason(case: Path) -> str:
    """The cause that the controller, a speaker or the API gives; empty where all accept."""
    text = (case / "error.txt").read_text()
    if text.startswith("accepted"):
        return ""
    found = WRAPPED.match(text)
    assert found, text
    return found["reason"]


TOR = {"myASN": 64512, "peerASN": 64513, "peerAddress": "172.16.1.254"}
SECRET = {"name": "pw", "namespace": "metallb-system"}


def messages(*objects: KubeObject) -> list[str]:
    return [problem.message for problem in validate(objects)]


def node(name: str) -> Node:
    return Node.model_validate({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


def secret(**fields: Any) -> Secret:
    return Secret.model_validate({"apiVersion": "v1", "kind": "Secret", "metadata": SECRET} | fields)


@pytest.mark.parametrize(
    ("text", "length"),
    [("0", 0), ("0s", 0), ("90s", 90), ("9500ms", Fraction(19, 2)), ("1h30m", 5400), (".5m", 30), ("+1.s", 1)],
)
def test_duration(text: str, length: Fraction) -> None:
    assert seconds(text) == length


@pytest.mark.parametrize("text", ["", "soon", "10", "5 s", "1s2", "-"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("expression", "matching"),
    [
        ({"operator": "In", "values": ["a"]}, ["a"]),
        ({"operator": "NotIn", "values": ["a"]}, ["b", None]),
        ({"operator": "Exists"}, ["a", "b"]),
        ({"operator": "DoesNotExist"}, [None]),
    ],
)
def test_selector(expression: dict[str, Any], matching: list[str | None]) -> None:
    selector = LabelSelector.model_validate({"matchExpressions": [{"key": "zone"} | expression]})
    found = [value for value in ("a", "b", None) if selector.matches({} if value is None else {"zone": value})]
    assert found == matching


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1", "192.0.2.0/255.255.255.0", "fe80::1%eth0/64", "fd00::/129", "192.0.2.1-", "-", "x/24", "1-2-3"],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_block(text)


ADDRESSES = st.integers(0, 2**32 - 1)


@given(ADDRESSES, ADDRESSES)
def test_range_is_covered_exactly(one: int, other: int) -> None:
    first, last = IPv4Address(min(one, other)), IPv4Address(max(one, other))
    networks = parse_block(f"{first} - {last}")
    assert networks[0].network_address == first
    assert networks[-1].broadcast_address == last
    assert sum(network.num_addresses for network in networks) == int(last) - int(first) + 1


@given(ADDRESSES.filter(lambda start: start < 2**32 - 700), st.integers(0, 600))
def test_size_is_the_number_of_addresses(start: int, length: int) -> None:
    text = f"{IPv4Address(start)}-{IPv4Address(start + length)}"
    pool = read_pool(made(IPAddressPool, "p", addresses=[text], avoidBuggyIPs=True))
    usable = [one for one in map(ip_address, range(start, start + length + 1)) if not confuses_buggy_devices(one)]
    assert pool.size(4) == len(usable)
    assert list(pool.addresses(4)) == usable


def test_overlapping_pools() -> None:
    wide = made(IPAddressPool, "a", addresses=["192.0.2.0/24", "fd00::/64"])
    inside = made(IPAddressPool, "b", addresses=["192.0.2.7/32", "198.51.100.0/24", "192.0.2.250-192.0.3.1"])
    assert messages(wide, inside) == [
        'IPAddressPool b: CIDR "192.0.2.7/32" in pool "b" overlaps with already defined CIDR "192.0.2.0/24"',
        'IPAddressPool b: CIDR "192.0.2.250/31" in pool "b" overlaps with already defined CIDR "192.0.2.0/24"',
        'IPAddressPool b: CIDR "192.0.2.252/30" in pool "b" overlaps with already defined CIDR "192.0.2.0/24"',
    ]


def test_the_wider_network_may_come_later() -> None:
    objects = made(IPAddressPool, "a", addresses=["192.0.2.0/32"]), made(IPAddressPool, "b", addresses=["192.0.2.0/24"])
    assert messages(*objects) == [
        'IPAddressPool b: CIDR "192.0.2.0/24" in pool "b" overlaps with already defined CIDR "192.0.2.0/32"'
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"routerID": "fd00::1"}, 'FRR refuses the IPv6 router ID "fd00::1"'),
        ({"vrf": "red blue"}, 'invalid vrf "red blue": it has white space in it'),
        ({"password": "a\nb"}, "FRR refuses a password with white space in it"),
        ({"sourceAddress": "eth0"}, 'invalid source IP "eth0"'),
        ({"holdTime": "2s"}, 'invalid hold time "2s": must be 0 or >=3s'),
        ({"connectTime": "0s"}, 'connect time should be between 1 second and 65535, not "0s"'),
        ({"passwordSecret": {"name": "pw"}}, "secret ref not found for peer config: pw"),
        ({"myASN": 0}, "missing local ASN"),
    ],
)
def test_refused_peer(spec: dict[str, Any], message: str) -> None:
    assert messages(made(BGPPeer, "t", **TOR | spec)) == [f"BGPPeer t: {message}"]


def test_field_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="peerGroup"):
        made(BGPPeer, "t", **TOR, peerGroup="x")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stringData": {"password": "x"}}, 'secret type mismatch on "metallb-system"/"pw"'),
        ({"type": "kubernetes.io/basic-auth", "data": {"username": "eA=="}}, "password not specified in the secret"),
        ({"type": "kubernetes.io/basic-auth", "stringData": {"password": "a b"}}, "FRR refuses a password"),
    ],
)
def test_refused_secret(fields: dict[str, Any], message: str) -> None:
    peer = made(BGPPeer, "t", **TOR, passwordSecret={"name": "pw"})
    (found,) = messages(peer, secret(**fields))
    assert message in found


@pytest.mark.parametrize("fields", [{"data": {"password": "c2VjcmV0"}}, {"stringData": {"password": "secret"}}])
def test_password_of_a_secret(fields: dict[str, Any]) -> None:
    peer = made(BGPPeer, "t", **TOR, passwordSecret={"name": "pw"})
    (found,) = read([peer, secret(type="kubernetes.io/basic-auth", **fields)]).peers
    assert found.password == "secret"
    assert "secret" not in repr(found)


def test_peers_are_compared_on_the_nodes_they_share_only() -> None:
    peers = [made(BGPPeer, name, **TOR) for name in ("a", "b")]
    assert messages(*peers) == []
    assert len(messages(*peers, node("n1"), node("n2"))) == 1


def test_resource_in_another_namespace_is_not_ignored() -> None:
    pool = made(IPAddressPool, "p", {"namespace": "web"}, addresses=["192.0.2.0/24"])
    assert messages(pool) == [
        'IPAddressPool p: is in namespace "web", where MetalLB does not look: it reads "metallb-system" only'
    ]
    assert validate([pool], namespace="web") == []


def test_all_mistakes_are_reported_with_their_places() -> None:
    pool = made(IPAddressPool, "p", addresses=["192.0.2.0/24", "x"])
    pool._origin = Origin({(): Position("lb.yaml", 1, 1), ("spec", "addresses", 1): Position("lb.yaml", 8, 5)})
    advertisement = made(BGPAdvertisement, "a", communities=["gold"], peers=["t", "t"])
    advertisement._origin = Origin({(): Position("lb.yaml", 20, 1)})
    assert [str(problem) for problem in validate([pool, advertisement])] == [
        'lb.yaml:8:5: IPAddressPool p: invalid CIDR "x"',
        'lb.yaml:20:1: BGPAdvertisement a: duplicate definition of peers "t"',
        'lb.yaml:20:1: BGPAdvertisement a: invalid community "gold" in BGP advertisement: '
        "invalid community format: gold (no Community has an alias of this name)",
    ]


def test_defined_twice() -> None:
    pools = [made(IPAddressPool, "p", addresses=[text]) for text in ("192.0.2.0/24", "198.51.100.0/24")]
    assert messages(*pools) == ['IPAddressPool p: duplicate definition of IPAddressPool "p"']


def test_refused_selectors() -> None:
    twice = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]}
    same = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}
    useless = {"key": "b", "operator": "Exists", "values": ["x"]}
    advertisement = made(L2Advertisement, "l", nodeSelectors=[twice, same, {"matchExpressions": [useless, useless]}])
    found = messages(advertisement)
    assert [one.removeprefix("L2Advertisement l: ").split(" {")[0] for one in found] == [
        "duplicate definition of nodeSelectors",
        "invalid label selector: Exists takes no values",
        "invalid label selector: Exists takes no values",
        "duplicate definition of match expressions",
    ]


def test_an_alias_has_one_meaning() -> None:
    alias = {"name": "gold", "value": "64512:1"}
    assert messages(made(Community, "c", communities=[alias, alias])) == [
        'Community c: duplicate definition of community "gold"'
    ]


def test_communities_in_their_plain_form_sorted() -> None:
    pool = made(IPAddressPool, "p", addresses=["192.0.2.0/24"])
    texts = ["large:01:2:3", "64512:0100", "64512:20", "100:1"]
    (found,) = read([pool, made(BGPAdvertisement, "a", communities=texts)]).bgp
    assert found.communities == ("100:1", "64512:100", "64512:20", "large:1:2:3")


@pytest.mark.parametrize("text", ["-5s", "-0.5s"])
def test_negative_duration_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="negative duration"):
        made(BGPPeer, "t", **TOR, keepaliveTime=text)
