"""The lab file and its loader.

Bad labs and the exact text of what their author is told: tests/golden/labs/NAME.yaml, or NAME/lab.yaml with manifests
beside it, and NAME.err. In the .err files {kinds} and {images} stand for lists of what is supported, which grow.
`pytest --update-golden` writes them anew; read the difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from testbed.compile import compile_lab
from testbed.errors import InputError, Position
from testbed.load.images import catalogue
from testbed.load.lab import find, labs_folder, load, parse_lab
from testbed.load.manifests import KINDS
from testbed.model.lab import Host, Router
from testbed.model.schema import lab_schema, schema_text

TESTS = Path(__file__).resolve().parents[2]
GOLDEN = TESTS / "golden" / "labs"
CASES = sorted({path.name.removesuffix(".yaml") for path in GOLDEN.iterdir() if path.suffix != ".err"})


def test_there_are_cases() -> None:
    assert len(CASES) >= 45
    assert sorted(path.stem for path in GOLDEN.glob("*.err")) == CASES


@pytest.mark.parametrize("name", CASES)
def test_error_text(name: str, monkeypatch: pytest.MonkeyPatch, golden: Callable[[Path, str], None]) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(InputError) as caught:
        compiled(f"{name}.yaml" if (GOLDEN / f"{name}.yaml").exists() else name)
    golden(GOLDEN / f"{name}.err", told(caught.value))


def compiled(name: str) -> None:
    loaded = load(name)
    compile_lab(loaded.lab, loaded.manifests, loaded.images)


def told(error: InputError) -> str:
    kinds = ", ".join(sorted({kind for _, kind in KINDS}))
    return f"{error}\n".replace(kinds, "{kinds}").replace(", ".join(catalogue().names), "{images}")


# --- finding and reading ----------------------------------------------------------------------------------------------

MINIMAL = "apiVersion: testbed/v1\nname: test\nnodes: {n1: {kind: kubernetes}}\n"


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lab.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert find("mine") == Path("mine/lab.yaml")
    assert find("mine/lab.yaml") == Path("mine/lab.yaml")
    assert find("edge") == labs_folder() / "edge" / "lab.yaml"
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "lab.yaml").write_text(MINIMAL)
    assert find("edge") == Path("edge/lab.yaml")  # what lies here goes before what comes with the project


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("egde", "did you mean edge?"),
        ("a" * 300, "choose from edge, egress, node-vrfs, two-routers"),
        ("no\0name", "choose from edge, "),
    ],
)
def test_no_such_lab(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        find(name)
    [problem] = caught.value.problems
    assert problem.message.startswith(f"no lab {name!r}")
    assert problem.hint.startswith(hint)


def test_a_lab_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(InputError, match=r"lab\.yaml:1:1: not UTF-8 text"):
        load(str(tmp_path))


def test_models_know_where_they_were_written() -> None:
    lab = parse_lab(
        "apiVersion: testbed/v1\nname: test\nnodes:\n  r1: {kind: router, nat: [{outside: h1}]}\n  h1: {kind: host}\n",
        "f",
    )
    router, host = lab.nodes["r1"], lab.nodes["h1"]
    assert isinstance(router, Router)
    assert isinstance(host, Host)
    assert router.origin.at("kind") == Position("f", 4, 14)
    assert router.nat[0].origin.at("outside") == Position("f", 4, 38)
    assert host.origin.at() == Position("f", 5, 3)
    assert host.origin.at("gateway") == Position("f", 5, 3)  # not written: the host itself


# --- manifests --------------------------------------------------------------------------------------------------------

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"


def lab_with(folder: Path, *manifests: str) -> str:
    (folder / "lab.yaml").write_text(MINIMAL + f"cluster: {{name: k8s, manifests: {json.dumps(manifests)}}}\n")
    return str(folder)


def refused(folder: Path, *manifests: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(lab_with(folder, *manifests))
    assert all(problem.position and problem.position.line == 4 for problem in caught.value.problems)
    return [problem.message for problem in caught.value.problems]


def test_manifests_are_files_and_folders_of_the_labs_own(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "b.yml").write_text(SERVICE.replace("web", "b"))
    (tmp_path / "some" / "a.yaml").write_text(SERVICE.replace("web", "a"))
    (tmp_path / "some" / "notes.txt").write_text("not read")
    (tmp_path / "one.yaml").write_text(SERVICE.replace("web", "one"))
    loaded = load(lab_with(tmp_path, "one.yaml", "some"))
    assert [item.name for item in loaded.manifests.objects] == ["one", "a", "b"]
    assert loaded.manifests.objects[1].origin.at("kind") == Position(f"{tmp_path}/some/a.yaml", 2, 7)


def test_no_way_out_of_the_folder(tmp_path: Path) -> None:
    secret, lab = tmp_path / "secret.yaml", tmp_path / "lab"
    secret.write_text(SERVICE)
    (lab / "some").mkdir(parents=True)
    (lab / "link.yaml").symlink_to(secret)
    (lab / "up").symlink_to(tmp_path)
    (lab / "some" / "link.yaml").symlink_to(secret)
    (lab / "round").symlink_to("round")
    assert refused(lab, "../secret.yaml", str(secret), "link.yaml", "up", "some", "some/../../secret.yaml") == [
        "'../secret.yaml' leads out of the lab's folder",
        f"'{secret}' leads out of the lab's folder",
        "'link.yaml' leads out of the lab's folder",
        "'up' leads out of the lab's folder",
        "'some/link.yaml' leads out of the lab's folder",
        "'some/../../secret.yaml' leads out of the lab's folder",
    ]
    [message] = refused(lab, "round")
    assert message.startswith("'round' cannot be read: ")


def test_a_link_that_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text(SERVICE)
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    assert [item.name for item in load(lab_with(tmp_path, "link.yaml")).manifests.objects] == ["web"]


def test_what_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "web.yaml").write_text(SERVICE)
    assert refused(tmp_path, "no.yaml", "empty", "", "lab.yaml", "web.yaml", "./web.yaml", "a" * 300) == [
        "no file or folder 'no.yaml' in the lab's folder",
        "no *.yaml or *.yml in the folder 'empty'",
        "'' is the lab file's own folder: manifests lie in a folder of their own",
        "'lab.yaml' is the lab file itself, which is no manifest",
        "'web.yaml' is named twice",
        f"'{'a' * 300}' cannot be read: File name too long",
    ]


# --- the schema -------------------------------------------------------------------------------------------------------

LABS = ("edge", "two-routers")


def test_the_published_schema_is_the_models_own() -> None:
    published = TESTS.parent / "docs" / "lab.schema.json"
    assert published.read_text() == schema_text(), "write it anew: testbed schema > docs/lab.schema.json"
    assert lab_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(lab_schema())


@pytest.mark.parametrize("name", LABS)
def test_the_labs_are_valid_by_the_schema(name: str) -> None:
    assert schema_errors(find(name).read_text()) == []


def schema_errors(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(lab_schema())
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


# Cases that only the loader can see: what one part of a lab says of another, or of the file system.
SCHEMA_REFUSES = (
    *("addresses-malformed", "api-version", "api-version-missing", "bgp-values", "cluster-values", "flow-name"),
    *("flow-protocols", "interface-names", "long-names", "missing-fields", "mtu", "node-names", "not-a-mapping"),
    *("sysctl-values", "unknown-fields", "unknown-kind", "vrf-names", "wrong-types"),
)


@pytest.mark.parametrize("name", SCHEMA_REFUSES)
def test_the_schema_refuses_too(name: str) -> None:
    assert schema_errors((GOLDEN / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    "flow",
    [
        "{name: f, from: h1, to: h2, protocol: icmp}",
        "{name: f, from: {node: h1}, to: {deployment: web, node: n1}, protocol: tcp, port: 80}",
        "{name: f, from: h1, to: h2, protocol: http, seenAs: h1, answeredBy: [h2, {node: h1}], forwardedFor: [h1]}",
    ],
)
def test_short_and_long_forms_are_both_in_the_schema(flow: str) -> None:
    head = "apiVersion: testbed/v1\nname: t\nnodes: {h1: {kind: host}}\n"
    links = "links: [{endpoints: [h1, {node: h2, ipv4: 10.0.0.1}], vrfs: [a]}]\n"
    assert schema_errors(f"{head}{links}flows: [{flow}]\n") == []
    assert parse_lab(f"{head}{links}flows: [{flow}]\n", "f")


# --- the labs of the project ------------------------------------------------------------------------------------------


def meaningful(text: str) -> list[str]:
    """The lines that say something."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_two_routers_with_a_host_each_fit_in_fifteen_lines() -> None:
    text = find("two-routers").read_text()
    lines = meaningful(text)
    flows = lines.index("flows:")
    assert not any(line and not line.startswith(" ") for line in lines[flows + 1 :])  # flows are the last part
    assert len(lines[:flows]) <= 15
    lab = parse_lab("\n".join(lines[:flows]), "lab.yaml")
    assert sorted(node.kind for node in lab.nodes.values()) == ["host", "host", "router", "router"]


def test_the_edge_lab_fits_in_120_lines() -> None:
    assert len(find("edge").read_text().splitlines()) <= 120
