"""The pytest plugin with real labs: pytest in a process of its own, as a user runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import EDGE, TWO_ROUTERS, assert_flows, own_name, pids

from testbed.session import Session, running

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]
pytest_plugins = ["pytester"]

TCP_FLOW = "{name: tcp, from: h1, to: h2, protocol: tcp, port: 8080, seenAs: h1, via: [r1, r2]}"


@pytest.fixture
def folder(pytester) -> Path:
    """A rootdir with a copy of labs/two-routers in labs/."""
    path = pytester.path / "labs" / "two-routers"
    shutil.copytree(TWO_ROUTERS, path)
    return path


def test_flows_pass_and_nothing_stays(pytester, folder):
    name = own_name("plugin")
    result = pytester.runpytest_subprocess("labs/two-routers", "-v", "--testbed-name", name)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["labs/two-routers/lab.yaml::ping PASSED*", "labs/two-routers/lab.yaml::tcp PASSED*"])
    assert name not in running()
    assert not Path("/run/testbed", name).exists()


@pytest.mark.testbed_needs("graphviz")
def test_a_page_holds_the_flows_and_what_was_not_run(pytester, folder):
    (folder / "test_more.py").write_text(
        "import pytest\n@pytest.mark.testbed_needs('docker')\ndef test_containers():\n    pass\n"
    )
    name = own_name("plugin")
    options = ("--testbed-name", name, "--testbed-report=page.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", "unix:///no/such/engine")
        patch.delenv("TESTBED_REQUIRE", raising=False)  # what was not run is to be on the page, not a failure
        result = pytester.runpytest_subprocess("labs", *options)
    result.assert_outcomes(passed=3, skipped=1)
    page = (pytester.path / "page.html").read_text()
    assert "3 of 3 flows as expected" in page
    assert page.count("<svg") == 1 + 2 * 3, "the topology; for each flow, its path and a sequence diagram"
    assert "request: TCP SYN" in page
    assert "1: no Docker engine answers at unix:///no/such/engine" in page
    assert all(word in page for word in ("Established", "kernel", "FRR", "h2"))


def test_a_failure_shows_what_the_network_says(pytester, folder):
    name = own_name("plugin")
    text = (folder / "lab.yaml").read_text()
    wrong = TCP_FLOW.replace("seenAs: h1", "seenAs: h2")
    assert TCP_FLOW in text
    (folder / "lab.yaml").write_text(text.replace(TCP_FLOW, wrong))
    result = pytester.runpytest_subprocess("labs", "--testbed-name", name, "--junitxml=report.xml")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "tcp: h1 → h2 (10.0.0.* port 8080, tcp)",
            "  expected the server to see 10.0.0.* as its client, but it saw 10.0.0.*",
            "h1:",
            "  way to 10.0.0.*: 10.0.0.* via 10.0.0.* dev eth0 src 10.0.0.*",
            "r1:",
            "  way to 10.0.0.*: 10.0.0.* via 10.0.0.* dev eth0 src 10.0.0.*",
            "    route 10.0.0.*/31 * proto bgp metric 20*",
            "r2:",
            "h2:",
            "all * BGP sessions are established; every node, link and program runs",
        ]
    )
    report = (pytester.path / "report.xml").read_text()
    assert "but it saw 10.0.0." in report
    assert '<property name="seenAs" value="10.0.0.' in report
    assert name not in running()


def test_a_lab_can_be_kept_and_used_again(pytester, folder):
    name = own_name("plugin")
    with Session(name) as session:
        try:
            pytester.runpytest_subprocess("labs", "--testbed-name", name, "--testbed-keep").assert_outcomes(passed=3)
            before = pids(session)
            assert len(before) > 4
            pytester.runpytest_subprocess("labs", "--testbed-name", name).assert_outcomes(passed=3)
            assert pids(session) == before
        finally:
            session.down()


def test_fixtures(pytester, edge):
    """On the edge lab that runs already, which stays as it is."""
    before = pids(edge)
    pytester.makeini(f"[pytest]\ntestbed_lab = {EDGE}\n")
    path = pytester.makepyfile(
        """
        import socket

        import pytest

        from testbed.errors import CommandError, InputError, NoSuchNodeError

        def test_lab(lab):
            [verdict] = lab.test("ssh-from-amf")
            assert verdict.passed
            assert lab.plan == lab.session.plan

        def test_node(node):
            leaf = node("leaf1")
            assert leaf.run(["hostname"]).strip() == "leaf1"
            own = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('172.16.1.2', 9)); "
            own += "print(s.getsockname()[0])"
            assert leaf.vrf("mgmt").run(["/usr/bin/python3", "-c", own]) == "172.16.1.1\\n"
            with pytest.raises(CommandError, match="unreachable"):
                leaf.vrf("sbi").run(["/usr/bin/python3", "-c", own])
            assert leaf.run(["cat"], stdin="text") == "text"
            assert "router bgp 65001" in leaf.path("/etc/frr/bgpd.conf").read_text()
            assert leaf.state.processes["bgpd"].running
            with leaf.vrf("mgmt").socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
                channel.bind(("172.16.1.1", 0))
            with pytest.raises(NoSuchNodeError, match="no VRF"):
                leaf.vrf("nosuch")
            with pytest.raises(CommandError, match="leaf1"):
                leaf.run(["false"])
            with pytest.raises(NoSuchNodeError):
                node("leaf9")

        def test_pod(pod):
            assert pod("deployment/client").name == pod("client").name
            assert pod("daemonset/echo", node="n2").state.parent == "n2"
            assert pod("echo", node="n3").state.parent == "n3"
            assert "web-" in pod("deployment/web").run(["hostname"])
            with pytest.raises(InputError, match="deployment|Deployment"):
                pod("deployment/nosuch")

        def test_probe(probe):
            answer = probe(source="amf", to="service/ingress-nginx/ingress-nginx-controller", protocol="http",
                           host="web.example.com")
            assert (answer.status, answer.forwarded_for) == (200, "10.20.20.20")
            assert answer.answered_by.startswith("web-")
            answer = probe(source="deployment/client", to="amf", protocol="http", port=8080)
            assert answer.answered_by == "amf"
            assert probe("ops", {"node": "n1", "vrf": "mgmt"}, "icmp").outcome == "ok"
            assert probe("ops", "smf", "tcp", port=8080).outcome == "refused"
        """
    )
    pytester.runpytest_subprocess(path, "--testbed-name", edge.name).assert_outcomes(passed=4)
    assert pids(edge) == before
    assert_flows(edge, ["ssh-from-ops"])
