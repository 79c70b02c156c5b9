"""The lab file: what the author of a lab means. Its JSON Schema is generated from these models."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from testbed.model.base import Located
from testbed.model.images import Image

API_VERSION = "testbed/v1"


def _label(value: str) -> str:
    """A host name label (RFC 1123), short enough that interface names made from it stay legal."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", value) or len(value) > 63:
        raise ValueError("not a legal host name: lower-case letters, digits and inner hyphens, at most 63")
    return value


def _interface(value: str) -> str:
    """Linux dev_valid_name(): at most 15 bytes, no slash, no white space, not . or .. — and no colon."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", value) or value in ("all", "default", "lo"):
        raise ValueError(
            "not a legal interface name: letters, digits, '_', '-', '.', at most 15, not lo, all or default"
        )
    return value


def _network(version: int) -> AfterValidator:
    def check(value: str) -> str:
        network = ipaddress.ip_network(value)
        if network.version != version:
            raise ValueError(f"not an IPv{version} prefix")
        return str(network)

    return AfterValidator(check)


def _address(version: int) -> AfterValidator:
    def check(value: str) -> str:
        address = ipaddress.ip_address(value)
        if address.version != version:
            raise ValueError(f"not an IPv{version} address")
        return str(address)

    return AfterValidator(check)


def _prefix(value: str) -> str:
    return str(ipaddress.ip_network(value))


HostName = Annotated[str, AfterValidator(_label)]
VrfName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,14}$")]
InterfaceName = Annotated[str, AfterValidator(_interface)]
Prefix4 = Annotated[str, _network(4)]
Prefix6 = Annotated[str, _network(6)]
Address4 = Annotated[str, _address(4)]
Address6 = Annotated[str, _address(6)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Asn = Annotated[int, Field(ge=1, le=4294967295)]
Mtu = Annotated[int, Field(ge=68, le=65535)]
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, Field(max_length=63)]


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
    router_id: Address4 | None = Field(default=None, description="default: the IPv4 loopback")
    redistribute: tuple[Literal["connected", "static"], ...] = Field(
        default=("connected", "static"), description="routes it originates"
    )
    transit: bool = Field(default=True, description="false: it advertises only what it originates itself")
    maximum_paths: int = Field(default=64, ge=1, le=64, description="equal-cost paths that it uses")
    timers: Timers | None = Field(default=None, description="for its sessions; default: the lab's")


class StaticRoute(Located):
    """A static route; `via` is a node on one of the router's links, or an address."""

    to: Prefix
    via: str
    vrf: VrfName | None = None


class Nat(Located):
    """Source NAT: what leaves towards `outside`, a node on one of the router's links, takes the router's address."""

    outside: HostName
    vrf: VrfName | None = None


class _Node(Located):
    sysctls: dict[str, str | int] = Field(default_factory=dict, description="net.* settings of the node")


class Router(_Node):
    """An FRR router. It has the VRFs of its links."""

    kind: Literal["router"]
    bgp: RouterBgp | None = None
    routes: tuple[StaticRoute, ...] = ()
    nat: tuple[Nat, ...] = ()


class Host(_Node):
    """An end system. It has a default route by its only router, unless `gateway` says otherwise."""

    kind: Literal["host"]
    image: str | None = Field(default=None, description="a program from the image catalogue that it runs")
    command: tuple[str, ...] = Field(default=(), description="replaces the image's own command")
    env: dict[str, str] = Field(default_factory=dict)
    gateway: str = Field(
        default="", description="'none', or the router on one of its links that its default route uses"
    )


class KubernetesNode(_Node):
    """A node of the lab's Kubernetes cluster."""

    kind: Literal["kubernetes"]
    labels: dict[str, Label] = Field(default_factory=dict)


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
    all their links in their one routing instance.
    """

    endpoints: tuple[HostName | LinkEnd, ...] = Field(min_length=2)
    vrf: VrfName | None = None
    vrfs: tuple[VrfName, ...] = ()
    ipv4: Prefix4 | None = Field(default=None, description="its subnet; default: from the pool")
    ipv6: Prefix6 | None = None
    mtu: Mtu | None = None
    bgp: bool = Field(default=False, description="whether its routers are BGP neighbours over it")

    @property
    def ends(self) -> tuple[LinkEnd, ...]:
        """The endpoints, short forms written out."""
        return tuple(end if isinstance(end, LinkEnd) else LinkEnd(node=end) for end in self.endpoints)

    @property
    def instances(self) -> tuple[str | None, ...]:
        """The VRFs it runs in, one link each."""
        return self.vrfs or (self.vrf,)


class ClusterRoute(Located):
    """A route on every node of the cluster, by the node's gateway in a VRF."""

    to: Prefix
    vrf: VrfName


class Cluster(Located):
    """A Kubernetes cluster over the lab's nodes of kind `kubernetes`. Field names as in kind's configuration."""

    name: HostName
    provider: Literal["embedded"] = "embedded"
    pod_subnet: Prefix4 = "192.168.0.0/16"
    service_subnet: Prefix4 = "10.96.0.0/16"
    kube_proxy_mode: Literal["iptables"] = "iptables"
    manifests: tuple[str, ...] = Field(default=(), description="files and folders, relative to the lab file")
    default_route: VrfName | None = Field(default=None, description="the VRF the nodes' default route leads into")
    routes: tuple[ClusterRoute, ...] = ()
    return_path: Literal["none", "connmark"] = Field(
        default="none", description="how a reply finds the VRF its request came in by"
    )


class FlowTarget(Located):
    """Where a flow starts or ends. One of the first six; `node` also picks among a workload's pods, `vrf` among a node's addresses."""

    node: HostName | None = None
    deployment: str | None = None
    daemonset: str | None = None
    statefulset: str | None = None
    pod: str | None = None
    service: str | None = None
    address: str | None = None
    vrf: VrfName | None = None


Names = tuple[str, ...]
Places = str | FlowTarget | tuple[str | FlowTarget, ...]


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
    expect: Literal["ok", "refused", "timeout", "unreachable"] = "ok"
    seen_as: Places = Field(default=(), description="whose address the server must have seen, any of these")
    answered_by: Places = Field(default=(), description="who must have answered, any of these")
    via: Names = Field(default=(), description="nodes that the packets must have passed")
    not_via: Names = ()
    vrf: VrfName | None = Field(default=None, description="the VRF of the routers in `via` and `notVia`")
    host: str = Field(default="", description="http: the Host header")
    path: str = Field(default="/", pattern="^/")
    status: int | None = Field(default=None, ge=100, le=599)
    forwarded_for: Places = Field(
        default=(), description="http: whose address X-Forwarded-For must hold at the backend"
    )
    user: str = "root"
    command: str = Field(default="", description="ssh: what to run")
    output: str = Field(default="", description="ssh: what its output must contain")
    query: str = Field(default="", description="dns: the name to ask for")
    answer: str = Field(default="", description="dns: the address it must have")
    timeout: float = Field(default=1.0, gt=0, le=60, description="seconds without an answer that make a time-out")


class Lab(Located):
    """A lab: nodes, links between them, a Kubernetes cluster, and the flows that must work or must not."""

    api_version: Literal["testbed/v1"]
    name: HostName
    description: str = ""
    addressing: Addressing = Addressing()
    bgp: BgpDefaults = BgpDefaults()
    vrfs: tuple[VrfName, ...] = ()
    nodes: dict[HostName, Node] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    images: tuple[Image, ...] = Field(default=(), description="more entries for the image catalogue")
    cluster: Cluster | None = None
    flows: tuple[Flow, ...] = ()
