"""The probes across a router: real ICMP errors, real address translation, and where the packets went."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from probe_namespaces import GATE_RULES, VIP, VIP6, Namespaces, network
from probe_servers import Echo, started_echo

from testbed.plan import Flow
from testbed.probe.flows import ask, run
from testbed.probe.result import Verdict

pytestmark = pytest.mark.live

SERVER, SERVER6 = "10.2.0.2", "fd00:2::2"
GATE, TARGET, ASIDE, CLIENT = (("gate", None), ("server", None), ("aside", None), ("client", None))


@pytest.fixture(scope="module")
def spaces() -> Iterator[Namespaces]:
    missing = [program for program in ("ip", "nft", "nsenter", "sysctl") if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        Namespaces().make("trial")
    except OSError as error:
        pytest.skip(f"no network namespaces can be made here: {error}")
    with network() as spaces:
        yield spaces


@pytest.fixture(scope="module")
def server(spaces) -> Iterator[Echo]:
    with started_echo(spaces.prefix("server")) as echo:
        spaces.run("gate", "nft", "-f", "-", text=GATE_RULES.format(port=echo.port))
        yield echo


def flow(protocol: str, address: str = SERVER, port: int = 0, **fields) -> Flow:
    return Flow(**{"name": "f", "source": "client", "address": address, "protocol": protocol, "port": port, **fields})


def assert_passed(verdict: Verdict) -> None:
    assert verdict.passed, (verdict.reasons, verdict.answer)


@pytest.mark.parametrize("protocol", ["tcp", "udp", "http"])
@pytest.mark.parametrize(("address", "client"), [(SERVER, "10.1.0.2"), (SERVER6, "fd00:1::2")])
def test_echo_across_a_router(spaces, server, protocol, address, client):
    assert_passed(ask(flow(protocol, address, server.port, seen_as=(client,), answered_by=("web-1",)), spaces))


OUTCOMES = {
    "closed tcp": ("tcp", SERVER, 1, "refused"),
    "closed tcp, IPv6": ("tcp", SERVER6, 1, "refused"),
    "closed udp": ("udp", SERVER, 1, "refused"),
    "closed udp, IPv6": ("udp", SERVER6, 1, "refused"),
    "closed for http": ("http", SERVER, 1, "refused"),
    "tcp prohibited": ("tcp", SERVER, 81, "unreachable"),
    "tcp prohibited, IPv6": ("tcp", SERVER6, 81, "unreachable"),
    "udp host unreachable": ("udp", SERVER, 81, "unreachable"),
    "udp prohibited, IPv6": ("udp", SERVER6, 81, "unreachable"),
    "tcp dropped": ("tcp", SERVER, 82, "timeout"),
    "tcp dropped, IPv6": ("tcp", SERVER6, 82, "timeout"),
    "udp dropped": ("udp", SERVER, 82, "timeout"),
    "udp dropped, IPv6": ("udp", SERVER6, 82, "timeout"),
    "tcp reset by the filter": ("tcp", SERVER, 83, "refused"),
    "tcp rejected": ("tcp", SERVER, 84, "refused"),
    "tcp rejected, IPv6": ("tcp", SERVER6, 84, "refused"),
    "udp rejected": ("udp", SERVER, 84, "refused"),
    "udp rejected, IPv6": ("udp", SERVER6, 84, "refused"),
    "udp dropped on the way out": ("udp", SERVER, 85, "timeout"),
    "icmp": ("icmp", SERVER, 0, "ok"),
    "icmp, IPv6": ("icmp", SERVER6, 0, "ok"),
    "icmp, dropped": ("icmp", "10.2.0.78", 0, "timeout"),
    "icmp, prohibited": ("icmp", "10.2.0.77", 0, "unreachable"),
    "icmp, no such network": ("icmp", "10.9.0.1", 0, "unreachable"),
    "icmp, no such network, IPv6": ("icmp", "fd00:9::1", 0, "unreachable"),
    "icmp, black hole on the way": ("icmp", "10.8.0.1", 0, "timeout"),
    "icmp, unreachable at the source": ("icmp", "10.9.1.1", 0, "unreachable"),
    "icmp, prohibited at the source": ("icmp", "10.9.2.1", 0, "unreachable"),
    "icmp, black hole at the source": ("icmp", "10.9.3.1", 0, "timeout"),
    "tcp, no such network": ("tcp", "10.9.0.1", 80, "unreachable"),
    "tcp, no such network, IPv6": ("tcp", "fd00:9::1", 80, "unreachable"),
    "udp, no such network": ("udp", "10.9.0.1", 80, "unreachable"),
    "udp, no such network, IPv6": ("udp", "fd00:9::1", 80, "unreachable"),
    "dns, no such network": ("dns", "10.9.0.1", 53, "unreachable"),
    "tcp, unreachable at the source": ("tcp", "10.9.1.1", 80, "unreachable"),
    "tcp, prohibited at the source": ("tcp", "10.9.2.1", 80, "unreachable"),
    "tcp, black hole at the source": ("tcp", "10.9.3.1", 80, "timeout"),
    "udp, black hole at the source": ("udp", "10.9.3.1", 80, "timeout"),
}
NOBODY = {"aside": ("icmp", "10.2.0.99"), "server": ("udp", "10.2.0.98"), "gate": ("tcp", "fd00:2::97")}


def test_outcomes(spaces, server):
    """All in one run, for some take as long as address resolution does."""
    flows = [
        flow(protocol, address, port, name=name, query="web.lab", expect=expect, timeout=0.5)
        for name, (protocol, address, port, expect) in OUTCOMES.items()
    ]
    flows += [
        flow(protocol, address, 80, source=source, expect="unreachable")
        for source, (protocol, address) in NOBODY.items()
    ]
    verdicts = run(flows, spaces)
    assert {verdict.flow: verdict.reasons for verdict in verdicts if not verdict.passed} == {}
    assert len(verdicts) == len(OUTCOMES) + len(NOBODY)


def test_router_that_limits_its_errors_is_given_time(spaces, server):
    """It sends five at once for an unreachable route, then one a second."""
    flows = [flow("udp", "10.9.0.1", 80, source="aside", expect="unreachable") for _ in range(7)]
    for verdict in run(flows, spaces):
        assert_passed(verdict)


def test_evidence_names_the_router_that_said_so(spaces, server):
    for protocol, address, said in (
        ("icmp", "10.9.0.1", "10.1.0.1 sent ICMP type 3 code 1"),
        ("udp", SERVER, "10.1.0.1 sent ICMP type 3 code 1"),
        ("icmp", "fd00:9::1", "fd00:1::1 sent ICMPv6 type 1 code 0"),
    ):
        assert ask(flow(protocol, address, 81 if protocol == "udp" else 0), spaces).answer.evidence == (said,)


PATHS = {
    "tcp": ("tcp", SERVER, "echo", "ok"),
    "tcp, IPv6": ("tcp", SERVER6, "echo", "ok"),
    "udp": ("udp", SERVER, "echo", "ok"),
    "udp, IPv6": ("udp", SERVER6, "echo", "ok"),
    "http": ("http", SERVER, "echo", "ok"),
    "icmp": ("icmp", SERVER, 0, "ok"),
    "icmp, IPv6": ("icmp", SERVER6, 0, "ok"),
    "dns": ("dns", SERVER, 1, "refused"),
    "translated tcp": ("tcp", VIP, 80, "ok"),
    "translated tcp, IPv6": ("tcp", VIP6, 80, "ok"),
    "translated http": ("http", VIP, 80, "ok"),
    "translated udp": ("udp", VIP, 80, "ok"),
    "translated icmp": ("icmp", VIP, 0, "ok"),
}


@pytest.mark.parametrize(("protocol", "address", "port", "expect"), PATHS.values(), ids=PATHS)
def test_path_of_a_flow(spaces, server, protocol, address, port, expect):
    number = server.port if port == "echo" else port
    places = {"via": (CLIENT, GATE, TARGET), "not_via": (ASIDE,)}
    verdict = ask(flow(protocol, address, number, query="web.lab", expect=expect, **places), spaces)
    assert_passed(verdict)
    assert verdict.path == (CLIENT, GATE, TARGET)


def test_translated_source_is_seen(spaces, server):
    assert_passed(ask(flow("http", VIP, 80, seen_as=("10.2.0.1",)), spaces))


@pytest.mark.parametrize(
    ("protocol", "address", "port"),
    [("tcp", SERVER, 82), ("udp", SERVER, 82), ("icmp", "10.2.0.78", 0), ("icmp", "10.8.0.1", 0)],
)
def test_path_ends_where_the_packet_is_dropped(spaces, server, protocol, address, port):
    fields = {"expect": "timeout", "timeout": 0.3, "via": (GATE,), "not_via": (TARGET,)}
    assert_passed(ask(flow(protocol, address, port, **fields), spaces))


def test_wrong_path_fails(spaces, server):
    verdict = ask(flow("tcp", SERVER, server.port, via=(ASIDE,), not_via=(GATE,)), spaces)
    assert verdict.reasons == (
        "expected the packets to go by aside, but none did",
        "expected no packet to go by gate, but at least one did",
    )


@pytest.mark.parametrize("protocol", ["tcp", "udp", "http", "icmp"])
def test_flows_to_one_address_at_the_same_time_are_told_apart(spaces, server, protocol):
    """Both clients are translated to the same source: neither address nor port tells them apart at the server."""
    both = [("client", ASIDE, CLIENT), ("aside", CLIENT, ASIDE)] * 16
    port = 0 if protocol == "icmp" else 80
    flows = [
        flow(protocol, VIP, port, source=source, via=(own, GATE, TARGET), not_via=(other,))
        for source, other, own in both
    ]
    for verdict in run(flows, spaces):
        assert_passed(verdict)


@pytest.fixture
def stranger(spaces) -> Iterator[Namespaces]:
    """A namespace on a cable from `client`, which sends everything for 10.4.0.9 there, to nobody's hardware address."""
    spaces.make("stranger")
    spaces.cable("client", "stray", "stranger", "eth0")
    spaces.run("client", "ip", "address", "add", "10.4.0.1/24", "dev", "stray")
    spaces.run("client", "ip", "neighbour", "add", "10.4.0.9", "lladdr", "02:00:00:00:00:99", "dev", "stray")
    yield spaces
    spaces.run("client", "ip", "link", "delete", "stray")


def test_frame_for_another_station_is_no_passage(stranger):
    """As where a bridge floods: the frame reaches the namespace, but was not sent to it."""
    places = {"via": (CLIENT,), "not_via": (("stranger", None),)}
    assert_passed(ask(flow("icmp", "10.4.0.9", expect="timeout", timeout=0.2, **places), stranger))


def test_frame_for_this_station_is_a_passage(stranger):
    stranger.run("stranger", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    places = {"via": (CLIENT, ("stranger", None))}
    assert_passed(ask(flow("icmp", "10.4.0.9", expect="timeout", timeout=0.2, **places), stranger))
