"""Each probe against real sockets on loopback: the echo program, servers that misbehave, and none at all."""

from __future__ import annotations

import os
import socket
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from probe_servers import HostSockets, answering, canned, closed_port

from testbed.errors import ProbeError
from testbed.plan import Flow
from testbed.probe.dns import resolve
from testbed.probe.http import http
from testbed.probe.icmp import checksum, echo_request, icmp, is_reply
from testbed.probe.opening import patience
from testbed.probe.tcp import tcp
from testbed.probe.udp import udp

HOSTNAME = os.uname().nodename
LOOPBACKS = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


class NoSockets(HostSockets):
    def socket(self, node, vrf, family, kind, protocol=0):
        raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize(
    ("expect", "timeout", "seconds"),
    [("ok", 1, 3), ("ok", 5, 5), ("refused", 1, 3), ("unreachable", 1, 4), ("timeout", 1, 1), ("timeout", 0.2, 0.2)],
)
def test_patience(expect, timeout, seconds):
    assert patience(Flow("f", "here", "127.0.0.1", "tcp", expect=expect, timeout=timeout)) == seconds


# tcp


@LOOPBACKS
def test_tcp_to_echo(sockets, flow, address):
    answer = tcp(sockets, flow("tcp", address=address, seen_as=(address,)))
    assert (answer.outcome, answer.seen_as, answer.answered_by, answer.answered_on) == ("ok", address, "web-1", "node7")
    assert f'"peerPort": {answer.local_port},' in answer.evidence[0]
    assert 0 < answer.latency < 3


def test_tcp_asks_nothing_where_nothing_is_checked(sockets, flow):
    answer = tcp(sockets, flow("tcp"))
    assert (answer.outcome, answer.seen_as, answer.evidence) == ("ok", "", ())


def test_tcp_refused(sockets, flow):
    answer = tcp(sockets, flow("tcp", port=closed_port()))
    assert answer.outcome == "refused"
    assert answer.local_port > 0


@pytest.mark.parametrize(
    ("reply", "hang"), [(b"SSH-2.0-x\r\n", False), (b"", False), (b"half", True), (b"[1]\n", False)]
)
def test_tcp_to_a_server_of_another_kind_is_a_connection_all_the_same(sockets, flow, reply, hang):
    with canned(reply, hang=hang) as port:
        answer = tcp(sockets, flow("tcp", port=port, answered_by=("x",), expect="timeout", timeout=0.2))
    assert (answer.outcome, answer.answered_by) == ("ok", "")


# udp


@LOOPBACKS
def test_udp_to_echo(sockets, flow, address):
    answer = udp(sockets, flow("udp", address=address))
    assert (answer.outcome, answer.seen_as, answer.answered_by, answer.answered_on) == ("ok", address, "web-1", "node7")
    assert f'"peerPort": {answer.local_port},' in answer.evidence[0]


def test_udp_port_unreachable_is_refused_and_says_by_whom(sockets, flow):
    answer = udp(sockets, flow("udp", port=closed_port(socket.SOCK_DGRAM)))
    assert (answer.outcome, answer.evidence) == ("refused", ("127.0.0.1 sent ICMP type 3 code 3",))
    assert answer.latency < 3  # seconds that an answer is waited for


def test_udp_v6_port_unreachable_is_refused(sockets, flow):
    answer = udp(sockets, flow("udp", address="::1", port=closed_port(socket.SOCK_DGRAM)))
    assert (answer.outcome, answer.evidence) == ("refused", ("::1 sent ICMPv6 type 1 code 4",))


def test_udp_silence_is_a_timeout_after_the_flows_time(sockets, flow):
    with answering(lambda _: None) as port:
        answer = udp(sockets, flow("udp", port=port, expect="timeout", timeout=0.2))
    assert answer.outcome == "timeout"
    assert 0.2 <= answer.latency < 3


def test_udp_is_sent_again_when_the_first_is_lost(sockets, flow):
    received = []

    def second_time(data: bytes) -> bytes | None:
        received.append(data)
        return b"here" if len(received) == 2 else None

    with answering(second_time) as port:
        answer = udp(sockets, flow("udp", port=port), mark=0x01020304)
    assert (answer.outcome, answer.evidence) == ("ok", ("here",))
    assert received == [b"\1\2\3\4 testbed probe\n"] * 2


# icmp


@pytest.mark.live
@LOOPBACKS
def test_icmp_answers(sockets, flow, address):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except PermissionError as error:
        pytest.skip(f"no raw sockets here: {error}")
    answer = icmp(sockets, flow("icmp", address=address), mark=7)
    assert (answer.outcome, answer.detail) == ("ok", f"{address} answered the echo request")


def test_icmp_checksum_is_that_of_the_rfc():
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071, section 3: sum ddf2


def test_icmp_checksum_of_odd_length():
    assert checksum(b"\1") == checksum(b"\1\0")


def test_icmp_request_sums_to_zero():
    assert checksum(echo_request(4, 0xBEEF, b"data")) == 0


def reply(version: int, kind: int, identifier: int = 5, data: bytes = b"data") -> bytes:
    message = bytes([kind, 0, 0, 0, 0, identifier, 0, 1]) + data
    return (b"\x46" + bytes(23) if version == 4 else b"") + message


@pytest.mark.parametrize(
    ("packet", "version", "ours"),
    [
        (reply(4, 0), 4, True),
        (reply(4, 8), 4, False),
        (reply(4, 0, identifier=6), 4, False),
        (reply(4, 0, data=b"other"), 4, False),
        (reply(4, 0)[:30], 4, False),
        (reply(6, 129), 6, True),
        (reply(6, 128), 6, False),
    ],
)
def test_icmp_reply_is_told_from_others(packet, version, ours):
    assert is_reply(version, packet, 5, b"data") == ours


# http


@LOOPBACKS
def test_http_to_echo(sockets, flow, address):
    answer = http(sockets, flow("http", address=address, http_path="/a b?c=ü", http_host="web.lab"))
    assert (answer.outcome, answer.status, answer.seen_as) == ("ok", 200, address)
    assert (answer.answered_by, answer.answered_on) == ("web-1", "node7")
    assert '"host": "web.lab"' in answer.evidence[-1]
    assert '"path": "/a%20b?c=%C3%BC"' in answer.evidence[-1]
    assert f'"peerPort": {answer.local_port},' in answer.evidence[-1]


def test_http_host_defaults_to_the_address(sockets, flow, echo):
    assert f'"host": "[::1]:{echo.port}"' in http(sockets, flow("http", address="::1")).evidence[-1]


def test_http_proxies_of_the_environment_are_ignored(sockets, flow, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert http(sockets, flow("http")).outcome == "ok"


def test_http_reads_agnhost_paths(sockets, flow):
    assert http(sockets, flow("http", http_path="/hostname")).answered_by == HOSTNAME
    assert http(sockets, flow("http", http_path="/clientip")).seen_as == "127.0.0.1"
    assert http(sockets, flow("http", http_path="/clientip", address="::1")).seen_as == "::1"


def test_http_error_status_is_an_answer(sockets, flow):
    answer = http(sockets, flow("http", http_path="/status/503"))
    assert (answer.outcome, answer.status, answer.detail.endswith("HTTP/1.1 503 Service Unavailable")) == (
        "ok",
        503,
        True,
    )


def test_http_redirect_is_not_followed(sockets, flow):
    with canned(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n") as port:
        assert http(sockets, flow("http", port=port)).status == 302


def test_http_forwarded_for(sockets, flow):
    body = b'{"peer": "10.0.0.9", "forwardedFor": "10.0.0.1, 10.0.0.2"}'
    with canned(b"HTTP/1.0 200 OK\r\n\r\n" + body) as port:
        answer = http(sockets, flow("http", port=port))
    assert (answer.seen_as, answer.forwarded_for) == ("10.0.0.9", "10.0.0.1, 10.0.0.2")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"\0" * 500],
    ids=["closes", "ssh", "cut off", "zeros"],
)
def test_http_garbage_is_an_error(sockets, flow, garbage):
    with canned(garbage) as port:
        answer = http(sockets, flow("http", port=port))
    assert answer.outcome == "error"
    assert answer.detail.startswith(f"127.0.0.1 port {port} did not answer in HTTP (")


def test_http_body_that_never_ends_is_a_timeout(sockets, flow):
    with canned(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", hang=True) as port:
        assert http(sockets, flow("http", port=port, expect="timeout", timeout=0.2)).outcome == "timeout"


def test_http_refused(sockets, flow):
    assert http(sockets, flow("http", port=closed_port())).outcome == "refused"


# dns


def dns_server(*records: str, code: int = dns.rcode.NOERROR, flags: int = 0):
    def answer(data: bytes) -> bytes:
        question = dns.message.from_wire(data)
        message = dns.message.make_response(question)
        message.set_rcode(code)
        message.flags |= flags
        message.answer = [dns.rrset.from_text(*record.split(maxsplit=4)) for record in records]
        return message.to_wire()

    return answering(answer)


ALIAS = ("www.lab. 5 IN CNAME web.lab.", "web.lab. 5 IN A 10.0.0.7")


@pytest.mark.parametrize(
    ("records", "wanted", "output"),
    [
        (("web.lab. 5 IN A 10.0.0.7",), "10.0.0.7", "10.0.0.7"),
        (("web.lab. 5 IN A 10.0.0.10", "web.lab. 5 IN A 10.0.0.7"), "", "10.0.0.7 10.0.0.10"),
        (("web.lab. 5 IN AAAA fd00::7",), "fd00::7", "fd00::7"),
        (ALIAS, "", "10.0.0.7"),
    ],
)
def test_dns_answer(sockets, flow, records, wanted, output):
    with dns_server(*records) as port:
        answer = resolve(sockets, flow("dns", port=port, query="web.lab", answer=wanted))
    assert (answer.outcome, answer.output) == ("ok", output)
    assert answer.local_port > 0


@pytest.mark.parametrize(
    ("code", "flags", "outcome", "detail"),
    [
        (dns.rcode.NXDOMAIN, 0, "error", "127.0.0.1 answered NXDOMAIN for web.lab"),
        (dns.rcode.SERVFAIL, 0, "error", "127.0.0.1 answered SERVFAIL for web.lab"),
        (dns.rcode.REFUSED, 0, "refused", "127.0.0.1 answered REFUSED for web.lab"),
        (dns.rcode.NOERROR, 0, "error", "127.0.0.1 knows no A record of web.lab"),
        (dns.rcode.NOERROR, dns.flags.TC, "error", "127.0.0.1 knows no A record of web.lab (the answer was cut off)"),
    ],
)
def test_dns_without_an_answer(sockets, flow, code, flags, outcome, detail):
    with dns_server(code=code, flags=flags) as port:
        answer = resolve(sockets, flow("dns", port=port, query="web.lab"))
    assert (answer.outcome, answer.detail) == (outcome, detail)


def test_dns_takes_no_answer_to_another_question(sockets, flow):
    def another(data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + dns.message.make_response(dns.message.from_wire(data)).to_wire()[1:]

    for wrong in (another, lambda _: b"garbage", lambda data: data):
        with answering(wrong) as port:
            fields = {"port": port, "query": "web.lab", "expect": "timeout", "timeout": 0.2}
            assert resolve(sockets, flow("dns", **fields)).outcome == "timeout"


def test_dns_carries_its_mark_in_the_header(sockets, flow):
    seen = []
    with answering(lambda data: seen.append(data[:4])) as port:
        resolve(sockets, flow("dns", port=port, query="web.lab", expect="timeout", timeout=0.2), mark=0xABCD0100)
    assert seen == [bytes.fromhex("abcd0100")]


def test_dns_refused_by_a_closed_port(sockets, flow):
    assert resolve(sockets, flow("dns", port=closed_port(socket.SOCK_DGRAM), query="web.lab")).outcome == "refused"


# what cannot be asked


@pytest.mark.parametrize(
    ("probe", "protocol", "fields", "message"),
    [
        (tcp, "tcp", {"address": "web.lab"}, "flow \"f\": 'web.lab' is not an IP address"),
        (udp, "udp", {"address": "fe80::1"}, 'flow "f": probing a link-local address (fe80::1) is not supported'),
        (icmp, "icmp", {"address": "fe80::1%eth0"}, "probing a link-local address"),
        (http, "http", {"http_path": ":x"}, "flow \"f\": ':x' cannot be asked for"),
        (http, "http", {"http_host": "ü"}, "cannot be asked for"),
        (resolve, "dns", {"query": "a..b"}, "flow \"f\": 'a..b' is not a domain name"),
        (resolve, "dns", {"query": "x" * 64}, "is not a domain name"),
    ],
)
def test_what_cannot_be_asked_is_said(sockets, flow, probe, protocol, fields, message):
    with pytest.raises(ProbeError) as caught:
        probe(sockets, flow(protocol, **fields))
    assert message in str(caught.value)


@pytest.mark.parametrize(("probe", "protocol"), [(tcp, "tcp"), (udp, "udp"), (icmp, "icmp"), (http, "http")])
def test_socket_that_cannot_be_opened_is_no_answer(flow, probe, protocol):
    with pytest.raises(ProbeError, match=r'flow "f": no socket could be opened in here: .*not permitted'):
        probe(NoSockets(), flow(protocol))


def test_latency_is_that_of_the_exchange(sockets, flow):
    begin = time.monotonic()
    answer = http(sockets, flow("http"))
    assert 0 < answer.latency < time.monotonic() - begin
