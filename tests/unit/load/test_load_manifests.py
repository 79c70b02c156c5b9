"""Manifests: dispatch, lists, files and folders. What is refused, and how, is in tests/golden/manifests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import InputError, Position
from testbed.load.manifests import KINDS, Manifests, load_manifests, read_manifests
from testbed.model import calico, kube, metallb, ovn, workloads
from testbed.model.base import Model

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {{name: {}}}\nspec: {{ports: [{{port: 80}}]}}\n"


def loaded(text: str) -> Manifests:
    return load_manifests([("f", text)])


def test_each_kind_has_one_model() -> None:
    models = (*kube.KINDS, *workloads.KINDS, *metallb.KINDS, *calico.KINDS, *ovn.KINDS)
    names = Counter((version, model.model_fields["kind"].default) for model in models for version in model.api_versions)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(KINDS) == len(names)


def test_apiversion_and_kind_decide() -> None:
    text = """
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: a, namespace: metallb-system}
spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: a}
spec: {peerIP: 10.0.0.1, asNumber: 2}
"""
    manifests = loaded(text)
    assert [type(item) for item in manifests.objects] == [metallb.BGPPeer, calico.BGPPeer]
    assert manifests.of(calico.BGPPeer) == manifests.objects[1:]


def test_what_kubectl_prints_for_nothing_is_nothing() -> None:
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {creationTimestamp: null, name: web, labels: null}
spec:
  selector: {matchLabels: {app: web}}
  strategy: {}
  template:
    metadata: {creationTimestamp: null, labels: {app: web}}
    spec: {containers: [{image: nginx, name: nginx, resources: {}, command: null}]}
status: {}
"""
    (deployment,) = loaded(text).of(workloads.Deployment)
    assert deployment.spec.replicas == 1
    assert deployment.spec.template.spec.containers[0].command == ()


def test_lists_and_positions() -> None:
    items = "".join("- " + SERVICE.format(name).replace("\n", "\n  ").rstrip() + "\n" for name in ("a", "b"))
    manifests = loaded("apiVersion: v1\nkind: List\nitems:\n" + items)
    assert [service.key for service in manifests.of(kube.Service)] == ["default/a", "default/b"]
    second = manifests.objects[1]
    assert second.origin.at("metadata", "name") == Position("f", 10, 20)
    assert second.origin.at() == Position("f", 8, 3)


def test_same_name_in_another_namespace_group_or_kind() -> None:
    text = SERVICE.format("a") + "---\n" + SERVICE.format("a, namespace: b")
    text += "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
    assert len(loaded(text).objects) == 3


def test_problems_of_all_files_at_once(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SERVICE.format("a"))
    (tmp_path / "a.yml").write_text(SERVICE.format("a"))
    (tmp_path / "c.yaml").write_text("kind: [")
    (tmp_path / "d.yaml").write_bytes(b"\xff")
    (tmp_path / "notes.txt").write_text("not read: [")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        read_manifests([tmp_path, tmp_path / "none.yaml", tmp_path / "empty"])
    told = "\n".join(str(problem) for problem in caught.value.problems).replace(f"{tmp_path}/", "")
    assert told.splitlines() == [
        "cannot read none.yaml: No such file or directory",
        "no *.yaml or *.yml in the directory empty",
        "b.yaml:3:18: Service default/a is there twice, first at a.yml:3:18",
        "c.yaml:2:1: invalid YAML: did not find expected node content (while parsing a flow node)",
        "d.yaml:1:1: not UTF-8 text",
    ]


def test_folders_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.yaml"):
        (tmp_path / name).write_text(SERVICE.format(name[0]))
    (tmp_path / "sub.yaml").mkdir()
    manifests = read_manifests([tmp_path])
    assert [item.name for item in manifests.objects] == ["a", "b", "c"]


def test_recordings_are_read(fixtures: Path) -> None:
    """Pods, Services and the rest, as real clusters held them; the kinds that others have yet to support aside."""
    files = sorted((fixtures / "kube-proxy").glob("*/objects.yaml"))
    assert files
    for file in files:
        assert load_manifests([(str(file), file.read_text())]).of(kube.Service)
    pods = 0
    for file in sorted((fixtures / "calico" / "policy").glob("*/objects.yaml")):
        documents = [text for text in file.read_text().split("---\n") if "\nkind: Pod\n" in f"\n{text}"]
        pods += len(load_manifests([(str(file), "---\n".join(documents))]).of(workloads.Pod))
    assert pods > 100


def test_every_field_without_effect_exists() -> None:
    aliases = {info.alias for model in _models(Model) for info in model.model_fields.values()}
    assert not workloads.WITHOUT_EFFECT.keys() - aliases


def test_no_field_is_both_known_and_refused() -> None:
    checked = 0
    for model in _models(Model):
        refused = getattr(model, "refused", {})
        checked += len(refused)
        assert not refused.keys() & {info.alias for info in model.model_fields.values()}, model
    assert checked > 40


def _models(base: type[Model]) -> set[type[Model]]:
    return {base, *(model for child in base.__subclasses__() for model in _models(child))}


KEYS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "name",
        "items",
        "template",
        "selector",
        "matchLabels",
        "containers",
        "ports",
        "port",
        "targetPort",
        "volumes",
        "env",
        "image",
        "rules",
        "labels",
        "data",
        "replicas",
        "x",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-5, 10**6) | st.sampled_from(["", "web", "nginx", "a b", "../x", "80"])
DATA = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)
HEADS = st.sampled_from([*KINDS, ("v1", "List"), ("batch/v1", "Job")])


def read(text: str) -> Manifests | None:
    """The manifests, or None where they are refused; whatever else is raised fails the test."""
    try:
        return loaded(text)
    except InputError:
        return None


@given(DATA)
def test_any_data_is_read_or_refused(data: Any) -> None:
    read(json.dumps(data))


@given(HEADS, st.dictionaries(KEYS, DATA, max_size=4))
def test_any_object_is_read_or_refused(head: tuple[str, str], data: dict[str, Any]) -> None:
    found = read(json.dumps({"metadata": {"name": "a"}, **data, "apiVersion": head[0], "kind": head[1]}))
    assert found is None or head == ("v1", "List") or isinstance(found.objects[0], KINDS[head])


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = read(text)
    assert found is None or not found.objects
