"""A containerlab topology → Plan: linux nodes with FRR or host images, bridges, links, exec lines.

On the netns runtime an image is what the image catalogue maps it to: the machine's own programs. On a container
runtime it is that image, which starts its programs itself. What cannot be run is refused by node and key; what has no
effect here is a note of the Plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from testbed import plan
from testbed.compile import clab_frr, sysctls
from testbed.compile.base import with_base
from testbed.compile.clab_exec import commands, stated_addresses
from testbed.compile.clab_images import Images
from testbed.compile.clab_keys import KINDS, KeyCheck, stages
from testbed.compile.clab_links import Cabling, bridge_name, cabling
from testbed.errors import InputError, Problem
from testbed.load.clab import ClabNode, LoadedClab, magic
from testbed.load.explain import suggest
from testbed.model.names import host_label
from testbed.plan import SecretRef

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# What a new container has: a host that runs a container engine forwards IPv4, and a namespace takes that over.
CONTAINER: sysctls.Sysctls = (
    *sysctls.COMMON,
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "0"),
)
ENABLED_6 = ("net/ipv6/conf/all/disable_ipv6", "0")  # nodes/linux/linux.go: whatever a topology says
NOTES = (
    "no management network is made: nodes have no eth0, and names of nodes are known where their addresses are stated",
    "what is bound is copied when the lab is brought up; what a node writes stays in the node",
)


def compile_clab(loaded: LoadedClab, name: str = "", *, containers: bool = False, binds: bool = False) -> plan.Plan:
    """The Plan of a topology.

    Args:
        name: under which it runs; the topology's own when empty.
        containers: for a runtime that runs images. binds: for one that gives them their files by SOURCE:TARGET.

    Raises:
        InputError: with every problem that was found.
    """
    return _Compiler(loaded, containers=containers, binds=binds).whole(name)


@dataclass
class _Made:
    """A node so far, and what is known of it for the others."""

    node: plan.Node
    addresses: list[str] = field(default_factory=list)


class _Compiler:
    def __init__(self, loaded: LoadedClab, *, containers: bool, binds: bool) -> None:
        self.loaded = loaded
        self.containers = containers
        self.binds = binds
        self.keys = KeyCheck()
        self.problems: list[Problem] = []
        self.images = Images(loaded, self.keys, containers)

    def whole(self, name: str) -> plan.Plan:
        own = self._name(name)
        kinds = {node.name: self._kind(node) for node in self.loaded.nodes}
        owners = {node.name: self._owner(node, kinds) for node in self.loaded.nodes if kinds[node.name] == "bridge"}
        cables = cabling(self.loaded, kinds, owners, self.keys)
        made = [
            self._node(node, kinds[node.name], cables)
            for node in self._in_order()
            if owners.get(node.name, node.name) == node.name
        ]
        nodes = self._with_hosts(made)
        if problems := [*self.problems, *self.images.problems, *cables.problems, *self.keys.problems]:
            raise InputError(dict.fromkeys(problems))
        secrets = {
            entry.content.secret for node in nodes for entry in node.files if isinstance(entry.content, SecretRef)
        }
        return plan.Plan(
            name=own,
            nodes=tuple(nodes),
            links=tuple(cables.links),
            secrets=tuple(sorted(secrets)),
            description=f"containerlab topology {self.loaded.path.name}",
            notes=(*NOTES, *self._file_notes(), *self.keys.notes),
        )

    # --- the file as a whole ------------------------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        own = name or self.loaded.file.name
        try:
            host_label(own)
        except ValueError as error:
            hint = "" if name else "--name gives it another"
            self.problems.append(Problem(str(error), None if name else self.loaded.file.origin.at("name"), hint))
        return own

    def _file_notes(self) -> Iterator[str]:
        reasons = {
            "prefix": "nodes are named by the lab and themselves",
            "mgmt": "no management network is made",
            "settings": "no certificates are made",
        }
        for key, reason in reasons.items():
            if getattr(self.loaded.file, key):
                yield f"{key} has no effect: {reason}"

    def _kind(self, node: ClabNode) -> str:
        kind = node.settings.kind.lower()
        if kind not in KINDS:
            message = f"the kind {kind!r} is not supported" if kind else "it has no kind"
            at = node.settings.at("kind")
            self.keys.refuse(node.name, message, at, f"this runs nodes of the kinds {', '.join(KINDS)}")
        return kind

    def _owner(self, node: ClabNode, kinds: Mapping[str, str]) -> str:
        """The node whose namespace a bridge is in: `network-mode: container:NAME` with a bridge named BRIDGE|NAME."""
        mode: str = node.settings.one("network_mode")
        _, bar, suffix = node.name.partition("|")
        if not mode:
            self.keys.note(node.name, "the bridge is a switch of the lab: a bridge of this machine is not used")
            return node.name
        owner = mode.removeprefix("container:")
        if owner == mode or kinds.get(owner) != "linux" or suffix != owner:
            hint = "network-mode: container:NODE, and the bridge named BRIDGE|NODE" if bar or owner != mode else ""
            self.keys.refuse(
                node.name, f"network-mode {mode!r} is not supported", node.settings.at("network_mode"), hint
            )
            return node.name
        return owner

    def _in_order(self) -> list[ClabNode]:
        """The nodes, each after those that it waits for: their commands are run in this order."""
        by_name = {node.name: node for node in self.loaded.nodes}
        ordered: dict[str, ClabNode] = {}

        def visit(node: ClabNode, above: tuple[str, ...]) -> None:
            if node.name in above:
                circle = " → ".join((*above[above.index(node.name) :], node.name))
                self.problems.append(Problem(f"nodes wait for each other: {circle}", node.settings.at("stages")))
            elif node.name not in ordered:
                for _, stage, position in stages(node.settings):
                    for wait in stage.wait_for:
                        if wait.node in by_name:
                            visit(by_name[wait.node], (*above, node.name))
                        else:
                            hint = suggest(wait.node, by_name)
                            self.keys.refuse(node.name, f"no node {wait.node!r} to wait for", position, hint)
                ordered[node.name] = node

        for node in self.loaded.nodes:
            visit(node, ())
        return list(ordered.values())

    # --- a node -------------------------------------------------------------------------------------------------------

    def _node(self, node: ClabNode, kind: str, cables: Cabling) -> _Made:
        if not _NODE_NAME.fullmatch(node.name) and not (kind == "bridge" and "|" in node.name):
            message = f"{node.name!r} is no legal name: letters, digits, '_', '-' and '.', at most 63"
            self.problems.append(Problem(message, node.settings.at()))
        interfaces = tuple(sorted(cables.interfaces[node.name], key=lambda entry: bool(entry.master)))
        if kind == "bridge":
            return self._bridge(node, interfaces)
        self.keys.check(node)
        mode: str = node.settings.one("network_mode")
        if mode not in ("", "none", "bridge"):
            hint = "every node has a network of its own"
            message = f"network-mode {mode!r} is not supported"
            self.keys.refuse(node.name, message, node.settings.at("network_mode"), hint)
        if self.binds:
            self._refuse_colons(node)
        env = self._env(node)
        words_of = magic(self.loaded.file.name, node.name, self.loaded.path.parent)
        lines = commands(node, words_of, env, [entry.name for entry in interfaces], self.keys)
        bound = {file.path: plan.File(file.path, file.content, file.mode, _owner(file.path)) for file in node.files}
        made = plan.Node(
            name=node.name,
            kind="host",
            hostname=node.settings.one("hostname"),
            interfaces=interfaces,
            sysctls=(*CONTAINER, *self._sysctls(node), ENABLED_6),
            directories=tuple((path, _owner(path)) for path in node.directories),
            files=(*self._resolver(node), *bound.values()),
            commands=lines,
            env=tuple(env.items()) if self.containers else (),
        )
        config = bound.get(clab_frr.CONFIG)
        text = config.content if config and isinstance(config.content, str) else ""
        return _Made(self.images.with_image(made, node, bound, env), stated_addresses(lines, text))

    def _refuse_colons(self, node: ClabNode) -> None:
        for path in (*(file.path for file in node.files), *node.directories):
            if ":" in path:
                message = f"{path} has a colon, which containerlab takes for the end of a path"
                self.keys.refuse(node.name, message, node.bind_at(path), "rename it, or use --runtime docker")

    def _bridge(self, node: ClabNode, interfaces: tuple[plan.Interface, ...]) -> _Made:
        """A bridge that is a node of its own: a switch."""
        used = ("kind", "group", "network_mode", "labels", "position", "type")
        for field_name in node.settings.stated():
            if field_name not in used and not self._is_common(node, field_name):
                key = field_name.replace("_", "-")
                self.keys.refuse(node.name, f"a bridge has no {key}", node.settings.at(field_name))
        if len(bridge_name(node.name)) > 15:
            self.problems.append(Problem(f"{node.name}: a bridge's name has at most 15 characters", node.settings.at()))
        return _Made(plan.Node(name=node.name, kind="switch", interfaces=interfaces, sysctls=sysctls.END_SYSTEM))

    def _is_common(self, node: ClabNode, field_name: str) -> bool:
        """Whether a field is stated for nodes of all kinds alone, which containerlab does not hold against a bridge."""
        own = self.loaded.file.topology.nodes[node.name]
        return field_name not in own.model_fields_set

    def _env(self, node: ClabNode) -> dict[str, str]:
        pairs = node.settings.pairs("env")
        if "__IMPORT_ENVS" in pairs:
            message = "__IMPORT_ENVS is not supported: a lab must not depend on who brings it up"
            self.keys.refuse(node.name, message, pairs["__IMPORT_ENVS"][1], "name the variables")
        for key, (_, position) in pairs.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", key):
                self.keys.refuse(node.name, f"{key!r} is no name of a variable", position)
        return {**node.env, **{key: value for key, (value, _) in pairs.items()}}

    def _sysctls(self, node: ClabNode) -> Iterator[tuple[str, str]]:
        for key, (value, position) in node.settings.pairs("sysctls").items():
            if not re.fullmatch(r"net(\.[A-Za-z0-9_-]+){2,}", key):
                hint = "write it with dots, as net.ipv4.ip_forward"
                self.keys.refuse(node.name, f"the sysctl {key!r} is not one of a node's network", position, hint)
            yield key.replace(".", "/"), value

    def _resolver(self, node: ClabNode) -> Iterator[plan.File]:
        if dns := node.settings.one("dns"):
            lines = [f"nameserver {entry}" for entry in dns.servers]
            lines += [f"{word} {' '.join(found)}" for word in ("search", "options") if (found := getattr(dns, word))]
            yield plan.File("/etc/resolv.conf", "\n".join([*lines, ""]))

    # --- names of nodes -----------------------------------------------------------------------------------------------

    def _with_hosts(self, made: Sequence[_Made]) -> list[plan.Node]:
        """The nodes with their names and aliases in everybody's hosts file, as far as addresses are stated."""
        by_name = {node.name: node for node in self.loaded.nodes}
        lines = []
        for entry in made:
            aliases = by_name[entry.node.name].settings.items("aliases") if entry.node.kind != "switch" else []
            if entry.addresses:
                lines.append(" ".join((entry.addresses[0], entry.node.name, *(alias for alias, _ in aliases))))
            for alias, position in aliases if not entry.addresses else ():
                hint = "state it in an exec line (ip address add) or in frr.conf"
                self.keys.refuse(entry.node.name, f"no address is known for the alias {alias!r}", position, hint)
        return [self._based(entry, lines) for entry in made]

    def _based(self, entry: _Made, lines: Iterable[str]) -> plan.Node:
        node = entry.node
        if node.kind == "switch":
            return replace(node, files=with_base(node.files, node.name))
        based = with_base((), node.hostname or node.name, entry.addresses)
        names = "".join(f"{line}\n" for line in lines if line.split()[1] != node.name)
        own = [replace(file, content=f"{file.content}{names}") if file.path == "/etc/hosts" else file for file in based]
        by_path = {file.path: file for file in (*own, *node.files)}
        return replace(node, files=tuple(by_path.values()))


def _owner(path: str) -> str:
    """The image's own start gives FRR its files (docker/alpine/docker-start)."""
    return "frr" if path == "/etc/frr" or path.startswith("/etc/frr/") else "root"
