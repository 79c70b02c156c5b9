"""OVN-Kubernetes' EgressService, the part of it that the embedded cluster does.

Source of names and meanings: the API reference of k8s.ovn.org/v1. `status` is for the controller to write.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from testbed.model.base import Model
from testbed.model.kube import KubeObject
from testbed.model.selectors import LabelSelector


class EgressServiceSpec(Model):
    """What source address the pods of a Service have outside the cluster, and by which network they leave.

    Args:
        source_ip_by: the load balancer address of the Service, on one node for all pods; or that of the node that the
            pod is on, in the network.
        node_selector: which nodes may be that one node.
        network: a VRF of the lab (upstream: a routing table's number or name); empty: that of the default route.
    """

    source_ip_by: Literal["LoadBalancerIP", "Network"] = Field(alias="sourceIPBy")
    node_selector: LabelSelector = LabelSelector()
    network: str = ""


class EgressService(KubeObject):
    """For the Service of type LoadBalancer that has its namespace and name."""

    api_versions: ClassVar[tuple[str, ...]] = ("k8s.ovn.org/v1",)
    kind: Literal["EgressService"] = "EgressService"
    spec: EgressServiceSpec


KINDS: tuple[type[KubeObject], ...] = (EgressService,)
