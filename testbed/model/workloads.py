"""Pods, what makes pods, what configures them, and Ingress.

Source of names, defaults and limits: the Kubernetes API reference v1.36 (core/v1, apps/v1, networking.k8s.io/v1).
Fields in WITHOUT_EFFECT are accepted and change nothing here; fields in a model's `refused` exist in Kubernetes, and
using them is an error that says why; any other field is unknown.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from testbed.model.base import Model
from testbed.model.faults import FieldError
from testbed.model.kube import Condition, KubeObject, Protocol
from testbed.model.selectors import Expression, LabelSelector

WITHOUT_EFFECT: Mapping[str, str] = {
    "serviceAccountName": "no API server that pods could talk to",
    "automountServiceAccountToken": "no API server that pods could talk to",
    "enableServiceLinks": "no service variables are made; names are looked up in DNS",
    "terminationGracePeriodSeconds": "a pod ends at once",
    "imagePullPolicy": "no image is pulled: the catalogue says which installed program stands for it",
    "resources": "pods are not limited",
    "restartPolicy": "only Always exists, and a lab reports a program that ended",
    "securityContext": "programs run as the lab runs them",
    "readOnly": "ConfigMaps and Secrets are never written to; emptyDir refuses it",
    "medium": "a directory of the pod",
    "sizeLimit": "a directory of the pod",
    "optional": "only false: what a pod refers to must be among the manifests",
    "immutable": "nothing changes a ConfigMap or Secret behind the author's back",
    "strategy": "a change is applied as a difference, at once",
    "updateStrategy": "a change is applied as a difference, at once",
    "podManagementPolicy": "all pods of a lab start together",
    "revisionHistoryLimit": "no history is kept",
    "progressDeadlineSeconds": "the lab has its own deadline",
    "status": "what a cluster reports; input nowhere (but a Pod's, for those who read recorded objects)",
}
"""Field → why it changes nothing in a lab. Documented for users; every other accepted field has its effect."""

_CLUSTER_STATE = "the programs of a lab run as they are"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_VARIABLE = re.compile(r"[ -<>-~]+")  # printable ASCII but "=", as since Kubernetes 1.32
_FILE_NAME = re.compile(r"[-._a-zA-Z0-9]{1,253}")

FieldPath = Literal[
    "metadata.name", "metadata.namespace", "status.podIP", "status.podIPs", "spec.nodeName", "status.hostIP"
]


def _dns_label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of small letters, digits and '-', at most 63 characters (RFC 1123)")
    return text


def _port_name(text: str) -> str:
    if not _PORT_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a port name: at most 15 small letters, digits and single '-', one a letter")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of an environment variable")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or ":" in text:
        raise ValueError(f"{text!r} is not an absolute path without '..' and ':'")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


def _relative(text: str) -> str:
    if not text or text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"{text!r} is not a relative path without '..'")
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _file_name(text: str) -> str:
    if not _FILE_NAME.fullmatch(text) or text in (".", "..") or text.startswith(".."):
        raise ValueError(f"{text!r} is not a key: letters, digits, '-', '_' and '.', no leading '..'")
    return text


def _base64(text: str) -> str:
    """The text that is encoded; what is no text cannot stand in a lab's file."""
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        reason = "is not UTF-8 text once decoded" if isinstance(error, UnicodeDecodeError) else "is not base64"
        raise ValueError(f"the value {reason}") from error
    if "\0" in decoded:
        raise ValueError("the value is not text once decoded")
    return text


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
PortName = Annotated[str, AfterValidator(_port_name)]
VariableName = Annotated[str, AfterValidator(_variable)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
RelativePath = Annotated[str, AfterValidator(_relative)]
FileName = Annotated[str, AfterValidator(_file_name)]
Base64 = Annotated[str, AfterValidator(_base64)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
PortReference = PortNumber | PortName
FileMode = Annotated[int, Field(ge=0, le=0o777)]


# ------------------------------------------------------------------------------------------------ containers


class KeyReference(Model):
    """A key of a ConfigMap or a Secret."""

    name: str
    key: FileName
    optional: Literal[False] = False


class FieldReference(Model):
    field_path: FieldPath
    api_version: Literal["v1"] = "v1"


class ValueFrom(Model):
    refused: ClassVar[Mapping[str, str]] = {"resourceFieldRef": "pods are not limited", "fileKeyRef": "not supported"}

    config_map_key_ref: KeyReference | None = None
    secret_key_ref: KeyReference | None = None
    field_ref: FieldReference | None = None

    @model_validator(mode="after")
    def _one(self) -> ValueFrom:
        _exactly_one(self, "configMapKeyRef", "secretKeyRef", "fieldRef")
        return self


class EnvVar(Model):
    name: VariableName
    value: str | None = None
    value_from: ValueFrom | None = None

    @model_validator(mode="after")
    def _not_both(self) -> EnvVar:
        if self.value is not None and self.value_from is not None:
            raise ValueError(f"the variable {self.name} has both 'value' and 'valueFrom'")
        return self


class SourceReference(Model):
    name: str
    optional: Literal[False] = False


class EnvFrom(Model):
    prefix: str = ""
    config_map_ref: SourceReference | None = None
    secret_ref: SourceReference | None = None

    @model_validator(mode="after")
    def _one(self) -> EnvFrom:
        _exactly_one(self, "configMapRef", "secretRef")
        return self


class ContainerPort(Model):
    refused: ClassVar[Mapping[str, str]] = {"hostIP": "a host port is open on every address of its node"}

    container_port: PortNumber
    name: PortName = ""
    protocol: Protocol = "TCP"
    host_port: PortNumber | None = None


class VolumeMount(Model):
    refused: ClassVar[Mapping[str, str]] = {
        "mountPropagation": "volumes are files and directories of the pod",
        "subPathExpr": "write the path out as subPath",
        "recursiveReadOnly": "volumes are files and directories of the pod",
    }

    name: str
    mount_path: AbsolutePath
    sub_path: RelativePath | None = None
    read_only: bool = False


class HttpHeader(Model):
    name: str
    value: str


class HttpGet(Model):
    refused: ClassVar[Mapping[str, str]] = {"host": "the pod itself is asked; set the Host header in httpHeaders"}

    port: PortReference
    path: str = "/"
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(Model):
    refused: ClassVar[Mapping[str, str]] = {"host": "the pod itself is asked"}

    port: PortReference


class Exec(Model):
    command: tuple[str, ...] = Field(min_length=1)


class Probe(Model):
    """Times are seconds."""

    refused: ClassVar[Mapping[str, str]] = {
        "grpc": "use httpGet, tcpSocket or exec",
        "terminationGracePeriodSeconds": "a pod ends at once",
    }

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    initial_delay_seconds: int = Field(default=0, ge=0)
    timeout_seconds: int = Field(default=1, ge=1)
    period_seconds: int = Field(default=10, ge=1)
    success_threshold: int = Field(default=1, ge=1)
    failure_threshold: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _one(self) -> Probe:
        _exactly_one(self, "httpGet", "tcpSocket", "exec")
        return self


class Container(Model):
    refused: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("stdin", "stdinOnce", "tty"), "no one is attached to it; give it a command that keeps running"
        ),
        "lifecycle": _CLUSTER_STATE,
        "volumeDevices": "a lab has no block devices",
        "restartPolicy": "containers of a pod are all alike",
        "resizePolicy": "pods are not limited",
        "terminationMessagePath": _CLUSTER_STATE,
        "terminationMessagePolicy": _CLUSTER_STATE,
    }

    name: DnsLabel
    image: str = Field(min_length=1)
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: AbsolutePath = "/"
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    resources: dict[str, Any] = Field(default_factory=dict)
    security_context: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Container:
        _unique([mount.mount_path for mount in self.volume_mounts], "volumeMounts", "mountPath")
        _unique([port.name for port in self.ports], "ports", "name")
        return self


# ------------------------------------------------------------------------------------------------ volumes


class KeyToPath(Model):
    key: FileName
    path: RelativePath
    mode: FileMode | None = None


class ConfigMapVolume(Model):
    name: str
    items: tuple[KeyToPath, ...] = ()
    default_mode: FileMode = 0o644
    optional: Literal[False] = False


class SecretVolume(Model):
    secret_name: str
    items: tuple[KeyToPath, ...] = ()
    default_mode: FileMode = 0o644
    optional: Literal[False] = False


class EmptyDir(Model):
    medium: str = ""
    size_limit: int | str = ""


class Volume(Model):
    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("hostPath", "persistentVolumeClaim", "projected", "downwardAPI", "csi", "ephemeral", "nfs", "image", "iscsi"),
        "use configMap, secret or emptyDir",
    )

    name: DnsLabel
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDir | None = None

    @model_validator(mode="after")
    def _one(self) -> Volume:
        _exactly_one(self, "configMap", "secret", "emptyDir")
        return self


# ------------------------------------------------------------------------------------------------ pods


class Toleration(Model):
    refused: ClassVar[Mapping[str, str]] = {
        "tolerationSeconds": "pods are placed once; leave it out to tolerate forever"
    }

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute", ""] = ""

    @model_validator(mode="after")
    def _fits(self) -> Toleration:
        if not self.key and self.operator == "Equal":
            raise ValueError("a toleration without 'key' tolerates everything, and must say operator Exists")
        if self.value and self.operator == "Exists":
            raise ValueError("a toleration with operator Exists takes no 'value'")
        return self


class NodeSelectorTerm(Model):
    """All of the expressions must match; a term without any matches nothing."""

    refused: ClassVar[Mapping[str, str]] = {"matchFields": "use nodeName for one node, or labels"}

    match_expressions: tuple[Expression, ...] = ()


class NodeSelector(Model):
    """Any of the terms must match."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(min_length=1)


class NodeAffinity(Model):
    refused: ClassVar[Mapping[str, str]] = {
        "preferredDuringSchedulingIgnoredDuringExecution": "only what is required decides where a pod runs",
    }

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class Affinity(Model):
    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("podAffinity", "podAntiAffinity"), "replicas are spread evenly; use nodeSelector, nodeAffinity or nodeName"
    )

    node_affinity: NodeAffinity | None = None


class PodSpec(Model):
    refused: ClassVar[Mapping[str, str]] = {
        "initContainers": "containers of a lab's pod all start together",
        "ephemeralContainers": "use `testbed exec`",
        "topologySpreadConstraints": "replicas are spread evenly",
        "schedulerName": "there is one scheduler",
        **dict.fromkeys(("priorityClassName", "priority", "preemptionPolicy"), "pods do not compete for nodes"),
        **dict.fromkeys(("hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"), _CLUSTER_STATE),
        **dict.fromkeys(("runtimeClassName", "overhead", "os", "resourceClaims", "setHostnameAsFQDN"), _CLUSTER_STATE),
        "hostAliases": "put the names into the lab's DNS",
        "dnsConfig": "use dnsPolicy",
        "imagePullSecrets": "no image is pulled",
        "activeDeadlineSeconds": "a testbed runs services, not jobs",
        "readinessGates": "readiness is that of the containers",
        "serviceAccount": "the old name of serviceAccountName",
    }

    containers: tuple[Container, ...] = Field(min_length=1)
    volumes: tuple[Volume, ...] = ()
    node_name: str = ""
    node_selector: dict[str, str] = Field(default_factory=dict)
    affinity: Affinity = Affinity()
    tolerations: tuple[Toleration, ...] = ()
    host_network: bool = False
    hostname: DnsLabel | None = None
    subdomain: DnsLabel | None = None
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default"] = "ClusterFirst"
    service_account_name: str = ""
    automount_service_account_token: bool = True
    enable_service_links: bool = True
    termination_grace_period_seconds: int = Field(default=30, ge=0)
    restart_policy: Literal["Always"] = "Always"
    security_context: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> PodSpec:
        _unique([container.name for container in self.containers], "containers", "name")
        _unique([volume.name for volume in self.volumes], "volumes", "name")
        known = {volume.name for volume in self.volumes}
        for number, container in enumerate(self.containers):
            for index, mount in enumerate(container.volume_mounts):
                if mount.name not in known:
                    path = ("containers", number, "volumeMounts", index, "name")
                    raise FieldError(f"the pod has no volume {mount.name!r}", *path)
            for index, port in enumerate(container.ports):
                _check_host_port(port, self.host_network, ("containers", number, "ports", index, "hostPort"))
        return self


def _check_host_port(port: ContainerPort, host_network: bool, path: tuple[str | int, ...]) -> None:
    if port.host_port is None:
        return
    if not host_network:
        raise FieldError("hostPort is supported with hostNetwork only; use a Service of type NodePort", *path)
    if port.host_port != port.container_port:
        raise FieldError("with hostNetwork, hostPort must equal containerPort", *path)


class PodAddress(Model):
    ip: str


class PodStatus(Model):
    """What a cluster reported of a pod, for those who read recorded objects; the compiler takes none of it."""

    phase: str = ""
    host_ip: str = Field(default="", alias="hostIP")
    host_ips: tuple[PodAddress, ...] = Field(default=(), alias="hostIPs")
    pod_ip: str = Field(default="", alias="podIP")
    pod_ips: tuple[PodAddress, ...] = Field(default=(), alias="podIPs")
    conditions: tuple[Condition, ...] = ()


class Pod(KubeObject):
    kind: Literal["Pod"] = "Pod"
    spec: PodSpec
    status: PodStatus = PodStatus()


# ------------------------------------------------------------------------------------------------ controllers


class TemplateMetadata(Model):
    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(("name", "namespace"), "the controller names its pods")

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class PodTemplate(Model):
    metadata: TemplateMetadata = TemplateMetadata()
    spec: PodSpec


class ControllerSpec(Model):
    """What all controllers of pods share."""

    selector: LabelSelector
    template: PodTemplate
    revision_history_limit: int = 10

    @model_validator(mode="after")
    def _selects_its_pods(self) -> ControllerSpec:
        if not self.selector.match_labels and not self.selector.match_expressions:
            raise FieldError("it is empty, and must select the labels of 'template'", "selector")
        if not self.selector.matches(self.template.metadata.labels):
            raise FieldError("it does not match the labels of 'template'", "selector")
        return self


class ReplicaSetSpec(ControllerSpec):
    refused: ClassVar[Mapping[str, str]] = {"minReadySeconds": "a pod counts as available once it is ready"}

    replicas: int = Field(default=1, ge=0, le=10_000)


class ReplicaSet(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = ("apps/v1",)
    kind: Literal["ReplicaSet"] = "ReplicaSet"
    spec: ReplicaSetSpec
    status: dict[str, Any] = Field(default_factory=dict)


class DeploymentSpec(ReplicaSetSpec):
    refused: ClassVar[Mapping[str, str]] = {
        **ReplicaSetSpec.refused,
        "paused": "a lab is what its manifests say",
    }

    strategy: dict[str, Any] = Field(default_factory=dict)
    progress_deadline_seconds: int = 600


class Deployment(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = ("apps/v1",)
    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: dict[str, Any] = Field(default_factory=dict)


class Ordinals(Model):
    start: int = Field(default=0, ge=0)


class StatefulSetSpec(ReplicaSetSpec):
    refused: ClassVar[Mapping[str, str]] = {
        **ReplicaSetSpec.refused,
        **dict.fromkeys(("volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy"), "use emptyDir"),
    }

    service_name: str = ""
    ordinals: Ordinals = Ordinals()
    pod_management_policy: Literal["OrderedReady", "Parallel"] = "OrderedReady"
    update_strategy: dict[str, Any] = Field(default_factory=dict)


class StatefulSet(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = ("apps/v1",)
    kind: Literal["StatefulSet"] = "StatefulSet"
    spec: StatefulSetSpec
    status: dict[str, Any] = Field(default_factory=dict)


class DaemonSetSpec(ControllerSpec):
    refused: ClassVar[Mapping[str, str]] = {"minReadySeconds": "a pod counts as available once it is ready"}

    update_strategy: dict[str, Any] = Field(default_factory=dict)


class DaemonSet(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = ("apps/v1",)
    kind: Literal["DaemonSet"] = "DaemonSet"
    spec: DaemonSetSpec
    status: dict[str, Any] = Field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ configuration


class ConfigMap(KubeObject):
    refused: ClassVar[Mapping[str, str]] = {"binaryData": "the files of a lab are text; use data"}

    kind: Literal["ConfigMap"] = "ConfigMap"
    data: dict[FileName, str] = Field(default_factory=dict)
    immutable: bool = False


class Secret(KubeObject):
    kind: Literal["Secret"] = "Secret"
    type: str = "Opaque"
    data: dict[FileName, Base64] = Field(default_factory=dict)
    string_data: dict[FileName, str] = Field(default_factory=dict)
    immutable: bool = False

    @property
    def texts(self) -> Mapping[str, str]:
        """What the Secret holds, decoded; `stringData` wins over `data`, as in the API server."""
        decoded = {key: base64.b64decode("".join(text.split())).decode() for key, text in self.data.items()}
        return {**decoded, **self.string_data}


# ------------------------------------------------------------------------------------------------ Ingress


class ServiceBackendPort(Model):
    number: PortNumber | None = None
    name: PortName | None = None

    @model_validator(mode="after")
    def _one(self) -> ServiceBackendPort:
        _exactly_one(self, "number", "name")
        return self


class IngressServiceBackend(Model):
    name: str
    port: ServiceBackendPort


class IngressBackend(Model):
    refused: ClassVar[Mapping[str, str]] = {"resource": "use a service"}

    service: IngressServiceBackend


class IngressPath(Model):
    path_type: Literal["Exact", "Prefix", "ImplementationSpecific"]
    path: str = ""
    backend: IngressBackend

    @model_validator(mode="after")
    def _absolute_path(self) -> IngressPath:
        if not self.path.startswith("/") and (self.path or self.path_type != "ImplementationSpecific"):
            raise ValueError(f"the path {self.path!r} must start with '/'")
        return self


class IngressHttp(Model):
    paths: tuple[IngressPath, ...] = Field(min_length=1)


class IngressRule(Model):
    host: str = ""
    http: IngressHttp | None = None

    @field_validator("host")
    @classmethod
    def _name_or_wildcard(cls, host: str) -> str:
        labels = host.removeprefix("*.").split(".")
        if host and not all(_LABEL.fullmatch(label) for label in labels):
            raise ValueError(f"{host!r} is not a host name, nor one whose first label is '*'")
        return host


class IngressTls(Model):
    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Model):
    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[IngressTls, ...] = ()

    @model_validator(mode="after")
    def _leads_somewhere(self) -> IngressSpec:
        if not self.rules and self.default_backend is None:
            raise ValueError("one of 'rules' and 'defaultBackend' is needed")
        return self


class Ingress(KubeObject):
    api_versions: ClassVar[tuple[str, ...]] = ("networking.k8s.io/v1",)
    kind: Literal["Ingress"] = "Ingress"
    spec: IngressSpec
    status: dict[str, Any] = Field(default_factory=dict)


class IngressClassSpec(Model):
    refused: ClassVar[Mapping[str, str]] = {"parameters": "the controllers of a lab take none"}

    controller: str


class IngressClass(KubeObject):
    DEFAULT_ANNOTATION: ClassVar[str] = "ingressclass.kubernetes.io/is-default-class"
    api_versions: ClassVar[tuple[str, ...]] = ("networking.k8s.io/v1",)
    namespaced: ClassVar[bool] = False
    kind: Literal["IngressClass"] = "IngressClass"
    spec: IngressClassSpec

    @property
    def default(self) -> bool:
        """Whether Ingresses that name no class belong to this one."""
        return self.metadata.annotations.get(self.DEFAULT_ANNOTATION) == "true"


Controller = Deployment | ReplicaSet | StatefulSet | DaemonSet

KINDS: tuple[type[KubeObject], ...] = (
    Pod,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Ingress,
    IngressClass,
    ConfigMap,
    Secret,
)


def _exactly_one(model: Model, *fields: str) -> None:
    """Raises ValueError unless exactly one of the fields, under their names in the file, was given."""
    names = {info.alias or name: name for name, info in type(model).model_fields.items()}
    given = [field for field in fields if getattr(model, names[field]) is not None]
    if len(given) != 1:
        found = f", not {' and '.join(given)}" if given else ""
        raise ValueError(f"exactly one of {', '.join(fields)} is needed{found}")


def _unique(names: Sequence[str], *path: str) -> None:
    """Raises FieldError when a name that is not empty occurs twice in a list; `path` is the list's field and theirs."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            raise FieldError(f"{name!r} is there twice", path[0], index, *path[1:])
