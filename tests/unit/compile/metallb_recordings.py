"""Recordings of the real MetalLB: what was applied, replayed step by step through the compiler's functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from testbed.compile.kube.metallb.alloc import Allocation, allocate, assigned
from testbed.compile.kube.metallb.announce import Announcements, Speakers, announce
from testbed.compile.kube.metallb.config import Config, read, validate
from testbed.errors import InputError, Problem
from testbed.model import kube, metallb, workloads
from testbed.model.kube import EndpointSlice, KubeObject, Namespace, Node, Service

K = TypeVar("K", bound=KubeObject)
MODELLED = (*kube.KINDS, *metallb.KINDS, workloads.Secret)
KINDS = {(version, kind.__name__): kind for kind in MODELLED for version in kind.api_versions}
NOT_MODELLED = {"ConfigMap"}  # only `bgpextras`, whose text the caller of `frr` gives
CLASS_FLAG = "--lb-class="


_NAMES = {
    "alloc": """
        annotation-ip-changed annotation-pool-changed avoid-buggy avoid-buggy-cidr avoid-buggy-ipv6 cidr-host-bits
        class-flag class-set cluster-ip-ignored deprecated-annotations dual-prefer dual-prefer-later-v6
        dual-prefer-mixed-and-single dual-requested-order dual-require dual-require-two-pools dual-require-v4-pool
        dual-single-v6-from-dual foreign-status-at-start ip-and-pool ip-family-mismatch ips-annotation
        ips-annotation-dual ips-annotation-spaces-and-empty-part ips-dual-across-pools ipv6 ipv6-large-status ipv6-range
        list-order no-auto-assign no-auto-assign-then-auto pin-empty-matches-all pin-equal-priority
        pin-namespace-and-service pin-namespace-only-pool pin-priority-namespace-vs-selector pin-priority-zero-last
        pin-service-selectors pool-annotation pool-annotation-full pool-auto-assign-off-later pool-avoid-buggy-later
        pool-becomes-invalid pool-deleted pool-pinned-later pool-renamed pool-replaced pool-shrunk range-exhausted
        released-goes-to-waiting requested-goes-to-waiting share-across-namespaces share-existing-has-no-key
        share-key-differs share-local-other-selector share-local-same-selector share-new-has-no-key share-ok
        share-port-added slash32 spec-ip type-changed v6-service-v4-pool
    """,
    "bgp": """
        adv-node-selectors-none adv-peers adv-peers-unknown adv-pool-unknown adv-pools-and-selectors aggregation-24
        aggregation-26-range aggregation-dual asn-32bit bfd-empty bfd-two-peers bfd-unused both-timers
        change-alias-appears change-bfd-added change-endpoints-gone change-last-peer-removed change-node-excluded
        change-peer-becomes-invalid change-peer-removed change-peer-selector-by-label change-peer-timers
        change-pool-removed class-ignored cluster-n1-only cluster-no-node-name communities communities-aliases
        communities-two-advs-merge dual-service-both-peers dual-service-v4-peer dual-service-v6-peer
        dual-stack-address-family dynamic-external ebgp-multihop everything excluded-node extras graceful-restart
        hold-time hold-time-keepalive-zero hold-time-zero local-asn local-no-node-name local-pref-ebgp local-pref-ibgp
        local-shared-address local-terminating log-debug mixed-range-pool network-unavailable network-unavailable-false
        no-advertisement no-peers node-not-ready none-configured password-with-space peer-node-selectors
        peer-node-selectors-or peer-port peers-other-asn-per-node router-id shared-address source-address
        status-outside-pools two-aggregations two-peers unnumbered unnumbered-vrf v6-dynamic-internal v6-ebgp v6-ibgp
        v6-multihop v6-service-v4-session vrf-and-default
    """,
    "l2": """
        change-endpoints-move change-winner-excluded change-winner-network-unavailable cluster-n2-only election-n1-n3
        election-n2-n3 election-speaker-down election-v4 election-v4-sparse election-v6 excluded-node
        excluded-node-false-value interfaces-all-wins interfaces-per-node local-not-ready-terminating
        local-outside-selector local-shared-address network-unavailable no-advertisement no-endpoints no-memberlist
        node-selector-none node-selector-one pool-selectors pools preferred preferred-excluded preferred-tie
        preferred-two-advs-sum preferred-weights same-address-other-names service-selectors service-selectors-shared
        with-bgp
    """,
    "invalid": """
        adv-duplicate-peer adv-duplicate-pool adv-pool-by-name-and-selector aggregation-range-ok
        aggregation-shorter-than-pool aggregation-shorter-than-range aggregation-v6-129 aggregation-v6-shorter
        aggregation-with-service-selectors bfd-echo-v6-pool bfd-interval bfd-multiplier community-alias-bad-value
        community-bad-large community-bad-value community-duplicate-in-adv community-unknown-alias
        l2-duplicate-expression-value l2-duplicate-node-selector l2-weight large-community-native local-pref-conflict
        local-pref-other-aggregation local-pref-other-nodes local-pref-other-peers more-than-63-communities
        peer-address-and-interface peer-address-is-name peer-bad-router-id peer-bad-selector peer-bfd-missing
        peer-both-asns peer-connect-time-fraction peer-duplicate peer-duplicate-disjoint-nodes peer-duplicate-other-asn
        peer-dynamic-asn-word peer-hold-time-bad peer-keepalive-longer peer-multihop-ibgp peer-my-asns-differ
        peer-name-collides-with-vrf peer-no-address peer-no-asn peer-no-my-asn peer-password-and-secret peer-port-range
        peer-router-ids-differ peer-router-ids-differ-across-vrfs peer-secret-no-password peer-vrf-native
        peer-vrf-same-address pool-bad-address pool-bad-cidr pool-empty pool-range-bad-end pool-range-mixed-families
        pool-range-reversed v6-advertisement-native
    """,
}


def names(group: str) -> list[str]:
    """The recordings that the tests compare with, without the group's name."""
    return _NAMES[group].split()


def recorded(fixtures: Path, group: str) -> list[str]:
    """The recordings that there are, without the group's name."""
    return sorted(path.name.removeprefix(f"{group}-") for path in (fixtures / "metallb" / group).iterdir())


def folder(fixtures: Path, group: str, name: str) -> Path:
    return fixtures / "metallb" / group / f"{group}-{name}"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@dataclass
class Replay:
    """The state of a cluster while a recording's steps are done; a mistake leaves the former configuration at work."""

    case: Path
    raw: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    allocation: Allocation = field(default_factory=Allocation)
    problems: list[Problem] = field(default_factory=list)
    services: tuple[Service, ...] = ()

    def __post_init__(self) -> None:
        for manifest in yaml.safe_load_all((self.case / "objects.yaml").read_text()):
            self.raw[_key(manifest)] = manifest
        self.about = load(self.case / "case.yaml") if (self.case / "case.yaml").exists() else {}
        self.steps = self.about.get("steps", [])
        self._settle()

    def states(self) -> Iterator[Replay]:
        """Itself after the start and after each step."""
        yield self
        for step in self.steps:
            self._do(step["op"], step["object"])
            self._settle()
            yield self

    @property
    def lb_class(self) -> str:
        """The controller's load balancer class."""
        return self._class("controller_args")

    def finish(self) -> Replay:
        """Itself after the last step."""
        for _ in self.states():
            pass
        return self

    def of(self, kind: type[KubeObject]) -> list[Any]:
        return [one for one in self._objects() if isinstance(one, kind)]

    def announcements(self) -> Announcements:
        nodes = self.about.get("speakers")
        speakers = Speakers(
            frozenset(nodes) if nodes else None, self.about.get("memberlist", True), self._class("speaker_args")
        )
        return announce(self.services, self.of(EndpointSlice), self.config, self.of(Node), speakers)

    def extras(self) -> str:
        """The text of the ConfigMap `bgpextras`."""
        return self.raw.get(("ConfigMap", "metallb-system", "bgpextras"), {}).get("data", {}).get("extras", "")

    def _do(self, operation: str, manifest: dict[str, Any]) -> None:
        key = _key(manifest)
        if operation == "delete":
            del self.raw[key]
        elif operation == "create":
            assert key not in self.raw
            self.raw[key] = manifest
        else:
            assert operation in ("patch", "status"), operation
            self.raw[key] = merge(self.raw[key], manifest["patch"])

    def _settle(self) -> None:
        objects = self._objects()
        self.problems = validate(objects)
        if not self.problems:
            self.config = read(objects)
        self.services = tuple(self._with_status(service) for service in self.of(Service))
        self.allocation = allocate(self.services, self.config, self.of(Namespace), self.lb_class)
        self.services = assigned(self.services, self.allocation, self.lb_class)

    def _with_status(self, service: Service) -> Service:
        """The Service as it is written now, with the status it has had since the last step."""
        known = {one.key: one.status for one in self.services}
        return service.model_copy(update={"status": known.get(service.key, service.status)})

    def _objects(self) -> list[KubeObject]:
        return [parse(manifest) for manifest in self.raw.values() if manifest["kind"] not in NOT_MODELLED]

    def _class(self, arguments: str) -> str:
        flags = [flag for flag in self.about.get(arguments, []) if flag.startswith(CLASS_FLAG)]
        return flags[0].removeprefix(CLASS_FLAG) if flags else ""


def parse(manifest: dict[str, Any]) -> KubeObject:
    """The model of a manifest. Raises pydantic's ValidationError."""
    return KINDS[manifest["apiVersion"], manifest["kind"]].model_validate(manifest)


def made(kind: type[K], name: str, /, metadata: dict[str, Any] | None = None, **spec: Any) -> K:
    """An object with that spec, named as in files; MetalLB's own are in its namespace."""
    namespace = "metallb-system" if kind in metallb.KINDS else "default"
    full = {"name": name, "namespace": namespace} | (metadata or {})
    manifest = {"apiVersion": kind.api_versions[0], "kind": kind.__name__, "metadata": full, "spec": spec}
    return kind.model_validate(manifest)


def balancer(name: str, /, metadata: dict[str, Any] | None = None, **spec: Any) -> Service:
    """A Service of type LoadBalancer with TCP port 80, unless `spec` says otherwise."""
    full = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": name}} | spec
    return made(Service, name, metadata, **full)


def refusal(case: Path) -> str:
    """Every reason for which the case's objects are refused; empty when they are not."""
    objects, reasons = [], []
    for manifest in yaml.safe_load_all((case / "objects.yaml").read_text()):
        try:
            objects.append(parse(manifest))
        except ValidationError as error:
            reasons += [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    try:
        read(objects)
    except InputError as error:
        reasons += [problem.message for problem in error.problems]
    return "\n".join(reasons)


def merge(value: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), part)
    return merged


def _key(manifest: dict[str, Any]) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return (manifest["kind"], metadata.get("namespace", ""), metadata["name"])
