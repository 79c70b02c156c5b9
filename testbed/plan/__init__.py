"""The Plan: what must exist, as plain data. It knows nothing of Kubernetes, Calico or VRF policy.

Everything here is frozen, ordered and made of strings, numbers and tuples, so that two Plans can be printed,
compared and stored. Addresses are text in CIDR form ("10.0.0.1/24"); tables are kernel table numbers (254 is
`main`); a `vrf` of None means the node's default routing instance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

MAIN_TABLE = 254
LAST_METRIC = 4278198272
"""Of the route that ends a VRF device's table. The kernel's document (networking/vrf.rst) gives it; FRR reads its first
byte, 255, as the distance of a route that is never chosen."""

InterfaceKind = Literal["veth", "bridge", "loopback", "dummy", "vrf", "vxlan"]
VrfDriver = Literal["netns", "device"]
NodeKind = Literal["router", "host", "switch", "kubernetes", "pod"]
RouteKind = Literal["unicast", "blackhole", "unreachable", "prohibit"]
RulesetTool = Literal["nft", "iptables-restore", "ip6tables-restore", "nfacct", "ipset", "ipvs"]
SecretPart = Literal["private", "public"]
Expectation = Literal["ok", "refused", "timeout", "reset", "unreachable"]
Protocol = Literal["ssh", "http", "tcp", "udp", "icmp", "dns"]


@dataclass(frozen=True, slots=True, order=True)
class TunnelPeer:
    """Another end of a tunnel.

    Args:
        address: of its node, where the packets for it are sent; on the interface it is the next hop that has `mac`.
        mac: of its interface.
    """

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What an interface puts packets into: VXLAN (RFC 7348) between nodes that the Plan names; nothing is learnt.

    Args:
        vni: VXLAN network identifier. local: the node's address that packets are sent from.
        port: of UDP, at every end. peers: those to whom it can send. All can send to it.
    """

    vni: int
    local: str
    port: int
    peers: tuple[TunnelPeer, ...] = ()


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of a node.

    Args:
        name: kernel name, at most 15 characters.
        kind: `veth` interfaces are one end of a Link; `loopback` is the namespace's own lo; `dummy` interfaces stay
            down, and only make their addresses the node's own; `vrf` is the device that makes a VRF of the same name,
            with the routing table `table`; `vxlan` puts packets into `tunnel`.
        vrf: the routing instance it belongs to; None is the default one.
        addresses: in CIDR form, in the order to be added.
        mac: fixed hardware address; empty lets the kernel choose.
        mtu: bytes; 0 keeps the kernel's default.
        master: the bridge it is a port of, or the VRF device it is enslaved to; empty for none.
        table: of a VRF device; 0 for all others. tunnel: of a VXLAN device; None for all others.
    """

    name: str
    kind: InterfaceKind = "veth"
    vrf: str | None = None
    addresses: tuple[str, ...] = ()
    mac: str = ""
    mtu: int = 0
    master: str = ""
    table: int = 0
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    node: str
    interface: str


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A veth pair between two interfaces that the nodes declare."""

    a: Endpoint
    b: Endpoint


@dataclass(frozen=True, slots=True)
class Route:
    """A kernel route. `to` is a prefix in CIDR form; without `via` it is a link route by `dev`."""

    to: str
    via: str = ""
    dev: str = ""
    table: int = MAIN_TABLE
    vrf: str | None = None
    kind: RouteKind = "unicast"
    metric: int = 0
    source: str = ""
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule (ip-rule(8)). Empty selectors match everything; `family` is 4 or 6."""

    priority: int
    table: int
    family: int = 4
    source: str = ""
    destination: str = ""
    fwmark: int = 0
    fwmask: int = 0
    iif: str = ""
    vrf: str | None = None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Text for one of the netfilter loaders, which applies it in one transaction.

    Three have texts that are compared with what is there, and the difference is applied: for `nfacct` the text is one
    accounting object name per line, for `ipset` all of the node's sets as `ipset save` prints them, for `ipvs` all of
    its virtual and real servers as `ipvsadm-save -n` prints them.

    Args:
        before_routes: in a lab that runs, a changed one is loaded on every node before routes and rules of any node
            change, and one that goes is taken away after that; for `nft` in the default routing instance.
    """

    name: str
    tool: RulesetTool
    text: str
    vrf: str | None = None
    before_routes: bool = False


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A part of a secret that is made at deploy time and never stands in the Plan."""

    secret: str
    part: SecretPart


@dataclass(frozen=True, slots=True)
class File:
    """A file a node sees at `path`. `content` is text, or a reference to a secret of the lab."""

    path: str
    content: str | SecretRef
    mode: int = 0o644
    owner: str = "root"


@dataclass(frozen=True, slots=True)
class Ready:
    """When a process counts as ready.

    Args:
        kind: `listen` (a TCP socket listens on `port` in the process's namespace), `listen-udp`, `path` (a file or
            socket exists at `path`), `running` (the process was started).
    """

    kind: Literal["running", "listen", "listen-udp", "path"] = "running"
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A program that runs in a node.

    Args:
        name: unique in the node; names its log.
        argv: the command, its program as an absolute path.
        env: pairs, added to a minimal environment.
        vrf: the routing instance whose sockets it gets.
        after: processes of the same node that must be ready before it is started.
        reload: how a change of `files` is taken over: `restart`, or `vtysh` (FRR), `hup` (SIGHUP), `bird` (birdc).
        reload_command: what is run in the node for `bird`.
        files: paths whose change concerns this process; for `vtysh` the first is its configuration.
        configure: a command that is run in the node each time this process was started and is ready; what comes after
            it waits for the command, too. Where it fails, that is told, and the lab goes on.
        by_image: the node's own image starts it; it is only waited for.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    vrf: str | None = None
    ready: Ready = Ready()
    after: tuple[str, ...] = ()
    reload: Literal["restart", "vtysh", "hup", "bird"] = "restart"
    reload_command: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    directory: str = "/"
    configure: tuple[str, ...] = ()
    by_image: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A set of namespaces (or a container) and all that is in it.

    Args:
        parent: for a pod, the node it runs on; its life ends with it.
        vrfs: routing instances besides the default one. One that has an interface of kind `vrf` and of its name is
            that device, in the node's only network namespace; another is a network namespace of its own.
        sysctls: (key, value) pairs, keys with slashes below /proc/sys ("net/ipv4/ip_forward"), applied in order in
            the default instance and in every VRF's where they exist there.
        directories: (path, owner) pairs that must exist before any file or process.
        commands: run once, in order, when the node is new and its links and processes are ready. Those of one node
            come after those of the nodes before it in the Plan. A failing one is told, and the lab goes on.
        image: on a container runtime, the image of a container that starts its programs itself; "" for testbed/node,
            whose programs the runtime starts.
        entrypoint, cmd: replace those of `image`; () for its own. env: is added to that of `image`.
    """

    name: str
    kind: NodeKind
    hostname: str = ""
    parent: str = ""
    vrfs: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    directories: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()
    processes: tuple[Process, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    image: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    @property
    def vrf_devices(self) -> tuple[str, ...]:
        """The VRFs that are devices."""
        return tuple(entry.name for entry in self.interfaces if entry.kind == "vrf")

    @property
    def vrf_namespaces(self) -> tuple[str, ...]:
        """The VRFs that are network namespaces."""
        devices = self.vrf_devices
        return tuple(vrf for vrf in self.vrfs if vrf not in devices)


@dataclass(frozen=True, slots=True, order=True)
class BgpSession:
    """A session that must be Established, asked of `daemon` ("frr" or "bird") in `node`.

    Args:
        peer: the neighbour's address. peer_name: the neighbour in the user's words.
        protocol: the name of the BIRD protocol; empty for FRR.
        socket: path, in the node, of the daemon's control socket.
    """

    node: str
    vrf: str | None
    peer: str
    peer_name: str
    daemon: Literal["frr", "bird"]
    socket: str
    protocol: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ExpectedRoute:
    """A route that BGP must have put into a node's kernel table.

    Args:
        table: that of the VRF's device, if it is one.
        next_hops: how many it must have at least. With fewer than it will have, what is in flight may yet be moved.
    """

    node: str
    vrf: str | None
    prefix: str
    table: int = MAIN_TABLE
    next_hops: int = 1


@dataclass(frozen=True, slots=True)
class Service:
    """A Kubernetes Service as `status` shows it."""

    name: str
    namespace: str
    type: str
    cluster_ips: tuple[str, ...]
    ports: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    announced_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowStep:
    """A place that a flow's first packet, or the first of the answer, must pass, and what it must then look like.

    Args:
        node: node or pod. vrf: it must be in, come from or go to.
        enters, leaves: the interface it must come in or go out by, or the VRF that lies behind that; empty: any.
        source, destination: addresses any of which it must have as it goes out (at the end: as it came in); empty: any.
        port: its destination port then; 0: any.
        reply: whether it is the answer's packet.
    """

    node: str
    vrf: str = ""
    enters: str = ""
    leaves: str = ""
    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    port: int = 0
    reply: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """One question to the live network and the answer it must give, with every name resolved.

    Args:
        source: node or pod the probe starts in. address, port: what it connects to (port 0 for icmp).
        seen_as: addresses any of which the server must have seen as its peer; empty: not checked.
        answered_by: nodes or pods (hostnames) any of which must have answered; empty: not checked.
        via: (node, vrf or None) that must have carried the flow's packets. not_via: that must not.
        http_host, http_path, status: for http. command, output: for ssh (output must be contained).
        forwarded_for: addresses any of which X-Forwarded-For must have held at the backend.
        query, answer: for dns, a name and the address it must have.
        timeout: seconds to wait for an answer, also before `timeout` is the verdict.
        steps: what its packets must do on their way.
    """

    name: str
    source: str
    address: str
    protocol: Protocol
    port: int = 0
    target: str = ""
    expect: Expectation = "ok"
    seen_as: tuple[str, ...] = ()
    answered_by: tuple[str, ...] = ()
    via: tuple[tuple[str, str | None], ...] = ()
    not_via: tuple[tuple[str, str | None], ...] = ()
    http_host: str = ""
    http_path: str = "/"
    status: int = 0
    forwarded_for: tuple[str, ...] = ()
    user: str = "root"
    command: str = ""
    output: str = ""
    query: str = ""
    answer: str = ""
    timeout: float = 1.0
    steps: tuple[FlowStep, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node of the lab that a container of the cluster is; `name` is its name in the Plan and in Kubernetes."""

    name: str
    role: Literal["control-plane", "worker"]
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KubeObject:
    """A Kubernetes object as JSON text, and where it was written (file:line:column)."""

    text: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes cluster that kind makes, whose nodes get the links of the lab's.

    Args:
        image: of its nodes. kube_proxy_mode: in kind's words.
        nodes: the first is the control plane.
        upstream: manifests that are installed first, as https addresses or absolute paths.
        images: that nodes get from this machine: names, or absolute paths of archives.
        settings: environment of Calico's node agent, (name, value).
        objects: the lab's own, in the order in which they are applied.
        timeout: seconds until it is there and at work.
    """

    image: str
    pod_subnet: str
    service_subnet: str
    kube_proxy_mode: str
    nodes: tuple[ClusterNode, ...]
    upstream: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    objects: tuple[KubeObject, ...] = ()
    timeout: float = 900.0

    @property
    def names(self) -> frozenset[str]:
        """The nodes' names."""
        return frozenset(node.name for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that must exist for one lab.

    Args:
        secrets: names of Ed25519 key pairs to make, random, per lab.
        sessions, routes: what readiness waits for, besides the processes' own checks.
        cluster: made by kind; an embedded one is nodes, pods and links like all else.
        notes: what the lab's author should know of how it is run, a sentence each.
        vrf_driver: what the VRFs of its nodes are: network namespaces, or devices (Linux
            Documentation/networking/vrf.rst).
        not_ready: nodes of the embedded cluster that have ended, and are not to be made anew: what the others do is
            what Kubernetes has them do then.
    """

    name: str
    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    secrets: tuple[str, ...] = ()
    sessions: tuple[BgpSession, ...] = ()
    routes: tuple[ExpectedRoute, ...] = ()
    services: tuple[Service, ...] = ()
    flows: tuple[Flow, ...] = ()
    description: str = field(default="")
    cluster: Cluster | None = None
    notes: tuple[str, ...] = ()
    vrf_driver: VrfDriver = "netns"
    not_ready: tuple[str, ...] = ()

    def present(self) -> Plan:
        """What there is of it while the nodes that are not ready are gone."""
        return self.without(self.not_ready)

    def without(self, names: Iterable[str]) -> Plan:
        """The Plan without these nodes, their pods and their links."""
        ended = set(names)
        gone = {node.name for node in self.nodes if {node.name, node.parent} & ended}
        if not gone:
            return self
        lost = [link for link in self.links if {link.a.node, link.b.node} & gone]
        ends = {(end.node, end.interface) for link in lost for end in (link.a, link.b)}
        left = (node for node in self.nodes if node.name not in gone)
        nodes = (
            replace(node, interfaces=tuple(entry for entry in node.interfaces if (node.name, entry.name) not in ends))
            for node in left
        )
        return replace(self, nodes=tuple(nodes), links=tuple(link for link in self.links if link not in lost))

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
