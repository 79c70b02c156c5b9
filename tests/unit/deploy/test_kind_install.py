"""What goes into a cluster of kind's: checks before anything is made, the order, and when it is all there."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.compile import compile_lab
from testbed.deploy import kind, kube_schemas
from testbed.deploy.kube_api import node_lack, rollout_lack
from testbed.errors import InputError, UnsupportedError
from testbed.load.lab import load
from testbed.plan import KubeObject, Plan
from testbed.runtime import kind_tool
from testbed.session import Session

SITE = Path(__file__).resolve().parents[2] / "golden" / "export" / "site"


@pytest.fixture(autouse=True)
def kind_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind_tool, "missing", lambda: "")


def plan_of(lab: str | Path = SITE) -> Plan:
    loaded = load(str(lab))
    return compile_lab(loaded.lab, loaded.manifests, loaded.images)


@pytest.mark.parametrize("runtime", ["netns", "containerlab"])
def test_on_other_runtimes_the_nodes_that_kind_makes_are_refused_by_name(runtime: str) -> None:
    plan = plan_of()
    assert plan.cluster
    nodes = ", ".join(node.name for node in plan.cluster.nodes)
    with pytest.raises(
        InputError, match=rf"kind makes {nodes} on the docker runtime only, and the runtime is {runtime}"
    ):
        Session("elsewhere", runtime)._refuse_without_containers(plan)
    Session("elsewhere", "docker")._refuse_without_containers(plan)


def with_object(plan: Plan, item: dict[str, Any]) -> Plan:
    assert plan.cluster
    extra = KubeObject(json.dumps(item), "manifests/extra.yaml:3:1")
    cluster = dataclasses.replace(plan.cluster, objects=(*plan.cluster.objects, extra))
    return dataclasses.replace(plan, cluster=cluster)


def pool(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "extra", "namespace": "metallb-system"}
    return {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata, "spec": spec}


# --- order and settings -----------------------------------------------------------------------------------------------


def test_order() -> None:
    titles = [kind.title(item) for item in kind.prepare(plan_of()).documents]
    assert titles == [
        "CustomResourceDefinition bgppeers.projectcalico.org",
        "DaemonSet kube-system/calico-node",
        "Namespace late",
        "BGPPeer leaf1",
        "Namespace metallb-system",
        "CustomResourceDefinition ipaddresspools.metallb.io",
        "CustomResourceDefinition bgpadvertisements.metallb.io",
        "CustomResourceDefinition bgppeers.metallb.io",
        "Deployment metallb-system/controller",
        "IPAddressPool metallb-system/pool",
        "BGPAdvertisement metallb-system/all",
        "BGPPeer metallb-system/leaf1",
        "DaemonSet default/echo",
        "Service default/echo",
    ]


def test_calico_gets_the_labs_settings() -> None:
    agent = next(item for item in kind.prepare(plan_of()).documents if item["metadata"]["name"] == "calico-node")
    env = {entry["name"]: entry["value"] for entry in agent["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env == {
        "IP": "autodetect",
        "IP_AUTODETECTION_METHOD": "cidr=172.16.1.0/24",
        "CALICO_IPV4POOL_CIDR": "192.168.0.0/16",
        "CALICO_IPV4POOL_IPIP": "Never",
        "CALICO_IPV4POOL_VXLAN": "Never",
    }


def test_objects_go_as_they_were_written() -> None:
    echo = next(item for item in kind.prepare(plan_of()).documents if item["kind"] == "Service")
    written = list(yaml.safe_load_all((SITE / "manifests" / "all.yaml").read_text()))
    assert echo == next(item for item in written if item["kind"] == "Service") | {
        "metadata": {"name": "echo", "namespace": "default"}
    }


# --- checks -----------------------------------------------------------------------------------------------------------


def test_right_objects_pass() -> None:
    assert kind.prepare(with_object(plan_of(), pool(addresses=["1.2.3.0/24"], autoAssign=False)))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (pool(addresses="1.2.3.0/24"), "spec.addresses: '1.2.3.0/24' is not of type 'array'"),
        (pool(addresses=["1.2.3.0/24", 7]), "spec.addresses[1]: 7 is not of type 'string'"),
        (pool(), "spec: 'addresses' is a required property"),
        (pool(addresses=[], adresses=[]), "('adresses' was unexpected)"),
        (pool(addresses=[]) | {"apiVersion": "metallb.io/v1"}, "no IPAddressPool of metallb.io/v1: they have it as"),
        (pool() | {"kind": "IPPool"}, "no IPPool of metallb.io/v1beta1: they have no such kind"),
    ],
)
def test_wrong_objects_are_refused_where_they_were_written(item: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        kind.prepare(with_object(plan_of(), item))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"manifests/extra.yaml:3:1: {item['kind']} metallb-system/extra: ")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"metadata": {"name": "x", "annotations": {"note": "n" * 262145}}}, "metadata.annotations: 262149 bytes"),
        ({"data": {"key": "é" * 524289}}, "data: 1048578 bytes, and Kubernetes takes 1048576"),
        ({"x": "y" * 1572864}, "and the API takes 1572864"),
    ],
)
def test_limits_of_kubernetes(extra: dict[str, Any], words: str) -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    assert not list(kube_schemas.problems(item, {}))
    assert any(words in text for text in kube_schemas.problems(item | extra, {}))


def test_int_or_string_nullable_and_unknown_fields() -> None:
    crd = {
        "kind": "CustomResourceDefinition",
        "spec": {
            "group": "g",
            "names": {"kind": "K"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "port": {"x-kubernetes-int-or-string": True},
                                "maybe": {"type": "string", "nullable": True},
                                "free": {
                                    "type": "object",
                                    "properties": {},
                                    "x-kubernetes-preserve-unknown-fields": True,
                                },
                                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                            },
                        }
                    },
                },
                {"name": "v0", "served": False, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ],
        },
    }
    known = kube_schemas.schemas([crd])
    assert list(known) == [("g/v1", "K")]
    head = {"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}}
    for right in ({"port": 1}, {"port": "http"}, {"maybe": None}, {"free": {"a": 1}}, {"map": {"a": 1}}):
        assert not list(kube_schemas.problems(head | right, known)), right
    for wrong in ({"port": []}, {"maybe": 1}, {"other": 1}, {"map": {"a": "b"}}):
        assert list(kube_schemas.problems(head | wrong, known)), wrong


def test_upstream_manifests_take_the_labs_objects() -> None:
    """All Calico and MetalLB objects of labs/edge against the real CRDs; a typing error in each is found."""
    folder = os.environ.get("TESTBED_UPSTREAM_MANIFESTS")
    if not folder:
        pytest.skip("not run: TESTBED_UPSTREAM_MANIFESTS names no folder with calico-v3-crds.yaml and metallb-frr.yaml")
    files = [Path(folder) / "calico-v3-crds.yaml", Path(folder) / "metallb-frr.yaml"]
    known = kube_schemas.schemas([entry for file in files for entry in yaml.safe_load_all(file.read_text()) if entry])
    objects = [json.loads(text) for text in load("edge").manifests.texts]
    checked = [item for item in objects if (item["apiVersion"], item["kind"]) in known]
    assert {item["kind"] for item in checked} == {
        "IPPool", "BGPConfiguration", "BGPPeer", "IPAddressPool", "BGPAdvertisement",
    }  # fmt: skip
    for item in checked:
        assert not list(kube_schemas.problems(item, known))
        assert list(kube_schemas.problems(item | {"spec": item["spec"] | {"nosuch": 1}}, known))


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_without_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind_tool, "missing", lambda: "kind is not installed: get it")
    with pytest.raises(UnsupportedError, match="kind is not installed"):
        kind.prepare(plan_of())


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "is no YAML"), ("- 1", "no Kubernetes object"), ("kind: X", "no Kubernetes object")]
)
def test_manifests_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "calico-v3-crds.yaml"
    path.write_text(text)
    plan = plan_of()
    assert plan.cluster
    cluster = dataclasses.replace(plan.cluster, upstream=(str(path),))
    with pytest.raises(InputError, match=words):
        kind.prepare(dataclasses.replace(plan, cluster=cluster))


def test_an_address_that_does_not_answer() -> None:
    plan = plan_of()
    assert plan.cluster
    cluster = dataclasses.replace(plan.cluster, upstream=("https://127.0.0.1:9/calico.yaml",))
    with pytest.raises(InputError, match="cannot be had") as caught:
        kind.prepare(dataclasses.replace(plan, cluster=cluster))
    assert "cluster.kind.offline" in str(caught.value)


def test_a_running_cluster_takes_other_objects_and_nothing_else() -> None:
    old = plan_of()
    assert old.cluster
    kind.refuse_change(old, with_object(old, pool(addresses=[])))
    kind.refuse_change(dataclasses.replace(old, cluster=None), dataclasses.replace(old, cluster=None))
    for name, value in (("pod_subnet", "10.1.0.0/16"), ("nodes", old.cluster.nodes[:1])):
        new = dataclasses.replace(old, cluster=dataclasses.replace(old.cluster, **{name: value}))
        with pytest.raises(InputError, match=f"cannot change: {name.replace('_', ' ')}.*testbed down site"):
            kind.refuse_change(old, new)
    with pytest.raises(InputError, match="cannot change from kind to embedded"):
        kind.refuse_change(old, dataclasses.replace(old, cluster=None))


# --- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "spec", "status", "lack"),
    [
        ("Deployment", {"replicas": 2}, {}, "not looked at yet"),
        (
            "Deployment",
            {"replicas": 2},
            {"observedGeneration": 1, "updatedReplicas": 1},
            "1 of 2 pods are of",
        ),
        (
            "Deployment",
            {"replicas": 2},
            {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 1},
            "1 of 2 pods are available",
        ),
        (
            "Deployment",
            {"replicas": 2},
            {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2},
            "",
        ),
        ("Deployment", {"replicas": 0}, {"observedGeneration": 1}, ""),
        ("DaemonSet", {}, {"observedGeneration": 1, "desiredNumberScheduled": 3}, "0 of 3 pods are of the newest"),
        (
            "DaemonSet",
            {},
            {
                "observedGeneration": 1,
                "desiredNumberScheduled": 3,
                "updatedNumberScheduled": 3,
                "numberAvailable": 3,
            },
            "",
        ),
        ("StatefulSet", {}, {"observedGeneration": 1, "updatedReplicas": 1}, "0 of 1 pods are available"),
        ("StatefulSet", {}, {"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1}, ""),
    ],
)
def test_rollouts(what: str, spec: dict[str, Any], status: dict[str, Any], lack: str) -> None:
    found = rollout_lack(what, {"metadata": {"generation": 1}, "spec": spec, "status": status})
    assert found.startswith(lack)
    assert bool(found) == bool(lack)


def test_nodes() -> None:
    conditions = [{"type": "Ready", "status": "True"}]
    ready: dict[str, Any] = {"metadata": {"name": "n1"}, "status": {"conditions": conditions}}
    assert node_lack(ready) == ""
    assert node_lack({"metadata": {"name": "n1"}}) == "node n1: not ready"
    condition = {"type": "Ready", "status": "False", "message": "no CNI"}
    assert node_lack(ready | {"status": {"conditions": [condition]}}) == "node n1: no CNI"
