"""What is asked of a cluster's API: apply, delete, and what it is still working on. By the official client."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.errors import DeployError, UnsupportedError

MANAGER = "testbed"  # who we are among those who manage fields (server-side apply)
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
BAD_REQUEST, FORBIDDEN, MISSING, TOO_LARGE, INVALID = 400, 403, 404, 413, 422
WRONG_TYPE = "failed to create typed patch object"  # which has the status of an internal error, 500
SECONDS = 30  # for one request


class NotYetError(Exception):
    """The API cannot do it yet: it does not answer, a webhook is not there, a kind of object is not known."""


class Api:
    """The API of a cluster.

    Args:
        kubeconfig: of its administrator. cache: a file that the client may keep its discoveries in.

    Raises:
        UnsupportedError: the client is not installed.
        NotYetError: the API does not answer.
    """

    def __init__(self, kubeconfig: Path, cache: Path) -> None:
        try:
            from kubernetes import client, config, dynamic
        except ImportError:
            raise UnsupportedError("clusters of kind's need Python packages: pip install 'testbed[kind]'") from None
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        settings.retries = False  # who asks waits
        settings.proxy = None  # it is on this machine
        connection = client.ApiClient(settings)
        made: Any = dynamic.DynamicClient
        self._client = _asked(lambda: made(connection, cache_file=str(cache)))

    def close(self) -> None:
        """Let go of its connections."""
        self._client.client.close()

    def _resource(self, item: Mapping[str, Any]) -> Any:
        return _asked(lambda: self._client.resources.get(api_version=item["apiVersion"], kind=item["kind"]))

    def apply(self, item: Mapping[str, Any]) -> None:
        """Have the object be as it is here (server-side apply); fields that others set stay.

        Raises:
            NotYetError: try again. DeployError: it refuses the object.
        """
        resource = self._resource(item)
        body = copy.deepcopy(dict(item))  # the client changes it
        namespace = item["metadata"].get("namespace")
        _asked(
            lambda: self._client.server_side_apply(
                resource,
                body=body,
                name=item["metadata"]["name"],
                namespace=namespace,
                field_manager=MANAGER,
                force_conflicts=True,
                _request_timeout=SECONDS,
            ),
            title(item),
        )

    def delete(self, item: Mapping[str, Any]) -> None:
        """Remove an object; one that is not there is no error."""
        from kubernetes.dynamic.exceptions import NotFoundError

        resource = self._resource(item)
        metadata = item["metadata"]

        def remove() -> None:
            try:
                self._client.delete(
                    resource, name=metadata["name"], namespace=metadata.get("namespace"), _request_timeout=SECONDS
                )
            except NotFoundError:
                return

        _asked(remove, title(item))

    def include_in_load_balancing(self, node: str) -> None:
        """Take from a node the label by which load balancers leave it out: kubeadm gives it to control planes."""
        resource = self._resource({"apiVersion": "v1", "kind": "Node"})
        body = {"metadata": {"labels": {EXCLUDED: None}}}
        _asked(
            lambda: self._client.patch(
                resource,
                body=body,
                name=node,
                content_type="application/merge-patch+json",
                _request_timeout=SECONDS,
            ),
            f"Node {node}",
        )

    def _all(self, version: str, kind: str) -> list[dict[str, Any]]:
        resource = self._resource({"apiVersion": version, "kind": kind})
        found: list[dict[str, Any]] = _asked(
            lambda: self._client.get(resource, _request_timeout=SECONDS).to_dict()["items"]
        )
        return found

    def unfinished(self) -> list[str]:
        """Nodes that are not ready and workloads that are not rolled out, in words."""
        found = [text for node in self._all("v1", "Node") if (text := node_lack(node))]
        for kind in ("DaemonSet", "Deployment", "StatefulSet"):
            for item in self._all("apps/v1", kind):
                lack = rollout_lack(kind, item)
                found += [f"{title({**item, 'kind': kind})}: {lack}"] if lack else []
        return found

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """namespace/name → load balancer addresses, of every Service of that type."""
        found = {}
        for item in self._all("v1", "Service"):
            if item["spec"].get("type") == "LoadBalancer":
                ingress = item.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
                key = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
                found[key] = tuple(entry["ip"] for entry in ingress if entry.get("ip"))
        return found


def title(item: Mapping[str, Any]) -> str:
    """An object in the user's words."""
    namespace = item["metadata"].get("namespace")
    return f"{item['kind']} {f'{namespace}/' if namespace else ''}{item['metadata']['name']}"


def node_lack(node: Mapping[str, Any]) -> str:
    """Why a node is not ready; empty when it is."""
    conditions = {entry["type"]: entry for entry in node.get("status", {}).get("conditions") or ()}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        return ""
    return f"node {node['metadata']['name']}: {ready.get('message') or 'not ready'}"


def rollout_lack(kind: str, item: Mapping[str, Any]) -> str:
    """What a workload is still to do, as `kubectl rollout status` tells it (k8s.io/kubectl, rollout_status.go)."""
    spec, status = item["spec"], item.get("status") or {}
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return "not looked at yet"
    return next((text for have, want, text in _counts(kind, spec, status) if have < want), "")


def _counts(kind: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    """(how many there are, how many are wanted, in words)."""
    names = {
        "DaemonSet": ("updatedNumberScheduled", "numberAvailable"),
        "Deployment": ("updatedReplicas", "availableReplicas"),
        "StatefulSet": ("updatedReplicas", "readyReplicas"),
    }[kind]
    wanted = status.get("desiredNumberScheduled", 0) if kind == "DaemonSet" else spec.get("replicas", 1)
    for name, word in zip(names, ("are of the newest kind", "are available"), strict=True):
        have = status.get(name) or 0
        yield have, wanted, f"{have} of {wanted} pods {word}"


def _asked(question: Callable[[], Any], what: str = "") -> Any:
    """The answer; foreign errors become ours here and nowhere else."""
    import urllib3
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

    try:
        return question()
    except ResourceNotFoundError as error:
        raise NotYetError(str(error)) from None
    except (ApiException, DynamicApiError) as error:
        text = _message(error)
        if error.status in (BAD_REQUEST, FORBIDDEN, TOO_LARGE, INVALID) or WRONG_TYPE in text:
            raise DeployError(f"{what}: the cluster refuses it: {text}") from None
        raise NotYetError(text) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise NotYetError(f"the API does not answer: {error}") from None


def _message(error: Any) -> str:
    """The API's own words (Status.message)."""
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
