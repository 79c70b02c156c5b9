"""What is different between two Plans, and how it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.plan import (
    Endpoint,
    File,
    Flow,
    Interface,
    Link,
    Node,
    Plan,
    Process,
    Ready,
    Route,
    Rule,
    Ruleset,
    SecretRef,
    Tunnel,
    TunnelPeer,
)
from testbed.plan.diff import describe, diff

NODE = Node(
    "r1",
    "router",
    vrfs=("red",),
    interfaces=(Interface("eth0", addresses=("10.0.0.1/24",)), Interface("eth1")),
    routes=(Route("10.8.0.0/16", via="10.0.0.2"), Route("10.8.0.0/16", via="10.0.0.3", vrf="red")),
    rules=(Rule(1001, 101, fwmark=0x100),),
    rulesets=(Ruleset("nat", "nft", "one\ntwo\n"),),
    sysctls=(("net/a", "0"), ("net/b", "1")),
    directories=(("/var/x", "root"),),
    files=(File("/etc/a", "first\nsecond\nthird\n"), File("/etc/key", SecretRef("ssh", "public"))),
    processes=(Process("bgpd", ("/usr/sbin/bgpd", "-A"), ready=Ready("listen", 179)),),
)
LINK = Link(Endpoint("r1", "eth0"), Endpoint("h1", "eth0"))
OTHER_LINK = Link(Endpoint("r1", "eth1"), Endpoint("h1", "eth1"))


def changed(**fields: object) -> list[str]:
    """How a change of one node reads, without its head."""
    found = diff(Plan("a", (NODE,)), Plan("a", (replace(NODE, **fields),)))  # type: ignore[arg-type]
    head, *lines = describe(found)
    assert head.startswith("~ node r1")
    return [line.removeprefix("    ") for line in lines]


def test_nothing() -> None:
    found = diff(Plan("a", (NODE,), (LINK,)), Plan("a", (NODE,), (LINK,)))
    assert not found
    assert describe(found) == []


@pytest.mark.parametrize(
    ("new", "heard"),
    [
        ({}, False),
        ({"rules": ()}, False),
        ({"rulesets": ()}, False),
        ({"rules": (), "rulesets": ()}, False),
        ({"rules": (), "routes": ()}, True),
        ({"interfaces": ()}, True),
        ({"sysctls": ()}, True),
        ({"files": ()}, True),
        ({"name": "r2"}, True),
    ],
)
def test_what_routing_daemons_may_hear_of(new: dict[str, Any], heard: bool) -> None:
    found = diff(Plan("a", (NODE,)), Plan("a", (replace(NODE, **new),)))
    assert bool(found) is bool(new)
    assert found.reaches_routing is heard


def test_links_are_heard_of() -> None:
    assert diff(Plan("a", (NODE,), (LINK,)), Plan("a", (NODE,))).reaches_routing
    assert diff(Plan("a", (NODE,)), Plan("a", (NODE,), (LINK,))).reaches_routing


def test_nodes_and_links() -> None:
    old = Plan("a", (NODE, Node("h1", "host")), (LINK,))
    new = Plan("a", (NODE, Node("web", "pod", parent="n1")), (OTHER_LINK,))
    found = diff(old, new)
    assert found
    assert [node.name for node in found.added] == ["web"]
    assert [node.name for node in found.removed] == ["h1"]
    assert found.changed == ()
    assert describe(found) == [
        "+ node web (pod)",
        "- node h1 (host)",
        "+ link r1:eth1 - h1:eth1",
        "- link r1:eth0 - h1:eth0",
    ]


@pytest.mark.parametrize(
    ("fields", "anew"),
    [
        ({"sysctls": ()}, False),
        ({"files": ()}, False),
        ({"kind": "host"}, True),
        ({"vrfs": ()}, False),
        ({"vrfs": ("red", "blue")}, False),
        ({"interfaces": (*NODE.interfaces, Interface("red", "vrf", "red", table=10))}, True),
        ({"hostname": "x"}, True),
        ({"parent": "n1"}, True),
    ],
)
def test_what_lives_in_its_namespaces_is_changed_in_place(fields: dict[str, object], anew: bool) -> None:
    found = diff(Plan("a", (NODE,)), Plan("a", (replace(NODE, **fields),)))  # type: ignore[arg-type]
    [change] = found.changed
    assert change.recreated is anew
    assert change.fields == tuple(fields)
    assert describe(found)[0] == ("~ node r1 (made anew)" if anew else "~ node r1")


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"hostname": "x"}, ["~ hostname: none → x"]),
        ({"vrfs": ("red", "blue")}, ["+ vrfs: blue"]),
        (
            {"interfaces": (NODE.interfaces[0], Interface("eth2", mtu=9000))},
            ["- interfaces: eth1", "+ interfaces: eth2 (mtu 9000)"],
        ),
        (
            {"interfaces": (Interface("eth0", addresses=("10.0.0.9/24",), mtu=1400), NODE.interfaces[1])},
            ["~ interfaces: eth0: addresses 10.0.0.1/24 → 10.0.0.9/24", "~ interfaces: eth0: mtu 0 → 1400"],
        ),
        (
            {"routes": (Route("10.8.0.0/16", via="10.0.0.7"), NODE.routes[1])},
            ["~ routes: 10.8.0.0/16: via 10.0.0.2 → 10.0.0.7"],
        ),
        (
            {"routes": (*NODE.routes, Route("10.9.0.0/16", dev="eth0", table=101))},
            ["+ routes: 10.9.0.0/16 in table 101 (dev eth0)"],
        ),
        ({"routes": NODE.routes[:1]}, ["- routes: 10.8.0.0/16 in VRF red (via 10.0.0.3)"]),
        ({"routes": NODE.routes[::-1]}, ["~ routes: in another order"]),
        (  # a second route to one place
            {"routes": (*NODE.routes, Route("10.8.0.0/16", via="10.0.0.4"))},
            ["+ routes: 10.8.0.0/16 (2) (via 10.0.0.4)"],
        ),
        ({"rules": (Rule(1001, 102, fwmark=0x100),)}, ["~ rules: 1001: table 101 → 102"]),
        ({"rulesets": (Ruleset("nat", "nft", "one\n2\n"),)}, ["~ rulesets: nat: - two", "~ rulesets: nat: + 2"]),
        ({"rulesets": (Ruleset("nat", "nft", "one\ntwo"),)}, ["~ rulesets: nat: other line ends"]),
        ({"sysctls": (("net/a", "0"), ("net/b", "2"))}, ["~ sysctls: net/b: 1 → 2"]),
        ({"sysctls": (("net/b", "1"), ("net/a", "0"))}, ["~ sysctls: in another order"]),
        ({"directories": ()}, ["- directories: /var/x root"]),
        (
            {"files": (File("/etc/a", "first\nsecond\nlast\n"), NODE.files[1])},
            ["~ files: /etc/a: - third", "~ files: /etc/a: + last"],
        ),
        ({"files": (replace(NODE.files[0], mode=0o600), NODE.files[1])}, ["~ files: /etc/a: mode 0644 → 0600"]),
        (
            {"files": (*NODE.files, File("/etc/b", "text", 0o600, "frr"))},
            ["+ files: /etc/b (mode 0600, owner frr)"],
        ),
        (
            {"files": (NODE.files[0], File("/etc/key", SecretRef("ssh", "private")))},
            ["~ files: /etc/key: content the public key ssh → the private key ssh"],
        ),
        (
            {"files": (NODE.files[0], File("/etc/key", "a\nb\n"))},
            ["~ files: /etc/key: content the public key ssh → 2 lines of text"],
        ),
        (
            {"processes": (replace(NODE.processes[0], argv=("/usr/sbin/bgpd",)),)},
            ["~ processes: bgpd: argv /usr/sbin/bgpd -A → /usr/sbin/bgpd"],
        ),
        (
            {"processes": (replace(NODE.processes[0], ready=Ready()),)},
            ["~ processes: bgpd: ready [kind listen, port 179, path none] → [kind running, port 0, path none]"],
        ),
    ],
)
def test_how_a_change_reads(fields: dict[str, object], lines: list[str]) -> None:
    assert changed(**fields) == lines


def test_every_change_of_a_node_is_told() -> None:
    """Whatever field differs, there is a line about it."""
    empty = Node("r1", "router")
    for name in ("vrfs", "interfaces", "routes", "rules", "rulesets", "sysctls", "directories", "files", "processes"):
        one = replace(empty, **{name: getattr(NODE, name)})
        for old, new in ((empty, one), (one, empty)):
            [head, *lines] = describe(diff(Plan("a", (old,)), Plan("a", (new,))))
            assert head == "~ node r1"
            assert lines
            assert all(line.strip()[0] == ("+" if new is one else "-") and name in line for line in lines)


def test_flows_are_no_change_of_the_machine() -> None:
    assert not diff(Plan("a"), Plan("a", flows=(Flow("f", "h1", "10.0.0.1", "icmp"),)))


small_nodes = st.lists(
    st.builds(
        Node,
        name=st.sampled_from(["a", "b", "c"]),
        kind=st.sampled_from(["host", "router"]),
        hostname=st.sampled_from(["", "x"]),
        sysctls=st.lists(st.tuples(st.sampled_from("kl"), st.sampled_from("01")), max_size=2).map(tuple),
        interfaces=st.just(()),
        routes=st.just(()),
        rules=st.just(()),
        rulesets=st.just(()),
        files=st.just(()),
        processes=st.just(()),
        directories=st.just(()),
        vrfs=st.just(()),
        parent=st.just(""),
    ),
    unique_by=lambda node: node.name,
)


@settings(deadline=None)
@given(small_nodes, small_nodes)
def test_a_difference_makes_the_new_plan_of_the_old_one(old: list[Node], new: list[Node]) -> None:
    found = diff(Plan("a", tuple(old)), Plan("a", tuple(new)))
    nodes = {node.name: node for node in old}
    for node in found.removed:
        assert nodes.pop(node.name) == node
    for change in found.changed:
        assert nodes[change.old.name] == change.old
        assert change.fields
        nodes[change.new.name] = change.new
    nodes |= {node.name: node for node in found.added}
    assert nodes == {node.name: node for node in new}
    assert bool(found) == (sorted(old, key=lambda node: node.name) != sorted(new, key=lambda node: node.name))
    assert bool(describe(found)) == bool(found)


def test_a_peer_of_a_tunnel() -> None:
    def tunnel(*peers: str) -> tuple[Interface, ...]:
        ends = tuple(TunnelPeer(f"10.0.0.{peer}", f"02:00:0a:00:00:0{peer}") for peer in peers)
        return (*NODE.interfaces, Interface("tun0", "vxlan", tunnel=Tunnel(200, "10.0.0.1", 14789, ends)))

    new = replace(NODE, interfaces=tunnel("3"))
    assert changed(interfaces=tunnel("2")) == [
        "+ interfaces: tun0 (kind vxlan, tunnel [vni 200, local 10.0.0.1, port 14789, "
        "peers [address 10.0.0.2, mac 02:00:0a:00:00:02]])"
    ]
    head, *lines = describe(diff(Plan("a", (replace(NODE, interfaces=tunnel("2")),)), Plan("a", (new,))))
    assert (head, len(lines)) == ("~ node r1", 1)
    assert "peers [address 10.0.0.2, mac 02:00:0a:00:00:02]] → [vni 200, local 10.0.0.1, port 14789, peers" in lines[0]
