"""Every errno the kernel can answer with stands for the outcome that the user would name."""

from __future__ import annotations

import errno

import pytest

from testbed.plan import Flow
from testbed.probe.failure import failed, outcome_of

FLOW = Flow("f", "client", "10.0.0.1", "tcp", 80)


@pytest.mark.parametrize(
    ("number", "outcome", "detail"),
    [
        (errno.ECONNREFUSED, "refused", "10.0.0.1 port 80 refused it (Connection refused, ECONNREFUSED)"),
        (errno.ENOPROTOOPT, "refused", "10.0.0.1 port 80 refused it (Protocol not available, ENOPROTOOPT)"),
        (errno.EHOSTUNREACH, "unreachable", "10.0.0.1 port 80 is unreachable (No route to host, EHOSTUNREACH)"),
        (errno.ENETUNREACH, "unreachable", "10.0.0.1 port 80 is unreachable (Network is unreachable, ENETUNREACH)"),
        (errno.EACCES, "unreachable", "10.0.0.1 port 80 is unreachable (administratively prohibited, EACCES)"),
        (
            errno.EADDRNOTAVAIL,
            "unreachable",
            "10.0.0.1 port 80 is unreachable (the source has no address to use, EADDRNOTAVAIL)",
        ),
        (errno.ETIMEDOUT, "timeout", "10.0.0.1 port 80 did not answer (Connection timed out, ETIMEDOUT)"),
        (
            errno.EPERM,
            "timeout",
            "10.0.0.1 port 80 did not answer (the source's own packet filter dropped it, EPERM)",
        ),
        (
            errno.EINVAL,
            "timeout",
            "10.0.0.1 port 80 did not answer (a blackhole route at the source dropped it, EINVAL)",
        ),
        (
            errno.ECONNRESET,
            "reset",
            "10.0.0.1 port 80 reset the connection (Connection reset by peer, ECONNRESET)",
        ),
        (errno.EPIPE, "error", "the exchange with 10.0.0.1 port 80 broke off (Broken pipe, EPIPE)"),
    ],
)
def test_errno(number, outcome, detail):
    answer = failed(FLOW, OSError(number, "as the kernel puts it"))
    assert (answer.outcome, answer.detail) == (outcome, detail)


def test_wait_that_ended():
    assert outcome_of(TimeoutError("timed out")) == "timeout"
    assert failed(FLOW, TimeoutError()).detail == "10.0.0.1 port 80 did not answer"


def test_no_port_is_told_where_there_is_none():
    assert failed(Flow("f", "client", "10.0.0.1", "icmp"), TimeoutError()).detail == "10.0.0.1 did not answer"


def test_notes_become_evidence():
    error = OSError(errno.EHOSTUNREACH, "")
    error.add_note("10.0.0.254 sent ICMP type 3 code 1")
    assert failed(FLOW, error).evidence == ("10.0.0.254 sent ICMP type 3 code 1",)
