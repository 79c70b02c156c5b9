"""Programs network namespaces, whoever made them: links, VRF devices, addresses, routes, rules, sysctls.

Everything is asserted, not assumed: programming what is there already changes nothing, so the same code brings a lab
up, restores what was broken, and applies a difference.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from testbed.errors import DeployError
from testbed.plan import Endpoint, Interface, Link, Node
from testbed.run import CLONE_NEWNET, network_namespace
from testbed.runtime import kernel, netlink

NETLINK_NETFILTER = 12  # Linux include/uapi/linux/netlink.h, and nfnetlink.h for the next two
NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_GET_STATS = 1, 2, 5
LOOPBACK = 1  # the index of lo in every namespace
# The first index that we choose. Where tunnel modules are loaded, the kernel gives every new namespace a tunl0, a gre0
# and so on, with the indexes after lo's (Linux net/ipv4/ip_tunnel.c, ip_tunnel_init_net).
FIRST = 100
RISING = {"vrf": 0, "bridge": 1}  # the order in which kinds of interfaces are raised; all others after these


@dataclass
class Network:
    """A network namespace of a node, a netlink socket in it, the indexes of its interfaces.

    Args:
        vrf: the VRF that it is; None: it is the node's own, which has the default instance and all VRF devices.
    """

    node: Node
    vrf: str | None
    descriptor: int
    netlink: netlink.Netlink
    indexes: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.node.name} (VRF {self.vrf})" if self.vrf else self.node.name

    @property
    def interfaces(self) -> list[Interface]:
        return [interface for interface in self.node.interfaces if self.holds(interface.vrf)]

    def holds(self, vrf: str | None) -> bool:
        """Whether a routing instance is in this namespace."""
        return self.vrf == (vrf if vrf in self.node.vrf_namespaces else None)

    def read(self) -> None:
        """Learn which interfaces exist."""
        self.indexes = {name: index for name, (index, _) in self.netlink.links().items()}


def open_socket(descriptor: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in the network namespace behind `descriptor`; it stays there."""
    with network_namespace(descriptor):
        return socket.socket(family, kind, protocol)


def open_netlink(descriptor: int, where: str) -> netlink.Netlink:
    return netlink.Netlink(open_socket(descriptor, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE), where)


class Networks:
    """All network namespaces of some nodes, opened for programming.

    Args:
        nodes: the nodes.
        descriptor: (node name, vrf) → descriptor of the network namespace.
    """

    def __init__(self, nodes: Iterable[Node], descriptor: Callable[[str, str | None], int]) -> None:
        self._networks: dict[tuple[str, str | None], Network] = {}
        for node in nodes:
            for vrf in (None, *node.vrf_namespaces):
                fd = descriptor(node.name, vrf)
                where = f"{node.name} (VRF {vrf})" if vrf else node.name
                self._networks[node.name, vrf] = Network(node, vrf, fd, open_netlink(fd, where))

    def __enter__(self) -> Networks:
        return self

    def __exit__(self, *_: object) -> None:
        for network in self._networks.values():
            network.netlink.close()

    def all(self) -> list[Network]:
        return list(self._networks.values())

    def of(self, node: str, interface: str) -> Network:
        """The namespace an interface of a node is in."""
        plan = self._networks[node, None].node
        vrf = next(entry.vrf for entry in plan.interfaces if entry.name == interface)
        return self._networks[node, vrf if vrf in plan.vrf_namespaces else None]

    def read(self) -> None:
        """Learn which interfaces exist (a new lab has none but lo)."""
        for network in self.all():
            network.read()

    # --- asserting ------------------------------------------------------------------------------------------------

    def program(self, links: Sequence[Link]) -> None:
        """Make everything of these nodes exist. `read` must have been called if anything may exist already.

        Raises:
            DeployError: naming what the kernel refused, and where.
        """
        if tracked := [network for network in self.all() if _has_sysctl(network.node, "net/netfilter/")]:
            load_connection_tracking(tracked[0].descriptor)
        if balanced := [network for network in self.all() if _has_sysctl(network.node, "net/ipv4/vs/")]:
            load_ipvs(balanced[0].descriptor)
        for network in self.all():
            network.indexes.setdefault("lo", LOOPBACK)
            write_sysctls(network, general=True)
        self._create_links(links)
        for network in self.all():
            self._create_virtual(network)
            write_sysctls(network, general=False)
            network.netlink.apply([*raise_links(network), *addresses(network), *peers(network)])
        for network in self.all():
            network.netlink.apply([*routes(network), *rules(network)])
            if network.vrf is None and _moves_local_table(network.node):
                network.netlink.apply(netlink.first_local_rules(wanted=False))

    def _create_links(self, links: Sequence[Link]) -> None:
        for link in links:
            self._place(link.a)
            self._place(link.b)
        messages = []
        for link in links:
            a, b = self.of(link.a.node, link.a.interface), self.of(link.b.node, link.b.interface)
            if link.a.interface in a.indexes and link.b.interface in b.indexes:
                continue
            _clear(a, link.a.interface)
            _clear(b, link.b.interface)
            mtu = next(entry.mtu for entry in a.interfaces if entry.name == link.a.interface)
            messages.append(netlink.new_veth(self._new_end(a, link.a), self._new_end(b, link.b), mtu))
        if messages:
            with scratch_netlink() as channel:
                channel.apply(messages)

    def _new_end(self, network: Network, end: Endpoint) -> netlink.NewEnd:
        index, mac = self._claim(network, end.interface), hardware_address(end.node, end.interface)
        return netlink.NewEnd(end.interface, index, network.descriptor, mac)

    def _place(self, end: Endpoint) -> None:
        """Move an end of a link to the instance it belongs to, when somebody made it in the node's default one."""
        network, default = self.of(end.node, end.interface), self._networks[end.node, None]
        if network is default or end.interface in network.indexes:
            return
        if index := default.indexes.pop(end.interface, 0):
            default.netlink.apply([netlink.move_link(index, end.interface, network.descriptor)])
            network.read()

    def _claim(self, network: Network, name: str) -> int:
        """The next free index. Choosing it ourselves saves asking for it."""
        index = max(FIRST - 1, *network.indexes.values()) + 1
        network.indexes[name] = index
        return index

    def _create_virtual(self, network: Network) -> None:
        """Make bridges, dummy interfaces, VRF and VXLAN devices, which are in one namespace alone."""
        missing = [entry for entry in network.interfaces if entry.name not in network.indexes]
        messages = []
        for entry in missing:
            if entry.kind == "vrf":
                messages.append(netlink.new_vrf(entry.name, self._claim(network, entry.name), entry.table))
            elif entry.kind == "dummy":
                messages.append(netlink.new_dummy(entry.name, self._claim(network, entry.name)))
            elif entry.kind == "bridge":
                mac = hardware_address(network.node.name, entry.name)
                messages.append(netlink.new_bridge(entry.name, self._claim(network, entry.name), mac))
            elif entry.tunnel:
                messages.append(netlink.new_vxlan(entry.name, self._claim(network, entry.name), entry.tunnel))
        network.netlink.apply(messages)


def hardware_address(node: str, interface: str) -> str:
    """The address of an interface whenever it is made, locally administered (IEEE 802, bit 0x02 of the first byte).

    Where a node is made anew its neighbours go on to know it: what a random address had them know for some seconds
    (5 s, and three probes, until Linux asks again) would be wrong.
    """
    digest = hashlib.sha256(f"{node}/{interface}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _clear(network: Network, interface: str) -> None:
    """Delete an interface whose other end is not where it should be: it leads to a node that has ended since."""
    if index := network.indexes.pop(interface, 0):
        network.netlink.apply([netlink.delete_link(index, interface)])


def scratch_netlink() -> netlink.Netlink:
    """A netlink socket in a namespace of its own, which goes when the socket is closed.

    Links between namespaces are made from there: a request that names an interface index would otherwise be taken
    for one about the interface of that index in the socket's own namespace.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise DeployError(f"a new network namespace was refused: {os.strerror(ctypes.get_errno())}")
        try:
            channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        finally:
            libc.setns(own, CLONE_NEWNET)
    finally:
        os.close(own)
    return netlink.Netlink(channel, "links")


def _has_sysctl(node: Node, prefix: str) -> bool:
    return any(key.startswith(prefix) for key, _ in node.sysctls)


def _moves_local_table(node: Node) -> bool:
    """Whether a node has a rule for the local table of its own, in the place of the one that every namespace has."""
    return any(rule.table == netlink.LOCAL_TABLE and rule.vrf is None for rule in node.rules)


def load_connection_tracking(descriptor: int) -> None:
    """See to it that the kernel has connection tracking, whose sysctls exist only then.

    Where it is a module, the kernel loads it when the netfilter netlink family is asked for it (Linux
    net/netfilter/nfnetlink.c, "nfnetlink-subsys-1"). The question asked is the cheapest there is: its statistics.
    """
    request = struct.pack("=IHHIIBBH", 20, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS, 0x5, 1, 0, 0, 0, 0)
    with open_socket(descriptor, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as channel:
        channel.send(request)
        channel.recv(1 << 16)


def load_ipvs(descriptor: int) -> None:
    """See to it that the kernel has IPVS, whose sysctls exist only then: it is loaded when it is asked for by name.

    Raises:
        DeployError: the kernel has none.
    """
    with network_namespace(descriptor):
        try:
            kernel.ipvs()
        except OSError as error:
            raise DeployError(f"kube-proxy's mode ipvs: {error.strerror}") from None


def forget_connections(descriptor: int, where: str) -> None:
    """Empty the table of tracked connections of a network namespace; running ones are tracked anew with their next
    packet, but for what NAT had made of them.

    Raises:
        DeployError: the kernel refused (it has no connection tracking).
    """
    # Without a tuple all entries are deleted (ctnetlink_del_conntrack in net/netfilter/nf_conntrack_netlink.c).
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    request = struct.pack("=IHHIIBBH", 20, kind, 0x5, 1, 0, 0, 0, 0)
    with open_socket(descriptor, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as channel:
        channel.send(request)
        (number,) = struct.unpack_from("=i", channel.recv(1 << 16), 16)  # struct nlmsgerr
    if number:
        raise DeployError(f"{where}: the table of connections was not emptied: {os.strerror(-number)}")


def raise_links(network: Network) -> list[netlink.Message]:
    """Raise all links, those first that others belong to. A VRF takes an interface before this has addresses."""
    return [
        netlink.set_link(
            network.indexes[entry.name],
            entry.name,
            master=network.indexes[entry.master] if entry.master else 0,
            mac=entry.mac,
            mtu=entry.mtu,
        )
        for entry in sorted(network.interfaces, key=lambda entry: RISING.get(entry.kind, len(RISING)))
        if entry.kind not in ("loopback", "dummy")
    ]


def addresses(network: Network) -> list[netlink.Message]:
    return [
        netlink.add_address(network.indexes[entry.name], address)
        for entry in network.interfaces
        for address in entry.addresses
    ]


def peers(network: Network) -> list[netlink.Message]:
    """The peers of tunnels. An interface that is set down forgets its neighbours, so it is raised before."""
    return [
        message
        for entry in network.interfaces
        for peer in (entry.tunnel.peers if entry.tunnel else ())
        for message in netlink.add_peer(network.indexes[entry.name], peer)
    ]


def routes(network: Network) -> list[netlink.Message]:
    return [
        netlink.add_route(route, network.indexes[route.dev] if route.dev else 0)
        for route in network.node.routes
        if network.holds(route.vrf)
    ]


def rules(network: Network) -> list[netlink.Message]:
    return [netlink.add_rule(rule) for rule in network.node.rules if network.holds(rule.vrf)]


def write_sysctls(network: Network, *, general: bool) -> None:
    """Write the node's sysctls: the general ones (before links exist), or those of single interfaces.

    Raises:
        DeployError: naming the key the kernel does not have or whose value it refused.
    """
    names = {entry.name for entry in network.node.interfaces}
    own = {entry.name for entry in network.interfaces}
    with network_namespace(network.descriptor):
        for key, value in network.node.sysctls:
            interface = next((part for part in key.split("/") if part in names), "")
            if (not interface) is general and (not interface or interface in own):
                try:
                    Path("/proc/sys", key).write_text(value)
                except OSError as error:
                    raise DeployError(f"{network.name}: sysctl {key} = {value}: {error.strerror}") from None


# --- taking away ------------------------------------------------------------------------------------------------------


def retract(old: Network, new: Node) -> None:
    """Take away what `old.node` had in this namespace and `new` has not: rules, routes, addresses, links.

    Args:
        old: the namespace, opened with the node as it was planned before; `indexes` as they are now.
    """
    messages: list[netlink.Message] = []
    if old.vrf is None and _moves_local_table(old.node) and not _moves_local_table(new):
        messages += netlink.first_local_rules(wanted=True)
    messages += [netlink.delete_rule(rule) for rule in old.node.rules if old.holds(rule.vrf) and rule not in new.rules]
    for route in old.node.routes:
        unwanted = old.holds(route.vrf) and not any(_same_place(route, other) for other in new.routes)
        if unwanted and (not route.dev or route.dev in old.indexes):
            messages.append(netlink.delete_route(route, old.indexes.get(route.dev, 0)))
    wanted = {(entry.name, entry.vrf): entry for entry in new.interfaces}
    for entry in old.interfaces:
        index = old.indexes.get(entry.name)
        if index is None:
            continue
        other = wanted.get((entry.name, entry.vrf))
        if other is None or _another_tunnel(entry, other):
            if entry.kind != "loopback":
                messages.append(netlink.delete_link(index, entry.name))
            continue
        gone = set(entry.addresses) - set(other.addresses)
        messages += [netlink.delete_address(index, address) for address in sorted(gone)]
        messages += _lost_peers(index, entry, other)
    old.netlink.apply(messages)


def _another_tunnel(old: Interface, new: Interface) -> bool:
    """Whether a tunnel must be made anew; peers come and go while it lives."""
    before, after = (replace(entry.tunnel, peers=()) if entry.tunnel else None for entry in (old, new))
    return before != after


def _lost_peers(index: int, old: Interface, new: Interface) -> list[netlink.Message]:
    kept = new.tunnel.peers if new.tunnel else ()
    lost = [peer for peer in (old.tunnel.peers if old.tunnel else ()) if peer not in kept]
    return [message for peer in lost for message in netlink.delete_peer(index, peer)]


def _same_place(a: object, b: object) -> bool:
    """Whether adding b replaces a in the kernel: the key of a route is its prefix, table and metric."""
    keys = ("to", "table", "metric", "vrf")
    return all(getattr(a, key) == getattr(b, key) for key in keys)
