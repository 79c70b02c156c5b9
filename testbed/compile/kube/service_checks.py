"""What must hold in Services and EndpointSlices before rules can be made of them.

The Kubernetes API refuses such objects when they are created (pkg/apis/core/validation and
pkg/apis/discovery/validation), so kube-proxy never sees them; manifests have not been through it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from testbed.errors import InputError, Problem
from testbed.model import kube

Path = tuple[str | int, ...]

# An RFC 1123 label: names end up in the text of rules.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check(services: Sequence[kube.Service], slices: Sequence[kube.EndpointSlice]) -> None:
    """Raise InputError with all that is wrong in `services` (those that are proxied) and `slices`."""
    problems = [problem for service in services for problem in _service_problems(service)]
    problems += [problem for piece in slices for problem in _slice_problems(piece)]
    if problems:
        raise InputError(problems)


def version(text: str) -> int | None:
    """4 or 6 where `text` is an IP address, else None. A scope (%eth0) has no meaning outside one host: None."""
    try:
        return None if "%" in text else ip_address(text).version
    except ValueError:
        return None


def is_prefix(text: str) -> bool:
    """`text` is an address, a slash and a length; the address may have bits beyond the length."""
    address, _, length = text.partition("/")
    bits = {4: 32, 6: 128}.get(version(address) or 0, -1)
    return length.isascii() and length.isdigit() and int(length) <= bits


def _service_problems(service: kube.Service) -> Iterator[Problem]:
    yield from _name_problems(service)
    yield from _port_problems(service)
    for path, text in _addresses(service):
        if version(text) is None:
            yield _problem(service, path, f"{text!r} is not an IP address")
    for index, text in enumerate(service.spec.load_balancer_source_ranges):
        if not is_prefix(text.strip()):
            path = ("spec", "loadBalancerSourceRanges", index)
            yield _problem(service, path, f"{text!r} is not a prefix", "such as 10.0.0.0/8")
    if not service.spec.cluster_ip and not service.spec.cluster_ips:
        yield _problem(service, ("spec", "clusterIP"), "it has no cluster IP", "one is allocated before rules are made")


def _name_problems(service: kube.Service) -> Iterator[Problem]:
    written: list[tuple[Path, str]] = [
        (("metadata", "namespace"), service.namespace),
        (("metadata", "name"), service.name),
    ]
    written += [(("spec", "ports", i, "name"), port.name) for i, port in enumerate(service.spec.ports) if port.name]
    for path, text in written:
        if not _NAME.fullmatch(text):
            yield _problem(service, path, f"{text!r} is not a name", "lower case letters, digits and -, at most 63")


def _port_problems(service: kube.Service) -> Iterator[Problem]:
    count = Counter((port.name, port.protocol) for port in service.spec.ports)
    for (name, protocol), number in count.items():
        if number > 1:
            what = f"named {name!r}" if name else "without a name"
            yield _problem(
                service, ("spec", "ports"), f"{number} {protocol} ports are {what}", "give each its own name"
            )


def _slice_problems(piece: kube.EndpointSlice) -> Iterator[Problem]:
    if piece.address_type == "FQDN":
        return
    for index, endpoint in enumerate(piece.endpoints):
        path = ("endpoints", index, "addresses")
        if not endpoint.addresses:
            yield _problem(piece, path, "the endpoint has no address")
        for text in endpoint.addresses:
            if f"IPv{version(text)}" != piece.address_type:
                yield _problem(piece, path, f"{text!r} is not an {piece.address_type} address")


def _addresses(service: kube.Service) -> Iterator[tuple[Path, str]]:
    spec = service.spec
    if spec.cluster_ip:
        yield ("spec", "clusterIP"), spec.cluster_ip
    for index, text in enumerate(spec.cluster_ips):
        yield ("spec", "clusterIPs", index), text
    for index, text in enumerate(spec.external_ips):
        yield ("spec", "externalIPs", index), text
    for index, ingress in enumerate(service.status.load_balancer.ingress):
        if ingress.ip:
            yield ("status", "loadBalancer", "ingress", index, "ip"), ingress.ip


def _problem(item: kube.KubeObject, path: Path, message: str, hint: str = "") -> Problem:
    return Problem(f"{type(item).__name__} {item.key}: {message}", item.origin.at(*path), hint)
