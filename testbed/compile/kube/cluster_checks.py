"""What a cluster's objects ask for that the embedded cluster does not do: refused by name, where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.compile.kube.instances import PodInstance
from testbed.compile.kube.owners import owner_of
from testbed.errors import Problem
from testbed.load.manifests import Manifests
from testbed.model import metallb
from testbed.model.kube import KubeObject
from testbed.model.workloads import Ingress


def refusals(manifests: Manifests, pods: Sequence[PodInstance]) -> list[Problem]:
    """What is not supported yet."""
    return list(dict.fromkeys([*_layer2(manifests), *_roles(pods), *_no_controller(manifests, pods)]))


def _layer2(manifests: Manifests) -> Iterator[Problem]:
    for item in manifests.of(metallb.L2Advertisement):
        message = f"L2Advertisement {item.name}: MetalLB's layer 2 mode is not supported yet"
        yield Problem(message, item.origin.at("kind"), "announce by BGP: BGPPeer and BGPAdvertisement")


def _roles(pods: Sequence[PodInstance]) -> Iterator[Problem]:
    """Roles that the image catalogue knows and nothing configures yet."""
    for pod in pods:
        for index, container in enumerate(pod.containers):
            what = _title(pod.origin)
            if container.role == "dns":
                yield _at(pod, index, "image", f"{what}: the cluster's DNS is not supported yet")
            elif container.role == "ingress-nginx" and container.options:
                names = ", ".join(f"--{name}" for name, _ in container.options)
                yield _at(pod, index, "args", f"{what}: {names} of ingress-nginx is not supported yet")


def _no_controller(manifests: Manifests, pods: Sequence[PodInstance]) -> Iterator[Problem]:
    if any(container.role == "ingress-nginx" for pod in pods for container in pod.containers):
        return
    for item in manifests.of(Ingress)[:1]:
        message = f"{_title(item)}: no pod of the cluster is an ingress controller"
        yield Problem(message, item.origin.at("kind"), "add a Deployment of the image ingress-nginx/controller")


def _at(pod: PodInstance, container: int, field: str, message: str) -> Problem:
    owner = owner_of(pod.origin)
    return Problem(message, owner.at("containers", container, field) if owner else pod.origin.origin.at())


def _title(item: KubeObject) -> str:
    return f"{item.kind} {item.key}"
