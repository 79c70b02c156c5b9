"""containerlab topologies: golden files, what is refused, and how single things are said.

Golden files: tests/golden/export/containerlab; `pytest --update-golden` writes them anew.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import testbed
from testbed.errors import InputError
from testbed.export import containerlab as export
from testbed.export.commands import commands
from testbed.plan import (
    Endpoint,
    File,
    Interface,
    Link,
    Node,
    Plan,
    Process,
    Route,
    Rule,
    Ruleset,
    SecretRef,
)
from testbed.session import compiled

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "export" / "containerlab"
PROGRAMS = Path(testbed.__file__).parent / "programs"
CONTAINER = export.Container("image", ["run", "a b"], "h", {"l": "1"}, {"s": "2"}, ["/a:/b:ro"], {"/t": "x"}, ["C"], [])


def links(*pairs: str, plan: Plan) -> list[dict[str, object]]:
    """The links of a topology of those "a:eth0 b:eth0"."""
    made = [Link(*(Endpoint(*end.split(":")) for end in pair.split())) for pair in pairs]
    text = export.topology(plan.name, {node.name: CONTAINER for node in plan.nodes}, made, plan)
    return yaml.safe_load(text)["topology"]["links"]


# --- golden -----------------------------------------------------------------------------------------------------------


def test_a_folder_to_take_away(golden: Callable[[Path, str], None]) -> None:
    files = export.render(compiled("two-routers"))
    assert {path.partition("/")[0] for path in files} == {"two-routers.clab.yml", "r1", "r2", "h1", "h2"}
    own = {path.read_text(): path.name for path in PROGRAMS.glob("*.py")}
    shown = [
        f"--- {path}\n{{programs/{own[text]}}}\n" if text in own else f"--- {path}\n{text}"
        for path, text in files.items()
    ]
    golden(GOLDEN / "two-routers.txt", "".join(shown))


def test_what_is_refused(golden: Callable[[Path, str], None]) -> None:
    with pytest.raises(InputError) as error:
        export.render(compiled("edge"))
    golden(GOLDEN / "edge.err", f"{error.value}\n")


def test_a_secret_is_refused() -> None:
    node = Node("r1", "host", files=(File("/root/.ssh/id", SecretRef("ssh", "private")),))
    with pytest.raises(InputError, match=r"node r1: /root/\.ssh/id is a secret of the running lab"):
        export.render(Plan("lab", nodes=(node,)))


# --- the file ---------------------------------------------------------------------------------------------------------


def test_what_nodes_have_in_common_is_said_once() -> None:
    plan = Plan("lab", nodes=(Node("a", "host"), Node("b", "host")))
    other = export.Container(
        **{**{name: getattr(CONTAINER, name) for name in CONTAINER.__slots__}, "hostname": "other"}
    )
    found = yaml.safe_load(export.topology("lab", {"a": CONTAINER, "b": other}, [], plan))["topology"]
    assert found["nodes"] == {"a": {"kind": "linux", "hostname": "h"}, "b": {"kind": "linux", "hostname": "other"}}
    assert found["kinds"]["linux"] == {
        "image": "image",
        "image-pull-policy": "Never",
        "cmd": "run 'a b'",
        "network-mode": "none",
        "restart-policy": "no",
        "privileged": False,
        "cap-add": ["C"],
        "security-opts": [],
        "sysctls": {"s": "2"},
        "tmpfs": {"/t": "x"},
        "binds": ["/a:/b:ro"],
        "labels": {"l": "1"},
    }


@pytest.mark.parametrize(("a", "b", "mtu"), [(0, 0, 1500), (9000, 9000, 9000), (9000, 0, 1500), (1400, 1500, 1400)])
def test_a_link_has_the_mtu_of_its_ends(a: int, b: int, mtu: int) -> None:
    nodes = (
        Node("a", "host", interfaces=(Interface("eth0", mtu=a),)),
        Node("b", "host", interfaces=(Interface("eth1", mtu=b),)),
    )
    assert links("a:eth0 b:eth1", plan=Plan("lab", nodes=nodes)) == [{"endpoints": ["a:eth0", "b:eth1"], "mtu": mtu}]


def test_links_to_pods_are_not_containerlabs() -> None:
    wires = (
        Link(Endpoint("n1", "eth0"), Endpoint("r1", "eth0")),
        Link(Endpoint("n1", "cali1"), Endpoint("pod", "eth0")),
    )
    nodes = (Node("n1", "kubernetes"), Node("r1", "router"), Node("pod", "pod", parent="n1"))
    assert export.links_between(Plan("lab", nodes=nodes, links=wires)) == [wires[0]]


def test_what_containerlab_would_expand_is_escaped() -> None:
    """It takes the file for a template (text/template), then expands $NAME; `$$` is a dollar sign."""
    process = Process("p", ("/bin/echo", "$HOME", "{{ .x }}"))
    text = export.render(Plan("lab", nodes=(Node("a", "host", processes=(process,)),)))["lab.clab.yml"]
    assert "$$HOME" in text
    assert '{{"{{"}} .x }}' in text
    [line] = [line for line in text.splitlines() if "echo" in line]
    restored = line.strip().removeprefix("- ").replace('{{"{{"}}', "{{").replace("$$", "$")
    assert shlex.split(yaml.safe_load(restored))[2].startswith("cd / && exec setsid /bin/echo '$HOME' '{{ .x }}' <")


def test_sysctls_that_interfaces_begin_with() -> None:
    given = (
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
    )
    assert export.interface_sysctls(given) == {
        "net.ipv4.conf.default.rp_filter": "0",
        "net.ipv6.conf.all.accept_dad": "0",
    }


# --- commands ---------------------------------------------------------------------------------------------------------


def lines(**fields: object) -> list[str]:
    """The commands of a node, but for the folder of its logs."""
    node = Node("r1", "router", **fields)
    found = [shlex.join(argv) for argv in commands(node, ["/etc/testbed/ruleset-0"] * len(node.rulesets))]
    return [line for line in found if "/var/log/testbed" not in line or line.startswith("sh")]


@pytest.mark.parametrize(
    ("route", "command"),
    [
        (Route("0.0.0.0/0", via="10.0.0.1", dev="eth0"), "ip -4 route replace 0.0.0.0/0 via 10.0.0.1 dev eth0"),
        (Route("fd00::/64", dev="eth0", table=7), "ip -6 route replace fd00::/64 dev eth0 table 7"),
        (Route("10.0.0.0/8", kind="blackhole", metric=5), "ip -4 route replace blackhole 10.0.0.0/8 metric 5"),
        (
            Route("10.0.0.0/8", via="1.1.1.1", dev="eth0", source="2.2.2.2", onlink=True),
            "ip -4 route replace 10.0.0.0/8 via 1.1.1.1 dev eth0 src 2.2.2.2 onlink",
        ),
    ],
)
def test_routes(route: Route, command: str) -> None:
    assert lines(routes=(route,)) == [command]


@pytest.mark.parametrize(
    ("rule", "command"),
    [
        (Rule(100, 7), "ip -4 rule add priority 100 table 7"),
        (Rule(1, 7, fwmark=256, fwmask=3840), "ip -4 rule add priority 1 fwmark 0x100/0xf00 table 7"),
        (Rule(1, 7, fwmark=1), "ip -4 rule add priority 1 fwmark 0x1/0xffffffff table 7"),
        (
            Rule(1, 7, 6, source="fd00::/64", destination="::/0", iif="eth0"),
            "ip -6 rule add priority 1 from fd00::/64 to ::/0 iif eth0 table 7",
        ),
    ],
)
def test_rules(rule: Rule, command: str) -> None:
    assert lines(rules=(rule,)) == [command]


def test_interfaces_and_a_bridge() -> None:
    interfaces = (
        Interface("lo", "loopback", addresses=("10.0.0.1/32",)),
        Interface("br0", "bridge", addresses=("fd00::1/64",)),
        Interface("eth0", mac="02:00:00:00:00:01", master="br0"),
    )
    assert lines(
        interfaces=interfaces, sysctls=(("net/ipv4/conf/eth0/proxy_arp", "1"), ("net/ipv4/ip_forward", "1"))
    ) == [
        "ip link add br0 type bridge",
        "ip link set eth0 address 02:00:00:00:00:01",
        "sysctl -qw net/ipv4/conf/eth0/proxy_arp=1",
        "ip address add 10.0.0.1/32 dev lo",
        "ip link set br0 up",
        "ip address add fd00::1/64 dev br0 nodad",
        "ip link set eth0 master br0",
        "ip link set eth0 up",
    ]


@pytest.mark.parametrize(
    ("tool", "command"),
    [
        ("nft", "nft -f /etc/testbed/ruleset-0"),
        ("iptables-restore", "iptables-restore /etc/testbed/ruleset-0"),
        ("ip6tables-restore", "ip6tables-restore /etc/testbed/ruleset-0"),
    ],
)
def test_rulesets(tool: str, command: str) -> None:
    ruleset = Ruleset("nat", tool, "text\n")
    assert lines(rulesets=(ruleset,)) == [command]
    files = export.render(Plan("lab", nodes=(Node("r1", "router", rulesets=(ruleset,)),)))
    assert files["r1/etc/testbed/ruleset-0"] == "text\n"
    assert "r1/etc/testbed/ruleset-0:/etc/testbed/ruleset-0:ro" in files["lab.clab.yml"]


def test_programs_are_started_after_those_they_need() -> None:
    processes = (
        Process("bgpd", ("/usr/lib/frr/bgpd",), after=("zebra",)),
        Process("zebra", ("/usr/lib/frr/zebra", "-n"), env=(("A", "b c"),), directory="/run"),
    )
    assert lines(processes=processes) == [
        shlex.join(("sh", "-c", line))
        for line in (
            "cd /run && exec setsid env 'A=b c' /usr/lib/frr/zebra -n </dev/null >>/var/log/testbed/zebra.log 2>&1 &",
            "cd / && exec setsid /usr/lib/frr/bgpd </dev/null >>/var/log/testbed/bgpd.log 2>&1 &",
        )
    ]
