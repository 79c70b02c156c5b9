"""The whole way from lab files to Plans: golden Plans, the same each time, and no traceback whatever is written.

Golden Plans: tests/golden/plans/LAB.json; `pytest --update-golden` writes them anew. In them {programs/NAME} stands for
the text of one of the project's own programs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import testbed
from testbed.compile import compile_lab
from testbed.errors import InputError, Problem
from testbed.load.images import catalogue
from testbed.load.lab import load, parse_lab
from testbed.load.manifests import Manifests, load_manifests
from testbed.plan import Plan, VrfDriver
from testbed.plan.store import from_json, to_json

PACKAGE = Path(testbed.__file__).parent
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "plans"
LABS = Path(__file__).resolve().parents[3] / "labs"
NAMES = sorted(path.parent.name for path in LABS.glob("*/lab.yaml"))


def plan_of(name: str, running_as: str = "", vrf_driver: VrfDriver | None = None) -> Plan:
    """With the VRF driver that is wanted, else that of the lab file, else namespaces."""
    loaded = load(name)
    driver = vrf_driver or ("device" if loaded.lab.vrf_driver == "device" else "netns")
    return compile_lab(loaded.lab, loaded.manifests, loaded.images, running_as, vrf_driver=driver)


def readable(text: str) -> str:
    """A Plan's JSON without the texts of the project's own programs, which change for reasons of their own."""
    for program in sorted((PACKAGE / "programs").glob("*.py")):
        if len(content := program.read_text()) > 100:  # a package's own module is next to empty
            text = text.replace(json.dumps(content, ensure_ascii=False)[1:-1], f"{{programs/{program.name}}}")
    return text


@pytest.mark.parametrize("name", NAMES)
def test_golden_plan(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"{name}.json", readable(to_json(plan_of(name), indent=1)) + "\n")


def test_golden_routers_with_vrf_devices(golden: Callable[[Path, str], None]) -> None:
    """Routers are all that the VRF driver concerns."""
    plan = plan_of("edge", vrf_driver="device")
    routers = replace(plan, nodes=tuple(node for node in plan.nodes if node.kind == "router"), flows=(), services=())
    golden(GOLDEN / "device" / "edge.json", to_json(routers, indent=1) + "\n")


def test_every_lab_has_a_golden_plan() -> None:
    assert NAMES == ["edge", "egress", "node-vrfs", "two-routers", "vrf-host", "vrf-return-path"]
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_same_plan_in_every_process(name: str) -> None:
    """Nothing depends on the order of sets, on which Python's hash seed has a say."""
    program = (
        "import sys, hashlib; from testbed.load.lab import load; from testbed.compile import compile_lab; "
        "from testbed.plan.store import to_json; lab = load(sys.argv[1]); "
        "plan = compile_lab(lab.lab, lab.manifests, lab.images, vrf_driver=sys.argv[2]); "
        "print(hashlib.sha256(to_json(plan).encode()).hexdigest())"
    )
    plan = plan_of(name)
    found = {
        subprocess.run(
            [sys.executable, "-c", program, name, plan.vrf_driver],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(PACKAGE.parent), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert found == {hashlib.sha256(to_json(plan).encode()).hexdigest()}


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_survives_its_json(name: str) -> None:
    plan = plan_of(name)
    assert from_json(to_json(plan)) == plan


def test_another_name() -> None:
    assert plan_of("two-routers", "second").name == "second"
    with pytest.raises(InputError, match=r"'\.\./x' is no legal name"):
        plan_of("two-routers", "../x")


def test_facts_of_the_edge_lab() -> None:
    """What the issue asks of the lab, independent of how the golden file looks."""
    plan = plan_of("edge")
    assert [node.name for node in plan.nodes if node.kind == "kubernetes"] == ["n1", "n2", "n3"]
    assert plan.node("pe1").vrfs == ("mgmt", "sbi")
    [ssh] = [entry for entry in plan.services if entry.name == "ssh"]
    assert ssh.addresses == ("3.3.3.3",)
    addresses = {node.name: node.interfaces[0].addresses[0] for node in plan.nodes if node.kind == "host"}
    assert addresses["ops"] == addresses["smf"] == "10.10.10.10/24"
    assert {flow.expect for flow in plan.flows} == {"ok", "timeout", "unreachable", "refused"}
    assert len(plan.sessions) == 44


# --- whatever is written ----------------------------------------------------------------------------------------------

EDGE: Any = yaml.safe_load((LABS / "edge" / "lab.yaml").read_text())
TWO_ROUTERS: Any = yaml.safe_load((LABS / "two-routers" / "lab.yaml").read_text())
MANIFESTS: list[Any] = [
    document
    for path in sorted((LABS / "edge" / "manifests").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
IMAGES = catalogue()
Step = str | int

WORDS = (
    *("", "none", "None", "r1", "leaf1", "n1", "mgmt", "sbi", "router", "host", "kubernetes", "echo", "internal"),
    *("10.0.0.0/8", "10.0.0.0/31", "0.0.0.0/0", "255.255.255.255/32", "::/0", "fd00::/48", "fd00::/127", "fd00::1"),
    *("10.10.10.10", "172.16.1.1", "192.168.0.0/30", "3.3.3.0/31", "deployment/web", "service/echo", "pod/x/y/z"),
    *("LoadBalancer", "NodePort", "ExternalName", "all()", "a == 'b'", "1s", "-1s", "../x", "cali0", "eth0", "IPv6"),
)
scalars: SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.integers(-1, 70000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(WORDS),
)
documents: SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def paths(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of every part of a document but itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in items:
        yield (*path, step)
        yield from paths(part, (*path, step))


def part(value: Any, path: tuple[Step, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def mutated(draw: st.DrawFn, original: Any) -> Any:
    """The document with some parts deleted, replaced (by anything, or by other parts of it) or doubled."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(value))
        place = draw(st.sampled_from(places))
        parent, step = part(value, place[:-1]), place[-1]
        how = draw(st.sampled_from(["delete", "replace", "replace", "copy", "copy", "double"]))
        if how == "delete":
            del parent[step]
        elif how == "replace":
            parent[step] = draw(documents)
        elif how == "copy":
            parent[step] = copy.deepcopy(part(value, draw(st.sampled_from(places)))) if parent[step] else None
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[step]))
        else:
            parent[draw(st.text(max_size=5))] = copy.deepcopy(parent[step])
        if not value:
            break
    return value


def problems(text: str, manifests: str) -> Sequence[Problem]:
    """What is said against a lab and its manifests. Any error but InputError comes through."""
    try:
        lab = parse_lab(text, "lab.yaml")
        objects = load_manifests([("manifests.yaml", manifests)]) if lab.cluster else Manifests()
        compile_lab(lab, objects, IMAGES)
    except InputError as error:
        return error.problems or [Problem("")]
    return ()


def written(text: str, manifests: str = "") -> None:
    """Read and compile: whatever is wrong, every problem says what and where."""
    for problem in problems(text, manifests):
        assert problem.message
        assert problem.position is not None, problem
        assert problem.position.file in ("lab.yaml", "manifests.yaml")
        assert problem.position.line >= 1
        assert problem.position.column >= 1


lenient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@lenient
@given(st.text() | st.text("abz019:-[]{},&*!|>'\"#%@` \n\t"))
def test_any_text(text: str) -> None:
    written(text)


@lenient
@given(documents)
def test_any_data(value: Any) -> None:
    written(yaml.safe_dump(value))


@lenient
@given(st.dictionaries(st.sampled_from(sorted(EDGE)), documents).map(lambda fields: TWO_ROUTERS | fields))
def test_any_data_in_the_fields_of_a_lab(value: Any) -> None:
    written(yaml.safe_dump(value))


@lenient
@given(mutated(TWO_ROUTERS))
def test_changed_two_routers(value: Any) -> None:
    written(yaml.safe_dump(value, sort_keys=False))


@settings(lenient, max_examples=50)
@given(mutated(EDGE))
def test_changed_edge(value: Any) -> None:
    written(yaml.safe_dump(value, sort_keys=False), yaml.safe_dump_all(MANIFESTS, sort_keys=False))


@settings(lenient, max_examples=50)
@given(mutated(MANIFESTS))
def test_changed_manifests(value: Any) -> None:
    written(yaml.safe_dump(EDGE, sort_keys=False), yaml.safe_dump_all(value, sort_keys=False))


def test_the_labs_are_right_before_they_are_changed() -> None:
    lab = parse_lab(yaml.safe_dump(EDGE, sort_keys=False), "lab.yaml")
    objects = load_manifests([("manifests.yaml", yaml.safe_dump_all(MANIFESTS, sort_keys=False))])
    assert compile_lab(lab, objects, IMAGES).node("n1")
