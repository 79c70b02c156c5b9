"""Kubernetes objects for tests, written short: manifests as dicts, completed and validated by the model."""

from __future__ import annotations

from typing import Any

from testbed.model.kube import EndpointSlice, Node, Service


def service(
    name: str = "web",
    /,
    *,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Service:
    """A Service with port 80 → 8080 and cluster IP 10.96.0.10, unless `spec` says otherwise."""
    full = {"clusterIP": "10.96.0.10", "ports": [{"port": 80, "targetPort": 8080}]} | spec
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": full}
    return Service.model_validate(manifest | ({"status": status} if status else {}))


def ingress(*addresses: str) -> dict[str, Any]:
    """The status of a Service that a load balancer gave addresses."""
    return {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}


def endpoint(address: str, node: str = "", /, **conditions: bool) -> dict[str, Any]:
    """An endpoint; without conditions it is ready."""
    return {"addresses": [address], "conditions": conditions} | ({"nodeName": node} if node else {})


def draining(address: str, node: str) -> dict[str, Any]:
    return endpoint(address, node, ready=False, serving=True, terminating=True)


def endpoints(
    *entries: dict[str, Any],
    name: str = "web-1",
    of: str = "web",
    namespace: str = "default",
    port: int | None = 8080,
    port_name: str = "",
    address_type: str = "IPv4",
    labels: dict[str, str] | None = None,
) -> EndpointSlice:
    """An EndpointSlice with one port, of Service default/web."""
    own = {"kubernetes.io/service-name": of} | (labels or {})
    manifest = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": own},
        "addressType": address_type,
        "ports": [{"name": port_name, "port": port}],
        "endpoints": list(entries),
    }
    return EndpointSlice.model_validate(manifest)


def node(name: str = "n1", zone: str = "a", **spec: Any) -> Node:
    """A Node with the addresses 172.16.1.1 and fd00:16:1::1."""
    metadata = {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}
    addresses = [{"type": "InternalIP", "address": text} for text in ("172.16.1.1", "fd00:16:1::1")]
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": addresses}}
    return Node.model_validate(manifest | {"spec": spec})
