"""containerlab topologies: bad ones and the exact text of what their author is told (tests/golden/clab/NAME.clab.yml
and NAME.err), good ones and their Plans (tests/golden/clab/plans), and the parts of the way between.

In the .err files {images} stands for the list of images that nodes can have, which grows.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.compile import clab_frr
from testbed.compile.clab import compile_clab
from testbed.compile.clab_exec import stated_addresses, words
from testbed.errors import InputError
from testbed.load.clab import load_clab, parse_clab
from testbed.load.clab_settings import Settings
from testbed.load.expand import expand
from testbed.plan import Plan
from testbed.report.plan import node_lines, plan_lines

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "clab"
Golden = Callable[[Path, str], None]


def plan_of(path: Path, variables: dict[str, str] | None = None, *, containers: bool = False) -> Plan:
    return compile_clab(load_clab(path, variables or {}), containers=containers)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.clab.yml")), ids=lambda path: path.name.split(".")[0])
def test_error_text(path: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(InputError) as caught:
        plan_of(Path(path.name))
    text = re.sub(r"known are [^;]*;", "known are {images};", f"{caught.value}\n")
    golden(GOLDEN / f"{path.name.removesuffix('.clab.yml')}.err", text)


@pytest.mark.parametrize("containers", [False, True], ids=["netns", "containers"])
def test_plan(containers: bool, golden: Golden, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "plans/cfg", tmp_path / "cfg")
    for file in (tmp_path / "cfg").iterdir():
        file.chmod(0o644)  # whatever the checkout was made with
    topology = shutil.copy(GOLDEN / "plans/frr.clab.yml", tmp_path)
    found = plan_of(Path(topology), {"HOST_TAG": "1.36"}, containers=containers)
    lines = [*plan_lines(found), "", *node_lines(found, found.node("R1")), "", *node_lines(found, found.node("host"))]
    golden(GOLDEN / "plans" / f"frr-{'containers' if containers else 'netns'}.txt", "\n".join([*lines, ""]))


def test_an_image_beside_the_topology_is_known(tmp_path: Path) -> None:
    file = tmp_path / "own.clab.yml"
    file.write_text("name: own\ntopology: {nodes: {a: {kind: linux, image: own/thing}}}\n")
    with pytest.raises(InputError, match=r"own/thing.*not in the catalogue.*own\.testbed\.yaml"):
        plan_of(file)
    (tmp_path / "own.testbed.yaml").write_text(
        "images: [{names: [own/thing], capabilities: [host], command: [/usr/bin/sleep, '9']}]\n"
    )
    assert [process.argv for process in plan_of(file).node("a").processes] == [("/usr/bin/sleep", "9")]


def test_a_path_with_a_colon_is_refused_where_files_are_bound(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "share/a:b").touch()
    file = tmp_path / "own.clab.yml"
    text = "name: own\ntopology:\n  nodes:\n    a:\n      kind: linux\n      image: alpine\n"
    file.write_text(f"{text}      binds:\n        - own.clab.yml:/srv/own\n        - share/:/srv/share/:ro\n")
    loaded = load_clab(file, {})
    assert "/srv/share/a:b" in [entry.path for entry in compile_clab(loaded, containers=True).node("a").files]
    with pytest.raises(InputError) as caught:
        compile_clab(loaded, containers=True, binds=True)
    [problem] = caught.value.problems
    assert problem.message == "a: /srv/share/a:b has a colon, which containerlab takes for the end of a path"
    assert (problem.position and problem.position.line, problem.hint) == (9, "rename it, or use --runtime docker")


def test_an_unknown_image_is_a_host_of_its_own_on_a_container_runtime(tmp_path: Path) -> None:
    file = tmp_path / "own.clab.yml"
    file.write_text(
        "name: own\ntopology: {nodes: {a: {kind: linux, image: own/thing:2, cmd: run --fast, env: {A: 1}}}}\n"
    )
    node = plan_of(file, containers=True).node("a")
    assert (node.image, node.cmd, node.env, node.processes) == ("own/thing:2", ("run", "--fast"), (("A", "1"),), ())


VARIABLES = {"SET": "value", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$SET ${SET}", "value value"),
        ("$UNSET ${UNSET}", "$UNSET ${UNSET}"),
        ("${UNSET:=3} ${UNSET:-a b} ${UNSET=} ${UNSET-x}", "3 a b  x"),
        ("${EMPTY:-other} ${EMPTY-other}", "other "),
        ("${SET:+then} ${UNSET:+then}", "then "),
        ("${UNSET:-$SET}", "value"),
        ("echo $$SET $$$SET $1 $", "echo $SET $value $1 $"),
    ],
)
def test_variables(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ip addr add 10.0.0.1/24 dev eth1", ["ip", "addr", "add", "10.0.0.1/24", "dev", "eth1"]),
        ("sh -c 'a && b \"c\"'", ["sh", "-c", 'a && b "c"']),
        ("echo a\\ b", ["echo", "a b"]),
        ("echo one # two", ["echo", "one"]),
        ("echo one#two", ["echo", "one#two"]),
        ("# nothing", []),
    ],
)
def test_exec_lines_are_split_like_shell_lines(line: str, expected: list[str]) -> None:
    assert words(line) == expected


def test_stated_addresses() -> None:
    lines = [("ip", "a", "add", "10.0.0.2/24", "dev", "eth1"), ("/usr/bin/env", "A=1", "ip", "-6", "addr", "add")]
    lines += [("ip", "address", "add", "10.9.9.9/32", "dev", "lo"), ("ip", "route", "add", "10.7.0.1/32", "dev", "x")]
    config = "interface eth2\n ip address 10.1.0.1/24\n!\nrouter bgp 1\n ip address 10.3.0.1/24\n"
    assert stated_addresses(lines, config) == ["10.9.9.9", "10.0.0.2", "10.1.0.1"]


def test_daemons() -> None:
    text = '# all\nzebra_options="  -A 127.0.0.1 -s 90000000"\nbgpd=yes # here\nospfd=no\nripd=0\nisisd=1\n'
    text += 'isisd_options="--daemon -A ::1"\nfrr_profile=datacenter\nmgmtd=yes\n'
    assert [(entry.name, entry.options) for entry in clab_frr.started(text)] == [
        ("zebra", ("-F", "datacenter", "-A", "127.0.0.1", "-s", "90000000")),
        ("bgpd", ("-F", "datacenter")),
        ("isisd", ("-F", "datacenter", "-A", "::1")),
        ("staticd", ("-F", "datacenter")),
    ]


def settings(text: str, node: str = "a") -> Settings:
    return Settings(parse_clab(f"name: x\ntopology: {text}", "x.clab.yml", {}).topology, node)


def test_settings_are_merged_as_containerlab_does() -> None:
    merged = settings(
        """
          defaults: {kind: linux, image: d, cmd: d, exec: [one, two], env: {A: d, B: d}}
          kinds: {linux: {image: k, group: g, exec: [three], env: {B: k, C: k}, privileged: false}}
          groups: {g: {image: g, exec: [two, four], env: {C: g}}}
          nodes: {a: {exec: [five], env: {D: n}}}
        """
    )
    assert (merged.kind, merged.one("image"), merged.one("cmd"), merged.one("privileged")) == ("linux", "g", "d", False)
    assert [item for item, _ in merged.items("exec")] == ["one", "two", "three", "four", "five"]
    assert {key: value for key, (value, _) in merged.pairs("env").items()} == {"A": "d", "B": "k", "C": "g", "D": "n"}
    position = merged.at("image")
    assert position
    assert position.line == 5


def test_a_nodes_group_may_say_its_kind() -> None:
    found = settings("{groups: {g: {kind: linux}}, defaults: {kind: bridge}, nodes: {a: {group: g}}}")
    assert found.kind == "linux"
    assert settings("{defaults: {kind: bridge}, nodes: {a: }}").kind == "bridge"


def test_scalars_are_the_text_they_are_written_as() -> None:
    pairs = settings("{nodes: {a: {env: {A: 010, B: yes, C: 1.10, D: '', E: 0x1f}}}}").pairs("env")
    assert {key: value for key, (value, _) in pairs.items()} == {
        "A": "010",
        "B": "yes",
        "C": "1.10",
        "D": "",
        "E": "0x1f",
    }
