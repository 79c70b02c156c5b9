"""What is asked of a cluster's API, asked of a real kube-apiserver; the test plays the cluster's controllers."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kube_apiserver import kube_apiserver

from testbed.deploy import kind
from testbed.deploy.kube_api import EXCLUDED, Api, NotYetError
from testbed.errors import DeployError, NotReadyError
from testbed.events import Awaited, Event
from testbed.plan import Plan
from testbed.runtime import kind_tool
from testbed.session import compiled
from testbed.wait import Deadline

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("apiserver")]

SITE = Path(__file__).resolve().parents[1] / "golden" / "export" / "site"


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with kube_apiserver(tmp_path_factory.mktemp("api")) as path:
        yield path


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[Api]:
    made = Api(kubeconfig, kubeconfig.with_name("discoveries.json"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def kind_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind_tool, "missing", lambda: "")


def get(api: Api, version: str, what: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    resource = api._client.resources.get(api_version=version, kind=what)
    found: dict[str, Any] = api._client.get(resource, name=name, namespace=namespace).to_dict()
    return found


def set_status(api: Api, item: dict[str, Any], status: dict[str, Any]) -> None:
    """What a controller would do."""
    resource = api._client.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    metadata = item["metadata"]
    api._client.patch(
        resource.status,
        body={"status": status},
        name=metadata["name"],
        namespace=metadata.get("namespace"),
        content_type="application/merge-patch+json",
    )


class Controllers:
    """Does the cluster's work whenever it is told that something is awaited."""

    def __init__(self, api: Api, address: str) -> None:
        self.api, self.address = api, address
        self.told: list[str] = []

    def __call__(self, event: Event) -> None:
        assert isinstance(event, Awaited)
        if event.what not in self.told:
            self.told.append(event.what)
        if event.what == "workloads":
            for what in ("Deployment", "DaemonSet"):
                for item in self.api._all("apps/v1", what):
                    head = {"apiVersion": "apps/v1", "kind": what}
                    counts = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
                    if what == "DaemonSet":
                        counts = dict.fromkeys(
                            ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady",
                             "updatedNumberScheduled", "numberAvailable"), 1
                        )  # fmt: skip
                    generation = item["metadata"]["generation"]
                    set_status(self.api, {**item, **head}, {"observedGeneration": generation, **counts})
        if event.what == "load balancer addresses":
            ingress = {"loadBalancer": {"ingress": [{"ip": self.address}]}}
            set_status(self.api, get(self.api, "v1", "Service", "echo", "default"), ingress)


def node(api: Api, name: str) -> None:
    item = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {EXCLUDED: "", "own": "x"}}}
    api.apply(item)
    set_status(api, item, {"conditions": [{"type": "Ready", "status": "True"}]})


def install(plan: Plan, old: Plan | None, kubeconfig: Path, observer: Any, seconds: float = 60.0) -> None:
    kind.install(plan, old, kind.prepare(plan), kubeconfig, Deadline(seconds), observer)


def test_a_lab_is_installed_changed_and_installed_again(api: Api, kubeconfig: Path) -> None:
    plan = compiled(str(SITE))
    assert plan.cluster
    node(api, "n1")
    controllers = Controllers(api, "3.3.3.0")
    install(plan, None, kubeconfig, controllers)
    assert controllers.told == ["objects", "workloads", "load balancer addresses"]
    assert EXCLUDED not in get(api, "v1", "Node", "n1")["metadata"]["labels"]
    assert get(api, "v1", "Node", "n1")["metadata"]["labels"]["own"] == "x"
    pool = get(api, "metallb.io/v1beta1", "IPAddressPool", "pool", "metallb-system")
    assert pool["spec"] == {"addresses": ["3.3.3.0/28"]}
    agent = get(api, "apps/v1", "DaemonSet", "calico-node", "kube-system")["spec"]["template"]["spec"]
    assert {"name": "IP_AUTODETECTION_METHOD", "value": "cidr=172.16.1.0/24"} in agent["containers"][0]["env"]
    # an object goes, another changes
    kept = tuple(entry for entry in plan.cluster.objects if '"BGPAdvertisement"' not in entry.text)
    changed = tuple(dataclasses.replace(entry, text=entry.text.replace("3.3.3.0/28", "3.3.3.0/27")) for entry in kept)
    new = dataclasses.replace(plan, cluster=dataclasses.replace(plan.cluster, objects=changed))
    install(new, plan, kubeconfig, controllers)
    pool = get(api, "metallb.io/v1beta1", "IPAddressPool", "pool", "metallb-system")
    assert pool["spec"] == {"addresses": ["3.3.3.0/27"]}
    assert api._all("metallb.io/v1beta1", "BGPAdvertisement") == []
    assert len(api._all("metallb.io/v1beta2", "BGPPeer")) == 1


def test_another_address_than_the_labs(api: Api, kubeconfig: Path) -> None:
    node(api, "n1")
    api.delete({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": "default"}})
    plan = compiled(str(SITE))
    with pytest.raises(DeployError, match=r"default/echo has the address 3\.3\.3\.9, and the lab counts on 3\.3\.3\.0"):
        install(plan, None, kubeconfig, Controllers(api, "3.3.3.9"))


def test_what_is_awaited_is_named(api: Api, kubeconfig: Path) -> None:
    node(api, "n1")
    api.delete({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": "default"}})
    api.delete({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "echo", "namespace": "default"}})
    plan = compiled(str(SITE))
    with pytest.raises(NotReadyError) as caught:
        install(plan, None, kubeconfig, lambda _: None, seconds=6)
    assert "DaemonSet default/echo: not looked at yet" in caught.value.missing


def test_what_the_api_refuses(api: Api) -> None:
    item: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}}
    api.apply(item)
    with pytest.raises(DeployError, match=r"ConfigMap default/x: the cluster refuses it: .*typed patch"):
        api.apply(item | {"data": 7})
    with pytest.raises(DeployError, match=r"refuses it: .*invalid"):
        api.apply(item | {"metadata": {"name": "_x_", "namespace": "default"}})
    with pytest.raises(NotYetError, match="nosuch"):
        api.apply(item | {"metadata": {"name": "x", "namespace": "nosuch"}})
    with pytest.raises(NotYetError):
        api.apply(item | {"apiVersion": "nosuch/v1"})
    api.delete(item)
    api.delete(item)  # which is no error


def test_an_api_that_does_not_answer(kubeconfig: Path, tmp_path: Path) -> None:
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(NotYetError, match="does not answer"):
        Api(tmp_path / "kubeconfig", tmp_path / "discoveries.json")


def test_the_upstream_manifests_are_taken(tmp_path: Path) -> None:
    """Everything of Calico's and MetalLB's but their webhooks, which need their pods; and the lab's objects with it."""
    folder = os.environ.get("TESTBED_UPSTREAM_MANIFESTS")
    if not folder:
        pytest.skip("not run: TESTBED_UPSTREAM_MANIFESTS names no folder with calico-v3-crds.yaml and metallb-frr.yaml")
    plan = compiled(str(SITE))
    assert plan.cluster
    upstream = tuple(str(Path(folder) / name) for name in ("calico-v3-crds.yaml", "metallb-frr.yaml"))
    plan = dataclasses.replace(plan, cluster=dataclasses.replace(plan.cluster, upstream=upstream))
    documents = [item for item in kind.prepare(plan).documents if "Webhook" not in item["kind"]]
    assert len(documents) > 60
    with kube_apiserver(tmp_path) as kubeconfig:
        api = Api(kubeconfig, kubeconfig.with_name("discoveries.json"))
        for item in documents:
            kind._insist(partial(api.apply, item), kind.title(item), Deadline(30))
        assert len(api._all("metallb.io/v1beta1", "IPAddressPool")) == 1
        api.close()
