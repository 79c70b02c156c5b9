"""A containerlab topology file: the keys it may have, as github.com/srl-labs/containerlab defines them.

Sources: types/topology.go, types/node_definition.go, types/stages.go, links/*.go. What of it can be run is decided in
`testbed.compile.clab`; here is what the words mean. A file's plain scalars come in as text, as its author wrote them
(a containerlab file has `env: {LEVEL: 010}` mean "010"), so numbers and switches are read from text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from testbed.model.base import Located

_TRUE, _FALSE = ("true", "yes", "on", "y"), ("false", "no", "off", "n")


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE:
        return True
    if isinstance(value, str) and value.lower() in _FALSE:
        return False
    raise ValueError(f"expected true or false, found {value!r}" if isinstance(value, str) else "expected true or false")


def _number(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        return int(value)
    raise ValueError(f"expected a whole number, found {value!r}" if isinstance(value, str) else "expected a number")


Flag = Annotated[bool, BeforeValidator(_flag)]
Number = Annotated[int, BeforeValidator(_number)]
Texts = tuple[str, ...]
Pairs = dict[str, str]


class ClabModel(Located):
    """Base of everything in such a file: keys with hyphens."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


class WaitFor(ClabModel):
    """Another node's stage that must have ended."""

    node: str
    stage: str


class StageExec(ClabModel):
    """A command of a stage."""

    command: str = ""
    target: str = ""
    phase: str = ""


class Stage(ClabModel):
    """One stage of a node's start."""

    wait_for: tuple[WaitFor, ...] = ()
    exec: tuple[StageExec, ...] = ()


class Stages(ClabModel):
    """The stages of a node's start."""

    create: Stage | None = None
    create_links: Stage | None = None
    configure: Stage | None = None
    healthy: Stage | None = None
    exit: Stage | None = None


class Dns(ClabModel):
    """What stands in a node's resolv.conf."""

    servers: Texts = ()
    search: Texts = ()
    options: Texts = ()


class NodeDefinition(ClabModel):
    """A node, or what nodes of a group or kind, or all, have in common."""

    kind: str = ""
    group: str = ""
    type: str = ""
    startup_config: str = ""
    startup_delay: Number = 0
    enforce_startup_config: Flag | None = None
    suppress_startup_config: Flag | None = None
    auto_remove: Flag | None = None
    restart_policy: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    image: str = ""
    image_pull_policy: str = ""
    license: str = ""
    position: str = ""
    hostname: str = ""
    entrypoint: str = ""
    cmd: str = ""
    exec: Texts = ()
    binds: Texts = ()
    volumes: Texts = ()
    devices: Texts = ()
    cap_add: Texts = ()
    privileged: Flag | None = None
    cgroupns_mode: str = ""
    cgroup_parent: str = ""
    pid_mode: str = ""
    tmpfs: Pairs = Field(default_factory=dict)
    security_opts: Texts = ()
    shm_size: str = ""
    ports: Texts = ()
    mgmt_ipv4: str = ""
    mgmt_ipv6: str = ""
    env: Pairs = Field(default_factory=dict)
    env_files: Texts = ()
    user: str = ""
    labels: Pairs = Field(default_factory=dict)
    network_mode: str = ""
    runtime: str = ""
    cpu: str = ""
    cpu_set: str = ""
    memory: str = ""
    sysctls: Pairs = Field(default_factory=dict)
    extras: dict[str, Any] = Field(default_factory=dict)
    stages: Stages | None = None
    dns: Dns | None = None
    certificate: dict[str, Any] = Field(default_factory=dict)
    healthcheck: dict[str, Any] = Field(default_factory=dict)
    credentials: dict[str, Any] = Field(default_factory=dict)
    username: str = ""
    password: str = ""
    aliases: Texts = ()
    components: tuple[dict[str, Any], ...] = ()
    link_apply_mode: str = ""


class LinkEnd(ClabModel):
    """An end of a link in the extended format."""

    node: str
    interface: str
    mac: str = ""
    ipv4: str = ""
    ipv6: str = ""
    vars: dict[str, Any] = Field(default_factory=dict)


class ClabLink(ClabModel):
    """A link; without a type, or as `brief`, its ends are written NODE:INTERFACE."""

    type: str = "brief"
    endpoints: tuple[str | LinkEnd, ...] = ()
    endpoint: LinkEnd | None = None
    host_interface: str = ""
    mode: str = ""
    remote: str = ""
    vni: str = ""
    dst_port: str = ""
    src_port: str = ""
    mtu: Number = 0
    ipv4: Texts = ()
    ipv6: Texts = ()
    vars: dict[str, Any] = Field(default_factory=dict)
    labels: Pairs = Field(default_factory=dict)


class ClabTopology(ClabModel):
    """Nodes and links, and what nodes have in common."""

    defaults: NodeDefinition = NodeDefinition()
    kinds: dict[str, NodeDefinition] = Field(default_factory=dict)
    groups: dict[str, NodeDefinition] = Field(default_factory=dict)
    nodes: dict[str, NodeDefinition] = Field(default_factory=dict)
    links: tuple[ClabLink, ...] = ()


class ClabFile(ClabModel):
    """The whole file."""

    name: str
    prefix: str | None = None
    mgmt: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    debug: Flag = False
    topology: ClabTopology
