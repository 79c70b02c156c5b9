"""A cluster that kind makes, in the Plan: what is the lab's, and what is handed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_texts import compiled

from testbed.compile import compile_lab
from testbed.errors import InputError
from testbed.load.lab import load
from testbed.plan import Plan
from testbed.plan.store import from_json, to_json

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SITE = GOLDEN / "export" / "site"


@pytest.fixture(scope="module")
def site() -> Plan:
    loaded = load(str(SITE))
    return compile_lab(loaded.lab, loaded.manifests, loaded.images)


def test_nodes_get_links_and_nothing_else(site: Plan) -> None:
    node = site.node("n1")
    assert [(entry.name, entry.addresses) for entry in node.interfaces] == [
        ("eth1", ("172.16.1.2/24",)),  # eth0 is on the engine's network
        ("eth2", ("172.17.1.2/24",)),
    ]
    assert (node.files, node.processes, node.directories) == ((), (), ())
    assert not [entry for entry in site.nodes if entry.parent]


def test_every_uplink_has_its_return_path_and_the_default_route_stays(site: Plan) -> None:
    node = site.node("n1")
    assert all(route.table != 254 for route in node.routes)
    assert [(rule.fwmark, rule.table) for rule in node.rules] == [(0x100, 101), (0x200, 102)]
    assert [entry.name for entry in node.rulesets] == ["ip testbed-return-path"]


def test_sessions_are_asked_of_the_routers(site: Plan) -> None:
    assert {(entry.node, entry.vrf, entry.peer) for entry in site.sessions} == {
        ("leaf1", vrf, f"172.{number}.1.{host}") for vrf, number in (("mgmt", 16), ("sbi", 17)) for host in (2, 3)
    }
    assert not [entry for entry in site.routes if entry.node in ("n1", "n2")]


def test_the_address_that_flows_count_on(site: Plan) -> None:
    assert [(entry.name, entry.addresses) for entry in site.services if entry.type == "LoadBalancer"] == [
        ("echo", ("3.3.3.0",))
    ]
    assert site.flows[0].address == "3.3.3.0"


def test_objects_in_order_with_their_places(site: Plan) -> None:
    assert site.cluster
    found = [(json.loads(entry.text)["kind"], entry.origin.rpartition("/")[2]) for entry in site.cluster.objects]
    assert found[:3] == [("Namespace", "all.yaml:43:1"), ("BGPPeer", "all.yaml:1:1"), ("IPAddressPool", "all.yaml:6:1")]
    assert [kind for kind, _ in found[3:]] == ["BGPAdvertisement", "BGPPeer", "DaemonSet", "Service"]


def test_the_plan_can_be_stored(site: Plan) -> None:
    assert from_json(to_json(site)) == site


def test_without_offline_manifests_come_from_the_projects() -> None:
    text = (GOLDEN / "labs" / "kind-flows" / "lab.yaml").read_text()
    assert "offline" not in text
    from testbed.load.kind import upstream
    from testbed.load.lab import parse_lab

    cluster = parse_lab(text, "lab.yaml").cluster
    assert cluster
    sources, archives, problems = upstream(cluster, Path("lab.yaml"))
    assert not problems
    assert not archives
    assert [source.rpartition("/")[2] for source in sources] == ["calico-v3-crds.yaml", "metallb-frr.yaml"]
    assert all(source.startswith("https://") for source in sources)
    assert "v3.32.1" in sources[0]
    assert "v0.16.1" in sources[1]


def test_archives_are_found(tmp_path: Path) -> None:
    for name in ("lab.yaml", "calico-v3-crds.yaml", "metallb-frr.yaml", "b.tar", "a.tar"):
        (tmp_path / name).write_text("")
    from testbed.load.kind import upstream
    from testbed.model.lab import Cluster

    cluster = Cluster.model_validate({"name": "k8s", "provider": "kind", "kind": {"offline": "."}})
    sources, archives, problems = upstream(cluster, tmp_path / "lab.yaml")
    assert not problems
    assert [Path(path).name for path in (*sources, *archives)] == [
        "calico-v3-crds.yaml",
        "metallb-frr.yaml",
        "a.tar",
        "b.tar",
    ]


def test_a_pool_of_the_labs_is_the_only_one() -> None:
    text = """
        nodes:
          r1: {kind: router}
          n1: {kind: kubernetes}
        links: [{endpoints: [r1, n1]}]
        cluster: {name: k8s, provider: kind}
    """
    pool = """
        apiVersion: projectcalico.org/v3
        kind: IPPool
        metadata: {name: pool}
        spec: {cidr: 192.168.0.0/20}
    """
    without, given = compiled(text), compiled(text, {"pool.yaml": pool})
    assert without.cluster
    assert given.cluster
    assert ("CALICO_IPV4POOL_CIDR", "192.168.0.0/16") in without.cluster.settings
    assert ("NO_DEFAULT_POOLS", "true") in given.cluster.settings
    assert "CALICO_IPV4POOL_CIDR" not in dict(given.cluster.settings)


def test_a_name_for_running_is_checked_too() -> None:
    loaded = load(str(SITE))
    with pytest.raises(InputError, match="too long for a lab with a cluster of kind's"):
        compile_lab(loaded.lab, loaded.manifests, loaded.images, "x" * 50)
