"""The lab file: what the author of a lab means. Its JSON Schema is generated from these models."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, PrivateAttr, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from testbed.model.base import Located
from testbed.model.faults import FieldError
from testbed.model.images import Image
from testbed.model.matrix import Matrix
from testbed.model.names import HOST_LABEL, host_label
from testbed.model.workloads import VariableName

API_VERSION = "testbed/v1"

# kind v0.32.0, pkg/apis/config/defaults/image.go
KIND_NODE_IMAGE = "kindest/node:v1.36.1@sha256:3489c7674813ba5d8b1a9977baea8a6e553784dab7b84759d1014dbd78f7ebd5"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_VRF_NAME = r"[a-z0-9][a-z0-9_-]{0,14}"
_INTERFACE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
_LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_RESERVED = ("all", "default", "lo")  # entries of /proc/sys/net/*/conf that are no interface of the lab's

# What no interface can have: RFC 1122 (this network, loopback), RFC 5771, RFC 919; RFC 4291 for IPv6.
_NOT_FOR_LINKS = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8")
)


def _vrf(value: str) -> str:
    """A VRF's name is also that of a device (in the VRF driver `device`), and `default` is FRR's own VRF."""
    if not re.fullmatch(_VRF_NAME, value) or value in _RESERVED:
        allowed = "lower-case letters, digits, '_' and '-', at most 15, not lo, all or default"
        raise ValueError(f"{value!r} is no legal VRF name: {allowed}")
    return value


def _interface(value: str) -> str:
    """Linux dev_valid_name(): at most 15 bytes, no slash, no white space, not . or .. — and no colon."""
    if not re.fullmatch(_INTERFACE_NAME, value) or value in _RESERVED:
        allowed = "letters, digits, '_', '-', '.', at most 15, not lo, all or default"
        raise ValueError(f"{value!r} is no legal interface name: {allowed}")
    return value


def _label_value(value: str) -> str:
    if not re.fullmatch(_LABEL_VALUE, value):
        raise ValueError(f"{value!r} is no label value: letters, digits, '-', '_', '.', at most 63")
    return value


def _label_key(value: str) -> str:
    prefix, slash, name = value.rpartition("/")
    legal_prefix = all(re.fullmatch(HOST_LABEL, label) for label in prefix.split(".")) if slash else True
    if not name or not re.fullmatch(_LABEL_VALUE, name) or not legal_prefix or len(prefix) > 253:
        raise ValueError(f"{value!r} is no label: write NAME or a.domain/NAME, NAME as a label value")
    return value


def _parsed_network(value: str) -> Network:
    """A prefix as ADDRESS/LENGTH; ip_network alone also takes masks, and a bare address as a prefix of one."""
    address, slash, length = value.partition("/")
    if not slash:
        raise ValueError(f"{value!r} is no prefix: it has no length, such as /24")
    if not re.fullmatch(r"[0-9]{1,3}", length, re.ASCII) or "%" in address:
        raise ValueError(f"{value!r} is no prefix: write ADDRESS/LENGTH, such as 10.0.0.0/24")
    network = ipaddress.ip_network(value, strict=False)
    if network.network_address != ipaddress.ip_address(address):
        raise ValueError(f"{value!r} is no prefix, for it has host bits set: {network} is the one it is in")
    return network


def _network(version: int, *, for_links: bool = True) -> AfterValidator:
    def check(value: str) -> str:
        network = _parsed_network(value)
        if network.version != version:
            raise ValueError(f"{value!r} is not an IPv{version} prefix")
        if for_links and any(network.version == other.version and network.overlaps(other) for other in _NOT_FOR_LINKS):
            raise ValueError(f"{value!r} holds addresses that no interface can have")
        return str(network)

    return AfterValidator(check)


def _address(version: int) -> AfterValidator:
    def check(value: str) -> str:
        address = ipaddress.ip_address(value)
        if address.version != version or "%" in value:
            raise ValueError(f"{value!r} is not an IPv{version} address")
        return str(address)

    return AfterValidator(check)


def _prefix(value: str) -> str:
    return str(_parsed_network(value))


def _any_address(value: str) -> str:
    if "%" in value:
        raise ValueError(f"{value!r} is not an address")
    return str(ipaddress.ip_address(value))


def _router_id(value: str) -> str:
    if value == "0.0.0.0":  # noqa: S104 - a value that RFC 6286 excludes, nothing is bound
        raise ValueError("a BGP router id is not 0.0.0.0")
    return value


def _pinned(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._:/-]*:[A-Za-z0-9_.-]+@sha256:[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is no pinned image: write NAME:TAG@sha256:DIGEST")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"v[0-9]+\.[0-9]+\.[0-9]+", value):
        raise ValueError(f"{value!r} is no version: write vMAJOR.MINOR.PATCH")
    return value


def _pattern(text: str) -> dict[str, str | int | float | bool | list[object] | dict[str, object] | None]:
    """The pattern for the JSON Schema; the validator beside it says in words what is wrong."""
    return {"pattern": f"^{text}$"}


HostName = Annotated[str, AfterValidator(host_label), Field(json_schema_extra=_pattern(HOST_LABEL))]
VrfName = Annotated[str, AfterValidator(_vrf), Field(json_schema_extra=_pattern(_VRF_NAME))]
InterfaceName = Annotated[str, AfterValidator(_interface), Field(json_schema_extra=_pattern(_INTERFACE_NAME))]
Prefix4 = Annotated[str, _network(4), Field(json_schema_extra=_pattern("[0-9.]+/[0-9]+"))]
Prefix6 = Annotated[str, _network(6), Field(json_schema_extra=_pattern("[0-9A-Fa-f:.]+/[0-9]+"))]
Address4 = Annotated[str, _address(4), Field(json_schema_extra=_pattern("[0-9.]+"))]
Address6 = Annotated[str, _address(6), Field(json_schema_extra=_pattern("[0-9A-Fa-f:.]+"))]
Destination4 = Annotated[str, _network(4, for_links=False), Field(json_schema_extra=_pattern("[0-9.]+/[0-9]+"))]
Prefix = Annotated[str, AfterValidator(_prefix), Field(json_schema_extra=_pattern("[0-9A-Fa-f:.]+/[0-9]+"))]
Address = Annotated[str, AfterValidator(_any_address), Field(json_schema_extra=_pattern("[0-9A-Fa-f:.]+"))]
RouterId = Annotated[Address4, AfterValidator(_router_id)]
Asn = Annotated[int, Field(ge=1, le=4294967295)]
Mtu = Annotated[int, Field(ge=68, le=65535)]
Port = Annotated[int, Field(ge=1, le=65535)]
LabelValue = Annotated[str, AfterValidator(_label_value), Field(json_schema_extra=_pattern(_LABEL_VALUE))]
LabelKey = Annotated[str, AfterValidator(_label_key)]
Word = Annotated[str, Field(min_length=1)]
Version = Annotated[str, AfterValidator(_version)]


class Pool(Located):
    """Prefixes that addresses are taken from; a family that is left out is not used."""

    ipv4: Prefix4 | None = None
    ipv6: Prefix6 | None = None


class Addressing(Located):
    """Where addresses come from that the lab file does not state."""

    links: Pool = Field(
        default=Pool(ipv4="10.0.0.0/16", ipv6="fd00::/48"), description="point-to-point links: /31 and /127 each"
    )
    loopbacks: Pool = Field(default=Pool(ipv4="10.255.0.0/24"), description="routers' loopbacks and router ids")


class Timers(Located):
    """BGP timers in seconds (RFC 4271)."""

    keepalive: int = Field(default=3, ge=0, le=65535)
    hold: int = Field(default=9, ge=0, le=65535)
    connect: int = Field(default=1, ge=1, le=65535)


class BgpDefaults(Located):
    """What holds for every BGP session of the lab's routers."""

    timers: Timers = Timers()


class RouterBgp(Located):
    """A router as a BGP speaker (RFC 4271)."""

    asn: Asn
    router_id: RouterId | None = Field(default=None, description="default: the IPv4 loopback")
    redistribute: tuple[Literal["connected", "static"], ...] = Field(
        default=("connected", "static"), description="routes it originates"
    )
    transit: bool = Field(default=True, description="false: it advertises only what it originates itself")
    maximum_paths: int = Field(default=64, ge=1, le=64, description="equal-cost paths that it uses")
    timers: Timers | None = Field(default=None, description="for its sessions; default: the lab's")


class StaticRoute(Located):
    """A static route; `via` is a node on one of the router's links in that VRF, or an address there."""

    to: Prefix
    via: Word
    vrf: VrfName | None = None


class Nat(Located):
    """Source NAT (IPv4): what leaves by the router's links to the node `outside` takes the router's address there."""

    outside: HostName
    vrf: VrfName | None = None


class _ReturnPath(Located):
    """Base of the two below: `returnPath: MODE` is short for `returnPath: {mode: MODE}`."""

    vrf: VrfName | None = Field(
        default=None, description="the VRF that replies shall take; default: that of the only link beside the default"
    )
    to: tuple[Destination4, ...] = Field(default=(), description="static: the prefixes of those who ask")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [{"enum": made["properties"]["mode"]["enum"]}, made]}


class HostReturnPath(_ReturnPath):
    """How a reply of a host in several VRFs finds the one its request came in by (docs/return-path.md)."""

    mode: Literal["none", "static", "rule-own-ip", "connmark"]


class NodeReturnPath(_ReturnPath):
    """How a reply that passes a Kubernetes node finds the VRF its request came in by (docs/return-path.md)."""

    mode: Literal["none", "static", "rule-lb-ip", "rule-pod-ip", "connmark", "connmark-both", "ctorigdst"]
    addresses: tuple[Destination4, ...] = Field(
        default=(), description="rule-lb-ip, ctorigdst: load balancer addresses; default: those that Services have"
    )


class Leak(Located):
    """Routes that one of a router's VRFs has from another: just these prefixes, and only this way."""

    source: VrfName = Field(alias="from")
    to: VrfName
    prefixes: tuple[Prefix, ...] = Field(min_length=1)


class _Node(Located):
    sysctls: dict[str, str | int] = Field(default_factory=dict, description="net.* settings of the node")


class Router(_Node):
    """An FRR router. It has the VRFs of its links."""

    kind: Literal["router"]
    bgp: RouterBgp | None = None
    routes: tuple[StaticRoute, ...] = ()
    nat: tuple[Nat, ...] = ()
    image: Word | None = Field(
        default=None, description="of its container on a container runtime; one that starts FRR by itself"
    )
    leaks: tuple[Leak, ...] = Field(default=(), description="routes handed from VRF to VRF; needs VRF devices and bgp")


class Host(_Node):
    """An end system. Its default route is by its only router (its first link), unless `gateway` says otherwise."""

    kind: Literal["host"]
    image: Word | None = Field(default=None, description="a program from the image catalogue that it runs")
    command: tuple[str, ...] = Field(default=(), description="replaces the image's own command")
    env: dict[VariableName, str] = Field(default_factory=dict)
    container: bool = Field(
        default=False, description="on a container runtime it is a container of its image, run as the image says"
    )
    gateway: str = Field(
        default="", description="'none', or the router on one of its links that its default route uses"
    )
    return_path: HostReturnPath = HostReturnPath(mode="none")


class KubernetesNode(_Node):
    """A node of the lab's Kubernetes cluster."""

    refused: ClassVar[Mapping[str, str]] = {"image": "its pods and VRFs are made by the project's own image"}

    kind: Literal["kubernetes"]
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    return_path: NodeReturnPath | None = Field(default=None, description="default: the cluster's")


Node = Annotated[Router | Host | KubernetesNode, Field(discriminator="kind")]


class LinkEnd(Located):
    """One end of a link, where more than its node's name must be said."""

    node: HostName
    interface: InterfaceName | None = None
    ipv4: Address4 | None = None
    ipv6: Address6 | None = None


class Link(Located):
    """A cable between two nodes, or, with more ends, an Ethernet segment that its first end, a router, switches.

    With `vrfs` it stands for one link per VRF. On routers the link belongs to its VRF; hosts and Kubernetes nodes have
    all their links in their one routing instance, but for the cluster's `nodeVrfs`. A link that states a subnet has no
    other; one that states none has those of the pool.
    """

    endpoints: tuple[HostName | LinkEnd, ...] = Field(min_length=2)
    vrf: VrfName | None = None
    vrfs: tuple[VrfName, ...] = ()
    ipv4: Prefix4 | None = Field(default=None, description="its subnet; default: from the pool")
    ipv6: Prefix6 | None = None
    mtu: Mtu | None = None
    bgp: bool = Field(default=False, description="whether its routers are BGP neighbours over it")

    _ends: tuple[LinkEnd, ...] = PrivateAttr(default=())

    def model_post_init(self, _: Any) -> None:
        self._ends = tuple(end if isinstance(end, LinkEnd) else LinkEnd(node=end) for end in self.endpoints)

    @property
    def ends(self) -> tuple[LinkEnd, ...]:
        """The endpoints, short forms written out."""
        return self._ends

    @property
    def instances(self) -> tuple[str | None, ...]:
        """The VRFs it runs in, one link each."""
        return self.vrfs or (self.vrf,)


class ClusterRoute(Located):
    """A route (IPv4) on every node of the cluster, by the node's gateway in a VRF."""

    to: Destination4
    vrf: VrfName


class Kind(Located):
    """How kind makes the cluster, where `provider` is `kind`. Versions are pinned: a lab is the same tomorrow."""

    image: Annotated[str, AfterValidator(_pinned)] = Field(
        default=KIND_NODE_IMAGE, description="the nodes' image, as NAME:TAG@sha256:DIGEST; default: kind 0.32's own"
    )
    calico: Version = Field(default="v3.32.1", description="from 3.32 on, whose resources are CRDs of their own")
    metallb: Version = "v0.16.1"
    offline: str = Field(
        default="",
        description="a folder, relative to the lab file, that stands for the network: calico-v3-crds.yaml and "
        "metallb-frr.yaml, and *.tar of images",
    )
    install: tuple[str, ...] = Field(
        default=(),
        description="more manifests, https:// or relative to the lab file, as they are, before the lab's own",
    )
    images: tuple[Word, ...] = Field(default=(), description="images of this machine's engine that nodes get")
    timeout: int = Field(default=900, ge=1, le=86400, description="seconds until the cluster is there and at work")


class Cluster(Located):
    """A Kubernetes cluster over the lab's nodes of kind `kubernetes`. Field names as in kind's configuration."""

    name: HostName
    provider: Literal["embedded", "kind"] = Field(
        default="embedded", description="kind: a real Kubernetes in containers, which needs --runtime docker"
    )
    kind: Kind | None = Field(default=None, description="how kind makes it")
    pod_subnet: Prefix4 = "192.168.0.0/16"
    service_subnet: Prefix4 = "10.96.0.0/16"
    kube_proxy_mode: Literal["iptables", "nftables", "ipvs"] = "iptables"
    manifests: tuple[str, ...] = Field(default=(), description="files and folders, relative to the lab file")
    default_route: VrfName | None = Field(default=None, description="the VRF the nodes' default route leads into")
    routes: tuple[ClusterRoute, ...] = ()
    node_vrfs: tuple[VrfName, ...] = Field(
        default=(), description="VRFs of the lab that the nodes have as VRF devices of their own"
    )
    return_path: NodeReturnPath = Field(default=NodeReturnPath(mode="none"), description="of each of its nodes")


class FlowTarget(Located):
    """Where a flow starts or ends: one of the first six.

    With a workload, `node` picks among its pods. With a node alone, `vrf` picks among its addresses.
    """

    PODS: ClassVar[tuple[str, ...]] = ("deployment", "daemonset", "statefulset", "pod")

    node: HostName | None = None
    deployment: Word | None = None
    daemonset: Word | None = None
    statefulset: Word | None = None
    pod: Word | None = None
    service: Word | None = None
    address: Address | None = None
    vrf: VrfName | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        words = [word for word in (*self.PODS, "service", "address") if getattr(self, word) is not None]
        if not words and self.node is None:
            raise ValueError(f"one of node, {', '.join(self.PODS)}, service, address is needed")
        if len(words) > 1:
            raise FieldError(f"a place is either a {words[0]} or a {words[1]}", words[1])
        if self.node is not None and words and words[0] not in self.PODS:
            raise FieldError(f"a place is either a {words[0]} or a node", "node")
        if self.vrf is not None and words:
            raise FieldError(f"a vrf picks among a node's addresses, and this place is a {words[0]}", "vrf")
        return self

    @property
    def pods(self) -> tuple[str, str]:
        """(word, name) of the workload; empty texts where it is none."""
        return next(((word, getattr(self, word)) for word in self.PODS if getattr(self, word)), ("", ""))


Names = tuple[str, ...]
Places = str | FlowTarget | tuple[str | FlowTarget, ...]


class FlowStep(Located):
    """One numbered step of a flow's walk: where its first packet passes, and what it looks like as it goes out there.

    At the end of the way: as it came in.
    """

    at: str | FlowTarget = Field(description="a node, or a workload's pod")
    vrf: VrfName | None = Field(default=None, description="that it is in, or comes from, or goes to")
    enters: Word | None = Field(default=None, alias="in", description="the interface, or the VRF behind it")
    leaves: Word | None = Field(default=None, alias="out", description="the interface, or the VRF behind it")
    source: Places = Field(default=(), alias="from", description="whose address its source is, any of these")
    to: Places = Field(default=(), description="whose address its destination is, any of these")
    port: Port | None = Field(default=None, description="its destination port")
    reply: bool = Field(default=False, description="the first packet of the answer, not of the request")


class Flow(Located):
    """A question to the live network, and the answer it must give.

    Places are written as a node's name, `deployment/NAME`, `daemonset/NAME`, `statefulset/NAME`, `pod/NAME`,
    `service/NAME` (with `NAMESPACE/` before NAME outside `default`), an address, or as a mapping with these words.
    """

    name: HostName
    source: str | FlowTarget = Field(alias="from")
    to: str | FlowTarget
    protocol: Literal["ssh", "http", "tcp", "udp", "icmp", "dns"]
    port: Port | None = Field(default=None, description="default: the Service's only port, else the protocol's own")
    family: Literal["IPv4", "IPv6"] = "IPv4"
    expect: Literal["ok", "refused", "timeout", "reset", "unreachable"] = "ok"
    seen_as: Places = Field(default=(), description="whose address the server must have seen, any of these")
    answered_by: Places = Field(default=(), description="who must have answered, any of these")
    via: Names = Field(default=(), description="nodes that the packets must have passed")
    not_via: Names = Field(default=(), description="nodes that no packet may have passed")
    vrf: VrfName | None = Field(default=None, description="the VRF of the routers in `via` and `notVia`")
    host: str = Field(default="", description="http: the Host header")
    path: str = Field(default="/", pattern="^/", description="http: what is asked for")
    status: int | None = Field(default=None, ge=100, le=599)
    forwarded_for: Places = Field(
        default=(), description="http: whose address X-Forwarded-For must hold at the backend"
    )
    user: str = "root"
    command: str = Field(default="", description="ssh: what to run")
    output: str = Field(default="", description="ssh: what its output must contain")
    query: str = Field(default="", description="dns: the name to ask for")
    answer: Address | None = Field(default=None, description="dns: the address it must have; IPv6 asks for AAAA")
    timeout: float = Field(default=1.0, gt=0, le=60, description="seconds without an answer that make a time-out")
    steps: tuple[FlowStep, ...] = Field(default=(), description="what the packets do on their way, in this order")


class Lab(Located):
    """A lab: nodes, links between them, a Kubernetes cluster, and the flows that must work or must not."""

    api_version: Literal["testbed/v1"]
    name: HostName
    description: str = ""
    addressing: Addressing = Addressing()
    bgp: BgpDefaults = BgpDefaults()
    vrfs: tuple[VrfName, ...] = ()
    vrf_driver: Literal["auto", "netns", "device"] = Field(
        default="auto", description="what VRFs are: network namespaces, or kernel VRF devices; auto: by the kernel"
    )
    nodes: dict[HostName, Node] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    images: tuple[Image, ...] = Field(default=(), description="more entries for the image catalogue")
    cluster: Cluster | None = None
    flows: tuple[Flow, ...] = ()
    matrix: Matrix | None = None
