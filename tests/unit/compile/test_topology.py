"""Interfaces and addresses: what is derived, what can be stated, and that both ends come from one statement."""

from __future__ import annotations

from ipaddress import ip_network

import lab_texts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.compile.addressing import SubnetPool, reserved
from testbed.compile.topology import End, Topology, gateway, kubernetes_nodes

ROUTERS = "nodes: {r1: {kind: router}, r2: {kind: router}, r3: {kind: router}, h1: {kind: host}, h2: {kind: host}}\n"


def ends(topology: Topology, segment: int = 0) -> list[tuple[str, str, str | None, list[str]]]:
    return [
        (end.node, end.interface, end.vrf, [str(entry) for entry in end.addresses])
        for end in topology.segments[segment].ends
    ]


def own(topology: Topology, node: str) -> list[tuple[str, list[str]]]:
    return [(end.interface, [str(entry) for entry in end.addresses]) for _, end in topology.of(node)]


def test_links_take_subnets_from_the_pools_in_order() -> None:
    found = lab_texts.topology(ROUTERS + "links: [{endpoints: [r1, r2]}, {endpoints: [r2, h1]}]")
    assert ends(found) == [
        ("r1", "eth0", None, ["10.0.0.0/31", "fd00::/127"]),
        ("r2", "eth0", None, ["10.0.0.1/31", "fd00::1/127"]),
    ]
    assert ends(found, 1) == [
        ("r2", "eth1", None, ["10.0.0.2/31", "fd00::2/127"]),
        ("h1", "eth0", None, ["10.0.0.3/31", "fd00::3/127"]),
    ]


@pytest.mark.parametrize(
    ("link", "addresses"),
    [
        ("{endpoints: [r1, r2], ipv4: 10.1.0.0/24}", [["10.1.0.1/24"], ["10.1.0.2/24"]]),
        ("{endpoints: [r1, r2], ipv4: 10.1.0.4/30}", [["10.1.0.5/30"], ["10.1.0.6/30"]]),
        ("{endpoints: [r1, r2], ipv4: 10.1.0.4/31}", [["10.1.0.4/31"], ["10.1.0.5/31"]]),
        ("{endpoints: [r1, r2], ipv6: 'fd01::/64'}", [["fd01::1/64"], ["fd01::2/64"]]),
        ("{endpoints: [r1, r2], ipv6: 'fd01::8/127'}", [["fd01::8/127"], ["fd01::9/127"]]),
        (
            "{endpoints: [r1, r2], ipv4: 10.1.0.0/24, ipv6: 'fd01::/64'}",
            [["10.1.0.1/24", "fd01::1/64"], ["10.1.0.2/24", "fd01::2/64"]],
        ),
        ("{endpoints: [r1, {node: r2, ipv4: 10.1.0.1}], ipv4: 10.1.0.0/24}", [["10.1.0.2/24"], ["10.1.0.1/24"]]),
        ("{endpoints: [{node: r1, ipv4: 10.1.0.9}, r2], ipv4: 10.1.0.0/24}", [["10.1.0.9/24"], ["10.1.0.1/24"]]),
        (
            "{endpoints: [{node: r1, ipv4: 10.1.0.9}, {node: r2, ipv6: 'fd01::5'}],"
            " ipv4: 10.1.0.0/24, ipv6: 'fd01::/64'}",
            [["10.1.0.9/24", "fd01::1/64"], ["10.1.0.1/24", "fd01::5/64"]],
        ),
        # A stated address is free for nobody else, wherever it stands.
        (
            "{endpoints: [r1, h1, {node: h2, ipv4: 10.1.0.2}], ipv4: 10.1.0.0/29}",
            [["10.1.0.1/29"], ["10.1.0.3/29"], ["10.1.0.2/29"]],
        ),
    ],
)
def test_stated_subnets_and_addresses(link: str, addresses: list[list[str]]) -> None:
    found = lab_texts.topology(f"{ROUTERS}links: [{link}]")
    assert [entry[3] for entry in ends(found)] == addresses


def test_pools_leave_out_what_is_stated_and_the_loopbacks() -> None:
    found = lab_texts.topology(
        ROUTERS
        + """addressing:
  links: {ipv4: 10.0.0.0/28}
  loopbacks: {ipv4: 10.0.0.0/30}
links:
  - {endpoints: [r1, r2]}
  - {endpoints: [r2, r3], ipv4: 10.0.0.6/31}
  - {endpoints: [r1, r3]}
  - {endpoints: [r3, h1], ipv4: 10.0.0.10/31}
  - {endpoints: [r3, h2]}
"""
    )
    assert [str(entry.networks[0]) for entry in found.segments] == [
        "10.0.0.4/31",
        "10.0.0.6/31",
        "10.0.0.8/31",
        "10.0.0.10/31",
        "10.0.0.12/31",
    ]
    assert {name: str(addresses[0]) for name, addresses in found.loopbacks.items()} == {
        "r1": "10.0.0.1/32",
        "r2": "10.0.0.2/32",
        "r3": "10.0.0.3/32",
    }


def test_a_pool_covered_by_a_stated_subnet_is_used_up_at_once() -> None:
    """2^79 subnets are not looked at one by one."""
    text = ROUTERS + "links: [{endpoints: [r1, r2], ipv6: 'fd00::/40'}, {endpoints: [r2, r3]}]"
    assert lab_texts.messages(text) == ["the pool of link addresses fd00::/48 is used up"]


@settings(deadline=None)
@given(
    length=st.integers(25, 32),
    taken=st.lists(
        st.builds(lambda a, b: ip_network((a << (32 - b), b)), st.integers(0, 15), st.integers(26, 32)), max_size=5
    ),
)
def test_pools_hand_out_each_subnet_once_and_none_that_is_taken(length: int, taken: list[object]) -> None:
    network = ip_network(f"0.0.0.0/{length}")
    pool, found = SubnetPool(network, taken), []  # type: ignore[arg-type]
    while (subnet := pool.take()) is not None:
        found.append(subnet)
    subnets = network.subnets(new_prefix=31) if length < 32 else ()
    free = [subnet for subnet in subnets if not any(subnet.overlaps(other) for other in taken)]
    assert found == free


def test_a_segment_is_a_bridge_of_its_first_end() -> None:
    found = lab_texts.topology(ROUTERS + "links: [{endpoints: [r1, h1, r2], ipv4: 10.1.0.0/24}, {endpoints: [r1, r3]}]")
    assert found.segments[0].ends[0].ports == ("eth0", "eth1")
    assert ends(found) == [
        ("r1", "br0", None, ["10.1.0.1/24"]),
        ("h1", "eth0", None, ["10.1.0.2/24"]),
        ("r2", "eth0", None, ["10.1.0.3/24"]),
    ]
    assert own(found, "r1")[1][0] == "eth2"


INSERTED = """
links:
  - {endpoints: [r1, r2]}
  MORE
  - {endpoints: [r1, h1]}
  - {endpoints: [r1, r3, h2], ipv4: 10.1.0.0/24}
"""


@pytest.mark.parametrize(
    ("more", "moved"),
    [
        ("- {endpoints: [r1, r3]}", True),
        ("- {endpoints: [{node: r1, interface: extra0}, {node: r3, interface: extra0}], ipv4: 10.2.0.0/30}", False),
    ],
)
def test_a_link_between_others_moves_them_unless_it_states_what_they_derive(more: str, *, moved: bool) -> None:
    alone = lab_texts.topology(ROUTERS + INSERTED.replace("  MORE\n", ""))
    found = lab_texts.topology(ROUTERS + INSERTED.replace("MORE", more))
    assert ({entry.ends for entry in alone.segments} <= {entry.ends for entry in found.segments}) is not moved


def test_stated_interface_names_stay_and_others_keep_out_of_their_way() -> None:
    found = lab_texts.topology(
        ROUTERS
        + """links:
  - {endpoints: [r1, r2]}
  - {endpoints: [{node: r1, interface: eth0}, {node: h1, interface: lan}]}
  - {endpoints: [{node: r1, interface: switch}, h2, r3], ipv4: 10.1.0.0/24}
"""
    )
    assert [name for name, _ in own(found, "r1")] == ["eth1", "eth0", "switch"]
    assert found.segments[2].ends[0].ports == ("eth2", "eth3")
    assert [name for name, _ in own(found, "h1")] == ["lan"]


def test_a_link_over_vrfs_is_one_link_in_each() -> None:
    found = lab_texts.topology(
        "vrfs: [red, blue]\n" + ROUTERS + "links: [{endpoints: [r1, h1], vrfs: [red, blue]}, {endpoints: [r1, r2]}]"
    )
    assert [segment.vrf for segment in found.segments] == ["red", "blue", None]
    assert ends(found)[0] == ("r1", "eth0", "red", ["10.0.0.0/31", "fd00::/127"])
    assert ends(found, 1)[0] == ("r1", "eth1", "blue", ["10.0.0.2/31", "fd00::2/127"])
    assert [end.vrf for _, end in found.of("h1")] == [None, None]  # a host has one routing instance
    assert found.vrfs("r1") == ("red", "blue")
    assert found.vrfs("h1") == ()
    assert found.addresses("h1", 4) == ("10.0.0.1", "10.0.0.3")
    assert found.addresses("h1", 4, "blue") == ("10.0.0.3",)
    assert found.addresses("r1", 4) == ("10.0.0.0", "10.0.0.2", "10.0.0.4", "10.255.0.1")
    assert found.addresses("r1", 4, "red") == ("10.0.0.0",)


def test_the_same_subnet_in_two_vrfs() -> None:
    text = """
        vrfs: [red, blue]
        nodes: {r1: {kind: router}, h1: {kind: host}, h2: {kind: host}}
        links:
          - {endpoints: [r1, h1], vrf: red, ipv4: 10.1.0.0/24}
          - {endpoints: [r1, h2], vrf: blue, ipv4: 10.1.0.0/24}
    """
    assert lab_texts.messages(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.0/24", {"10.0.0.0": "the network's own address", "10.0.0.255": "the broadcast address"}),
        ("10.0.0.0/31", {}),
        ("10.0.0.0/32", {}),
        ("fd00::/124", {"fd00::": "the anycast address of the subnet's routers"}),
        ("fd00::/127", {}),
    ],
)
def test_reserved_addresses(text: str, found: dict[str, str]) -> None:
    network = ip_network(text)
    assert {str(address): what for address in network if (what := reserved(network, address))} == found


@pytest.mark.parametrize(
    ("host", "version", "vrf", "expected"),
    [
        ("h1", 4, None, ("r1", "10.0.0.0")),
        ("h1", 6, None, ("r1", "fd00::")),
        ("h2", 4, None, ("r2", "10.2.0.1")),
        ("h2", 6, None, None),
        ("h3", 4, None, None),
        ("h3", 4, "red", None),
    ],
)
def test_gateway(host: str, version: int, vrf: str | None, expected: tuple[str, str] | None) -> None:
    made = lab_texts.lab("""
        vrfs: [red]
        nodes:
          r1: {kind: router}
          r2: {kind: router}
          h1: {kind: host}
          h2: {kind: host, gateway: r2}
          h3: {kind: host}
        links:
          - {endpoints: [r1, h1]}
          - {endpoints: [r1, h2]}
          - {endpoints: [r2, h2], ipv4: 10.2.0.0/24}
          - {endpoints: [h3, h1]}
    """)
    found, problems = lab_texts.build_topology(made)
    assert problems == []
    ways = gateway(made, found, host, version, vrf)
    assert (ways and (ways[1].node, ways[1].address(version))) == expected


def test_kubernetes_nodes_in_the_order_of_the_file() -> None:
    made = lab_texts.lab("nodes: {n2: {kind: kubernetes}, r1: {kind: router}, n1: {kind: kubernetes}}")
    assert kubernetes_nodes(made) == ("n2", "n1")


def test_every_address_of_an_end_is_of_a_subnet_of_its_segment() -> None:
    made = lab_texts.lab(lab_texts.CLUSTER)
    found, _ = lab_texts.build_topology(made)
    checked: list[End] = []
    for segment in found.segments:
        for end in segment.ends:
            assert all(address.network in segment.networks for address in end.addresses)
            checked.append(end)
    assert len(checked) == 5
