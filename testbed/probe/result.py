"""What a probe brings back, and what is concluded from it: plain data, printable and storable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from testbed.plan import Flow

Outcome = Literal["ok", "refused", "timeout", "reset", "unreachable", "error"]
Place = tuple[str, str | None]
"""A node and one of its routing instances (None: the default one)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network answered to one question.

    Args:
        outcome: as a Flow's expectation (`reset`: a TCP connection came about and was reset); `error` means that the
            packets came through, but the protocol failed (authentication, a name that does not exist), or that the
            probe could not be carried out.
        detail: one sentence.
        seen_as: the address the server saw as its peer; empty: unknown.
        answered_by: the pod or host that answered; empty: unknown.
        answered_on: the node that pod runs on, or the host itself; empty: unknown.
        forwarded_for: the X-Forwarded-For header as the backend got it; empty: none, or unknown.
        status: of HTTP; 0: none.
        output: ssh: what the command printed; dns: the addresses, separated by spaces.
        latency: seconds from the opening of the socket to the answer or the failure.
        local_port: the client's TCP or UDP port, or ICMP identifier; 0: none was taken.
        evidence: lines that support the above, for a report.
    """

    outcome: Outcome
    detail: str
    seen_as: str = ""
    answered_by: str = ""
    answered_on: str = ""
    forwarded_for: str = ""
    status: int = 0
    output: str = ""
    latency: float = 0.0
    local_port: int = 0
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a flow's answer is the one it must give.

    Args:
        reasons: one sentence for each thing that is not as expected; empty when the flow passed.
        path: those places of the flow's `via` and `not_via` that its packets reached.
    """

    flow: Flow
    answer: Answer
    passed: bool
    reasons: tuple[str, ...] = ()
    path: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class LastVerdict:
    """How a flow ended when it was last asked; `when` is in seconds since the epoch."""

    flow: str
    passed: bool
    outcome: str
    reasons: tuple[str, ...]
    when: float
