"""The BGP sessions that a cluster's nodes open, and the routers' ends of them.

Who speaks with whom stands in Calico's and MetalLB's BGPPeers; the router that has a peer's address gets the neighbour.
Where the two ends could not agree, the resource is refused: the session would never come up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.compile import bgp
from testbed.compile.kube.calico.bgp import BirdSession, selected
from testbed.compile.kube.cluster import Built
from testbed.compile.kube.metallb.frr import MetalLBSession
from testbed.compile.propagation import Key, Session, Speaker
from testbed.compile.topology import Topology
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.base import NOWHERE, Origin
from testbed.model.calico import BGPPeer
from testbed.model.lab import Lab, Router, RouterBgp

BGP_PORT = 179


def add_node_sessions(lab: Lab, topology: Topology, routing: bgp.Routing, built: Built) -> list[Problem]:
    """Add the speakers and sessions of all nodes, and their neighbours on routers; returns what is wrong with them."""
    problems: list[Problem] = []
    for node in built.nodes:
        own = _Node(lab, topology, routing, built, node.name)
        problems += [*own.add_calico(), *own.add_metallb()]
    return list(dict.fromkeys(problems))


@dataclass(frozen=True)
class _Wanted:
    """What a node's BGP speaker expects of the router at the other end.

    Args:
        resource: the BGPPeer in the user's words. origin: where it was written.
        fields: names of its fields for the router's address, its AS number and the password.
        address: the router's. asn: the node's. peer_asn: the router's, or "internal" or "external".
        source: the address the node speaks from; empty where its routing decides.
    """

    resource: str
    origin: Origin
    fields: tuple[str, str, str]
    key: Key
    address: str
    asn: int
    peer_asn: int | str
    password: str
    source: str

    def problem(self, message: str, field: str, hint: str = "") -> Problem:
        return Problem(f"{self.resource}: {message}", self.origin.at("spec", field), hint)


@dataclass(frozen=True)
class _Node:
    """A node of the cluster among the lab's routers."""

    lab: Lab
    topology: Topology
    routing: bgp.Routing
    built: Built
    name: str

    @property
    def _made_by_kind(self) -> bool:
        """Whether Kubernetes itself decides where pods run, and so which nodes tell of a Service."""
        return self.built.cluster.provider == "kind"

    # --- Calico -----------------------------------------------------------------------------------------------------

    def add_calico(self) -> Iterator[Problem]:
        """The sessions of its BIRD.

        Calico's export filter lets pools and Service ranges out, nothing else: a node is no transit for the fabric.
        """
        key: Key = (self.name, None, "bird")
        cluster = self.built.bgp
        sessions = self.built.bird_sessions(self.name)
        originated = (*cluster.blocks.get(self.name, ()), *self.built.service_routes(self.name).advertised)
        allowed = max((session.allowed_local_as for session in sessions), default=0)
        asn = cluster.as_number(cluster.node(self.name))
        uneven = any(session.filters or session.local_as_given for session in sessions) or self._made_by_kind
        speaker = Speaker(
            key,
            asn,
            frozenset(originated),
            transit=False,
            allow_own_as=allowed,
            uneven=frozenset(originated if uneven else ()),
        )
        self.routing.speakers[key] = speaker
        peers = {address: name for name, address in self.built.node_ips.items()}
        for session in sessions:
            if session.peer in peers:
                other: Key = (peers[session.peer], None, "bird")
                self.routing.sessions.append(Session(key, other, session.family))
            else:
                yield from self._calico_session(key, session)

    def _calico_session(self, key: Key, session: BirdSession) -> Iterator[Problem]:
        peer = self._calico_peer(session)
        wanted = _Wanted(
            resource=f"Calico's BGPPeer {peer.name}" if peer else f"Calico's session {session.protocol}",
            origin=peer.origin if peer else NOWHERE,
            fields=("peerIP", "asNumber", "password"),
            key=key,
            address=session.peer,
            asn=session.local_asn,
            peer_asn=session.peer_asn,
            password=session.password or "",
            source=session.source,
        )
        refused = {
            "peerIP": session.port not in (0, BGP_PORT) and f"port {session.port}: routers listen on {BGP_PORT}",
            "ttlSecurity": session.ttl_security and "ttlSecurity towards a router is not supported yet",
            "reachableBy": session.reachable_by and "reachableBy towards a router is not supported: they share a link",
        }
        found = [wanted.problem(message, field) for field, message in refused.items() if message]
        yield from found or self._router_side(wanted)

    def _calico_peer(self, session: BirdSession) -> BGPPeer | None:
        """The BGPPeer that a session came of: those for all nodes are asked first, as Calico does."""
        cluster = self.built.bgp
        peers = sorted(cluster.peers, key=lambda peer: (bool(peer.spec.node or peer.spec.node_selector), peer.name))
        local = cluster.node(self.name)
        for peer in peers:
            if (peer.spec.address, peer.spec.port) != (session.peer, session.port):
                continue
            if local in selected(cluster.nodes, peer):
                return peer
        return None

    # --- MetalLB ----------------------------------------------------------------------------------------------------

    def add_metallb(self) -> Iterator[Problem]:
        """The sessions of its speaker, one BGP instance for each VRF, which takes nothing in and passes nothing on."""
        told = self.built.announcements.routes.get(self.name, {})
        by_vrf: dict[str, list[MetalLBSession]] = {}
        for session in self.built.metallb_sessions(self.name):
            by_vrf.setdefault(session.vrf, []).append(session)
        for vrf, sessions in by_vrf.items():
            key: Key = (self.name, vrf or None, "metallb")
            for session in sessions:
                yield from self._metallb_session(key, session)
            peers = {session.peer for session in sessions}
            prefixes = frozenset(str(route.prefix) for peer in peers & set(told) for route in told[peer])
            alike = [
                frozenset(str(route.prefix) for route in told.get(peer, ()) if not route.communities) for peer in peers
            ]
            uneven = prefixes if self._made_by_kind else prefixes.difference(frozenset.intersection(*alike))
            speaker = Speaker(key, sessions[0].my_asn, prefixes, receives=False, uneven=uneven)
            self.routing.speakers[key] = speaker

    def _metallb_session(self, key: Key, session: MetalLBSession) -> Iterator[Problem]:
        origin = next((peer.origin for peer in self.built.metallb_peers if peer.name == session.peer), NOWHERE)
        wanted = _Wanted(
            resource=f"MetalLB's BGPPeer {session.peer}",
            origin=origin,
            fields=("peerAddress", "peerASN" if isinstance(session.peer_asn, int) else "dynamicASN", "password"),
            key=key,
            address=session.address,
            asn=session.my_asn,
            peer_asn=session.peer_asn,
            password=session.password,
            source=session.source_address,
        )
        refused = {
            "vrf": session.vrf not in ("", *self.topology.vrfs(self.name))
            and f"{self.name} has no VRF {session.vrf!r} (the cluster's nodeVrfs name those of its nodes)",
            "interface": session.interface and "interface (an unnumbered session) is not supported yet",
            "bfdProfile": session.bfd and "bfdProfile is not supported yet: routers run no BFD",
            "peerPort": session.port != BGP_PORT and f"peerPort {session.port}: routers listen on {BGP_PORT}",
            "dualStackAddressFamily": session.address
            and len(session.families) > 1
            and "dualStackAddressFamily is not supported yet",
        }
        found = [wanted.problem(message, field) for field, message in refused.items() if message]
        yield from found or self._router_side(wanted)

    # --- the router -------------------------------------------------------------------------------------------------

    def _router_side(self, wanted: _Wanted) -> list[Problem]:
        """Configure the lab's router at the other end of a session that a node's manifests state."""
        found = bgp.router_at(self.topology, self.lab, self.name, wanted.address)
        at, asn, password = wanted.fields
        if found is None:
            message = f"{self.name} would peer with {wanted.address}, which no router on its links has"
            return [wanted.problem(message, at, suggest("", self._router_addresses(wanted.address)))]
        router, vrf = found[0].node, found[0].vrf
        version = 6 if ":" in wanted.address else 4
        own = found[1].address(version)
        if message := self._instance_mismatch(wanted, own):
            return [wanted.problem(message, at)]
        model = self.lab.nodes[router]
        assert isinstance(model, Router)
        if model.bgp is None:
            message = f"{wanted.address} is {router}, which speaks no BGP"
            return [wanted.problem(message, at, "add bgp: {asn: NUMBER} to the router")]
        if message := _as_mismatch(wanted, router, model.bgp):
            return [wanted.problem(message, asn)]
        if any(character.isspace() for character in wanted.password):
            return [wanted.problem("a password with white space in it is none for FRR", password)]
        if wanted.source not in ("", own):
            message = f"{self.name} would speak from {wanted.source}, and {router} knows it as {own} on their link"
            return [wanted.problem(message, "sourceAddress", "set sourceAddress to that, or leave it to the routes")]
        link = found[1].network(version)
        self.routing.sessions.append(Session(wanted.key, bgp.router_key(router, vrf), version, link))
        return self.routing.connect(router, vrf, self._neighbour(wanted, router, own))

    def _instance_mismatch(self, wanted: _Wanted, own: str) -> str:
        """Why a session cannot be opened from its routing instance; empty when it can."""
        here = next(end.vrf for _, end in self.topology.of(self.name) if own in (end.address(4), end.address(6)))
        if here == wanted.key[1]:
            return ""
        link = f"{wanted.address} is on a link of {self.name}'s " + (f"VRF {here}" if here else "default instance")
        speaks = f"VRF {wanted.key[1]}" if wanted.key[1] else "the default instance"
        return f"{link}, and this session is one of {speaks}"

    def _router_addresses(self, like: str) -> list[str]:
        """The addresses of the routers on its links, of the same family."""
        version = 6 if ":" in like else 4
        ends = [end for segment, _ in self.topology.of(self.name) for end in segment.others(self.name)]
        routers = [end for end in ends if isinstance(self.lab.nodes[end.node], Router)]
        return [end.address(version) for end in routers if end.address(version)]

    def _neighbour(self, wanted: _Wanted, router: str, own: str) -> bgp.Neighbour:
        return bgp.Neighbour(
            address=own,
            asn=wanted.asn,
            name=self.name,
            remote=wanted.key,
            asked_by=wanted.resource,
            timers=bgp.session_timers(self.lab, router),
            password=wanted.password,
            position=wanted.origin.at("spec", wanted.fields[0]),
        )


def _as_mismatch(wanted: _Wanted, router: str, own: RouterBgp) -> str:
    """Why the two ends do not agree about AS numbers; empty when they do."""
    if wanted.peer_asn == "internal":
        agreed = own.asn == wanted.asn
    elif wanted.peer_asn == "external":
        agreed = own.asn != wanted.asn
    else:
        agreed = wanted.peer_asn == own.asn
    expected = f"an {wanted.peer_asn} peer of AS {wanted.asn}"
    if isinstance(wanted.peer_asn, int):
        expected = f"AS {wanted.peer_asn}"
    return "" if agreed else f"expects {expected} at {wanted.address}, and {router} is AS {own.asn}"
