"""The BIRD configurations of Calico's confd, compared in meaning with its recordings, and read by BIRD's own parser."""

from __future__ import annotations

import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from testbed.compile.kube.calico import bgp as calico_bgp
from testbed.compile.kube.calico import bird as calico_bird
from testbed.compile.kube.calico import check as calico_check
from testbed.compile.kube.calico.bgp import BgpCluster, BgpNode, BirdSession
from testbed.errors import InputError
from testbed.model import calico, kube
from testbed.render import environment

_BGP = """
as-dotted as-per-node bind-mode block-borrowed block-no-export-pool block-pending blocks-several communities
filter-all-four filter-as-path filter-communities filter-export-all-operators filter-import-v6 filter-peer-type
filter-priority filter-source-interface filter-two ignored-interfaces listen-port mesh mesh-higher-address
mesh-passive-text-order mesh-password mesh-priority mesh-restart-time mesh-v4-only no-pools node-config node-without-bgp
peer-allow-local-as peer-global-v6 peer-is-self peer-local-as-ibgp peer-local-workload peer-next-hop-auto
peer-next-hop-keep peer-node peer-node-selector peer-node-selector-port peer-password peer-port peer-refused-both
peer-restart-keepalive peer-rr-external-client peer-same-as peer-selector-and-mesh peer-selector-as-rr
peer-selector-different-as peer-selector-own-as peer-selector-reverse-manual peer-selector-rr peer-selector-rr-mesh
peer-selector-with-port peer-source-none peer-ttl-security pool-disabled pool-ipip-always pool-ipip-crosssubnet
pool-no-export pool-vxlan-always pool-vxlan-crosssubnet program-routes-disabled program-routes-enabled
program-routes-enabledipiponly router-id-fixed router-id-hash svc-cluster-local svc-cluster-range svc-cluster-range-dual
svc-external svc-lb svc-lb-aggregation-off svc-lb-excluded-node svc-lb-excluded-node-true svc-lb-single
svc-local-not-ready this-node-without-bgp
"""
BGP_CASES = _BGP.split()

# Not supported: what the refusal says.
REFUSED = {
    "peer-local-workload": "localWorkloadPeeringIPV4 is not supported",
    "peer-refused-both": "exactly one of peerIP and peerSelector",
    "pool-ipip-always": "ipipMode Always is not supported",
    "pool-ipip-crosssubnet": "ipipMode CrossSubnet is not supported",
    "pool-vxlan-always": "vxlanMode Always is not supported",
    "pool-vxlan-crosssubnet": "vxlanMode CrossSubnet is not supported",
    "program-routes-disabled": "programClusterRoutes Disabled is not supported",
    "program-routes-enabled": "ipipMode Always is not supported",
    "program-routes-enabledipiponly": "programClusterRoutes EnabledIPIPOnly is not supported",
}

# Block affinities on their way in or out are no input of a compiled lab, where every block is confirmed.
NOT_AN_INPUT = {"block-pending"}

SUPPORTED = [case for case in BGP_CASES if case not in REFUSED and case not in NOT_AN_INPUT]

# What upstream does wrong: (recorded, right), in the protocol of the node that has no AS number of its own.
UPSTREAM_FAULTS = {
    "as-per-node": {
        "neighbor 172.16.1.2 as 65011": "neighbor 172.16.1.2 as 64512",
        "neighbor fd00:16:1::2 as 65011": "neighbor fd00:16:1::2 as 64512",
    },
}

_OTHER = """
bgpfilter/as_path_and_priority bgpfilter/communities_and_operations bgpfilter/export_only/explicit_peer
bgpfilter/filter_names bgpfilter/large_community bgpfilter/match_operators bgpfilter/multi_filter/explicit_peer
bgpfilter/multi_filter/global_peer bgpfilter/single_filter/global_peer bgpfilter/v4_only/explicit_peer
bgpfilter/v4_only/global_peer bgpfilter/v6_only/explicit_peer bgpfilter/v6_only/global_peer cluster_routes/default
cluster_routes/enabled explicit_peering/global explicit_peering/global-external explicit_peering/local-as
explicit_peering/local-as-global-ipv6 explicit_peering/route_reflector_v6_by_ip explicit_peering/selectors
mesh/bgp-export mesh/communities mesh/hash mesh/ipip-always mesh/ipip-cross-subnet mesh/route-reflector-mesh-enabled
mesh/static-routes mesh/static-routes-exclude-node next_hop_mode/route_reflectors reachable_by/global_peers
reachable_by/route_reflectors ttl_security/global ttl_security/peer_selector
"""
OTHER_CASES = _OTHER.split()

# Not in the recorded input, but in its output: the blocks of kube-master, and the Services of mesh/static-routes.
OTHER_BLOCKS = ("10.0.0.0/30", "10.1.0.0/24", "10.2.0.1/32", "192.168.221.192/26", "192.168.221.64/26")
OTHER_SERVICES = ("10.101.0.101", "fd00:96::28")


class Yaml12Loader(yaml.SafeLoader):
    """Without YAML 1.1's numbers of base 60, for which 5663:12 is one; Kubernetes does not know them either."""


Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.load_all(path.read_text(), Yaml12Loader) if found]


def of_kind(found: list[dict[str, Any]], model: type[kube.KubeObject]) -> tuple[Any, ...]:
    return tuple(model.model_validate(item) for item in found if item["kind"] == model.__name__)


def recorded_cluster(folder: Path) -> BgpCluster:
    found = documents(folder / "objects.yaml")
    case = documents(folder / "case.yaml")[0] if (folder / "case.yaml").exists() else {}
    blocks: dict[str, list[str]] = {}
    for item in found:
        if item["kind"] == "BlockAffinity":
            blocks.setdefault(item["spec"]["node"], []).append(item["spec"]["cidr"])
    return BgpCluster(
        nodes=tuple(calico_bgp.bgp_node(node) for node in of_kind(found, kube.Node)),
        configurations=of_kind(found, calico.BGPConfiguration),
        peers=of_kind(found, calico.BGPPeer),
        filters=of_kind(found, calico.BGPFilter),
        pools=of_kind(found, calico.IPPool),
        blocks={node: tuple(prefixes) for node, prefixes in blocks.items()},
        services=of_kind(found, kube.Service),
        slices=of_kind(found, kube.EndpointSlice),
        passwords=dict(secrets(found)),
        router_id=case.get("env", {}).get("CALICO_ROUTER_ID", ""),
    )


def secrets(found: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, str], str]]:
    for item in found:
        if item["kind"] == "Secret":
            for key, value in item.get("stringData", {}).items():
                yield (item["metadata"]["name"], key), value
            for key, value in item.get("data", {}).items():
                yield (item["metadata"]["name"], key), b64decode(value).decode()


# --- comparison in meaning ---------------------------------------------------------------------------------------

TOKEN = re.compile(r"""\#[^\n]*|"[^"]*"|'[^']*'|&&|\|\||!~|[=!<>]=|[{}();,=~<>!]|[^\s{}();,=~<>!"'\#]+""")

Statement = tuple[Any, ...]


def statements(text: str) -> list[Statement]:
    """The statements of a configuration, nested as its braces are; comments and layout are gone."""
    tokens = [token for token in TOKEN.findall(text) if not token.startswith("#")]
    found, rest = _statements(tokens)
    assert not rest, f"unbalanced: {rest[:5]}"
    return canonical(found)


def _statements(tokens: list[str]) -> tuple[list[Statement], list[str]]:
    found: list[Statement] = []
    words: list[Any] = []

    def end() -> None:
        if words:
            found.append(tuple(words))
            words.clear()

    while tokens:
        token, *tokens = tokens
        if token == ";":
            end()
        elif token == "{":
            inner, tokens = _statements(tokens)
            words.append(inner)
            if tokens[:1] != ["else"] and tokens[:1] != [";"]:
                end()
        elif token == "}":
            end()
            return found, tokens
        else:
            words.append(token)
    end()
    return found, tokens


def canonical(found: list[Statement]) -> list[Statement]:
    """Independent statements in one order: those of the file, the options of a protocol, additions of communities."""
    return sorted((ordered(statement) for statement in found), key=repr)


def ordered(statement: Statement) -> Statement:
    options = statement[0] in ("protocol", "template")
    return tuple(
        (canonical(part) if options or is_additions(part) else [ordered(inner) for inner in part])
        if isinstance(part, list)
        else part
        for part in statement
    )


def is_additions(part: list[Statement]) -> bool:
    return all(str(inner[0]).endswith("community.add") for inner in part)


def assert_same(name: str, ours: str, recorded: str) -> None:
    left, right = statements(ours), statements(recorded)
    assert left == right, f"{name}\nonly ours: {[s for s in left if s not in right]}\nonly recorded: " + str(
        [s for s in right if s not in left]
    )


def test_the_comparison_sees_a_difference() -> None:
    one = (
        "protocol bgp A from t {\nneighbor 10.0.0.1 as 1; # far\nexport filter { if (net ~ 10.0.0.0/8) then accept; };}"
    )
    same = "protocol bgp A from t { export filter { if ( net ~ 10.0.0.0/8 ) then accept; }; neighbor 10.0.0.1 as 1; }"
    assert statements(one) == statements(same)
    assert statements(one) != statements(same.replace("as 1", "as 2"))
    assert statements(one) != statements(same.replace("accept", "reject"))
    swapped = "function f() { if (a) then { accept; } if (b) then { reject; } }"
    assert statements(swapped) != statements("function f() { if (b) then { reject; } if (a) then { accept; } }")


# --- recordings of a cluster under Kubernetes ----------------------------------------------------------------------


def test_no_recording_is_left_out(fixtures: Path) -> None:
    assert sorted(BGP_CASES) == sorted(path.name for path in (fixtures / "calico" / "bgp").iterdir())
    other = fixtures / "calico-bgp"
    assert sorted(OTHER_CASES) == sorted(str(path.parent.relative_to(other)) for path in other.rglob("input.yaml"))


@pytest.mark.parametrize("case", SUPPORTED)
def test_like_the_recording(fixtures: Path, case: str) -> None:
    folder = fixtures / "calico" / "bgp" / case
    cluster = recorded_cluster(folder)
    files = calico_bird.bird(environment(), cluster, "n1")

    node = cluster.node("n1")
    families = [prefix for prefix, address in (("bird", node.ipv4), ("bird6", node.ipv6)) if address]
    assert sorted(files) == sorted(f"{prefix}{part}.cfg" for prefix in families for part in ("", "_aggr", "_ipam"))
    for name, text in files.items():
        recorded = (folder / name).read_text()
        for wrong, right in UPSTREAM_FAULTS.get(case, {}).items():
            recorded = corrected(recorded, wrong, right)
        assert_same(f"{case}/{name}", text, recorded)
    for prefix in {"bird", "bird6"} - set(families):
        assert "disabled on this node" in (folder / f"{prefix}.cfg").read_text()


def corrected(text: str, wrong: str, right: str) -> str:
    """`text` with the AS number of one protocol corrected, which then is of another AS than the node."""
    before, found, after = text.partition(wrong)
    return before + right + after.replace("to_bgp_peers(true)", "to_bgp_peers(false)", 1) if found else text


@pytest.mark.parametrize(("case", "message"), REFUSED.items())
def test_refused(fixtures: Path, case: str, message: str) -> None:
    with pytest.raises((InputError, ValidationError), match=re.escape(message)):
        calico_bird.bird(environment(), recorded_cluster(fixtures / "calico" / "bgp" / case), "n1")


@pytest.mark.parametrize("case", sorted(NOT_AN_INPUT))
def test_not_an_input(fixtures: Path, case: str) -> None:
    found = documents(fixtures / "calico" / "bgp" / case / "objects.yaml")
    states = {item["spec"]["state"] for item in found if item["kind"] == "BlockAffinity"}
    assert states
    assert "confirmed" not in states
    assert "BlockAffinity" not in {model.__name__ for model in calico.KINDS}


# --- recordings of confd alone -----------------------------------------------------------------------------------


def confd_cluster(case: str, folder: Path) -> BgpCluster:
    """The input of confd's own tests: Calico's Node resources, and labels and communities that are not strings."""
    found = documents(folder / "input.yaml")
    addresses = OTHER_SERVICES if case.startswith("mesh/static-routes") else ()
    return BgpCluster(
        nodes=tuple(confd_node(item) for item in found if item["kind"] == "Node"),
        configurations=of_kind(found, calico.BGPConfiguration),
        peers=of_kind(found, calico.BGPPeer),
        filters=of_kind(found, calico.BGPFilter),
        pools=of_kind(found, calico.IPPool),
        blocks={"kube-master": OTHER_BLOCKS},
        services=tuple(local_service(address) for address in addresses),
        slices=tuple(local_endpoint(address) for address in addresses),
        router_id="hash" if case == "mesh/hash" else "",
    )


def local_service(address: str) -> kube.Service:
    return kube.Service.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": address.replace(":", "-")},
            "spec": {"type": "NodePort", "clusterIP": address, "externalTrafficPolicy": "Local"},
        }
    )


def local_endpoint(address: str) -> kube.EndpointSlice:
    """One endpoint of the Service, ready, on kube-master."""
    name = address.replace(":", "-")
    is_v6 = ":" in address
    return kube.EndpointSlice.model_validate(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv6" if is_v6 else "IPv4",
            "endpoints": [{"addresses": ["fd01::1" if is_v6 else "10.1.0.1"], "nodeName": "kube-master"}],
        }
    )


def confd_node(item: dict[str, Any]) -> BgpNode:
    bgp = item["spec"]["bgp"]
    return BgpNode(
        name=item["metadata"]["name"],
        ipv4=bgp.get("ipv4Address", "").partition("/")[0],
        ipv6=bgp.get("ipv6Address", "").partition("/")[0],
        as_number=bgp.get("asNumber"),
        cluster_id=bgp.get("routeReflectorClusterID", ""),
        labels={key: str(value).lower() for key, value in item["metadata"].get("labels", {}).items()},
    )


@pytest.mark.parametrize("case", OTHER_CASES)
def test_like_confd_alone(fixtures: Path, case: str) -> None:
    """Pools with encapsulation are refused; without it all is the same but what BIRD puts into the kernel."""
    folder = fixtures / "calico-bgp" / case
    recorded = confd_cluster(case, folder)
    cluster = replace(recorded, pools=tuple(map(without_encapsulation, recorded.pools)))
    encapsulated = cluster.pools != recorded.pools
    if encapsulated:
        with pytest.raises(InputError, match=r"ipipMode (Always|CrossSubnet) is not supported"):
            calico_bird.bird(environment(), recorded, "kube-master")
    files = calico_bird.bird(environment(), cluster, "kube-master")
    assert len(files) in (3, 6)
    for name, text in files.items():
        if not (encapsulated and name == "bird_ipam.cfg"):
            assert_same(f"{case}/{name}", text, (folder / f"expected-{name}").read_text())


def without_encapsulation(pool: calico.IPPool) -> calico.IPPool:
    spec = pool.spec.model_copy(update={"ipip_mode": "Never", "vxlan_mode": "Never"})
    return pool.model_copy(update={"spec": spec})


# --- BIRD's parser -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("bird") or not shutil.which("bird6"), reason="BIRD 1.6 is not installed")
@pytest.mark.parametrize("case", [case for case in SUPPORTED if case != "this-node-without-bgp"])
def test_bird_reads_it(fixtures: Path, tmp_path: Path, case: str) -> None:
    files = calico_bird.bird(environment(), recorded_cluster(fixtures / "calico" / "bgp" / case), "n1")
    parse_with_bird(files, tmp_path)


@pytest.mark.skipif(not shutil.which("bird"), reason="BIRD 1.6 is not installed")
def test_bird_reads_what_no_recording_has(tmp_path: Path) -> None:
    rules = [
        {
            "action": "Accept",
            "cidr": "10.0.0.0/8",
            "matchOperator": "NotIn",
            "prefixLength": {"min": 16, "max": 24},
            "peerType": "eBGP",
            "operations": [{"addCommunity": {"value": "1:2"}}, {"setPriority": {"value": 7}}],
        }
    ]
    cluster = small_cluster(
        filters=(calico.BGPFilter.model_validate(resource("BGPFilter", "f", {"importV4": rules, "exportV4": rules})),),
        peers=(peer("x", peerIP="10.0.0.254", asNumber=65000, filters=["f"], reachableBy="10.0.0.1"),),
        configurations=(configuration("default", logSeverityScreen="Warning"),),
    )
    files = calico_bird.bird(environment(), cluster, "a", calico_bird.Timers(connect_delay=1, connect_retry=1))
    assert "net !~ [ 10.0.0.0/8{16,24} ]" in files["bird.cfg"]
    assert "bgp_local_pref = 2147483640; accept;" in files["bird.cfg"]
    assert "connect delay time 1;" in files["bird.cfg"]
    assert "debug" not in files["bird.cfg"]
    assert "route 10.0.0.254/32 via 10.0.0.1;" in files["bird_aggr.cfg"]
    parse_with_bird(files, tmp_path)


def parse_with_bird(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    programs = sorted({"bird.cfg", "bird6.cfg"} & set(files))
    assert programs
    for name in programs:
        program = name.removesuffix(".cfg")
        result = subprocess.run([program, "-p", "-c", name], cwd=folder, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout + result.stderr) == (0, "")


# --- sessions and refusals on a small cluster ----------------------------------------------------------------------


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


def peer(name: str, **spec: Any) -> calico.BGPPeer:
    return calico.BGPPeer.model_validate(resource("BGPPeer", name, spec))


def configuration(name: str, **spec: Any) -> calico.BGPConfiguration:
    return calico.BGPConfiguration.model_validate(resource("BGPConfiguration", name, spec))


def small_cluster(**changes: Any) -> BgpCluster:
    nodes = (
        BgpNode("a", "10.0.0.2", "fd00::2", labels={"rack": "1"}),
        BgpNode("b", "10.0.0.3", labels={"rack": "2"}),
    )
    return replace(BgpCluster(nodes), **changes)


def test_sessions_of_the_mesh_and_of_a_leaf() -> None:
    cluster = small_cluster(
        peers=(peer("leaf", nodeSelector="rack == '1'", peerIP="10.0.0.254", asNumber=65001, localASNumber=65099),),
        configurations=(configuration("default", asNumber=64600),),
    )
    assert calico_bgp.sessions(cluster, "a") == (
        BirdSession("Mesh_10_0_0_3", "10.0.0.3", 64600, 64600, 4, source="10.0.0.2", passive=True),
        BirdSession("Node_10_0_0_254", "10.0.0.254", 65001, 65099, 4, source="10.0.0.2", local_as_given=True),
    )
    assert calico_bgp.sessions(cluster, "b") == (
        BirdSession("Mesh_10_0_0_2", "10.0.0.2", 64600, 64600, 4, source="10.0.0.3"),
    )


def test_the_mesh_agrees_on_who_listens() -> None:
    """Of the two ends of a session exactly one is passive, and each names the other's number."""
    nodes = tuple(BgpNode(f"n{i}", f"10.0.0.{i}", f"fd00::{i}", as_number=65000 + i % 3) for i in range(1, 13))
    cluster = BgpCluster(nodes)
    ends = {
        (session.source, session.peer): session for node in nodes for session in calico_bgp.sessions(cluster, node.name)
    }
    assert len(ends) == 2 * 12 * 11
    for (source, address), session in ends.items():
        other = ends[address, source]
        assert session.passive != other.passive
        assert (session.local_asn, session.peer_asn) == (other.peer_asn, other.local_asn)


def test_a_reflector_and_its_clients_see_each_other() -> None:
    nodes = (
        BgpNode("a", "10.0.0.2", labels={"role": "leaf"}),
        BgpNode("rr", "10.0.0.9", labels={"role": "rr"}, cluster_id="1.0.0.1"),
    )
    cluster = BgpCluster(
        nodes,
        (configuration("default", nodeToNodeMeshEnabled=False),),
        (peer("rr", nodeSelector="role == 'leaf'", peerSelector="role == 'rr'"),),
    )
    [client] = calico_bgp.sessions(cluster, "a")
    [reflector] = calico_bgp.sessions(cluster, "rr")
    assert (client.protocol, client.cluster_id) == ("Node_10_0_0_9", "")
    assert (reflector.protocol, reflector.cluster_id) == ("Node_10_0_0_2", "1.0.0.1")


POOL = {"cidr": "10.1.0.0/16"}
PROBLEMS: list[tuple[str, dict[str, Any], str]] = [
    ("node", {"peers": (peer("p", node="c", peerIP="10.9.9.9", asNumber=1),)}, "BGPPeer p: there is no node named c"),
    ("filter", {"peers": (peer("p", peerIP="10.9.9.9", asNumber=1, filters=["f"]),)}, "there is no BGPFilter named f"),
    ("as", {"peers": (peer("p", peerIP="10.9.9.9"),)}, "BGPPeer p: asNumber is missing"),
    ("family", {"peers": (peer("p", node="b", peerIP="fd00::9", asNumber=1),)}, "has an IPv6 address (b)"),
    ("selector", {"peers": (peer("p", nodeSelector="rack = '1'", peerIP="10.9.9.9", asNumber=1),)}, "nodeSelector: "),
    (
        "password",
        {"peers": (peer("p", peerIP="10.9.9.9", asNumber=1, password={"secretKeyRef": {"name": "s", "key": "k"}}),)},
        "BGPPeer p: there is no Secret s with a key k",
    ),
    (
        "quotes",
        {
            "configurations": (configuration("default", nodeMeshPassword={"secretKeyRef": {"name": "s", "key": "k"}}),),
            "passwords": {("s", "k"): 'a"b'},
        },
        "BIRD cannot hold a password with quotes",
    ),
    ("name", {"configurations": (configuration("other"),)}, "Calico does not read a configuration of this name"),
    ("global", {"configurations": (configuration("node.a", asNumber=1),)}, "BGPConfiguration node.a: asNumber holds"),
    (
        "community",
        {"configurations": (configuration("default", prefixAdvertisements=[{**POOL, "communities": ["c"]}]),)},
        "there is no community named c",
    ),
    (
        "single",
        {"configurations": (configuration("default", serviceClusterIPs=[{"cidr": "10.96.0.1/32"}]),)},
        "serviceClusterIPs 10.96.0.1/32 is not supported",
    ),
    (
        "overlap",
        {
            "pools": tuple(
                calico.IPPool.model_validate(resource("IPPool", name, {"cidr": cidr}))
                for name, cidr in (("x", "10.1.0.0/16"), ("y", "10.1.128.0/17"))
            )
        },
        "IPPool y: 10.1.128.0/17 overlaps 10.1.0.0/16 of IPPool x",
    ),
    ("router-id", {"nodes": (BgpNode("a", ipv6="fd00::1"),)}, "no IPv4 address to be its BGP router id"),
]


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in PROBLEMS], ids=[case[0] for case in PROBLEMS])
def test_problems(changes: dict[str, Any], message: str) -> None:
    cluster = small_cluster(**changes)
    found = calico_check.problems(cluster)
    assert len(found) == 1
    assert message in found[0].message
    with pytest.raises(InputError, match=re.escape(message)):
        calico_bird.bird(environment(), cluster, "a")


INVALID: list[tuple[type[kube.KubeObject], dict[str, Any], str]] = [
    (calico.IPPool, {**POOL, "blockSize": 33}, "blockSize 33"),
    (calico.IPPool, {"cidr": "10.1.0.0/28"}, "smaller than one block"),
    (calico.IPPool, {**POOL, "namespaceSelector": "a == 'b'"}, "needs allowedUses without Tunnel"),
    (calico.IPPool, {**POOL, "ipipMode": "Always", "vxlanMode": "Always"}, "cannot both be enabled"),
    (calico.IPPool, {"cidr": "10.1.0.1/16"}, "not a prefix"),
    (calico.IPPool, {**POOL, "other": 1}, "Extra inputs are not permitted"),
    (calico.BGPPeer, {"peerIP": "10.0.0.1", "asNumber": 1, "nextHopMode": "Keep", "keepOriginalNextHop": True}, "both"),
    (calico.BGPPeer, {"peerSelector": "all()", "asNumber": 1}, "asNumber cannot be set together with peerSelector"),
    (calico.BGPPeer, {"peerSelector": "all()", "nextHopMode": "Self"}, "nextHopMode cannot be set together"),
    (calico.BGPPeer, {"node": "a", "nodeSelector": "all()", "peerSelector": "all()"}, "node and nodeSelector"),
    (calico.BGPPeer, {"peerIP": "ten", "asNumber": 1}, "peerIP 'ten'"),
    (calico.BGPPeer, {"peerIP": "10.0.0.1", "asNumber": 1, "reachableBy": "fd00::1"}, "different families"),
    (calico.BGPPeer, {"peerIP": "10.0.0.1", "asNumber": 1.1}, "not an AS number"),
    (calico.BGPPeer, {"peerIP": "10.0.0.1", "asNumber": 1, "maxRestartTime": "2 minutes"}, "not a duration"),
    (calico.BGPConfiguration, {"localWorkloadPeeringIPV4": "10.0.0.1"}, "localWorkloadPeeringIPV4 is not supported"),
    (calico.BGPPeer, {"localWorkloadSelector": "all()", "asNumber": 1}, "localWorkloadSelector is not supported"),
    (calico.BGPConfiguration, {"communities": [{"name": "a", "value": "70000:1"}]}, "not a BGP community"),
    (calico.BGPFilter, {"importV4": [{"action": "Reject", "cidr": "fd00::/8", "matchOperator": "In"}]}, "IPv4 rules"),
    (calico.BGPFilter, {"importV4": [{"action": "Reject", "cidr": "10.0.0.0/8"}]}, "must be set together"),
    (calico.BGPFilter, {"importV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}]}, "Accept"),
    (calico.BGPFilter, {"importV4": [{"action": "Accept", "operations": [{}]}]}, "exactly one of addCommunity"),
]


@pytest.mark.parametrize(("model", "spec", "message"), INVALID)
def test_invalid_objects(model: type[kube.KubeObject], spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        model.model_validate(resource(model.__name__, "x", spec))


def test_as_numbers_and_durations() -> None:
    found = configuration("default", asNumber="1.10", nodeMeshMaxRestartTime="1m30s").spec
    assert (found.as_number, found.node_mesh_max_restart_time) == (65546, 90.0)


def test_annotations_of_a_node() -> None:
    node = kube.Node.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "a",
                "annotations": {"projectcalico.org/IPv4Address": "10.0.0.2/24", "projectcalico.org/ASNumber": "65001"},
            },
        }
    )
    assert calico_bgp.bgp_node(node) == BgpNode("a", "10.0.0.2", as_number=65001)
    other = {**node.metadata.annotations, "projectcalico.org/WireguardPublicKey": "x"}
    changed = node.model_copy(update={"metadata": node.metadata.model_copy(update={"annotations": other})})
    with pytest.raises(InputError, match="WireguardPublicKey is not supported"):
        calico_bgp.bgp_node(changed)
