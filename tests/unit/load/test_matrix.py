"""A lab with a matrix, as its cells make it. (What is wrong with a matrix: tests/golden/labs/matrix*.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.compile import compile_lab
from testbed.errors import InputError
from testbed.load.cells import Cell
from testbed.load.manifests import ObjectPatch
from testbed.load.matrix import Variants, in_cell
from testbed.load.yaml import parse
from testbed.model.workloads import Deployment

LAB = """\
apiVersion: testbed/v1
name: test
nodes:
  r1: {kind: router, bgp: {asn: 65001}}
  h1: {kind: host}
  n1: {kind: kubernetes}
  n2: {kind: kubernetes}
links:
  - {endpoints: [r1, n1, n2], ipv4: 10.1.0.0/24}
  - {endpoints: [r1, h1], ipv4: 10.2.0.0/24}
cluster: {name: k8s, manifests: [web.yaml]}
flows:
  - {name: other, from: h1, to: n1, protocol: icmp}
  - {name: http, from: h1, to: deployment/web, protocol: http, port: 8080, seenAs: h1, status: 200, via: [r1]}
matrix:
  flows: [http]
  axes:
    services: {few: {}, many: {lab: {cluster: {serviceSubnet: 10.97.0.0/16}}}}
    place:
      n1: {}
      n2: {manifests: [{kind: Deployment, name: web, patch: {spec: {template: {spec: {nodeName: n2}}}}}]}
      wrong: {manifests: [{kind: Deployment, name: web, patch: {spec: {template: {spec: {nodeNam: n2}}}}}]}
      nowhere: {manifests: [{kind: Deployment, name: wep, patch: {}}]}
      far: {lab: {cluster: {defaultRoute: sbi}}}
  expect:
    - {when: {services: few}, flows: {http: {answeredBy: deployment/web}}}
    - {flows: {http: {expect: timeout}}}
"""
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: n1
      containers: [{name: web, image: echo}]
"""


@pytest.fixture
def variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Variants:
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "web.yaml").write_text(WEB)
    monkeypatch.chdir(tmp_path)
    return Variants("lab.yaml")


def cell(services: str, place: str) -> Cell:
    return Cell((("services", services), ("place", place)))


def test_cells_in_order(variants: Variants) -> None:
    names = [entry.name for entry in variants.cells()]
    assert names == [f"{s}-{p}" for s in ("few", "many") for p in ("n1", "n2", "wrong", "nowhere", "far")]


def test_some_cells(variants: Variants) -> None:
    assert variants.cells({"place": ["n2", "n1"], "services": ["many"]}) == [cell("many", "n1"), cell("many", "n2")]
    with pytest.raises(InputError) as caught:
        variants.cells({"plac": ["n1"], "services": ["mani"]})
    assert str(caught.value) == (
        "axis services has no value 'mani' (did you mean many?)\nthe matrix has no axis 'plac' (did you mean place?)"
    )


def test_patches_of_the_lab_and_of_its_manifests(variants: Variants) -> None:
    few, many = variants.load(cell("few", "n1")), variants.load(cell("many", "n2"))
    assert few.lab.cluster
    assert many.lab.cluster
    assert (few.lab.cluster.service_subnet, many.lab.cluster.service_subnet) == ("10.96.0.0/16", "10.97.0.0/16")
    nodes = [loaded.manifests.of(Deployment)[0].spec.template.spec.node_name for loaded in (few, many)]
    assert nodes == ["n1", "n2"]
    assert few.lab.matrix is None


def test_a_cell_asks_the_flows_of_the_matrix_and_expects_what_its_row_says(variants: Variants) -> None:
    [few], [many] = variants.load(cell("few", "n1")).lab.flows, variants.load(cell("many", "n1")).lab.flows
    assert (few.name, few.expect, few.seen_as, few.status, few.answered_by) == (
        "http",
        "ok",
        (),
        None,
        "deployment/web",
    )
    assert (many.expect, many.seen_as, many.status, many.via) == ("timeout", (), None, ("r1",))
    for loaded in (variants.load(cell(*names)) for names in (("few", "n2"), ("many", "n2"))):
        assert compile_lab(loaded.lab, loaded.manifests, loaded.images).flows[0].name == "http"


def test_what_a_patch_makes_wrong_is_told_with_the_cell_and_its_place(variants: Variants) -> None:
    with pytest.raises(InputError) as caught:
        variants.load(cell("few", "wrong"))
    [problem] = caught.value.problems
    assert problem.message.startswith("in the cell few-wrong: unknown field 'nodeNam' in Deployment.spec.template.spec")
    assert str(problem.position) == "lab.yaml:22:90"
    with pytest.raises(InputError) as caught:
        variants.load(cell("few", "nowhere"))
    assert str(caught.value) == "lab.yaml:23:29: in the cell few-nowhere: no Deployment wep in the manifests to change"


@pytest.mark.parametrize(
    ("metadata", "namespace", "same"),
    [
        ("{name: a}", "", True),
        ("{name: a, namespace: default}", "", True),
        ("{name: a, namespace: other}", "", False),
        ("{name: a, namespace: other}", "other", True),
        ("{name: a}", "other", False),
        ("{name: b}", "", False),
        ("[]", "", False),
    ],
)
def test_which_object_a_patch_is_for(metadata: str, namespace: str, same: bool) -> None:
    [document] = parse(f"{{apiVersion: v1, kind: Service, metadata: {metadata}}}", "a.yaml")
    patch = ObjectPatch("Service", namespace, "a", document, document.at())
    assert patch.is_for(document) is same


def test_what_is_wrong_together_is_told_with_the_cell(variants: Variants) -> None:
    far = cell("few", "far")
    loaded = variants.load(far)
    with pytest.raises(InputError) as caught, in_cell(far):
        compile_lab(loaded.lab, loaded.manifests, loaded.images)
    [problem] = caught.value.problems
    assert problem.message == "in the cell few-far: no VRF 'sbi'"
    assert str(problem.position) == "lab.yaml:24:43"


def test_a_lab_without_a_matrix(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB[: LAB.index("matrix:")])
    (tmp_path / "web.yaml").write_text(WEB)
    with pytest.raises(InputError, match="lab test has no matrix"):
        Variants(str(tmp_path))
