"""What a recording of kube-proxy holds, and the names of all that every mode has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kube_objects import service

from testbed.compile.kube.kube_proxy.config import ProxyConfig
from testbed.model.kube import EndpointSlice, Node, Service

RECORDED = [
    "clusterip-local-hairpin",
    "clusterip-named-ports",
    "clusterip-no-endpoints",
    "clusterip-one-remote",
    "clusterip-sctp",
    "clusterip-three",
    "clusterip-two-namespaces",
    "clusterip-udp",
    "detect-bridge",
    "detect-node-cidr",
    "dual-stack-loadbalancer",
    "external-ips-cluster",
    "external-name",
    "headless",
    "hints-by-zone",
    "host-network-backend",
    "internal-cluster",
    "internal-cluster-remote-only",
    "internal-local",
    "ipv6-clusterip",
    "loadbalancer-cluster",
    "loadbalancer-cluster-remote-only",
    "loadbalancer-local",
    "loadbalancer-local-remote-only",
    "loadbalancer-mode-proxy",
    "loadbalancer-no-endpoints",
    "loadbalancer-no-nodeports",
    "loadbalancer-pending",
    "loadbalancer-source-ranges",
    "loadbalancer-two-addresses",
    "masquerade-all",
    "no-cluster-cidr",
    "no-localhost-nodeports",
    "nodeport-cluster",
    "nodeport-cluster-remote-only",
    "nodeport-local",
    "nodeport-primary",
    "not-ready",
    "other-proxy-ignored",
    "session-affinity",
    "terminating-with-ready",
]


def api_server() -> Service:
    port = {"name": "https", "port": 443, "targetPort": 6443}
    return service("kubernetes", clusterIP="10.96.0.1", ports=[port])


def recorded_config(path: Path) -> ProxyConfig:
    """The settings in a KubeProxyConfiguration v1alpha1; a setting that is not read here fails the test."""
    settings: dict[str, Any] = yaml.safe_load(path.read_text())
    # v1alpha1 has no section `linux` (masqueradeAll is iptables.masqueradeAll there); the program drops it unread.
    for ignored in ("apiVersion", "kind", "bindAddress", "nftables", "linux"):
        settings.pop(ignored, None)
    balancing = settings.pop("ipvs")
    balancing.pop("excludeCIDRs", None)  # virtual servers of others, which the program leaves alone when it cleans up
    assert balancing.keys() <= {"scheduler", "strictARP"}
    tables = settings.pop("iptables")
    assert tables.keys() <= {"minSyncPeriod", "localhostNodePorts", "masqueradeAll"}
    detect = settings.pop("detectLocal", {})
    assert detect.keys() <= {"bridgeInterface", "interfaceNamePrefix"}
    config = ProxyConfig(
        cluster_cidrs=tuple(filter(None, settings.pop("clusterCIDR").split(","))),
        detect_local=settings.pop("detectLocalMode", "ClusterCIDR"),
        local_interface=detect.get("bridgeInterface") or detect.get("interfaceNamePrefix") or "",
        masquerade_all=tables.get("masqueradeAll", False),
        localhost_node_ports=tables.get("localhostNodePorts", True),
        node_port_addresses=tuple(settings.pop("nodePortAddresses", ())),
        scheduler=balancing.get("scheduler", "rr"),
        strict_arp=balancing.get("strictARP", False),
    )
    assert not settings
    return config


def recorded_objects(path: Path) -> tuple[list[Service], list[EndpointSlice]]:
    documents = list(yaml.safe_load_all(path.read_text()))
    services = [Service.model_validate(item) for item in documents if item["kind"] == "Service"]
    slices = [EndpointSlice.model_validate(item) for item in documents if item["kind"] == "EndpointSlice"]
    assert len(services) + len(slices) == len(documents)
    return [api_server(), *services], slices


def recorded_node(path: Path) -> Node:
    return next(
        Node.model_validate(item) for item in yaml.safe_load_all(path.read_text()) if item["metadata"]["name"] == "n1"
    )
