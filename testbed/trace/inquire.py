"""Asks the live lab about the hops of a walk: which route and rule decided, which chain rewrote, what was counted."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path as File
from typing import Any, TypeVar

from testbed import run
from testbed.errors import CommandError, TestbedError
from testbed.plan import LAST_METRIC
from testbed.runtime.base import Runtime
from testbed.trace.evidence import HopFacts
from testbed.trace.map import Map, Place
from testbed.trace.netfilter import connections
from testbed.trace.packet import Ends
from testbed.trace.routing import Decision, decision, held_by, longest, refusal, too_late
from testbed.trace.rules import Connection, comment, connection_of, dnat_chain, snat_chain
from testbed.trace.walk import Hop, Path

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}
Answer = TypeVar("Answer")


class Inquiry:
    """Asks about places of a lab, and remembers the answers that hold for all packets."""

    def __init__(self, runtime: Runtime, lab: Map, version: int) -> None:
        self.runtime, self.lab, self.version = runtime, lab, version
        self._rules: dict[Place, list[dict[str, Any]]] = {}
        self._listings: dict[Place, str] = {}
        self._connections: dict[Place, list[Connection]] = {}

    def facts(self, path: Path) -> tuple[HopFacts, ...]:
        """What is known of each hop of a path."""
        return tuple(self._hop(path, index) for index in range(len(path.hops)))

    def _hop(self, path: Path, index: int) -> HopFacts:
        hop = path.hops[index]
        routed = self.routed(path, hop) if "bridged" not in hop.changes else None
        entry = self.connection(hop) if {"dnat", "snat"} & set(hop.changes) else None
        rewrites = self._rewrites(hop, entry)
        return HopFacts(routed, str(entry) if entry else "", rewrites, self._too_late(hop, routed))

    def _too_late(self, hop: Hop, routed: Decision | None) -> tuple[str, ...]:
        """The rules that a hop would have had for a packet with the source it gave it afterwards."""
        if routed is None or routed.again or "snat" not in hop.changes or hop.arrived is None:
            return ()
        before, after = hop.arrived.source, hop.ends.source
        return too_late(self.rules(hop.place), routed.mark, self.incoming(hop), before, after, hop.ends.destination)

    # --- routing ------------------------------------------------------------------------------------------------------

    def routed(self, path: Path, hop: Hop, target: tuple[str, int] | None = None) -> Decision:
        """The routing decision about a packet at a hop.

        Args:
            target: the (address, port) that its destination is known to have become before.

        Destinations are translated before routing and sources after it (netfilter's hooks), so the kernel is asked
        about the source that came in and the destination that went out. Marks are not seen in a capture. A reply is
        first taken to have the mark that its connection has; else a packet is taken to have none; and where neither
        gives the route it took, by its interface and the node it came to, the marks of the rules are tried; then the
        source that it left with: IPVS translates an answer in FORWARD and routes it again, as if it were sent from here
        (ip_vs_route_me_harder).
        """
        asked, protocol = self._at_routing(hop), path.packet.protocol
        if hop.carrier:
            asked, protocol = hop.carrier.ends, hop.carrier.protocol
        if target:
            asked = Ends(asked.source, target[0], asked.source_port, target[1] or asked.destination_port)
        iif = self.incoming(hop) if hop.arrived else ""
        taken = self.outgoing(hop)
        found = [
            self.route(hop.place, asked, protocol, iif, mark)
            for mark in (self._noted_marks(hop) if path.direction == "reply" else ())
        ]
        found.append(self.route(hop.place, asked, protocol, iif, 0))
        if not taken:
            return found[-1]
        fitting = [entry for entry in found if entry.leads_to(taken)]
        if right := [entry for entry in fitting if self._hands_to(entry, path, hop)]:
            return right[0]
        for mark in self._rule_marks(hop.place):
            marked = self.route(hop.place, asked, protocol, iif, mark)
            if marked.leads_to(taken) and (not fitting or self._hands_to(marked, path, hop)):
                return marked
        if fitting:
            return fitting[0]
        return self._routed_again(hop, asked, path, taken) or found[-1]

    def _routed_again(self, hop: Hop, asked: Ends, path: Path, taken: str) -> Decision | None:
        """The route by the source that a packet left with, where that gives the interface it took."""
        if hop.ends.source == asked.source:
            return None
        later = dataclasses.replace(asked, source=hop.ends.source, source_port=hop.ends.source_port)
        again = self.route(hop.place, later, path.packet.protocol, "", 0)
        return dataclasses.replace(again, again=later.source) if again.leads_to(taken) else None

    def _hands_to(self, found: Decision, path: Path, hop: Hop) -> bool:
        """Whether a gateway is the node that the packet came to next, as far as is known."""
        later = path.hops[path.hops.index(hop) + 1 :]
        into = "encapsulated" in hop.changes  # then those are passed over that route the packet around it
        passed = (entry for entry in later if "bridged" not in entry.changes and not (into and entry.carrier))
        following = next((entry.node for entry in passed), "")
        gateways = [{node for node, _ in self.lab.owners(gateway)} if gateway else set() for gateway, _ in found.ways]
        return not following or any(not owners or following in owners for owners in gateways)

    def _at_routing(self, hop: Hop) -> Ends:
        """The ends of a packet when it is routed. What went nowhere may have been translated before."""
        ends = hop.ends
        if hop.arrived is None:
            return ends
        if hop.left is None and (entry := self.connection(hop)) and hop.arrived == entry.original:
            return Ends(ends.source, entry.reply.source, ends.source_port, entry.reply.source_port)
        return Ends(hop.arrived.source, ends.destination, ends.source_port, ends.destination_port)

    def incoming(self, hop: Hop) -> str:
        """The interface that routing takes a packet to have come in by: the bridge, where that was a port of one; a
        tunnel's, where the packet was taken out of one."""
        if "decapsulated" in hop.changes and hop.through:
            return hop.through[0]
        return self.lab.bridges.get((hop.node, hop.interface_in), hop.interface_in)

    def outgoing(self, hop: Hop) -> str:
        """Likewise for going out; a tunnel's interface, where the packet was put into one."""
        if "encapsulated" in hop.changes and hop.through:
            return hop.through[-1]
        return self.lab.bridges.get((hop.node, hop.interface_out), hop.interface_out)

    def route(self, place: Place, ends: Ends, protocol: int, iif: str, mark: int) -> Decision:
        """What the kernel answers when it is asked about a packet (RTM_GETROUTE with RTM_F_FIB_MATCH)."""
        words = ["ip", "-j", f"-{self.version}", "route", "get", "fibmatch", ends.destination, "from", ends.source]
        words += ["iif", iif] if iif else self._vrf(place)  # an interface tells its VRF by itself
        words += ["mark", f"{mark:#x}"] if mark else []
        if protocol in (6, 17):
            words += [
                "ipproto",
                PROTOCOLS[protocol],
                "sport",
                str(ends.source_port),
                "dport",
                str(ends.destination_port),
            ]
        try:
            answer = json.loads(self.runtime.run(*place, words))
        except CommandError as error:
            said = error.output.strip().removeprefix("RTNETLINK answers: ")
            kind, rule = refusal(self.rules(place), mark, iif or "lo", ends.source, ends.destination)
            return Decision(kind=kind or "unicast", rule=rule, mark=mark, error=said)
        except (TestbedError, ValueError) as error:
            return Decision(mark=mark, error=str(error))
        return decision(answer, self.rules(place), mark, iif or "lo", ends.source)

    def sent(self, place: Place, address: str) -> Decision:
        """What the kernel answers when it is asked how it would send a packet of its own."""
        words = ["ip", "-j", f"-{self.version}", "route", "get", "fibmatch", address, *self._vrf(place)]
        try:
            return decision(json.loads(self.runtime.run(*place, words)), self.rules(place), 0, "lo", "")
        except CommandError as error:
            return Decision(error=error.output.strip().removeprefix("RTNETLINK answers: "))
        except (TestbedError, ValueError) as error:
            return Decision(error=str(error))

    def rules(self, place: Place) -> list[dict[str, Any]]:
        """The rules of a place in the order of their priorities, as `ip -j rule` lists them."""
        if place not in self._rules:
            found = self.listed(place, "ip", "-j", "-N", f"-{self.version}", "rule")
            self._rules[place] = sorted(found, key=lambda rule: int(rule.get("priority", 0)))
        return self._rules[place]

    def _rule_marks(self, place: Place) -> dict[int, int]:
        """Mark → mask, of the rules that want one."""
        return {
            int(rule["fwmark"], 0): int(rule.get("fwmask", "0xffffffff"), 0)
            for rule in self.rules(place)
            if "fwmark" in rule
        }

    def _noted_marks(self, hop: Hop) -> list[int]:
        """Those marks of rules that the packet's connection has."""
        wanted = self._rule_marks(hop.place)
        entry = self.connection(hop) if wanted else None
        return [mark for mark, mask in wanted.items() if entry and entry.mark & mask == mark]

    def best_route(self, place: Place, address: str) -> dict[str, Any] | None:
        """The most specific route that holds an address, of whatever type, in table main or that of a VRF's device.

        The route that ends such a table is none: it stands for having none.
        """
        found = self.listed(place, "ip", "-j", f"-{self.version}", "route", "show", *self._vrf(place), "match", address)
        return longest([route for route in found if route.get("metric") != LAST_METRIC])

    def holding_route(
        self, place: Place, ends: Ends, iif: str, marks: Sequence[int]
    ) -> tuple[dict[str, Any] | None, str]:
        """(the route, of whatever type, that holds a packet's destination, the rule that named its table).

        The rule is empty where that is one of the kernel's own three. The tables of a VRF's device are not looked into
        by rules: it has one.
        """
        if place in self.lab.tables:
            return self.best_route(place, ends.destination), ""
        words = ("route", "show", "table", "all", "match", ends.destination)
        found = self.listed(place, "ip", "-j", f"-{self.version}", *words)
        mark = marks[-1] if marks else 0
        return held_by(self.rules(place), found, mark, iif or "lo", ends.source, ends.destination)

    def _vrf(self, place: Place) -> list[str]:
        """What ip(8) is told for a VRF that is a device: netlink does not see in which VRF it is asked."""
        return ["vrf", str(place[1])] if place in self.lab.tables else []

    def links(self, place: Place) -> dict[str, dict[str, Any]]:
        """Name → what `ip -j link` says of each interface."""
        return {link["ifname"]: link for link in self.listed(place, "ip", "-j", "link") if "ifname" in link}

    def listed(self, place: Place, *words: str) -> list[dict[str, Any]]:
        """What a command that prints a JSON list says in a place; empty where it cannot."""
        try:
            return list(json.loads(self.runtime.run(*place, words) or "[]"))
        except (TestbedError, ValueError):
            return []

    def sysctl(self, place: Place, key: str) -> str:
        """The value of net/… in a place; empty when there is none."""
        return self.read(place, lambda: File("/proc/sys", key).read_text().strip()) or ""

    def read(self, place: Place, work: Callable[[], Answer]) -> Answer | None:
        """What `work` reads of /proc inside of a place's network namespace."""
        try:
            with run.network_namespace(self.runtime.network(*place)):
                return work()
        except (OSError, TestbedError):
            return None

    # --- rewriting ----------------------------------------------------------------------------------------------------

    def connection(self, hop: Hop) -> Connection | None:
        """The connection that a hop has noted for the packet."""
        if hop.place not in self._connections:
            try:
                self._connections[hop.place] = connections(self.runtime, *hop.place, self.version)
            except (TestbedError, OSError):
                self._connections[hop.place] = []
        for ends in (hop.arrived, hop.left):
            if ends and (found := connection_of(self._connections[hop.place], ends)):
                return found
        return None

    def listing(self, place: Place) -> str:
        """The NAT rules of a place: those of iptables, and all that nft shows when there are none."""
        if place not in self._listings:
            text = ""
            save = "iptables-save" if self.version == 4 else "ip6tables-save"
            for argv in ((save, "-t", "nat"), ("nft", "list", "ruleset")):
                try:
                    text += self.runtime.run(*place, argv)
                except TestbedError:
                    continue
            self._listings[place] = text
        return self._listings[place]

    def _rewrites(self, hop: Hop, entry: Connection | None) -> tuple[str, ...]:
        """A sentence for each address that a hop rewrote."""
        found = []
        answer = entry is not None and hop.arrived == entry.reply
        if "dnat" in hop.changes:
            found.append(self._dnat(hop) if not answer else _undone("destination", hop, source=False))
        if "snat" in hop.changes:
            found.append(self._snat(hop) if not answer else _undone("source", hop, source=True))
        return tuple(found)

    def _dnat(self, hop: Hop) -> str:
        listing = self.listing(hop.place)
        came = hop.arrived or _asked(hop)
        after = hop.ends
        names = dnat_chain(listing, came, after.destination, after.destination_port, local=hop.arrived is None)
        service = comment(listing, names[-1]) if names else ""
        by = f" by {' → '.join(names)}" if names else ""
        old, new = (f"{ends.destination}:{ends.destination_port}" for ends in (came, after))
        return f"DNAT {old} to {new}{by}" + (f" (Service {service})" if service else "")

    def _snat(self, hop: Hop) -> str:
        assert hop.arrived is not None
        found = snat_chain(self.listing(hop.place))
        match = [(chain, rule) for chain, rule in found if _concerns(chain, rule, hop)]
        by = f" by {match[0][0]}" if len({chain for chain, _ in match}) == 1 else ""
        if not by and match:
            by = " by one of " + ", ".join(dict.fromkeys(chain for chain, _ in match))
        return f"SNAT {hop.arrived.source}:{hop.arrived.source_port} to {hop.ends.source}:{hop.ends.source_port}{by}"


def _undone(what: str, hop: Hop, *, source: bool) -> str:
    assert hop.arrived is not None
    before, after = hop.arrived, hop.ends
    pair = (before.source, after.source) if source else (before.destination, after.destination)
    return f"translation undone: {what} {pair[0]} back to {pair[1]}"


def _asked(hop: Hop) -> Ends:
    """The ends of a packet that was translated where it was made."""
    address, _, port = hop.asked.rpartition(":")
    return Ends(hop.ends.source, address, hop.ends.source_port, int(port))


def _concerns(chain: str, rule: str, hop: Hop) -> bool:
    """Whether a rule that writes sources may have written this one: kube-proxy's does for what it sent to a Service."""
    if match := re.search(r'(?:oifname "?|-o )([\w.-]+)', rule):
        return match[1] == hop.interface_out
    if chain.startswith("KUBE-"):
        return "dnat" in hop.changes
    return not (chain.startswith("cali-") and "dnat" in hop.changes)
