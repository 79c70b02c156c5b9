"""The Calico resources that the embedded cluster acts upon: IPPool, BGPConfiguration, BGPPeer, BGPFilter.

Names, defaults and meanings: Calico's API, group projectcalico.org/v3 (api/pkg/apis/projectcalico/v3); the same
specs are stored as crd.projectcalico.org/v1. A field that Calico has and the cluster does not act upon is refused by
name where it stands; so is a combination that Calico's own validation refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from testbed.model.base import Model
from testbed.model.kube import KubeObject

EncapsulationMode = Literal["Never", "Always", "CrossSubnet"]
MatchOperator = Literal["In", "NotIn", "Equal", "NotEqual"]
ProgramClusterRoutes = Literal["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"]

_DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_COMMUNITY = re.compile(r"\d+:\d+(:\d+)?")
_PEER_ADDRESS = re.compile(r"\[(?P<v6>[^\]]+)\]:(?P<v6port>\d+)|(?P<v4>[0-9.]+):(?P<v4port>\d+)|(?P<bare>.+)")


def _unsupported(field: str, reason: str) -> BeforeValidator:
    """A field of Calico's API that is refused, wherever it is set, with its name in the API and `reason`."""

    def refuse(value: Any) -> None:
        if value is not None:
            raise PydanticCustomError(
                "unsupported", "{field} is not supported: {reason}", {"field": field, "reason": reason}
            )

    return BeforeValidator(refuse)


def _as_number(value: Any) -> int:
    """An AS number, also in the asdot form of RFC 5396 ("1.10" is 65546)."""
    text = str(value)
    if isinstance(value, bool | float) or not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"{value!r} is not an AS number: write 64512 or '1.10' (in quotes)")
    high, dot, low = text.partition(".")
    if dot and max(int(high), int(low)) > 0xFFFF:
        raise ValueError(f"{value!r} is not an AS number: each half of the dotted form is at most 65535")
    number = (int(high) << 16) + int(low) if dot else int(high)
    if not 1 <= number <= 0xFFFFFFFF:
        raise ValueError(f"{value!r} is not an AS number: 1 to 4294967295")
    return number


def _duration(value: Any) -> float:
    """Seconds of a Go duration ("1m30s"), the form of metav1.Duration."""
    text = str(value)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration: write it as 90s or 1m30s")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def _checked(kind: str, parse: Callable[[str], object]) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parse(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is not {kind}: {error}") from error
        return value

    return AfterValidator(check)


def _community(value: str) -> tuple[int, ...]:
    if not _COMMUNITY.fullmatch(value):
        raise ValueError("write aa:nn (RFC 1997) or aa:nn:mm (RFC 8092)")
    parts = tuple(int(part) for part in value.split(":"))
    if max(parts) > (0xFFFF if len(parts) == 2 else 0xFFFFFFFF):
        raise ValueError("a part is too large")
    return parts


def _community_or_name(value: str) -> str:
    if ":" in value:
        _community(value)
    return value


AsNumber: TypeAlias = Annotated[int, BeforeValidator(_as_number)]
Duration: TypeAlias = Annotated[float, BeforeValidator(_duration)]
Cidr: TypeAlias = Annotated[str, _checked("a prefix", ip_network)]
Address: TypeAlias = Annotated[str, _checked("an IP address", ip_address)]
Community: TypeAlias = Annotated[str, _checked("a BGP community", _community)]
InterfacePattern: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?\[\]-]+$")]


class CalicoObject(KubeObject):
    """A cluster-scoped Calico resource."""

    api_versions: ClassVar[tuple[str, ...]] = ("projectcalico.org/v3", "crd.projectcalico.org/v1")
    namespaced: ClassVar[bool] = False


class IPPoolSpec(Model):
    """`block_size` is the prefix length of a node's block; by default 26, and 122 for IPv6."""

    cidr: Cidr
    block_size: int = 0
    vxlan_mode: EncapsulationMode = "Never"
    ipip_mode: EncapsulationMode = "Never"
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = Field(default=False, alias="disableBGPExport")
    node_selector: str = "all()"
    namespace_selector: str = ""
    allowed_uses: tuple[Literal["Workload", "Tunnel", "LoadBalancer"], ...] = ("Workload", "Tunnel")
    assignment_mode: Literal["Automatic", "Manual"] = "Automatic"

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self.cidr)

    @property
    def effective_block_size(self) -> int:
        return self.block_size or (26 if self.network.version == 4 else 122)

    @model_validator(mode="after")
    def _check_block_size(self) -> Self:
        low, high = (20, 32) if self.network.version == 4 else (116, 128)
        size = self.effective_block_size
        if not low <= size <= high:
            raise ValueError(f"blockSize {size} of an IPv{self.network.version} pool must be {low} to {high}")
        if size < self.network.prefixlen:
            raise ValueError(f"the pool {self.cidr} is smaller than one block of /{size}")
        return self

    @model_validator(mode="after")
    def _check_uses(self) -> Self:
        if self.namespace_selector and "Tunnel" in self.allowed_uses:
            raise ValueError("namespaceSelector needs allowedUses without Tunnel")
        if self.network.version == 6 and self.ipip_mode != "Never":
            raise ValueError("ipipMode of an IPv6 pool must be Never")
        if "Never" not in (self.vxlan_mode, self.ipip_mode):
            raise ValueError("ipipMode and vxlanMode cannot both be enabled on one pool")
        return self


class IPPool(CalicoObject):
    kind: Literal["IPPool"] = "IPPool"
    spec: IPPoolSpec


class SecretKeyRef(Model):
    name: str
    key: str
    optional: Annotated[None, _unsupported("optional", "a password that is named must exist")] = None


class Password(Model):
    secret_key_ref: SecretKeyRef


class ServiceRange(Model):
    """An entry without `cidr` is valid for Calico's API and holds no address."""

    cidr: Cidr | None = None


class NamedCommunity(Model):
    name: str
    value: Community


class PrefixAdvertisement(Model):
    """`communities` are values (aa:nn, aa:nn:mm) or names of the configuration's `communities`."""

    cidr: Cidr
    communities: tuple[Annotated[str, AfterValidator(_community_or_name)], ...]


class BGPConfigurationSpec(Model):
    log_severity_screen: Literal["Trace", "Debug", "Info", "Warning", "Error", "Fatal"] = "Info"
    node_to_node_mesh_enabled: bool = True
    as_number: AsNumber = 64512
    listen_port: int | None = Field(default=None, ge=1, le=65535)
    bind_mode: Literal["None", "NodeIP"] = "None"
    ignored_interfaces: tuple[InterfacePattern, ...] = ()
    service_cluster_ips: tuple[ServiceRange, ...] = Field(default=(), alias="serviceClusterIPs")
    service_external_ips: tuple[ServiceRange, ...] = Field(default=(), alias="serviceExternalIPs")
    service_load_balancer_ips: tuple[ServiceRange, ...] = Field(default=(), alias="serviceLoadBalancerIPs")
    service_load_balancer_aggregation: Literal["Enabled", "Disabled"] = "Enabled"
    communities: tuple[NamedCommunity, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    node_mesh_password: Password | None = None
    node_mesh_max_restart_time: Duration | None = None
    ipv4_normal_route_priority: int = Field(default=1024, ge=1, le=2147483646, alias="ipv4NormalRoutePriority")
    ipv6_normal_route_priority: int = Field(default=1024, ge=1, le=2147483646, alias="ipv6NormalRoutePriority")
    program_cluster_routes: ProgramClusterRoutes = "EnabledNoEncapOnly"
    ipv4_elevated_route_priority: Annotated[
        None, _unsupported("ipv4ElevatedRoutePriority", "no live migration of pods")
    ] = Field(default=None, alias="ipv4ElevatedRoutePriority")
    ipv6_elevated_route_priority: Annotated[
        None, _unsupported("ipv6ElevatedRoutePriority", "no live migration of pods")
    ] = Field(default=None, alias="ipv6ElevatedRoutePriority")
    local_workload_peering_ipv4: Annotated[
        None, _unsupported("localWorkloadPeeringIPV4", "no BGP sessions with pods")
    ] = Field(default=None, alias="localWorkloadPeeringIPV4")
    local_workload_peering_ipv6: Annotated[
        None, _unsupported("localWorkloadPeeringIPV6", "no BGP sessions with pods")
    ] = Field(default=None, alias="localWorkloadPeeringIPV6")


class BGPConfiguration(CalicoObject):
    """`default` holds for all nodes; `node.NAME` overrides some of it for one node."""

    kind: Literal["BGPConfiguration"] = "BGPConfiguration"
    spec: BGPConfigurationSpec = BGPConfigurationSpec()

    @model_validator(mode="before")
    @classmethod
    def _accept_null_spec(cls, data: Any) -> Any:
        """`spec:` with nothing below it is null in YAML and an empty spec for the API."""
        return {**data, "spec": {}} if isinstance(data, dict) and data.get("spec", 0) is None else data


class BGPPeerSpec(Model):
    node: str = ""
    node_selector: str = ""
    peer_ip: str = Field(default="", alias="peerIP")
    peer_selector: str = ""
    as_number: AsNumber | None = None
    local_as_number: AsNumber | None = Field(default=None, alias="localASNumber")
    keep_original_next_hop: bool = False
    next_hop_mode: Literal["Auto", "Self", "Keep"] | None = None
    password: Password | None = None
    source_address: Literal["UseNodeIP", "None"] = "UseNodeIP"
    max_restart_time: Duration | None = None
    keepalive_time: Duration | None = None
    num_allowed_local_as_numbers: int = Field(default=0, ge=0, alias="numAllowedLocalASNumbers")
    ttl_security: int = Field(default=0, ge=0, le=255)
    reachable_by: Address | None = None
    filters: tuple[str, ...] = ()
    reverse_peering: Literal["Auto", "Manual"] = "Auto"
    local_workload_selector: Annotated[None, _unsupported("localWorkloadSelector", "no BGP sessions with pods")] = None

    @property
    def address(self) -> str:
        """The address of `peerIP` in its usual form, without its port; empty with `peerSelector`."""
        return str(ip_address(self._split()[0])) if self.peer_ip else ""

    @property
    def port(self) -> int:
        """The port of `peerIP`; 0 where none is written."""
        return self._split()[1]

    def _split(self) -> tuple[str, int]:
        if not (match := _PEER_ADDRESS.fullmatch(self.peer_ip)):
            return "", 0
        address = match["v6"] or match["v4"] or match["bare"]
        return address, int(match["v6port"] or match["v4port"] or 0)

    @model_validator(mode="after")
    def _check_peer_ip(self) -> Self:
        if not self.peer_ip:
            return self
        try:
            address = ip_address(self._split()[0])
        except ValueError as error:
            raise ValueError(f"peerIP {self.peer_ip!r} is not an address, nor address:port, nor [v6]:port") from error
        if self.port > 65535:
            raise ValueError(f"peerIP {self.peer_ip!r}: a port is at most 65535")
        if self.reachable_by and ip_address(self.reachable_by).version != address.version:
            raise ValueError(f"reachableBy {self.reachable_by} and peerIP {self.peer_ip} are of different families")
        return self

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        """What Calico's validation refuses, and fields that it would ignore."""
        if self.node and self.node_selector:
            raise ValueError("node and nodeSelector cannot both be set")
        if bool(self.peer_ip) == bool(self.peer_selector):
            raise ValueError("exactly one of peerIP and peerSelector must be set")
        if self.keep_original_next_hop and self.next_hop_mode:
            raise ValueError("keepOriginalNextHop and nextHopMode cannot both be set")
        only_with_address = {
            "asNumber": self.as_number,
            "localASNumber": self.local_as_number,
            "keepOriginalNextHop": self.keep_original_next_hop,
            "nextHopMode": self.next_hop_mode,
            "numAllowedLocalASNumbers": self.num_allowed_local_as_numbers,
            "reachableBy": self.reachable_by,
        }
        if self.peer_selector and (ignored := [name for name, value in only_with_address.items() if value]):
            raise ValueError(f"{', '.join(ignored)} cannot be set together with peerSelector")
        return self


class BGPPeer(CalicoObject):
    kind: Literal["BGPPeer"] = "BGPPeer"
    spec: BGPPeerSpec


class PrefixLength(Model):
    min: int | None = Field(default=None, ge=0, le=128)
    max: int | None = Field(default=None, ge=0, le=128)


class CommunityMatch(Model):
    values: tuple[Community, ...] = Field(min_length=1, max_length=1)


class AddCommunity(Model):
    value: Community


class PrependASPath(Model):
    prefix: tuple[AsNumber, ...] = Field(min_length=1)


class SetPriority(Model):
    value: int = Field(ge=1, le=2147483646)


class FilterOperation(Model):
    """Exactly one of the three is set."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependASPath | None = Field(default=None, alias="prependASPath")
    set_priority: SetPriority | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(value is not None for value in (self.add_community, self.prepend_as_path, self.set_priority)) != 1:
            raise ValueError("an operation is exactly one of addCommunity, prependASPath, setPriority")
        return self


class FilterRule(Model):
    """All conditions that are set must hold; `operations` then change the route before it is accepted."""

    action: Literal["Accept", "Reject"]
    cidr: Cidr | None = None
    match_operator: MatchOperator | None = None
    prefix_length: PrefixLength | None = None
    source: Literal["RemotePeers"] | None = None
    interface: InterfacePattern | None = None
    peer_type: Literal["eBGP", "iBGP"] | None = None
    communities: CommunityMatch | None = None
    as_path_prefix: tuple[AsNumber, ...] = Field(default=(), alias="asPathPrefix")
    priority: int | None = Field(default=None, ge=1, le=2147483646)
    operations: tuple[FilterOperation, ...] = ()

    @model_validator(mode="after")
    def _check_match(self) -> Self:
        if (self.cidr is None) != (self.match_operator is None):
            raise ValueError("cidr and matchOperator must be set together")
        if self.prefix_length and self.match_operator not in ("In", "NotIn"):
            raise ValueError("prefixLength needs cidr and matchOperator In or NotIn")
        if self.operations and self.action != "Accept":
            raise ValueError("operations need action Accept")
        return self


class BGPFilterSpec(Model):
    import_v4: tuple[FilterRule, ...] = Field(default=(), alias="importV4")
    import_v6: tuple[FilterRule, ...] = Field(default=(), alias="importV6")
    export_v4: tuple[FilterRule, ...] = Field(default=(), alias="exportV4")
    export_v6: tuple[FilterRule, ...] = Field(default=(), alias="exportV6")

    @model_validator(mode="after")
    def _check_families(self) -> Self:
        for version, rules in ((4, self.import_v4 + self.export_v4), (6, self.import_v6 + self.export_v6)):
            for rule in rules:
                if rule.cidr and ip_interface(rule.cidr).version != version:
                    raise ValueError(f"cidr {rule.cidr} stands among the IPv{version} rules")
        return self


class BGPFilter(CalicoObject):
    kind: Literal["BGPFilter"] = "BGPFilter"
    spec: BGPFilterSpec


KINDS: tuple[type[KubeObject], ...] = (IPPool, BGPConfiguration, BGPPeer, BGPFilter)
