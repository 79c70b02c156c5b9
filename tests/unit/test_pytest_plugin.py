"""The pytest plugin, on labs that are not brought up: what it collects, reports, reuses, takes down and skips."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from testbed.deploy import apply, evidence
from testbed.errors import DeployError, NoSuchNodeError, NotReadyError, UnsupportedError
from testbed.plan import BgpSession, Flow, Interface, Node, Plan, Service
from testbed.probe.result import Answer, Verdict
from testbed.pytest_plugin import capabilities, labs
from testbed.session import compiled

pytest_plugins = ["pytester"]

LAB = """\
apiVersion: testbed/v1
name: small
nodes:
  h1: {kind: host}
  h2: {kind: host}
links:
  - {endpoints: [h1, h2]}
flows:
  - {name: ping, from: h1, to: h2, protocol: icmp}
  - {name: web, from: h1, to: h2, protocol: tcp, port: 8080}
"""


@dataclass
class Machine:
    """What runs on the machine that the fake sessions know: name → Plan, None for a lab that is only half there."""

    running: dict[str, Plan | None] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    refusal: Exception | None = None
    log: list[str] = field(default_factory=list)


class FakeSession:
    """A session whose labs come up at once and are as they must be, apart from the flows in `failing`."""

    machine: Machine

    def __init__(self, name: str, runtime: str = "") -> None:
        self.name, self.directory = name, Path("/nowhere", name)
        self.runtime = SimpleNamespace(name=runtime or "netns")

    @property
    def exists(self) -> bool:
        return self.name in self.machine.running

    def up(self, plan: Plan) -> None:
        self.machine.log.append(f"up {self.name}")
        if self.machine.refusal:
            raise self.machine.refusal
        self.machine.running[self.name] = plan

    def switch(self, plan: Plan) -> None:
        self.machine.log.append(f"switch {self.name}")
        if self.machine.refusal:
            raise self.machine.refusal
        self.machine.running[self.name] = plan

    def down(self) -> None:
        self.machine.log.append(f"down {self.name}")
        self.machine.running.pop(self.name, None)

    def close(self) -> None:
        self.machine.log.append(f"close {self.name}")

    def node(self, name: str) -> SimpleNamespace:
        if name not in {node.name for node in self.machine.running[self.name].nodes}:
            raise NoSuchNodeError(f"no node {name!r}")
        return SimpleNamespace(name=name)

    def secrets(self) -> None:
        return None

    def explained(self, flow: Flow) -> list[str]:
        return [f"why: {flow.source} knows why"]

    def test(self, names: tuple[str, ...]) -> list[Verdict]:
        flows = [flow for flow in self.machine.running[self.name].flows if flow.name in names or not names]
        return [verdict(flow, flow.name in self.machine.failing) for flow in flows]


@pytest.fixture
def machine(monkeypatch) -> Machine:
    """A machine on which nothing runs, and which lacks nothing."""
    found = Machine()
    monkeypatch.setattr(FakeSession, "machine", found, raising=False)
    monkeypatch.setattr(labs, "Session", FakeSession)
    monkeypatch.setattr(apply, "stored_plan", lambda directory: found.running.get(directory.name))
    monkeypatch.setattr(evidence, "gather", lambda plan, runtime, flow: [f"evidence about {flow.source}"])
    monkeypatch.setitem(capabilities._PROBES, "netns", lambda: "")
    monkeypatch.delenv("TESTBED_REQUIRE", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return found


def verdict(flow: Flow, failed: bool) -> Verdict:
    if failed:
        answer = Answer("timeout", "nothing came back within 1 s", latency=1.0)
        return Verdict(flow, answer, False, (f"expected an answer, but {answer.detail}",))
    return Verdict(flow, Answer("ok", "it answered", seen_as="10.0.0.0", latency=0.002), True, (), (("h2", None),))


@pytest.fixture
def folder(pytester) -> Path:
    """A rootdir with one lab in labs/small."""
    return write(pytester, "labs/small", LAB)


def write(pytester: pytest.Pytester, where: str, text: str) -> Path:
    path = pytester.path / where / "lab.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


# --- collection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["labs/small", "labs/small/lab.yaml", "labs", "."])
def test_every_flow_is_an_item(pytester, machine, folder, argument):
    result = pytester.runpytest("--collect-only", "-q", argument)
    result.stdout.fnmatch_lines(["labs/small/lab.yaml::ping", "labs/small/lab.yaml::web", "2 tests collected*"])
    assert machine.log == []


def test_one_flow_by_its_id_and_by_its_protocol(pytester, machine, folder):
    for arguments in (["labs/small/lab.yaml::web"], ["labs", "-k", "tcp"]):
        result = pytester.runpytest("-v", *arguments)
        result.assert_outcomes(passed=1, deselected=int("-k" in arguments))
        result.stdout.fnmatch_lines(["labs/small/lab.yaml::web PASSED*"])


def test_a_lab_yaml_of_another_program_is_left_alone(pytester, machine):
    path = write(pytester, "other", "targets: {main: {resources: {}}}\n")
    assert pytester.runpytest(".").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result = pytester.runpytest(str(path))  # but this one was asked for
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["other/lab.yaml:1:1: 'apiVersion' is missing in lab*"])


def test_what_is_wrong_with_a_lab_is_an_error_with_its_place(pytester, machine, folder):
    folder.write_text(LAB.replace("to: h2, protocol: tcp", "to: h3, protocol: tcp"))
    result = pytester.runpytest("labs")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["labs/small/lab.yaml:10:31: no node 'h3' (choose from h1, h2)"])
    result.stdout.no_fnmatch_line("*Traceback*")


# --- matrix -----------------------------------------------------------------------------------------------------------

MATRIX = """\
matrix:
  flows: [web]
  axes:
    mtu: {small: {lab: {links: [{endpoints: [h1, h2], mtu: 1300}]}}, large: {}}
    port: {open: {}, shut: {}}
  expect:
    - {when: {port: open}, flows: {web: {expect: ok}}}
    - {when: {port: shut}, flows: {web: {expect: refused}}}
"""


def test_every_flow_of_every_cell_is_an_item(pytester, machine, folder):
    folder.write_text(LAB + MATRIX)
    result = pytester.runpytest("--collect-only", "-q", "labs")
    cells = ("small-open", "small-shut", "large-open", "large-shut")
    items = ["ping", "web", *(f"{cell}::web" for cell in cells)]
    result.stdout.fnmatch_lines([*(f"labs/small/lab.yaml::{item}" for item in items), "6 tests collected*"])
    result = pytester.runpytest("--collect-only", "-q", "labs", "-k", "large and shut")
    result.stdout.fnmatch_lines(["labs/small/lab.yaml::large-shut::web", "1/6 tests collected*"])


def test_the_lab_is_changed_from_cell_to_cell(pytester, machine, folder):
    folder.write_text(LAB + MATRIX)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lab("labs/small")
        def test_in_the_form_of_the_file(lab):
            assert lab.form == "" and len(lab.plan.flows) == 2
        """
    )
    result = pytester.runpytest("labs", ".")
    result.assert_outcomes(passed=7)
    assert machine.log == ["up small", *["switch small"] * 5, "down small", "close small"]


def test_a_cell_that_fails_and_one_that_is_not_run(pytester, machine, folder):
    folder.write_text(LAB + MATRIX)
    machine.failing = {"web"}
    result = pytester.runpytest("labs/small/lab.yaml::small-open")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["  expected an answer, but nothing came back within 1 s"])
    machine.refusal = UnsupportedError("the kernel lacks it")
    result = pytester.runpytest("labs/small/lab.yaml::small-open")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["1: the kernel lacks it"])


def test_what_is_wrong_with_a_cell_is_told_in_its_turn(pytester, machine, folder):
    folder.write_text(LAB + MATRIX.replace("mtu: 1300", "mtu: 10"))
    result = pytester.runpytest("labs")
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(["labs/small/lab.yaml:*: in the cell small-open: lab.links*mtu: must be at least 68*"])


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_flow_that_fails_says_what_was_expected_and_shows_evidence(pytester, machine, folder):
    machine.failing = {"web"}
    result = pytester.runpytest("labs")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "web: h1 → h2 (10.0.0.1 port 8080, tcp)",
            "  expected an answer, but nothing came back within 1 s",
            "",
            "why: h1 knows why",
            "",
            "evidence about h1",
        ]
    )
    result.stdout.no_fnmatch_line("*FlowFailedError*")


def test_junit_has_the_facts_of_each_flow(pytester, machine, folder):
    machine.failing = {"web"}
    pytester.runpytest("labs", "--junitxml=report.xml")
    cases = {case.get("name"): case for case in ElementTree.parse(pytester.path / "report.xml").iter("testcase")}
    facts = {
        name: {entry.get("name"): entry.get("value") for entry in case.iter("property")} for name, case in cases.items()
    }
    assert facts["ping"] == {
        "from": "h1",
        "to": "h2",
        "address": "10.0.0.1",
        "protocol": "icmp",
        "expected": "ok",
        "found": "ok",
        "detail": "it answered",
        "seenAs": "10.0.0.0",
        "passed": "h2",
        "latency": "2 ms",
    }
    assert facts["web"]["found"] == "timeout"
    assert "expected an answer" in cases["web"].find("failure").text


# --- the life of a lab ------------------------------------------------------------------------------------------------


def running_plan(path: Path) -> Plan:
    return compiled(str(path), "small")


def test_a_lab_comes_up_once_and_goes_at_the_end(pytester, machine, folder):
    pytester.makepyfile(USE.replace("WHERE", "labs/small"))
    pytester.runpytest(".").assert_outcomes(passed=3)
    assert machine.log == ["up small", "down small", "close small"]


def test_a_lab_that_runs_already_is_left_as_it_is(pytester, machine, folder):
    machine.running["small"] = running_plan(folder)
    pytester.runpytest("labs").assert_outcomes(passed=2)
    assert machine.log == ["close small"]


def test_to_a_lab_that_runs_the_difference_is_applied(pytester, machine, folder):
    machine.running["small"] = running_plan(folder)
    folder.write_text(LAB.replace("port: 8080", "port: 8081"))
    pytester.runpytest("labs").assert_outcomes(passed=2)
    assert machine.log == ["up small", "close small"]
    assert machine.running["small"].flows[1].port == 8081


def test_a_lab_that_is_half_there_is_made_anew_and_ends(pytester, machine, folder):
    machine.running["small"] = None
    pytester.runpytest("labs").assert_outcomes(passed=2)
    assert machine.log == ["up small", "down small", "close small"]


def test_a_lab_can_be_kept(pytester, machine, folder):
    pytester.runpytest("labs", "--testbed-keep").assert_outcomes(passed=2)
    assert machine.log == ["up small", "close small"]


def test_the_name_can_be_chosen(pytester, machine, folder):
    pytester.runpytest("labs", "--testbed-name", "mine").assert_outcomes(passed=2)
    assert machine.log[0] == "up mine"


# What a runtime and a VRF driver decide: whether r2 starts its image's FRR, and what r1's VRF is made of.
MADE_OF = """\
apiVersion: testbed/v1
name: small
vrfs: [red]
nodes:
  r1: {kind: router}
  r2: {kind: router, image: frrouting/frr, bgp: {asn: 65002}}
  h1: {kind: host}
links:
  - {endpoints: [r1, r2]}
  - {endpoints: [r1, h1], vrf: red}
flows:
  - {name: ping, from: h1, to: {address: 10.9.9.9}, protocol: icmp}
matrix:
  flows: [ping]
  axes: {size: {small: {}, large: {}}}
  expect: [{flows: {ping: {expect: ok}}}]
"""


@pytest.mark.parametrize("runtime", ["netns", "docker"])
@pytest.mark.parametrize("driver", ["netns", "device"])
@pytest.mark.parametrize("item", ["ping", "large::ping"])
def test_runtime_and_driver_can_be_chosen(pytester, machine, folder, monkeypatch, runtime, driver, item):
    """A lab and its cells are compiled as `testbed up` compiles on that runtime and driver."""
    monkeypatch.setitem(capabilities._PROBES, "docker", lambda: "")
    folder.write_text(MADE_OF)
    options = ["--testbed-runtime", runtime, "--testbed-vrf-driver", driver, "--testbed-keep"]
    pytester.runpytest(f"labs/small/lab.yaml::{item}", *options).assert_outcomes(passed=1)
    found = machine.running["small"]
    assert found == compiled(str(folder), runtime=runtime, vrf_driver=driver)
    assert found.node("r2").image == ("frrouting/frr" if runtime == "docker" else "")
    assert found.node("r1").vrf_devices == (("red",) if driver == "device" else ())


def test_a_chosen_runtime_must_be_there(pytester, machine, folder, monkeypatch):
    monkeypatch.setitem(capabilities._PROBES, "docker", lambda: "no engine")
    result = pytester.runpytest("labs", "--testbed-runtime", "docker")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*= not run =*", "2: no engine"])
    assert machine.log == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--testbed-runtime=podman", "*--testbed-runtime: no 'podman' (choose from netns, docker, containerlab)"),
        ("--testbed-vrf-driver=vlan", "*--testbed-vrf-driver: no 'vlan' (choose from netns, device)"),
    ],
)
def test_what_is_chosen_must_exist(pytester, machine, folder, option, message):
    result = pytester.runpytest("labs", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_every_worker_of_xdist_has_a_lab_of_its_own(pytester, machine, folder, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    pytester.runpytest("labs").assert_outcomes(passed=2)
    assert machine.log == ["up small-gw1", "down small-gw1", "close small-gw1"]


def test_two_labs_of_one_name_do_not_undo_each_other(pytester, machine, folder):
    write(pytester, "other/small", LAB)
    result = pytester.runpytest(".")
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*labs/small/lab.yaml would both run as lab small*"])
    assert machine.log.count("up small") == 1


def test_a_lab_that_does_not_come_up_is_tried_once(pytester, machine, folder):
    machine.refusal = NotReadyError(60, ["h1: BGP to h2 (10.0.0.1): Active"])
    result = pytester.runpytest("labs")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["not ready after 60 s; still awaited:", "  h1: BGP to h2 (10.0.0.1): Active"])
    result.stdout.fnmatch_lines(["lab small did not come up before: not ready after 60 s*"])
    assert machine.log.count("up small") == 1


def test_a_lab_that_does_not_go_fails_the_run(pytester, machine, folder, monkeypatch):
    def down(session: labs.Session) -> None:
        raise DeployError("processes do not end")

    monkeypatch.setattr(labs.Session, "down", down)
    result = pytester.runpytest("labs")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["lab small could not be taken down: processes do not end"])


# --- what is not run --------------------------------------------------------------------------------------------------


def test_what_cannot_be_run_is_said_once_with_its_count(pytester, machine, folder, monkeypatch):
    monkeypatch.setitem(capabilities._PROBES, "netns", lambda: "labs need root")
    pytester.makepyfile(USE.replace("WHERE", "labs/small") + NEEDS)
    result = pytester.runpytest(".")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["*= not run =*", "4: labs need root"])
    assert machine.log == []


def test_other_skips_are_not_counted_as_not_run(pytester, machine):
    pytester.makepyfile("import pytest\ndef test_it(): pytest.skip('some other day')")
    result = pytester.runpytest()
    result.assert_outcomes(skipped=1)
    result.stdout.no_fnmatch_line("*not run*")


@pytest.mark.parametrize("how", ["option", "environment", "all"])
def test_what_must_be_run_fails_where_it_cannot(pytester, machine, folder, monkeypatch, how):
    monkeypatch.setitem(capabilities._PROBES, "netns", lambda: "labs need root")
    if how == "environment":
        monkeypatch.setenv("TESTBED_REQUIRE", "programs, netns")
    pytester.makepyfile(NEEDS)
    arguments = {"option": ["--testbed-require=netns"], "environment": [], "all": ["--testbed-require=all"]}[how]
    result = pytester.runpytest(".", *arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert sum(result.parseoutcomes().get(name, 0) for name in ("failed", "errors")) == 3
    result.stdout.fnmatch_lines(["*not run: labs need root (--testbed-require demands netns)"])


def test_what_is_demanded_must_exist(pytester, machine):
    result = pytester.runpytest("--testbed-require=netsn")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--testbed-require: no capability 'netsn' (choose from all, netns, *"])


def test_a_lab_whose_programs_are_missing_is_not_run(pytester, machine, folder, monkeypatch):
    image = "images:\n  - {names: [nosuch], command: [/usr/sbin/nosuch], packages: [none]}\n"
    folder.write_text(
        LAB.replace("h2: {kind: host}", "h2: {kind: host, image: nosuch}").replace("flows:", f"{image}flows:")
    )
    result = pytester.runpytest("labs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*= not run =*", "2: not installed: /usr/sbin/nosuch *"])
    assert machine.log == []
    monkeypatch.setitem(capabilities._PROBES, "docker", lambda: "")
    pytester.runpytest("labs", "--testbed-runtime=docker").assert_outcomes(passed=2)  # the image has its own
    pytester.runpytest("labs", "--testbed-require=netns").assert_outcomes(skipped=2)
    pytester.runpytest("labs", "--testbed-require=programs").assert_outcomes(errors=2)


def test_a_lab_that_the_kernel_cannot_carry_is_not_run(pytester, machine, folder):
    machine.refusal = UnsupportedError("this kernel has no IPVS")
    result = pytester.runpytest("labs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["2: this kernel has no IPVS"])
    pytester.runpytest("labs", "--testbed-require=kernel").assert_outcomes(errors=2)


# --- fixtures ---------------------------------------------------------------------------------------------------------

USE = """
import pytest

@pytest.mark.lab("WHERE")
def test_it(lab, node):
    assert lab.name == "small"
    assert node("h1").name == "h1"
"""
NEEDS = """
import pytest

@pytest.mark.testbed_needs("netns")
def test_with_a_need():
    pass
"""


@pytest.mark.parametrize("where", ["labs/small", "labs/small/lab.yaml", "../labs/small", "small"])
def test_a_lab_is_named_by_a_path_from_the_root_or_the_test(pytester, machine, folder, where):
    if where == "small":
        (pytester.path / "tests").mkdir()
        (pytester.path / "tests" / "small").symlink_to(folder.parent)
    test = pytester.path / "tests" / "test_use.py"
    test.parent.mkdir(exist_ok=True)
    test.write_text(USE.replace("WHERE", where))
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    pytester.runpytest("tests/test_use.py").assert_outcomes(passed=1)


def test_a_lab_is_named_by_the_ini_option(pytester, machine, folder):
    pytester.makeini("[pytest]\ntestbed_lab = labs/small\n")
    path = pytester.makepyfile("def test_it(lab, testbed_labs):\n    assert testbed_labs('labs/small') is lab")
    pytester.runpytest(path).assert_outcomes(passed=1)


def test_no_lab_at_all_and_no_such_lab(pytester, machine, folder):
    path = pytester.makepyfile(USE.replace("WHERE", "labs/smal") + "\ndef test_none(lab):\n    pass\n")
    result = pytester.runpytest(path)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*no lab 'labs/smal'*"])
    result.stdout.fnmatch_lines(['*which lab? Mark the test, @pytest.mark.lab("labs/edge"), or set testbed_lab*'])


def test_a_probe_uses_the_names_of_the_lab_file(pytester, machine, folder, monkeypatch):
    asked = []

    def ask(flow: Flow, sockets: object, secrets: object) -> Verdict:
        asked.append(flow)
        return verdict(flow, failed=False)

    monkeypatch.setattr(labs.probes, "ask", ask)
    pytester.makeini("[pytest]\ntestbed_lab = labs/small\n")
    path = pytester.makepyfile(
        """
        import pytest
        from testbed.errors import InputError

        def test_it(probe):
            assert probe(source="h1", to="h2", protocol="http", port=81, path="/x", timeout=2.5).seen_as == "10.0.0.0"
            assert probe("h1", {"node": "h2"}, "icmp", family="IPv6").outcome == "ok"
            with pytest.raises(InputError, match="no node 'h3'"):
                probe("h1", "h3", "icmp")
            with pytest.raises(InputError, match="a probe has no field 'prot' .did you mean port"):
                probe("h1", "h2", "tcp", prot=81)
            with pytest.raises(InputError, match="expected an integer, found '81'"):
                probe("h1", "h2", "tcp", port="81")
            with pytest.raises(InputError, match="path means nothing to a flow of protocol tcp"):
                probe("h1", "h2", "tcp", port=81, path="/")
        """
    )
    pytester.runpytest(path).assert_outcomes(passed=1)
    first, second = asked
    assert (first.source, first.address, first.port, first.http_path, first.timeout) == (
        "h1",
        "10.0.0.1",
        81,
        "/x",
        2.5,
    )
    assert ":" in second.address


def live(*nodes: Node) -> labs.LiveLab:
    """A lab of these nodes, as the fixtures give it."""
    session = SimpleNamespace(node=lambda name: SimpleNamespace(name=name))
    return labs.LiveLab(session, None, Plan("small", nodes))


def test_a_pod_is_found_by_the_beginning_of_its_name():
    pods = ("web-1", "web-2", "web-admin-1", "echo-1", "kube-system.dns-1")
    nodes = [Node("n1", "kubernetes"), *(Node(name, "pod", parent=f"n{name[-1]}") for name in pods)]
    lab = live(*nodes)
    assert lab.pod("web").name == "web-1"
    assert lab.pod("web", node="n2").name == "web-2"
    assert lab.pod("web-admin").name == "web-admin-1"
    assert lab.pod("web-ad").name == "web-admin-1"
    assert lab.pod("kube-system.dns").name == "kube-system.dns-1"
    assert lab.pod("echo-1").name == "echo-1"
    with pytest.raises(NoSuchNodeError, match=r"no pod 'n1'"):
        lab.pod("n1")
    with pytest.raises(NoSuchNodeError, match=r"no pod 'echo' on n2"):
        lab.pod("echo", node="n2")


# --- evidence ---------------------------------------------------------------------------------------------------------


class FakeRuntime:
    """Answers ip(8); `routes` lines for every question about routes, and nothing works on the node `dead`."""

    def __init__(self, routes: int = 1) -> None:
        self.routes = routes

    def run(self, node: str, vrf: str | None, argv: tuple[str, ...]) -> str:
        if node == "dead":
            raise NoSuchNodeError("node dead does not run")
        if "-j" in argv:
            return '[{"dst": "10.0.0.9", "prefsrc": "10.0.0.1"}]'
        if "rule" in argv:
            return "0:\tfrom all lookup local\n100:\tfrom 10.0.0.1 lookup 7\n32766:\tfrom all lookup main\n"
        if "get" in argv:
            return f"{argv[-1]} dev eth0 src 10.0.0.1 \n    cache \n"
        return "".join(f"10.0.0.0/24 via 10.0.{number}.1 {'x' * 200}\n" for number in range(self.routes))


PLAN = Plan(
    "small",
    nodes=(
        Node("client", "host", interfaces=(Interface("eth0", addresses=("10.0.0.1/24",)),)),
        Node("r1", "router", vrfs=("red",), interfaces=(Interface("eth0", vrf="red", addresses=("10.0.0.2/24",)),)),
        Node("dead", "host", interfaces=(Interface("eth0", addresses=("10.0.0.9/24",)),)),
    ),
    sessions=(BgpSession("r1", "red", "10.0.0.3", "r2", "frr", "/run/frr/bgpd.vty"),),
    services=(Service("web", "default", "LoadBalancer", (), (), ("3.3.3.1",), announced_by=("r1",)),),
)


@pytest.fixture
def health(monkeypatch) -> list[str]:
    problems: list[str] = []
    monkeypatch.setattr(evidence, "take", lambda plan, runtime: SimpleNamespace(problems=tuple(problems)))
    return problems


def test_evidence_is_about_the_places_on_the_way(health):
    flow = Flow("f", "client", "10.0.0.9", "tcp", 80, via=(("r1", "red"),))
    lines = [line[:60].rstrip("x ") for line in evidence.gather(PLAN, FakeRuntime(), flow)]
    assert lines == [
        "client:",
        "  way to 10.0.0.9: 10.0.0.9 dev eth0 src 10.0.0.1 cache",
        "    route 10.0.0.0/24 via 10.0.0.1",
        "  rule 100: from 10.0.0.1 lookup 7",
        "r1 (VRF red):",
        "  way to 10.0.0.9: 10.0.0.9 dev eth0 src 10.0.0.1 cache",
        "    route 10.0.0.0/24 via 10.0.0.1",
        "  way to 10.0.0.1: 10.0.0.1 dev eth0 src 10.0.0.1 cache",
        "    route 10.0.0.0/24 via 10.0.0.1",
        "  rule 100: from 10.0.0.1 lookup 7",
        "dead:",
        "  way to 10.0.0.1: node dead does not run",
        "    route node dead does not run",
        "  rule node dead does not run",
        "all 1 BGP sessions are established; every node, link and pro",
    ]


def test_evidence_names_what_is_not_as_planned(health):
    health += [f"r1: BGP to r{number}: Active" for number in range(40)]
    lines = evidence.gather(PLAN, FakeRuntime(), Flow("f", "client", "3.3.3.1", "tcp", 80))
    assert "r1:" in lines, "who announces the Service's address"
    assert lines[lines.index("not as planned:") + 1] == "  r1: BGP to r0: Active"
    assert lines[-1] == f"  … {40 - evidence.PROBLEMS} more"


def test_evidence_is_bounded(health):
    via = tuple((f"r{number}", None) for number in range(60))
    lines = evidence.gather(PLAN, FakeRuntime(routes=50), Flow("f", "client", "10.0.0.9", "tcp", 80, via=via))
    assert len(lines) == evidence.LINES
    assert lines[-1].startswith("… ")
    assert max(map(len, lines)) == evidence.WIDTH


# --- the plugin among others ------------------------------------------------------------------------------------------


def test_loading_the_plugin_imports_nothing_heavy():
    program = "import sys, testbed.pytest_plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "testbed.pytest_plugin" in loaded
    heavy = {"pydantic", "yaml", "jinja2", "paramiko", "httpx", "pyroute2", "rich", "typer", "testbed.session"}
    assert not heavy.intersection(loaded)
