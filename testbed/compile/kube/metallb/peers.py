"""BGP peers: a BGPPeer as FRR will be told, and what MetalLB (and FRR) refuse in it.

Behaviour after MetalLB's documentation and recordings of the program in FRR mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from testbed.compile.kube.metallb.common import problem, selected, selector_problems
from testbed.compile.kube.metallb.pools import parse_address
from testbed.errors import Problem
from testbed.model.kube import Node
from testbed.model.metallb import BGPPeer, BGPPeerSpec, LabelSelector, seconds
from testbed.model.workloads import Secret

SHORTEST_HOLD = 3  # seconds, RFC 4271 4.2
LONGEST_CONNECT = 65535  # seconds, the API's limit
_BASIC_AUTH = "kubernetes.io/basic-auth"


@dataclass(frozen=True, slots=True)
class Peer:
    """A session that every selected node opens.

    Args:
        remote_as: the peer's AS number, or "internal" or "external" where it is learnt.
        local_asn: the AS number shown to the peer instead of `my_asn`; 0 for none.
        address, interface: one of them is set; an interface means an unnumbered session (RFC 5549).
        vrf: empty for the default VRF.
        hold, keepalive, connect: seconds; None leaves FRR's default.
        bfd: the name of a BFDProfile; empty for none.
    """

    name: str
    my_asn: int
    remote_as: str
    local_asn: int = 0
    address: str = ""
    interface: str = ""
    vrf: str = ""
    source_address: str = ""
    port: int = 179
    hold: int | None = None
    keepalive: int | None = None
    connect: int | None = None
    router_id: str = ""
    password: str = field(default="", repr=False)
    bfd: str = ""
    graceful_restart: bool = False
    multihop: bool = False
    dual_stack: bool = False
    node_selectors: tuple[LabelSelector, ...] = ()

    @property
    def neighbor(self) -> str:
        """What FRR calls it within its VRF."""
        return self.address or self.interface

    @property
    def key(self) -> str:
        """What is unique to it on one node, as MetalLB writes it."""
        return f"{self.neighbor}-{self.vrf}" if self.vrf else self.neighbor

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions whose prefixes go over the session."""
        if self.interface or self.dual_stack:
            return (4, 6)
        return (6,) if ":" in self.address else (4,)

    @property
    def internal(self) -> bool:
        """Whether it is known to be iBGP."""
        return self.remote_as in ("internal", str(self.my_asn))

    def selects(self, node: Node) -> bool:
        """Whether the node opens this session."""
        return selected(self.node_selectors, node.metadata.labels)


def read_peer(resource: BGPPeer, secrets: Mapping[str, Secret]) -> Peer:
    """The peer of a resource that `peer_problems` finds nothing wrong with."""
    spec = resource.spec
    hold, keepalive = timers(spec)
    return Peer(
        name=resource.name,
        my_asn=spec.my_asn,
        remote_as=spec.dynamic_asn or str(spec.peer_asn),
        local_asn=spec.local_asn,
        address=_canonical(spec.peer_address),
        interface=spec.interface,
        vrf=spec.vrf,
        source_address=_canonical(spec.source_address),
        port=spec.peer_port,
        hold=_whole(hold),
        keepalive=_whole(keepalive),
        connect=_whole(None if spec.connect_time is None else seconds(spec.connect_time)),
        router_id=_canonical(spec.router_id),
        password=spec.password or _secret_password(secrets.get(spec.password_secret.name)),
        bfd=spec.bfd_profile,
        graceful_restart=spec.enable_graceful_restart,
        multihop=spec.ebgp_multi_hop,
        dual_stack=spec.dual_stack_address_family,
        node_selectors=spec.node_selectors,
    )


def timers(spec: BGPPeerSpec) -> tuple[Fraction | None, Fraction | None]:
    """Hold and keepalive time in seconds: the one that is missing follows from the other; both None for neither."""
    hold = None if spec.hold_time is None else seconds(spec.hold_time)
    keepalive = None if spec.keepalive_time is None else seconds(spec.keepalive_time)
    if hold is None and keepalive is not None:
        return keepalive * 3, keepalive
    if hold is not None and keepalive is None:
        return hold, hold / 3
    return hold, keepalive


def peer_problems(resource: BGPPeer, secrets: Mapping[str, Secret], profiles: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with one peer by itself, given MetalLB's secrets and the names of the BFD profiles."""
    yield from _asn_problems(resource)
    yield from _address_problems(resource)
    yield from _timer_problems(resource)
    yield from selector_problems(resource, ("spec", "nodeSelectors"), resource.spec.node_selectors)
    yield from _password_problems(resource, secrets)
    yield from _text_problems(resource)
    profile = resource.spec.bfd_profile
    if profile and profile not in profiles:
        message = f"peer {resource.name} referencing non existing bfd profile {profile}"
        yield problem(resource, ("spec", "bfdProfile"), message)


def conflicts(peers: Sequence[tuple[BGPPeer, Peer]], nodes: Sequence[Node]) -> Iterator[Problem]:
    """A problem for each peer that cannot be together with an earlier one on a node that both select."""
    found: dict[tuple[str, str], Problem] = {}
    for node in nodes:
        here = [(resource, peer) for resource, peer in peers if peer.selects(node)]
        for index, (resource, peer) in enumerate(here):
            for path, message in _conflicts_with(peer, [other for _, other in here[:index]]):
                found.setdefault((peer.name, path), problem(resource, ("spec", path), message))
    yield from found.values()


def _conflicts_with(peer: Peer, others: Sequence[Peer]) -> Iterator[tuple[str, str]]:
    """(field, message) of each rule of FRR mode that the peer breaks beside the others of its node."""
    if any(other.key == peer.key for other in others):
        path = "peerAddress" if peer.address else "interface"
        message = "FRR mode doesn't support duplicate BGPPeers selecting the same node"
        yield path, f"peer {peer.key} already exists, {message}"
    for other in others:
        if other.router_id != peer.router_id:
            message = "in FRR mode peers selecting the same node must all have the same RouterID"
            yield "routerID", f"peer {peer.router_id} has RouterID different from {other.router_id}, {message}"
        if other.vrf == peer.vrf and other.my_asn != peer.my_asn:
            message = "in FRR mode peers selecting the same node must have the same myAsn within the same VRF"
            yield "myASN", f"peer {peer.neighbor} has myAsn different from {other.neighbor}, {message}"


def _asn_problems(resource: BGPPeer) -> Iterator[Problem]:
    spec = resource.spec
    if not spec.my_asn:
        yield problem(resource, ("spec", "myASN"), "missing local ASN")
    if not spec.peer_asn and not spec.dynamic_asn:
        yield problem(resource, ("spec",), "missing peer ASN and dynamicASN")
    if spec.peer_asn and spec.dynamic_asn:
        yield problem(resource, ("spec", "dynamicASN"), "both peer ASN and dynamicASN specified")
    if spec.peer_asn == spec.my_asn and spec.ebgp_multi_hop:
        yield problem(resource, ("spec", "ebgpMultiHop"), "invalid ebgp-multihop parameter set for an ibgp peer")


def _address_problems(resource: BGPPeer) -> Iterator[Problem]:
    spec = resource.spec
    if not spec.peer_address and not spec.interface:
        yield problem(resource, ("spec",), "peer has no Address or Interface specified")
    if spec.peer_address and spec.interface:
        yield problem(resource, ("spec", "interface"), "peer has both Address and Interface specified")
    if spec.peer_address and parse_address(spec.peer_address) is None:
        yield problem(resource, ("spec", "peerAddress"), f'invalid BGPPeer address "{spec.peer_address}"')
    if spec.source_address and parse_address(spec.source_address) is None:
        yield problem(resource, ("spec", "sourceAddress"), f'invalid source IP "{spec.source_address}"')
    if spec.router_id and parse_address(spec.router_id) is None:
        yield problem(resource, ("spec", "routerID"), f'invalid router ID "{spec.router_id}"')
    elif ":" in spec.router_id:
        yield problem(resource, ("spec", "routerID"), f'FRR refuses the IPv6 router ID "{spec.router_id}"', "give IPv4")


def _timer_problems(resource: BGPPeer) -> Iterator[Problem]:
    spec = resource.spec
    hold, keepalive = timers(spec)
    if hold is not None and keepalive is not None:
        if int(hold) != 0 and hold < SHORTEST_HOLD:
            yield problem(resource, ("spec", "holdTime"), f'invalid hold time "{spec.hold_time}": must be 0 or >=3s')
        if keepalive > hold:
            message = f'invalid keepaliveTime "{spec.keepalive_time}", must be lower than holdTime "{spec.hold_time}"'
            yield problem(resource, ("spec", "keepaliveTime"), message)
    if spec.connect_time is not None:
        connect = seconds(spec.connect_time)
        if connect.denominator != 1:
            message = f'connect time should contain a whole number of seconds, not "{spec.connect_time}"'
            yield problem(resource, ("spec", "connectTime"), message)
        elif not 1 <= connect <= LONGEST_CONNECT:
            message = f'connect time should be between 1 second and {LONGEST_CONNECT}, not "{spec.connect_time}"'
            yield problem(resource, ("spec", "connectTime"), message)


def _password_problems(resource: BGPPeer, secrets: Mapping[str, Secret]) -> Iterator[Problem]:
    spec, path = resource.spec, ("spec", "passwordSecret")
    if not spec.password_secret.name:
        return
    if spec.password:
        yield problem(resource, path, "can not have both password and secret ref set in peer config")
    secret = secrets.get(spec.password_secret.name)
    if secret is None or spec.password_secret.namespace not in ("", secret.namespace):
        yield problem(resource, path, f"secret ref not found for peer config: {spec.password_secret.name}")
    elif secret.type != _BASIC_AUTH:
        message = f'secret type mismatch on "{secret.namespace}"/"{secret.name}", type "{_BASIC_AUTH}" is expected'
        yield problem(resource, path, message)
    elif not _secret_password(secret):
        message = f'password not specified in the secret "{secret.namespace}"/"{secret.name}"'
        yield problem(resource, path, message)
    elif not _one_word(_secret_password(secret)):
        yield problem(resource, path, "FRR refuses a password with white space in it")


def _text_problems(resource: BGPPeer) -> Iterator[Problem]:
    """White space would end the word in FRR's configuration: FRR refuses the line, or worse, reads another one."""
    for name, text in (("interface", resource.spec.interface), ("vrf", resource.spec.vrf)):
        if not _one_word(text):
            yield problem(resource, ("spec", name), f'invalid {name} "{text}": it has white space in it')
    if not _one_word(resource.spec.password):
        yield problem(resource, ("spec", "password"), "FRR refuses a password with white space in it")


def _one_word(text: str) -> bool:
    return not any(character.isspace() for character in text)


def _secret_password(secret: Secret | None) -> str:
    """The password a secret holds; empty when there is none."""
    return secret.texts.get("password", "") if secret else ""


def _canonical(text: str) -> str:
    address = parse_address(text)
    return text if address is None else str(address)


def _whole(duration: Fraction | None) -> int | None:
    return None if duration is None else int(duration)
