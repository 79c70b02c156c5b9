"""Clusters of kind's: as far as one gets without the image of its nodes, and, where that is at hand, all the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from conftest import assert_flows, own_name, running

from testbed.deploy import kind as deploy_kind
from testbed.errors import CommandError, DeployError, InputError, UnsupportedError
from testbed.plan import Plan
from testbed.runtime import engine, image, kind_tool
from testbed.runtime.supervised import STATE
from testbed.session import Session, compiled
from testbed.session import running as running_labs

SITE = Path(__file__).resolve().parents[1] / "golden" / "export" / "site"
NOWHERE = "testbed.invalid/kindest/node:v0.0.0@sha256:" + "0" * 64
PLAIN = """\
apiVersion: testbed/v1
name: plain
vrfs: [blue]
nodes:
  r1: {kind: router}
  h1: {kind: host}
  n1: {kind: kubernetes}
  n2: {kind: kubernetes}
links:
  - {endpoints: [r1, n1, n2], vrf: blue, ipv4: 10.1.0.0/24}
  - {endpoints: [r1, h1], vrf: blue}
cluster: {name: k8s, provider: kind, returnPath: connmark, kind: {offline: offline}}
flows:
  - {name: to-n1, from: h1, to: n1, protocol: icmp}
  - {name: to-n2, from: h1, to: n2, protocol: icmp, via: [r1], vrf: blue}
  - {name: from-n1, from: n1, to: n2, protocol: icmp}
"""


def plain(folder: Path) -> Plan:
    (folder / "lab.yaml").write_text(PLAIN)
    shutil.copytree(SITE / "offline", folder / "offline")
    return compiled(str(folder), own_name("kind"))


@pytest.mark.live
@pytest.mark.testbed_needs("netns")
def test_not_on_the_netns_runtime() -> None:
    plan = compiled(str(SITE), own_name("kind"))
    with Session(plan.name, "netns") as session, pytest.raises(InputError, match="use --runtime docker"):
        session.up(plan)
    assert not (STATE / plan.name).exists()


@pytest.mark.live
@pytest.mark.docker
@pytest.mark.testbed_needs("netns", "docker")
def test_without_the_image_of_its_nodes_nothing_is_left() -> None:
    if reason := kind_tool.missing():
        pytest.skip(f"not run: {reason}")
    plan = compiled(str(SITE), own_name("kind"))
    assert plan.cluster
    plan = dataclasses.replace(plan, cluster=dataclasses.replace(plan.cluster, image=NOWHERE))
    with Session(plan.name, "docker") as session:
        session.runtime.prepare(lambda _: None)
        with pytest.raises(CommandError, match="failed to pull image"):
            session.up(plan)
        assert not session.exists
    assert left_of(plan.name) == []
    assert not (STATE / plan.name).exists()
    assert plan.name not in running_labs()


class StandIn:
    """Makes containers with kind's names, labels and network, in which no Kubernetes runs."""

    def __init__(self) -> None:
        self.installed = 0

    def create(self, name: str, config: Path, kubeconfig: Path, *, engine: str, network: str, timeout: float) -> None:
        kubeconfig.write_text("{}")
        workers = 0
        for node in yaml.safe_load(config.read_text())["nodes"]:
            workers += node["role"] == "worker"
            suffix = str(workers) if node["role"] == "worker" and workers > 1 else ""
            own = f"{name}-{node['role']}{suffix}"
            labels = {kind_tool.CLUSTER: name, "io.x-k8s.kind.role": node["role"]}
            docker(engine, "run", "-d", "--name", own, "--hostname", own, "--network", network, "--volume", "/var",
                   *(f"--label={key}={value}" for key, value in labels.items()),
                   image.NAME, "tail", "-f", "/dev/null")  # fmt: skip

    def install(self, *_: object) -> None:
        self.installed += 1


def left_of(lab: str) -> list[str]:
    """What the engine has of a lab: containers and networks."""
    where = engine.address()
    found = [entry.name for entry in engine.containers(where) if entry.name.startswith(lab)]
    return found + [entry.name for entry in engine.networks(where) if lab in entry.name]


def volumes(lab: str) -> set[str]:
    """The volumes of a lab's containers."""
    found = engine.ask(engine.address(), "/containers/json")
    own = [entry for entry in found if entry["Names"][0].startswith(f"/{lab}")]
    return {mount["Name"] for entry in own for mount in entry["Mounts"] if mount["Type"] == "volume"}


def docker(where: str, *words: str) -> str:
    return subprocess.run(["docker", "-H", where, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(kind_tool, "missing", lambda: "")
    monkeypatch.setattr(kind_tool, "create", made.create)
    monkeypatch.setattr(deploy_kind, "install", made.install)
    return made


@pytest.mark.live
@pytest.mark.docker
@pytest.mark.testbed_needs("netns", "docker")
def test_links_into_containers_that_others_made(tmp_path: Path, stand_in: StandIn) -> None:
    plan = plain(tmp_path)
    where = engine.address()
    with Session(plan.name, "docker") as session:
        session.runtime.prepare(lambda _: None)
    with running(plan, "docker") as session:
        made = volumes(plan.name)
        assert made
        assert stand_in.installed == 1
        assert_flows(session)
        found = addresses(session, "n1")
        assert "10.1.0.2" in found["eth1"]
        assert found["eth0"]  # the engine's network
        assert default_routes(session, "n1") == ["eth0"]
        status = session.status()
        assert not status.problems
        assert {"n1", "n2", "r1", "h1"} <= {node.name for node in status.nodes if node.running}
        assert "table ip testbed-return-path" in session.runtime.run("n1", None, ("/usr/sbin/nft", "list", "ruleset"))
        with pytest.raises(UnsupportedError, match="n1 is a container of kind's"):
            session.ssh("n1", ("true",))
        up_again_and_changes(session, plan, stand_in)
        docker(where, "stop", "-t", "0", f"{plan.name}-worker")
        assert "n2: kind's container" in " ".join(session.status().problems)
        with pytest.raises(DeployError, match=r"-worker: stopped"):
            session.up(plan)
        docker(where, "start", f"{plan.name}-worker")
        session.up(plan)  # its links come back
        assert_flows(session)
    assert left_of(plan.name) == []
    assert not made & {entry["Name"] for entry in engine.ask(where, "/volumes")["Volumes"] or ()}
    assert not (STATE / plan.name).exists()


def up_again_and_changes(session: Session, plan: Plan, stand_in: StandIn) -> None:
    """The same plan changes nothing; other objects are installed; what a cluster cannot change is refused."""
    assert not session.up(plan)
    assert stand_in.installed == 1
    assert plan.cluster
    other = dataclasses.replace(plan, cluster=dataclasses.replace(plan.cluster, images=("other:1",)))
    session.up(other)
    assert stand_in.installed == 2
    smaller = dataclasses.replace(plan, cluster=dataclasses.replace(plan.cluster, pod_subnet="10.9.0.0/16"))
    with pytest.raises(InputError, match="cannot change: pod subnet"):
        session.up(smaller)
    session.up(plan)


def addresses(session: Session, node: str) -> Mapping[str, list[str]]:
    text = session.runtime.run(node, None, ("/usr/sbin/ip", "-j", "address"))
    return {entry["ifname"]: [item["local"] for item in entry["addr_info"]] for entry in json.loads(text)}


def default_routes(session: Session, node: str) -> list[str]:
    text = session.runtime.run(node, None, ("/usr/sbin/ip", "-j", "-4", "route", "show", "default"))
    return [entry["dev"] for entry in json.loads(text)]


@pytest.mark.live
@pytest.mark.docker
@pytest.mark.testbed_needs("netns", "docker")
def test_another_cluster_of_that_name_is_left_alone(tmp_path: Path, stand_in: StandIn) -> None:
    plan = plain(tmp_path)
    where = engine.address()
    own = f"{plan.name}-control-plane"
    docker(where, "run", "-d", "--name", own, "--label", f"{kind_tool.CLUSTER}={plan.name}", "--network", "none",
           image.NAME, "tail", "-f", "/dev/null")  # fmt: skip
    try:
        with Session(plan.name, "docker") as session:
            with pytest.raises(DeployError, match=r"there is a cluster .* of kind's already"):
                session.up(plan)
            session.down()
        assert [entry.state for entry in engine.containers(where) if entry.name == own] == ["running"]
    finally:
        docker(where, "rm", "-f", own)


@pytest.mark.live
@pytest.mark.docker
@pytest.mark.testbed_needs("netns", "docker")
def test_down_needs_no_file_of_ours(tmp_path: Path, stand_in: StandIn) -> None:
    plan = plain(tmp_path)
    with Session(plan.name, "docker") as session:
        session.up(plan)
    assert len(left_of(plan.name)) == 5  # two nodes of the lab's, two of kind's, a network
    shutil.rmtree(STATE / plan.name)
    assert plan.name in running_labs()
    with Session(plan.name) as session:
        assert session.runtime.name == "docker"
        assert session.down()
    assert left_of(plan.name) == []
    assert plan.name not in running_labs()


@pytest.mark.live
@pytest.mark.docker
@pytest.mark.kind
@pytest.mark.testbed_needs("netns", "docker", "kind")
def test_a_real_cluster(tmp_path: Path) -> None:
    """Calico and MetalLB from the network, the lab's objects, BGP with the lab's router, a flow to a Service."""
    shutil.copytree(SITE / "manifests", tmp_path / "manifests")
    text = (SITE / "lab.yaml").read_text()
    assert "  kind: {offline: offline}\n" in text
    (tmp_path / "lab.yaml").write_text(text.replace("  kind: {offline: offline}\n", ""))
    with running(compiled(str(tmp_path), own_name("kind")), "docker") as session:
        assert not session.status().problems
        assert_flows(session)
