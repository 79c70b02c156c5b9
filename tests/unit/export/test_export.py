"""Labs in the form of other tools: golden files (tests/golden/export; `pytest --update-golden`), and refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from testbed.cli.main import app
from testbed.compile import compile_lab
from testbed.deploy.kube_schemas import schemas
from testbed.errors import InputError
from testbed.export import clab_topology, clabernetes, kind
from testbed.load.images import catalogue
from testbed.load.lab import load, parse_lab
from testbed.load.manifests import Manifests
from testbed.plan import Interface, Node, Plan, Tunnel

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "export"
SITE = GOLDEN / "site"
PROGRAM = "usr_lib_testbed_echo.py"  # the project's own, which changes for reasons of its own
VRFS = """\
apiVersion: testbed/v1
name: vrfs
vrfs: [blue, red]
nodes:
  r1: {kind: router, bgp: {asn: 65001}}
  r2: {kind: router, bgp: {asn: 65002}}
  h1: {kind: host}
  h2: {kind: host}
links:
  - {endpoints: [r1, r2], vrfs: [blue, red], bgp: true}
  - {endpoints: [r1, h1, h2], vrf: blue, ipv4: 10.1.0.0/24}
"""


def plan_of(name: str | Path) -> Plan:
    loaded = load(str(name))
    return compile_lab(loaded.lab, loaded.manifests, loaded.images)


def compiled(text: str) -> Plan:
    lab = parse_lab(text, "lab.yaml")
    return compile_lab(lab, Manifests(), catalogue(lab.images))


def compare(golden: Callable[[Path, str], None], folder: str, files: dict[str, str]) -> None:
    """Every file, and no other one."""
    own = {name: text for name, text in files.items() if not name.endswith(PROGRAM)}
    for name, text in own.items():
        golden(GOLDEN / folder / name, text)
    kept = {str(path.relative_to(GOLDEN / folder)) for path in (GOLDEN / folder).rglob("*") if path.is_file()}
    assert kept == set(own)


def test_containerlab(golden: Callable[[Path, str], None]) -> None:
    compare(golden, "containerlab", clab_topology.render(plan_of("two-routers")))


def test_containerlab_with_vrfs_and_a_bridge(golden: Callable[[Path, str], None]) -> None:
    compare(golden, "containerlab-vrfs", clab_topology.render(compiled(VRFS)))


def test_kernel_vrfs_need_no_namespaces() -> None:
    assert any("-n" in process.argv for process in compiled(VRFS).node("r1").processes)  # in the netns runtime
    script = clab_topology.render(compiled(VRFS))["r1/start"]
    assert "ip link add blue type vrf table 1001" in script
    assert " -n " not in script


def test_clabernetes(golden: Callable[[Path, str], None]) -> None:
    text = clabernetes.render(compiled(VRFS), image="example.com/node:1")["vrfs.c9s.yaml"]
    golden(GOLDEN / "clabernetes" / "vrfs.c9s.yaml", text)
    objects = list(yaml.safe_load_all(text))
    assert [entry["kind"] for entry in objects] == ["ConfigMap"] * 4 + ["Topology"]
    spec = objects[-1]["spec"]
    mounted = {f"{entry['filePath']}" for files in spec["deployment"]["filesFromConfigMap"].values() for entry in files}
    nodes = yaml.safe_load(spec["definition"]["containerlab"])["topology"]["nodes"]
    assert mounted == {bind.partition(":")[0] for node in nodes.values() for bind in node["binds"]}
    maps = {entry["metadata"]["name"]: entry["data"] for entry in objects[:-1]}
    for files in spec["deployment"]["filesFromConfigMap"].values():
        assert all(entry["configMapPath"] in maps[entry["configMapName"]] for entry in files)


def test_clabernetes_passes_its_schema() -> None:
    """The CRD of clabernetes; its group was another one before 0.7, its fields were the same."""
    path = os.environ.get("TESTBED_CLABERNETES_CRD")
    if not path:
        pytest.skip("not run: TESTBED_CLABERNETES_CRD names no file with clabernetes' CRD of Topology")
    known = schemas(list(yaml.safe_load_all(Path(path).read_text())))
    schema = next(schema for (_, name), schema in known.items() if name == "Topology")
    for plan in (compiled(VRFS), plan_of("two-routers")):
        item = list(yaml.safe_load_all(next(iter(clabernetes.render(plan).values()))))[-1]
        jsonschema.Draft202012Validator(schema).validate(item)
        wrong: dict[str, Any] = {**item, "spec": {**item["spec"], "naming": "other"}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate(wrong)


def test_kind(golden: Callable[[Path, str], None]) -> None:
    compare(golden, "kind", kind.render(plan_of(SITE)))


def test_kind_names_containers_as_kind_does() -> None:
    plan = plan_of(SITE)
    assert kind.containers(plan) == {"n1": "site-control-plane", "n2": "site-worker"}
    config = yaml.safe_load(kind.config_text(plan))
    patches = [yaml.safe_load(node["kubeadmConfigPatches"][0]) for node in config["nodes"]]
    assert [patch["nodeRegistration"]["name"] for patch in patches] == ["n1", "n2"]
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker"]


def test_what_cannot_be_exported_is_named_with_its_place(golden: Callable[[Path, str], None]) -> None:
    result = CliRunner().invoke(app, ["export", "containerlab", str(SITE)])
    assert result.exit_code == 2
    golden(GOLDEN / "refused.err", result.stderr.replace(f"{SITE}/", ""))


def test_a_tunnel_is_no_part_of_an_exported_topology() -> None:
    tunnel = Interface("tun0", "vxlan", tunnel=Tunnel(200, "10.0.0.1", 14789))
    found = list(clab_topology.refusals(Node("a", "router", interfaces=(Interface("eth0"), tunnel))))
    assert found == [("its tunnel tun0 cannot be exported", "")]


def test_a_lab_without_kind_has_no_cluster_to_export() -> None:
    with pytest.raises(InputError, match="provider: kind"):
        kind.render(plan_of("edge"))


# --- the command ------------------------------------------------------------------------------------------------------


def test_one_file_goes_to_standard_output() -> None:
    result = CliRunner().invoke(app, ["export", "mermaid", "two-routers"])
    assert result.exit_code == 0
    assert result.stdout == CliRunner().invoke(app, ["graph", "two-routers", "--format", "mermaid"]).stdout
    assert result.stdout.startswith("flowchart ")


def test_several_files_need_a_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "containerlab", "two-routers"])
    assert result.exit_code == 2
    assert "--output DIR" in result.stderr
    result = CliRunner().invoke(app, ["export", "containerlab", "two-routers", "--output", str(tmp_path / "new")])
    assert result.exit_code == 0
    assert (tmp_path / "new" / "two-routers.clab.yml").is_file()
    assert len(result.stdout.splitlines()) == sum(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mermade"], "did you mean mermaid"),
        (["mermaid", "two-routers", "--image", "x"], "mermaid has no image"),
        (["mermaid", "two-routers", "-o", "/dev/null/x"], "--output /dev/null/x: Not a directory"),
        (["kind", "edge"], "no cluster that kind makes"),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
