"""Virtual and real servers of IPVS, as text of `ipvsadm-save -n` (ipvsadm(8)).

Source: Kubernetes v1.36, pkg/proxy/ipvs/proxier.go (syncService, syncEndpoint).
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.compile.kube.kube_proxy.service_ports import Backend, ProxyPort

_FLAGS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}


def virtual_server(port: ProxyPort, at: str, scheduler: str, servers: Sequence[Backend]) -> list[str]:
    """A virtual server at `at` ("address:port") and its real servers, by network address translation."""
    service = f"{_FLAGS[port.protocol]} {at}"
    kept = f" -p {port.affinity_seconds}" if port.affinity_seconds else ""
    real = [f"-a {service} -r {backend} -m -w 1" for backend in servers]
    return [f"-A {service} -s {scheduler}{kept}", *real]


def real_servers(port: ProxyPort, *, local: bool) -> tuple[Backend, ...]:
    """The endpoints of a virtual server under policy Local or Cluster.

    Under Local all are used where none is on this node, for pods of the node to reach them; other clients get no
    answer, because it comes from the endpoint's own address (https://github.com/kubernetes/kubernetes/pull/97081).
    """
    return port.backends.local or port.backends.cluster if local else port.backends.cluster
