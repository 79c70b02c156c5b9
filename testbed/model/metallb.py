"""MetalLB's resources as they are written: pools, peers, advertisements, BFD profiles, community aliases.

Source of names, defaults and limits: MetalLB's API reference (metallb.io/v1beta1, v1beta2). What the API server would
refuse by the schema is refused here; what MetalLB refuses on reading is found by `testbed.compile.kube.metallb.config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from testbed.model.base import Model
from testbed.model.kube import KubeObject

V1BETA1 = "metallb.io/v1beta1"
V1BETA2 = "metallb.io/v1beta2"

_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),  # U+00B5, micro sign
    "μs": Fraction(1, 10**6),  # U+03BC, Greek mu; Go accepts both
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(" + "|".join(sorted(_UNITS, key=len, reverse=True)) + ")")


def seconds(duration: str) -> Fraction:
    """The length of a duration as Go writes it ("1h30m", "9500ms", "0"), in seconds.

    Raises ValueError when it is none (https://pkg.go.dev/time#ParseDuration).
    """
    sign, digits = (-1, duration[1:]) if duration.startswith("-") else (1, duration.removeprefix("+"))
    if digits == "0":
        return Fraction(0)
    parts = _PART.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise ValueError(f'invalid duration "{duration}"')
    return sign * sum((Fraction(number.rstrip(".") or "0") * _UNITS[unit] for number, unit in parts), Fraction(0))


def _checked_duration(text: str) -> str:
    if seconds(text) < 0:
        raise ValueError(f'negative duration "{text}"')
    return text


Duration = Annotated[str, AfterValidator(_checked_duration)]
Asn = Annotated[int, Field(ge=0, le=4294967295)]
BfdInterval = Annotated[int, Field(ge=10, le=60000)]  # milliseconds


class SelectorExpression(Model):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected (Kubernetes: NotIn also selects what lacks the key)."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


class LabelSelector(Model):
    """All of the labels and all of the expressions must match; an empty selector matches everything."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[SelectorExpression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        wanted = all(labels.get(key) == value for key, value in self.match_labels.items())
        return wanted and all(expression.matches(labels) for expression in self.match_expressions)


class ServiceAllocation(Model):
    """Which services a pool serves. `priority`: the lowest number goes first, 0 (the default) last."""

    priority: int = 0
    namespaces: tuple[str, ...] = ()
    namespace_selectors: tuple[LabelSelector, ...] = ()
    service_selectors: tuple[LabelSelector, ...] = ()


class IPAddressPoolSpec(Model):
    addresses: tuple[str, ...]
    auto_assign: bool = True
    avoid_buggy_ips: bool = Field(default=False, alias="avoidBuggyIPs")
    service_allocation: ServiceAllocation | None = None


class IPAddressPool(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = (V1BETA1,)
    kind: Literal["IPAddressPool"] = "IPAddressPool"
    spec: IPAddressPoolSpec


class SecretReference(Model):
    name: str = ""
    namespace: str = ""


class BGPPeerSpec(Model):
    """One BGP session of every selected node. `disable_mp` is accepted: the real program ignores it as well."""

    my_asn: Asn = Field(alias="myASN")
    peer_asn: Asn = Field(default=0, alias="peerASN")
    dynamic_asn: Literal["", "internal", "external"] = Field(default="", alias="dynamicASN")
    local_asn: Asn = Field(default=0, alias="localASN")
    peer_address: str = ""
    interface: str = ""
    source_address: str = ""
    peer_port: int = Field(default=179, ge=1, le=16384)
    hold_time: Duration | None = None
    keepalive_time: Duration | None = None
    connect_time: Duration | None = None
    router_id: str = Field(default="", alias="routerID")
    node_selectors: tuple[LabelSelector, ...] = ()
    password: str = ""
    password_secret: SecretReference = SecretReference()
    bfd_profile: str = ""
    enable_graceful_restart: bool = False
    ebgp_multi_hop: bool = False
    vrf: str = ""
    disable_mp: bool = Field(default=False, alias="disableMP")
    dual_stack_address_family: bool = False


class BGPPeer(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = (V1BETA2,)
    kind: Literal["BGPPeer"] = "BGPPeer"
    spec: BGPPeerSpec


class BGPAdvertisementSpec(Model):
    aggregation_length: int = Field(default=32, ge=1)
    aggregation_length_v6: int = Field(default=128, alias="aggregationLengthV6")
    local_pref: int = Field(default=0, ge=0, le=4294967295)
    communities: tuple[str, ...] = ()
    ip_address_pools: tuple[str, ...] = ()
    ip_address_pool_selectors: tuple[LabelSelector, ...] = ()
    node_selectors: tuple[LabelSelector, ...] = ()
    peers: tuple[str, ...] = ()
    service_selectors: tuple[LabelSelector, ...] = ()


class BGPAdvertisement(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = (V1BETA1,)
    kind: Literal["BGPAdvertisement"] = "BGPAdvertisement"
    spec: BGPAdvertisementSpec = BGPAdvertisementSpec()


class PreferredNodeSelector(Model):
    weight: int = Field(ge=1, le=100)
    preference: LabelSelector


class L2AdvertisementSpec(Model):
    ip_address_pools: tuple[str, ...] = ()
    ip_address_pool_selectors: tuple[LabelSelector, ...] = ()
    node_selectors: tuple[LabelSelector, ...] = ()
    preferred_node_selectors: tuple[PreferredNodeSelector, ...] = ()
    interfaces: tuple[str, ...] = ()
    service_selectors: tuple[LabelSelector, ...] = ()


class L2Advertisement(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = (V1BETA1,)
    kind: Literal["L2Advertisement"] = "L2Advertisement"
    spec: L2AdvertisementSpec = L2AdvertisementSpec()


class BFDProfileSpec(Model):
    """Intervals are milliseconds; None leaves FRR's default."""

    receive_interval: BfdInterval | None = None
    transmit_interval: BfdInterval | None = None
    detect_multiplier: int | None = Field(default=None, ge=2, le=255)
    echo_interval: BfdInterval | None = None
    echo_mode: bool = False
    passive_mode: bool = False
    minimum_ttl: int | None = Field(default=None, ge=1, le=254)


class BFDProfile(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = (V1BETA1,)
    kind: Literal["BFDProfile"] = "BFDProfile"
    spec: BFDProfileSpec = BFDProfileSpec()


class CommunityAlias(Model):
    name: str
    value: str


class CommunitySpec(Model):
    communities: tuple[CommunityAlias, ...] = ()


class Community(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = (V1BETA1,)
    kind: Literal["Community"] = "Community"
    spec: CommunitySpec = CommunitySpec()


KINDS: tuple[type[KubeObject], ...] = (
    IPAddressPool,
    BGPPeer,
    BGPAdvertisement,
    L2Advertisement,
    BFDProfile,
    Community,
)
