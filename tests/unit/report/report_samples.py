"""A small lab, its live state and its verdicts, as data."""

from __future__ import annotations

from testbed.deploy.control import SessionState
from testbed.deploy.status import InterfaceStatus, NodeStatus, ProcessStatus, Status
from testbed.plan import (
    BgpSession,
    Endpoint,
    ExpectedRoute,
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
    Service,
    Tunnel,
    TunnelPeer,
)
from testbed.probe.result import Answer, LastVerdict, Verdict
from testbed.runtime.base import ProcessState

NOW = 1_000_000.0

ZEBRA = Process(
    "zebra", ("/usr/lib/frr/zebra", "-n"), ready=Ready("path", path="/run/frr/zebra.vty"), files=("/etc/z",)
)
BGPD = Process("bgpd", ("/usr/lib/frr/bgpd", "-f", "/a b"), ready=Ready("listen", port=179), after=("zebra",))

LEAF = Node(
    "leaf1",
    "router",
    vrfs=("mgmt", "sbi"),
    interfaces=(
        Interface("lo", "loopback", addresses=("10.255.0.1/32",)),
        Interface("eth0", vrf="mgmt", addresses=("10.0.0.0/31", "fd00::/127"), mtu=9000),
        Interface("br0", "bridge", vrf="sbi", addresses=("172.17.1.1/24",)),
        Interface("eth1", vrf="sbi", master="br0", mac="02:00:00:00:00:01"),
        Interface(
            "tun0",
            "vxlan",
            mtu=1450,
            tunnel=Tunnel(200, "10.255.0.1", 14789, (TunnelPeer("10.255.0.2", "02:00:0a:ff:00:02"),)),
        ),
    ),
    routes=(
        Route("0.0.0.0/0", via="10.0.0.1", dev="eth0", vrf="mgmt", metric=20),
        Route("10.9.0.0/16", kind="blackhole"),
    ),
    rules=(Rule(1001, 101, fwmark=0x100, fwmask=0xF00), Rule(1002, 102, family=6, source="fd00::/64", vrf="sbi")),
    rulesets=(Ruleset("ip testbed-nat", "nft", "table ip testbed-nat {\n}\n", "mgmt"),),
    sysctls=(("net/ipv4/ip_forward", "1"),),
    directories=(("/run/frr", "frr"),),
    files=(
        File("/etc/frr/zebra.conf", "hostname leaf1\nlog stdout\n", 0o640, "frr"),
        File("/etc/ssh/key", SecretRef("ssh-host", "private"), 0o600),
    ),
    processes=(ZEBRA, BGPD),
)
NODE = Node("n1", "kubernetes", interfaces=(Interface("eth0"), Interface("cali0")))
POD = Node("echo-js8mb", "pod", hostname="echo", parent="n1", interfaces=(Interface("eth0"),))
SESSION_UP = BgpSession("leaf1", "mgmt", "10.0.0.1", "n1", "frr", "/run/frr/bgpd.vty")
SESSION_DOWN = BgpSession("n1", None, "10.0.0.0", "leaf1", "bird", "/run/calico/bird.ctl", "Node_10_0_0_0")
ECHO = Service("echo", "web", "LoadBalancer", ("10.96.0.9",), ("80/TCP",), ("3.3.3.1",), ("192.168.0.1:8080",), ("n1",))
POD_FLOW = Flow("pod-to-leaf", "client-tndhdwqr4f-hgtnf", "10.0.0.0", "icmp", target="leaf1 in VRF mgmt")
WEB_FLOW = Flow("web", "ops", "3.3.3.1", "http", 80, target="Service echo", seen_as=("10.10.10.10",))
QUIET_FLOW = Flow("never-asked", "ops", "3.3.3.9", "tcp", 22, expect="refused")

PLAN = Plan(
    "small",
    description="a leaf and a node",
    nodes=(LEAF, NODE, POD),
    links=(
        Link(Endpoint("leaf1", "eth0"), Endpoint("n1", "eth0")),
        Link(Endpoint("n1", "cali0"), Endpoint("echo-js8mb", "eth0")),
    ),
    sessions=(SESSION_UP, SESSION_DOWN),
    routes=tuple(ExpectedRoute("leaf1", "mgmt", f"192.168.{n}.0/26", next_hops=1 + (n == 2)) for n in range(8)),
    services=(ECHO,),
    flows=(POD_FLOW, WEB_FLOW, QUIET_FLOW),
)


def running(name: str, pid: int) -> ProcessStatus:
    return ProcessStatus(name, ProcessState(name, (f"/{name}",), pid, NOW - 60))


def ended(name: str, status: int) -> ProcessStatus:
    return ProcessStatus(name, ProcessState(name, (f"/{name}",), 9, NOW - 60, status, NOW - 1))


FAULTY = Status(
    "small",
    "a leaf and a node",
    nodes=(
        NodeStatus(
            "leaf1",
            "router",
            "",
            True,
            (
                InterfaceStatus("lo", None, "up"),
                InterfaceStatus("eth0", "mgmt", "down"),
                InterfaceStatus("br0", "sbi", "up"),
                InterfaceStatus("eth1", "sbi", "no carrier"),
            ),
            (running("zebra", 7), ended("bgpd", -9)),
        ),
        NodeStatus("n1", "kubernetes", "", True, (InterfaceStatus("eth0", None, "missing"),), (running("bird", 8),)),
        NodeStatus("echo-js8mb", "pod", "n1", False),
    ),
    sessions=(
        (SESSION_UP, SessionState("Established", "Waiting for peer OPEN", 11, "00:01:26")),
        (SESSION_DOWN, SessionState("Active", "Socket: Connection refused")),
    ),
    services=(ECHO,),
)
WELL = Status(
    "small",
    "",
    nodes=(NodeStatus("h1", "host", "", True, (InterfaceStatus("eth0", None, "up"),)),),
    sessions=(),
    services=(),
)
LAST = (
    LastVerdict("web", False, "timeout", ("expected an answer, but 3.3.3.1 port 80 did not answer",), NOW - 7200),
    LastVerdict("pod-to-leaf", True, "ok", (), NOW - 5),
    LastVerdict("taken-out-of-the-lab-file", True, "ok", (), NOW - 5),
)
GOOD_VERDICT = Verdict(POD_FLOW, Answer("ok", "10.0.0.0 answered the echo request", latency=0.0123), True)
BAD_VERDICT = Verdict(
    WEB_FLOW,
    Answer("ok", "3.3.3.1 port 80 answered HTTP/1.1 200 OK", seen_as="172.16.1.2", status=200, latency=1.25),
    False,
    ("expected the server to see 10.10.10.10 as its client, but it saw 172.16.1.2",),
    (("pe1", "mgmt"),),
)
