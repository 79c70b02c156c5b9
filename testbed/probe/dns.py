"""The dns probe: one question over UDP, read with dnspython."""

from __future__ import annotations

import ipaddress
import os
import socket

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from testbed.errors import ProbeError
from testbed.plan import Flow
from testbed.probe.datagram import exchange, over_datagrams
from testbed.probe.result import Answer, Outcome
from testbed.probe.secrets import NO_SECRETS, Secrets
from testbed.runtime.base import Sockets


def resolve(sockets: Sockets, flow: Flow, secrets: Secrets = NO_SECRETS, mark: int = 0) -> Answer:  # noqa: ARG001
    """Ask for the AAAA records of the flow's name where its `answer` is an IPv6 address, else for the A records.

    Aliases are followed as far as the server does. A server that answers REFUSED gives the outcome `refused`; any
    other failure it reports, a cut-off answer, and a name without such records give `error`.

    Args:
        mark: its upper half becomes the id of the message. See `passage.new_mark`.
    """
    question = query(flow, (mark >> 16) or int.from_bytes(os.urandom(2), "big"))

    def accept(data: bytes) -> dns.message.Message | None:
        try:
            message = dns.message.from_wire(data, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return None
        return message if question.is_response(message) else None

    def talk(sock: socket.socket) -> Answer:
        return read(flow, exchange(sock, flow, question.to_wire(), accept))

    return over_datagrams(sockets, flow, (socket.SOCK_DGRAM, 0), talk)


def query(flow: Flow, number: int) -> dns.message.QueryMessage:
    """The question a flow asks, as message `number`. Raises ProbeError when its name cannot be asked for."""
    kind = "AAAA" if ":" in flow.answer else "A"
    try:
        return dns.message.make_query(flow.query, kind, id=number)
    except (dns.exception.DNSException, ValueError) as error:
        raise ProbeError(f'flow "{flow.name}": {flow.query!r} is not a domain name: {error}') from error


def read(flow: Flow, message: dns.message.Message) -> Answer:
    """What a server's message means for `flow`."""
    evidence = tuple(message.to_text().splitlines())
    code = message.rcode()
    if code != dns.rcode.NOERROR:
        text = dns.rcode.to_text(code)
        outcome: Outcome = "refused" if code == dns.rcode.REFUSED else "error"
        return Answer(outcome, f"{flow.address} answered {text} for {flow.query}", evidence=evidence)
    kind = message.question[0].rdtype
    addresses = [str(record) for rrset in message.answer if rrset.rdtype == kind for record in rrset]
    if not addresses:
        cut = " (the answer was cut off)" if message.flags & dns.flags.TC else ""
        detail = f"{flow.address} knows no {dns.rdatatype.to_text(kind)} record of {flow.query}{cut}"
        return Answer("error", detail, evidence=evidence)
    found = " ".join(sorted(addresses, key=ipaddress.ip_address))
    return Answer("ok", f"{flow.address} answered {found} for {flow.query}", output=found, evidence=evidence)
