"""Labs for tests, written short."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping

from testbed.compile import compile_lab
from testbed.compile.topology import Topology
from testbed.compile.topology import build as build_topology
from testbed.errors import InputError, Problem
from testbed.load.images import catalogue
from testbed.load.lab import parse_lab
from testbed.load.manifests import load_manifests
from testbed.model.lab import Lab
from testbed.plan import File, Node, Plan

HEAD = "apiVersion: testbed/v1\nname: test\n"


def lab(text: str) -> Lab:
    """The lab of this YAML, which needs no apiVersion and name."""
    return parse_lab(HEAD + textwrap.dedent(text), "lab.yaml")


def topology(text: str) -> Topology:
    """The topology of a lab whose links are right."""
    found, problems = build_topology(lab(text))
    assert problems == []
    return found


def compiled(text: str, manifests: Mapping[str, str] | None = None, *, not_ready: Collection[str] = ()) -> Plan:
    """The Plan of a lab and its manifests (file name → text), of whose nodes some are not ready."""
    texts = [(name, textwrap.dedent(content)) for name, content in (manifests or {}).items()]
    made = lab(text)
    return compile_lab(made, load_manifests(texts), catalogue(made.images), not_ready=not_ready)


def problems(text: str, manifests: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """What is wrong with a lab; nothing when it compiles."""
    try:
        compiled(text, manifests)
    except InputError as error:
        return error.problems
    return ()


def messages(text: str, manifests: Mapping[str, str] | None = None) -> list[str]:
    """The messages of `problems`."""
    return [problem.message for problem in problems(text, manifests)]


def file(node: Node, path: str) -> str:
    """The text of a node's file."""
    found: File = next(entry for entry in node.files if entry.path == path)
    assert isinstance(found.content, str)
    return found.content


CLUSTER = """
    nodes:
      r1: {kind: router, bgp: {asn: 65001}}
      h1: {kind: host}
      n1: {kind: kubernetes}
      n2: {kind: kubernetes}
    links:
      - {endpoints: [r1, n1, n2], ipv4: 10.1.0.0/24}
      - {endpoints: [r1, h1], ipv4: 10.2.0.0/24}
    cluster: {name: k8s}
"""
"""A router, a host and a cluster of two nodes."""
