"""Running containerlab: what it is told, what is made of its answers, and what is said when it cannot be run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from docker_engine import FakeEngine

from testbed import run
from testbed.errors import CommandError, DeployError, UnsupportedError
from testbed.export.containerlab import links_between
from testbed.plan import Endpoint, File, Interface, Link, Node, Plan, SecretRef
from testbed.runtime import clab, clab_files, lock
from testbed.runtime.containerlab import ContainerlabRuntime
from testbed.wait import Deadline

ENGINE = "unix:///run/docker.sock"
# As containerlab 0.79 prints them (cmd/version.go, cmd/inspect.go).
VERSION = """\
{"version":"0.79.0","commit":"0ee5b1b","date":"2026-08-20T10:00:00Z",\
"repository":"https://github.com/srl-labs/containerlab","releaseNotes":"https://containerlab.dev/rn/0.79/"}
"""
INSPECTED = """\
{
  "two": [
    {
      "lab_name": "two", "labPath": "../two.clab.yml", "absLabPath": "/run/testbed/two/two.clab.yml",
      "name": "clab-two-r2", "container_id": "9375773bb29f", "image": "testbed/node:latest", "kind": "linux",
      "state": "running", "status": "", "ipv4_address": "N/A", "ipv6_address": "N/A", "owner": "root"
    },
    {
      "lab_name": "two", "labPath": "../two.clab.yml", "absLabPath": "/run/testbed/two/two.clab.yml",
      "name": "clab-two-r1", "container_id": "8fbf072f94cf", "image": "testbed/node:latest", "kind": "linux",
      "state": "exited", "status": "", "ipv4_address": "N/A", "ipv6_address": "N/A", "owner": "root"
    }
  ]
}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Function that puts a containerlab on PATH; it prints this, ends so, and notes arguments and environment."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(stdout: str = "", stderr: str = "", status: int = 0) -> Path:
        path = tmp_path / "containerlab"
        notes = tmp_path / "notes"
        path.write_text(
            f"#!{sys.executable} -IS\nimport os, sys\n"
            f"open({str(notes)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10) + repr(dict(os.environ)) + chr(10))\n"
            f"sys.stdout.write({stdout!r})\nsys.stderr.write({stderr!r})\nsys.exit({status})\n"
        )
        path.chmod(0o755)
        return notes

    return make


# --- answers ----------------------------------------------------------------------------------------------------------


def test_the_containers_of_a_lab(program: Callable[..., Path]) -> None:
    notes = program(INSPECTED, "12:00:00 INFO Parsing\n")
    assert clab.inspect("two", ENGINE) == [
        clab.Container(
            lab="two",
            name=f"clab-two-{node}",
            id=ident,
            kind="linux",
            image="testbed/node:latest",
            state=state,
            topology="/run/testbed/two/two.clab.yml",
        )
        for node, ident, state in (("r1", "8fbf072f94cf", "exited"), ("r2", "9375773bb29f", "running"))
    ]
    arguments, environment = notes.read_text().splitlines()
    assert arguments == "inspect --name two --format json"
    assert f"'DOCKER_HOST': '{ENGINE}'" in environment
    assert "'CLAB_VERSION_CHECK': 'disable'" in environment


def test_an_error_has_the_command_its_status_and_its_words(program: Callable[..., Path]) -> None:
    program(stderr="  ERROR\n\n  Lab 'two' not found\n", status=1)
    with pytest.raises(CommandError, match=r"containerlab inspect --name two --format json ended with status 1: ERROR"):
        clab.inspect("two", ENGINE)
    program(stderr="field nodez not found", status=1)
    with pytest.raises(CommandError, match=r"containerlab validate --topo /x\.clab\.yml .*: field nodez not found"):
        clab.validate(Path("/x.clab.yml"), ENGINE)


def test_an_answer_that_is_no_json(program: Callable[..., Path]) -> None:
    program("╭────╮\n")
    with pytest.raises(CommandError, match="expected to answer in JSON: ╭"):
        clab.inspect("two", ENGINE)


# --- whether it can be run --------------------------------------------------------------------------------------------


def test_its_version(program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(VERSION)
    monkeypatch.setattr(clab, "MODULES", tmp_path)
    assert clab.version() == "0.79.0"
    assert clab.missing() == ""
    clab.check()


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        ("0.78.0", True),
        ("0.100.2", True),
        ("1.0.0-rc1", True),
        ("0.0.0", True),  # built from source, of no version that is known
        ("0.77.9", False),
        ("0.8.0", False),
    ],
)
def test_which_versions_will_do(
    program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, enough: bool
) -> None:
    monkeypatch.setattr(clab, "MODULES", tmp_path)
    program(VERSION.replace("0.79.0", version))
    assert (clab.missing() == "") is enough
    if not enough:
        assert f"is version {version}: 0.78 or later is needed" in clab.missing()


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="containerlab is not on PATH: install it"):
        clab.check()


def test_a_program_that_fails_is_named(program: Callable[..., Path]) -> None:
    program(stderr="Segmentation fault", status=139)
    assert "containerlab version --json ended with status 139: Segmentation fault" in clab.missing()


def test_a_kernel_without_modules(
    program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(VERSION)
    monkeypatch.setattr(clab, "MODULES", tmp_path / "modules")
    with pytest.raises(
        UnsupportedError, match=r"needs .*/modules, .* without loadable modules: `testbed vm -- COMMAND`"
    ):
        clab.check()


# --- the lock, and who holds it ---------------------------------------------------------------------------------------


def test_the_lock_is_held_by_the_program_that_inherits_it(tmp_path: Path) -> None:
    """`up` may be killed while containerlab goes on: the lock must not be free then."""
    name = f"test/{tmp_path}"
    with lock.held(name, 0, "taken") as descriptor:
        with pytest.raises(DeployError, match="taken"), lock.held(name, 0, "taken"):
            pytest.fail("it was held twice")
        heir = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(DeployError, match="taken"), lock.held(name, 0, "taken"):
        pytest.fail("the heir does not hold it")
    heir.communicate()
    with lock.held(name, 0, "taken"):
        pass


def test_a_containerlab_at_work_is_found_by_its_topology_file_and_ended(tmp_path: Path) -> None:
    topology_file = tmp_path / "two.clab.yml"
    waits = "import signal; print(flush=True); signal.pause()"
    argv = ["containerlab", "-c", waits, "deploy", "--topo"]
    ours = subprocess.Popen([*argv, str(topology_file)], executable=sys.executable, stdout=subprocess.PIPE)
    other = subprocess.Popen([*argv, f"{topology_file}.other"], executable=sys.executable, stdout=subprocess.PIPE)
    try:
        for process in (ours, other):
            assert process.stdout
            process.stdout.readline()
        clab.kill(topology_file, Deadline(10))
        assert ours.wait() == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()
        ours.communicate()


# --- what a lab is made of --------------------------------------------------------------------------------------------


def plan_of(*hosts: str) -> Plan:
    """r1 with a link to each of the hosts, the first in a VRF."""
    interfaces = [Interface(f"eth{number}", vrf=None if number else "red") for number, _ in enumerate(hosts)]
    nodes = [Node("r1", "router", vrfs=("red",), interfaces=tuple(interfaces))]
    nodes += [Node(host, "host", interfaces=(Interface("eth0"),)) for host in hosts]
    wires = [Link(Endpoint("r1", f"eth{number}"), Endpoint(host, "eth0")) for number, host in enumerate(hosts)]
    return Plan("edge", nodes=tuple(nodes), links=tuple(wires))


@pytest.fixture
def deployed(state: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of the topology files that containerlab was given."""
    texts: list[str] = []
    monkeypatch.setattr(clab, "deploy", lambda file, _engine, _held: texts.append(file.read_text()) or [])
    monkeypatch.setattr(ContainerlabRuntime, "_disown", lambda _self, _plan: None)
    (state / "edge").mkdir()
    return texts


def made(runtime: ContainerlabRuntime, plan: Plan, new: set[str]) -> None:
    runtime._make([node for node in plan.nodes if node.name in new], {}, plan)


def test_a_new_lab_is_made_whole(fake_engine: FakeEngine, deployed: list[str]) -> None:
    runtime, plan = ContainerlabRuntime("edge"), plan_of("h1", "h2")
    made(runtime, plan, {"r1", "h1", "h2"})
    assert deployed == [runtime.topology.read_text()]
    assert [f"{wire['endpoints']}" for wire in documented(deployed[0])] == [
        "['r1:eth0', 'h1:eth0']",
        "['r1:eth1', 'h2:eth0']",
    ]


def test_to_a_lab_that_runs_only_what_is_new_is_added(fake_engine: FakeEngine, deployed: list[str]) -> None:
    for node in ("r1", "h1"):
        fake_engine.add(f"clab-edge-{node}", lab="edge", node=node, runtime="containerlab")
    runtime, plan = ContainerlabRuntime("edge"), plan_of("h1", "h2")
    made(runtime, plan, {"h2"})
    assert [wire["endpoints"] for wire in documented(deployed[0])] == [["r1:eth1", "h2:eth0"]]
    assert len(documented(runtime.topology.read_text())) == len(links_between(plan)) == 2, (
        "the file that stays is whole"
    )


def documented(text: str) -> list[dict[str, list[str]]]:
    import yaml

    links: list[dict[str, list[str]]] = yaml.safe_load(text)["topology"]["links"]
    return links


def test_a_lab_of_that_name_of_somebody_else_is_refused(fake_engine: FakeEngine, deployed: list[str]) -> None:
    fake_engine.containers.append(
        {"Id": "x", "Names": ["/clab-edge-srl"], "State": "running", "Image": "srl", "Labels": {"containerlab": "edge"}}
    )
    with pytest.raises(
        DeployError, match=r"runs a lab edge of somebody else \(container clab-edge-srl\): run the lab under"
    ):
        made(ContainerlabRuntime("edge"), plan_of("h1"), {"r1", "h1"})
    assert deployed == []


def test_what_a_container_is(fake_engine: FakeEngine, deployed: list[str], golden: Callable[[Path, str], None]) -> None:
    runtime = ContainerlabRuntime("edge")
    made(runtime, plan_of("h1"), {"r1", "h1"})
    folder = Path(__file__).resolve().parents[2] / "golden" / "export" / "containerlab-runtime"
    golden(folder / "runtime.clab.yml", deployed[0].replace(str(runtime.directory), "{lab's folder}"))


def test_what_a_container_of_an_image_of_its_own_is(state: Path, golden: Callable[[Path, str], None]) -> None:
    """Beside one that is not; what containerlab would expand is said so that it does not."""
    own = Node(
        "r1",
        "router",
        hostname="core",
        interfaces=(Interface("eth1"),),
        sysctls=(("net/ipv4/conf/all/rp_filter", "2"), ("net/ipv4/conf/eth1/rp_filter", "1")),
        files=(File("/etc/hosts", "127.0.0.1 localhost\n"), File("/etc/frr/frr.conf", "!\n", 0o640, "frr")),
        directories=(("/etc/frr", "frr"), ("/srv/empty", "root"), ("/srv", "root")),
        image="frrouting/frr:10.5",
        entrypoint=("sh", "-c"),
        cmd=('echo "$HOME" {{ x }}',),
        env=(("COLOUR", "$RED"), ("LEVEL", "1")),
    )
    other = Node("h1", "host", interfaces=(Interface("eth0"),))
    plan = Plan("edge", nodes=(own, other), links=(Link(Endpoint("r1", "eth1"), Endpoint("h1", "eth0")),))
    runtime = ContainerlabRuntime("edge")
    (state / "edge").mkdir()
    runtime.write_topology(plan, plan.links)
    folder = Path(__file__).resolve().parents[2] / "golden" / "export" / "containerlab-runtime"
    golden(folder / "images.clab.yml", runtime.topology.read_text().replace(str(runtime.directory), "{lab's folder}"))


def test_files_are_written_where_they_are_bound_from(tmp_path: Path) -> None:
    folder, me = tmp_path / "files/r1", (os.getuid(), os.getgid())
    node = Node(
        "r1",
        "router",
        files=(
            File("/etc/resolv.conf", "the engine has it\n"),
            File("/etc/frr/frr.conf", "!\n", 0o640, "frr"),
            File("/etc/frr/key", SecretRef("key", "private"), 0o600),
        ),
        directories=(("/etc/frr", "frr"), ("/var/log/empty", "frr")),
    )
    owners = {"frr": me, "root": me}
    for _ in range(2):  # what is there of an earlier time goes
        clab_files.write(folder, node, {("r1", "/etc/frr/key"): "secret"}, owners)
        bound = {
            target: Path(place) for place, _, target in (text.partition(":") for text in clab_files.binds(folder, node))
        }
        assert list(bound) == ["/var/log/empty", "/etc/frr/frr.conf", "/etc/frr/key"]
        assert sorted(folder.iterdir()) == sorted(bound.values())
        assert [stat.filemode(place.stat().st_mode) for place in bound.values()] == [
            "drwxr-xr-x",
            "-rw-r-----",
            "-rw-------",
        ]
        assert (bound["/etc/frr/frr.conf"].read_text(), bound["/etc/frr/key"].read_text()) == ("!\n", "secret")
        (bound["/var/log/empty"] / "written by the node").touch()


@pytest.mark.parametrize(
    ("files", "directories", "needed"),
    [
        ((File("/etc/hosts", "", owner="frr"), File("/etc/x", "")), (("/srv", "root"),), False),
        ((File("/etc/x", "", owner="frr"),), (), True),
        ((), (("/srv", "frr"),), True),
    ],
)
def test_whether_an_image_must_be_asked_for_its_users(
    files: tuple[File, ...], directories: tuple[tuple[str, str], ...], needed: bool
) -> None:
    assert clab_files.need_owners(Node("a", "host", files=files, directories=directories)) is needed


def test_an_engine_that_is_gone_keeps_the_folder(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    runtime = ContainerlabRuntime("edge")
    (state / "edge").mkdir()
    runtime.topology.touch()
    (state / "edge" / "engine").write_text("unix:///gone/docker.sock")
    with pytest.raises(UnsupportedError, match=r"at unix:///gone/docker.sock: .* gone for good, remove .*/edge\)"):
        runtime.destroy()
    assert runtime.topology.exists()


# --- apart from the host ----------------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.testbed_needs("netns")
def test_what_it_writes_is_its_own(tmp_path: Path) -> None:
    """But for the places it is to see: under /tmp, as here, they are put back."""
    script = (
        "echo 10.9.9.9 clab-test >>/etc/hosts; mkdir -p /run/netns; touch /run/netns/clab-test /tmp/clab-test;"
        f"test ! -d /etc/ssh/ssh_config.d || touch /etc/ssh/ssh_config.d/clab-test; echo written >{tmp_path}/kept;"
        "cat /etc/hosts; ip -o link"
    )
    hosts = Path("/etc/hosts").read_text()
    links = run.run(("ip", "-o", "link"))
    shown = run.run(("sh", "-c", script), apart=lambda: clab._apart([str(tmp_path)]))
    assert "10.9.9.9 clab-test" in shown
    assert shown.count("LOOPBACK") == 1
    assert "eth" not in shown.partition("LOOPBACK")[2], "it has a network of its own"
    assert (tmp_path / "kept").read_text() == "written\n"
    assert Path("/etc/hosts").read_text() == hosts
    assert run.run(("ip", "-o", "link")) == links
    for place in ("/run/netns", "/tmp", "/etc/ssh/ssh_config.d"):
        assert not Path(place, "clab-test").exists()


@pytest.mark.live
@pytest.mark.testbed_needs("netns")
def test_a_place_that_is_not_there_is_named() -> None:
    with pytest.raises(DeployError, match=r"containerlab cannot be kept apart from the host: .*/nonexistent"):
        run.run(("true",), apart=lambda: clab._apart(["/nonexistent"]))
