"""The Kubernetes core objects that the compiler reads: metadata, Node, Namespace, Service, EndpointSlice.

Source of names, defaults and meanings: the Kubernetes API reference v1.36 (core/v1, discovery.k8s.io/v1).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from testbed.model.base import Located, Model

Protocol = Literal["TCP", "UDP", "SCTP"]
TrafficPolicy = Literal["Cluster", "Local"]


class Metadata(Model):
    name: str
    namespace: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class KubeObject(Located):
    """Any object of an API: `api_versions` are those accepted, `namespaced` objects default to namespace "default"."""

    api_versions: ClassVar[tuple[str, ...]] = ("v1",)
    namespaced: ClassVar[bool] = True

    api_version: str
    kind: str
    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return (self.metadata.namespace or "default") if self.namespaced else ""

    @property
    def key(self) -> str:
        """namespace/name, as Kubernetes writes it."""
        return f"{self.namespace}/{self.name}" if self.namespaced else self.name


class NodeAddress(Model):
    type: Literal["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
    address: str


class Condition(Model):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""


class NodeStatus(Model):
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()


class Taint(Model):
    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class NodeSpec(Model):
    pod_cidr: str = Field(default="", alias="podCIDR")
    pod_cidrs: tuple[str, ...] = Field(default=(), alias="podCIDRs")
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class Node(KubeObject):
    namespaced: ClassVar[bool] = False
    kind: Literal["Node"] = "Node"
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Namespace(KubeObject):
    namespaced: ClassVar[bool] = False
    kind: Literal["Namespace"] = "Namespace"


class ServicePort(Model):
    name: str = ""
    port: int = Field(ge=1, le=65535)
    protocol: Protocol = "TCP"
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str = ""


class ClientIPConfig(Model):
    timeout_seconds: int = 10800


class SessionAffinityConfig(Model):
    client_ip: ClientIPConfig = Field(default=ClientIPConfig(), alias="clientIP")


class ServiceSpec(Model):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: dict[str, str] = Field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = Field(default="", alias="clusterIP")
    cluster_ips: tuple[str, ...] = Field(default=(), alias="clusterIPs")
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    external_ips: tuple[str, ...] = Field(default=(), alias="externalIPs")
    external_name: str = ""
    external_traffic_policy: TrafficPolicy = "Cluster"
    internal_traffic_policy: TrafficPolicy = "Cluster"
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_ip: str = Field(default="", alias="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_class: str = ""
    allocate_load_balancer_node_ports: bool = True
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""


class LoadBalancerIngress(Model):
    ip: str = ""
    hostname: str = ""
    ip_mode: Literal["VIP", "Proxy"] = "VIP"


class LoadBalancerStatus(Model):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Model):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(KubeObject):
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(Model):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Model):
    name: str


class EndpointHints(Model):
    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForZone, ...] = ()


class TargetRef(Model):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class Endpoint(Model):
    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: str | None = None
    zone: str = ""
    hints: EndpointHints | None = None
    target_ref: TargetRef | None = None


class EndpointPort(Model):
    name: str = ""
    port: int | None = None
    protocol: Protocol = "TCP"
    app_protocol: str = ""


class EndpointSlice(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = ("discovery.k8s.io/v1",)
    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    ports: tuple[EndpointPort, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


KINDS: tuple[type[KubeObject], ...] = (Node, Namespace, Service, EndpointSlice)
