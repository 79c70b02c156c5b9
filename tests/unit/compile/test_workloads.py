"""Workloads to pods, and pods to EndpointSlices. What is refused is in tests/golden/manifests (compile-*)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.compile.kube.commands import expand
from testbed.compile.kube.workloads import ContainerInstance, PodInstance, endpoint_slices, pods, with_addresses
from testbed.errors import InputError
from testbed.load.images import catalogue, load_images
from testbed.load.manifests import Manifests, load_manifests
from testbed.model.kube import Condition, EndpointSlice, Metadata, Node, NodeSpec, NodeStatus, Service, Taint
from testbed.plan import File, Ready, SecretRef

IMAGES = catalogue()


def node(name: str, *, ready: bool = True, taint: str = "", cordoned: bool = False, **labels: str) -> Node:
    """A node; `zone` is short for its topology label, a taint is written key=value:effect."""
    key, _, rest = taint.partition("=")
    value, _, effect = rest.partition(":")
    taints = [Taint.model_validate({"key": key, "value": value, "effect": effect})] if taint else []
    if zone := labels.pop("zone", ""):
        labels["topology.kubernetes.io/zone"] = zone
    conditions = (Condition(type="Ready", status="True" if ready else "Unknown"),)
    return Node(
        api_version="v1",
        metadata=Metadata(name=name, labels=labels),
        spec=NodeSpec(taints=tuple(taints), unschedulable=cordoned),
        status=NodeStatus(conditions=conditions),
    )


THREE = (node("n1"), node("n2"), node("n3"))


def manifests(*objects: Mapping[str, Any]) -> Manifests:
    return load_manifests([("f", yaml.safe_dump_all(objects))])


def workload(kind: str, name: str, spec: Mapping[str, Any] | None = None, **pod: Any) -> dict[str, Any]:
    pod = {"containers": [{"name": "c", "image": "echo"}], **pod}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    outer = {"selector": {"matchLabels": {"app": name}}, "template": template, **(spec or {})}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": outer}


def deployment(name: str, replicas: int, **pod: Any) -> dict[str, Any]:
    return workload("Deployment", name, {"replicas": replicas}, **pod)


def bare(name: str, container: Mapping[str, Any] | None = None, **pod: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "echo", **(container or {})}]
    spec = {"containers": containers, **pod}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def made(*objects: Mapping[str, Any], nodes: Sequence[Node] = THREE) -> tuple[PodInstance, ...]:
    return pods(manifests(*objects), nodes, IMAGES)


def places(found: Sequence[PodInstance]) -> list[tuple[str, str]]:
    """(pod, node), the pod's made-up part of the name left out."""
    return [(f"{pod.origin.name}-{pod.index}", pod.node_name) for pod in found]


def program(container: Mapping[str, Any], *others: Mapping[str, Any], **pod: Any) -> ContainerInstance:
    """What one container becomes, in the pod p on n1."""
    found = made(*others, bare("p", container, nodeName="n1", **pod))
    return found[-1].containers[0]


# ------------------------------------------------------------------------------------------------ names, labels


def test_names_look_like_those_of_kubernetes() -> None:
    found = made(
        deployment("web", 1),
        workload("ReplicaSet", "rs", {"replicas": 1}),
        workload("StatefulSet", "db", {"replicas": 2, "ordinals": {"start": 3}}),
        workload("DaemonSet", "agent"),
        bare("one"),
        deployment("l" * 60, 1),
    )
    shapes = [
        r"web-[a-z0-9]{10}-[a-z0-9]{5}",
        r"rs-[a-z0-9]{5}",
        "db-3",
        "db-4",
        *[r"agent-[a-z0-9]{5}"] * 3,
        "one",
        r"l{58}[a-z0-9]{5}",
    ]
    assert len(found) == len(shapes)
    for pod, shape in zip(found, shapes, strict=True):
        assert re.fullmatch(shape, pod.name), pod.name
        assert pod.hostname == pod.name
    assert len({pod.name for pod in found}) == len(found)


def test_labels_of_controllers() -> None:
    web, db, agent = made(
        deployment("web", 1),
        workload("StatefulSet", "db", {"replicas": 1}),
        workload("DaemonSet", "agent"),
        nodes=THREE[:1],
    )
    assert web.labels == {"app": "web", "pod-template-hash": web.name.split("-")[1]}
    assert db.labels["statefulset.kubernetes.io/pod-name"] == "db-0"
    assert db.labels["apps.kubernetes.io/pod-index"] == "0"
    assert agent.labels["controller-revision-hash"].startswith("agent-")


def test_a_new_template_makes_new_pods() -> None:
    before = made(deployment("web", 2))
    assert made(deployment("web", 2)) == before
    after = made(deployment("web", 2, terminationGracePeriodSeconds=1))
    assert not {pod.name for pod in before} & {pod.name for pod in after}


def test_hostnames_and_dns() -> None:
    found = made(
        bare("a", hostname="h", subdomain="s"),
        bare("b", hostNetwork=True, nodeName="n2", hostname="h"),
        bare("c", hostNetwork=True, nodeName="n2", dnsPolicy="ClusterFirstWithHostNet"),
        bare("d", dnsPolicy="Default"),
        workload("StatefulSet", "e", {"serviceName": "svc"}),
    )
    assert [(pod.hostname, pod.pod_hostname, pod.subdomain, pod.dns_policy) for pod in found] == [
        ("h", "h", "s", "ClusterFirst"),
        ("n2", "h", "", "Default"),
        ("n2", "", "", "ClusterFirst"),
        ("d", "", "", "Default"),
        ("e-0", "e-0", "svc", "ClusterFirst"),
    ]


# ------------------------------------------------------------------------------------------------ placement


def test_replicas_are_spread() -> None:
    found = made(deployment("a", 4), deployment("b", 2))
    assert places(found) == [
        ("a-0", "n1"),
        ("a-1", "n3"),
        ("a-2", "n2"),
        ("a-3", "n1"),
        ("b-0", "n2"),
        ("b-1", "n1"),
    ]


@given(
    before=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    more=st.integers(1, 5),
    which=st.integers(0, 3),
    count=st.integers(1, 5),
)
def test_scaling_up_moves_and_renames_nothing(before: list[int], more: int, which: int, count: int) -> None:
    nodes = [node(f"n{number}") for number in range(count)]
    after = list(before)
    after[which % len(before)] += more
    first = made(*(deployment(f"d{number}", size) for number, size in enumerate(before)), nodes=nodes)
    second = made(*(deployment(f"d{number}", size) for number, size in enumerate(after)), nodes=nodes)
    assert len(second) == len(first) + more
    where = {pod.key: pod.node_name for pod in second}
    assert {pod.key: where.get(pod.key) for pod in first} == {pod.key: pod.node_name for pod in first}


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4), count=st.integers(1, 5))
def test_every_owner_is_spread_evenly(sizes: list[int], count: int) -> None:
    nodes = [node(f"n{number}") for number in range(count)]
    found = made(*(deployment(f"d{number}", size) for number, size in enumerate(sizes)), nodes=nodes)
    assert len(found) == sum(sizes)
    for number in range(len(sizes)):
        counts = Counter({item.name: 0 for item in nodes})
        counts.update(pod.node_name for pod in found if pod.origin.name == f"d{number}")
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_lost_node_moves_only_its_own_pods() -> None:
    objects = [
        deployment("web", 3),
        workload("StatefulSet", "db", {"replicas": 3}),
        workload("DaemonSet", "agent"),
        bare("one", nodeName="n2"),
    ]
    before = made(*objects)
    after = made(*objects, nodes=(THREE[0], node("n2", ready=False), THREE[2]))
    stayed = [pod for pod in before if pod.node_name != "n2"]
    assert len(stayed) == 6
    assert all(pod in after for pod in stayed)
    changed = [(pod.origin.name, pod.node_name in ("n1", "n3"), pod.ready) for pod in after if pod not in stayed]
    assert changed == [("web", True, True), ("db", False, False), ("agent", False, False), ("one", False, False)]
    new = next(pod for pod in after if pod.origin.name == "web" and pod not in stayed)
    assert new.name not in {pod.name for pod in before}


def test_a_lost_node_is_tolerated() -> None:
    forever = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]
    found = made(deployment("web", 2, tolerations=forever), nodes=(THREE[0], node("n2", ready=False)))
    assert places(found) == [("web-0", "n1"), ("web-1", "n2")]


@pytest.mark.parametrize(
    ("pod", "nodes", "where"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, (node("a"), node("b", disk="ssd")), "b"),
        ({"nodeSelector": {"kubernetes.io/hostname": "b"}}, (node("a"), node("b")), "b"),
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, (node("a"),), "a"),
        ({}, (node("a", taint="k=v:NoSchedule"), node("b")), "b"),
        ({}, (node("a", taint="k=v:NoExecute"), node("b")), "b"),
        ({}, (node("a", taint="k=v:PreferNoSchedule"), node("b")), "a"),
        ({}, (node("a", cordoned=True), node("b")), "b"),
        ({"tolerations": [{"key": "k", "value": "v"}]}, (node("a", taint="k=v:NoSchedule"), node("b")), "a"),
        ({"tolerations": [{"key": "k", "value": "w"}]}, (node("a", taint="k=v:NoSchedule"), node("b")), "b"),
        ({"tolerations": [{"key": "k", "operator": "Exists"}]}, (node("a", taint="k=v:NoExecute"), node("b")), "a"),
        ({"tolerations": [{"operator": "Exists"}]}, (node("a", taint="k=v:NoExecute"), node("b")), "a"),
        (
            {"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]},
            (node("a", taint="k=v:NoExecute"), node("b")),
            "b",
        ),
        ({"nodeName": "b"}, (node("a"), node("b", cordoned=True, taint="k=v:NoSchedule")), "b"),
    ],
)
def test_where_a_pod_may_run(pod: dict[str, Any], nodes: Sequence[Node], where: str) -> None:
    assert made(deployment("web", 1, **pod), nodes=nodes)[0].node_name == where


@pytest.mark.parametrize(
    ("operator", "values", "chosen"),
    [
        ("In", ["1", "3"], {"a", "c"}),
        ("NotIn", ["1"], {"b", "c", "d"}),
        ("Exists", [], {"a", "b", "c"}),
        ("DoesNotExist", [], {"d"}),
        ("Gt", ["1"], {"b", "c"}),
        ("Lt", ["2"], {"a"}),
    ],
)
def test_node_affinity(operator: str, values: list[str], chosen: set[str]) -> None:
    nodes = (node("a", rank="1"), node("b", rank="2"), node("c", rank="3"), node("d"))
    term = {"matchExpressions": [{"key": "rank", "operator": operator, "values": values}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    found = made(workload("DaemonSet", "x", affinity={"nodeAffinity": required}), nodes=nodes)
    assert {pod.node_name for pod in found} == chosen


def test_daemons_run_where_they_may() -> None:
    nodes = (node("a"), node("b", taint="k=v:NoSchedule"), node("c", cordoned=True), node("d", ready=False))
    found = made(workload("DaemonSet", "x"), nodes=nodes)
    assert [(pod.node_name, pod.ready) for pod in found] == [("a", True), ("c", True), ("d", False)]
    names = {pod.name for pod in found}
    more = made(workload("DaemonSet", "x"), nodes=(*nodes, node("aa")))
    assert names < {pod.name for pod in more}


def test_host_ports_are_taken_once() -> None:
    def pod(port: int, protocol: str = "TCP") -> dict[str, Any]:
        ports = [{"containerPort": port, "protocol": protocol}]
        return {"hostNetwork": True, "containers": [{"name": "c", "image": "echo", "ports": ports}]}

    objects = [deployment("a", 2, **pod(80)), deployment("b", 1, **pod(80)), deployment("c", 1, **pod(80, "UDP"))]
    nodes = {pod.origin.name: pod.node_name for pod in made(*objects) if pod.origin.name != "a"}
    taken = [pod.node_name for pod in made(*objects) if pod.origin.name == "a"]
    assert nodes["b"] not in taken
    assert made(*objects[:1], objects[2], nodes=THREE[:2])


def test_not_ready_pods() -> None:
    found = pods(manifests(bare("a"), bare("b")), THREE, IMAGES, not_ready={"default/b"})
    assert [(pod.key, pod.ready) for pod in found] == [("default/a", True), ("default/b", False)]


# ------------------------------------------------------------------------------------------------ programs


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({"image": "nginx:1.27"}, ["/usr/sbin/nginx", "-g", "daemon off;"]),
        ({"image": "nginx", "command": ["nginx-debug", "-g", "x"]}, ["/usr/bin/env", "nginx-debug", "-g", "x"]),
        ({"image": "nginx", "args": ["nginx", "-V"]}, ["/usr/bin/env", "nginx", "-V"]),
        ({"image": "pause", "args": ["5"]}, ["/bin/sleep", "infinity", "5"]),
        ({"image": "pause", "command": ["/bin/sleep"], "args": ["5"]}, ["/bin/sleep", "5"]),
        ({"image": "pause", "command": ["/bin/sleep", "5"]}, ["/bin/sleep", "5"]),
        ({"image": "busybox"}, ["/bin/busybox", "sh"]),
        ({"image": "busybox", "command": ["sh", "-c", "a b"]}, ["/bin/busybox", "sh", "-c", "a b"]),
        ({"image": "busybox", "command": ["/usr/bin/nc", "-l"]}, ["/bin/busybox", "nc", "-l"]),
        ({"image": "busybox", "command": ["/bin/busybox", "nc"]}, ["/bin/busybox", "nc"]),
        ({"image": "busybox", "command": ["/opt/x"]}, ["/opt/x"]),
        ({"image": "busybox", "command": ["./x"]}, ["/usr/bin/env", "./x"]),
        ({"image": "busybox", "args": ["sleep", "9"]}, ["/bin/busybox", "sleep", "9"]),
        ({"image": "debian", "command": ["sleep", "9"]}, ["/usr/bin/env", "sleep", "9"]),
    ],
)
def test_command_lines(container: dict[str, Any], argv: list[str]) -> None:
    assert list(program(container).argv) == argv


ECHO = ["/usr/bin/python3", "-I", "-S", "/usr/lib/testbed/echo.py"]


@pytest.mark.parametrize(
    ("container", "argv", "ready"),
    [
        ({"image": "echo"}, [*ECHO, "--port", "8080"], 8080),
        ({"image": "echo", "args": ["--port", "90", "--port=91"]}, [*ECHO, "--port", "90", "--port", "91"], 90),
        ({"image": "echo", "args": ["--udp-port=5"]}, [*ECHO, "--udp-port", "5"], 8080),
        ({"image": "agnhost", "args": ["netexec"]}, [*ECHO, "--port", "8080", "--udp-port", "8081"], 8080),
        (
            {"image": "agnhost", "args": ["netexec", "--http-port=90", "-udp-port", "91", "--delay-shutdown", "3"]},
            [*ECHO, "--port", "90", "--udp-port", "91"],
            90,
        ),
        (
            {"image": "agnhost", "command": ["/agnhost", "netexec"], "args": ["--http-port", "$(P)"]},
            [*ECHO, "--port", "7000", "--udp-port", "8081"],
            7000,
        ),
        ({"image": "agnhost", "command": ["sleep", "1"]}, ["/usr/bin/env", "sleep", "1"], 0),
    ],
)
def test_translated_arguments(container: dict[str, Any], argv: list[str], ready: int) -> None:
    found = program({**container, "env": [{"name": "P", "value": "7000"}]})
    assert list(found.argv) == argv
    assert found.ready == (Ready("listen", ready) if ready else Ready())
    assert found.role == ("echo" if ready else "")


def test_options_that_are_handed_on() -> None:
    args = ["/nginx-ingress-controller", "--ingress-class=nginx", "--election-id=x", "--watch-ingress-without-class"]
    found = program({"image": "registry.k8s.io/ingress-nginx/controller:v1.11.2", "args": args})
    assert found.options == (("ingress-class", "nginx"), ("watch-ingress-without-class", "true"))
    assert found.argv == ("/usr/sbin/nginx", "-g", "daemon off;", "-c", "/etc/nginx/nginx.conf")
    assert (found.role, found.ready) == ("ingress-nginx", Ready("listen", 80))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a $(A) $(B)", "a 1 $(B)"),
        ("$$(A) $$$(A)", "$(A) $1"),
        ("$A ${A} $( $() $(A", "$A ${A} $( $() $(A"),
        ("$(A)$(A)", "11"),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_references_to_variables(text: str, value: str) -> None:
    assert expand(text, {"A": "1"}) == value


def test_environment() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGk="}}
    secret["stringData"] = {"l": "ho"}
    container = {
        "image": "nginx",
        "args": ["/bin/echo", "$(CM_x)", "$(URL)"],
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "CM_"}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "CM_y", "value": "wins"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "URL", "value": "http://$(IP)/$(CM_x)$(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "l"}}},
            {"name": "EMPTY"},
        ],
    }
    (pod,) = made(config("cm", x="1", y1="2"), secret, bare("p", container, nodeName="n2"))
    assert pod.containers[0].needs_addresses
    found = with_addresses(pod, ["10.0.0.1", "fd00::1"], "172.16.0.2").containers[0]
    assert not found.needs_addresses
    assert found.argv == ("/bin/echo", "1", "http://10.0.0.1/1$(LATER)")
    env = dict(found.env)
    assert env.pop("PATH").endswith("/usr/bin:/sbin:/bin")
    assert env == {
        "HOSTNAME": "p",
        "CM_x": "1",
        "CM_y1": "2",
        "k": "hi",
        "l": "ho",
        "CM_y": "wins",
        "NODE": "n2",
        "NAME": "p",
        "NS": "default",
        "IP": "10.0.0.1",
        "IPS": "10.0.0.1,fd00::1",
        "HOST": "172.16.0.2",
        "URL": "http://10.0.0.1/1$(LATER)",
        "LATER": "x",
        "KEY": "1",
        "SECRET": "ho",
        "EMPTY": "",
    }


def test_addresses_must_be_some() -> None:
    (pod,) = made(bare("p"))
    with pytest.raises(ValueError, match="pod default/p has no address"):
        with_addresses(pod, [], "10.0.0.1")
    with pytest.raises(ValueError, match="does not appear to be"):
        with_addresses(pod, ["10.0.0.1"], "n1")
    assert with_addresses(pod, ["10.0.0.1"], "10.0.0.2") == pod


def test_variables_of_images() -> None:
    assert {"NODE_NAME": "n1", "POD_NAME": "p"}.items() <= dict(program({}).env).items()
    found = program({"env": [{"name": "NODE_NAME", "value": "mine"}]})
    assert dict(found.env)["NODE_NAME"] == "mine"


# ------------------------------------------------------------------------------------------------ files


def texts(container: ContainerInstance) -> dict[str, tuple[object, int]]:
    return {file.path: (file.content, file.mode) for file in container.files}


def test_files_of_images() -> None:
    nginx = texts(program({"image": "nginx"}))
    assert nginx["/usr/share/nginx/html/index.html"] == ("p\n", 0o644)
    assert "server_name p;" in str(nginx["/etc/nginx/conf.d/default.conf"][0])
    ssh = program({"image": "sshd"})
    assert texts(ssh)["/etc/ssh/testbed_host_key"] == (SecretRef("ssh-host", "private"), 0o600)
    assert texts(ssh)["/etc/ssh/testbed_authorized_keys"] == (SecretRef("ssh", "public"), 0o644)
    assert ssh.directories == ("/run/sshd",)
    busybox = program({"image": "busybox"})
    assert texts(busybox)["/usr/lib/testbed/bin/httpd"][1] == 0o755
    assert dict(busybox.env)["PATH"].startswith("/usr/lib/testbed/bin:")
    assert texts(program({}))["/usr/lib/testbed/echo.py"] == (IMAGES.texts["program", "echo.py"], 0o755)


def test_volumes() -> None:
    volumes = [
        {"name": "all", "configMap": {"name": "cm", "defaultMode": 0o600}},
        {"name": "some", "configMap": {"name": "cm", "items": [{"key": "b", "path": "d/b", "mode": 0o400}]}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    mounts = [
        {"name": "all", "mountPath": "/all/"},
        {"name": "all", "mountPath": "/etc/one", "subPath": "a", "readOnly": True},
        {"name": "some", "mountPath": "/some"},
        {"name": "some", "mountPath": "/below", "subPath": "d"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    found = program({"image": "pause", "volumeMounts": mounts}, config("cm", a="A", b="B"), volumes=volumes)
    assert texts(found) == {
        "/all/a": ("A", 0o600),
        "/all/b": ("B", 0o600),
        "/etc/one": ("A", 0o600),
        "/some/d/b": ("B", 0o400),
        "/below/b": ("B", 0o400),
    }
    assert found.directories == ("/scratch",)


@pytest.mark.parametrize(
    ("mount", "gone", "ready"),
    [
        ({"mountPath": "/usr/share/nginx/html"}, {"/usr/share/nginx/html/index.html"}, Ready("listen", 80)),
        ({"mountPath": "/usr/share/nginx/html/x"}, set(), Ready("listen", 80)),
        ({"mountPath": "/etc/nginx/conf.d"}, {"/etc/nginx/conf.d/default.conf"}, Ready()),
        ({"mountPath": "/etc/nginx/conf.d/more.conf", "subPath": "a"}, set(), Ready("listen", 80)),
        ({"mountPath": "/etc/nginx/conf.d/default.conf", "subPath": "a"}, set(), Ready()),
    ],
)
def test_volumes_hide_files_of_the_image(mount: dict[str, Any], gone: set[str], ready: Ready) -> None:
    own = set(texts(program({"image": "nginx"})))
    volumes = [{"name": "v", "configMap": {"name": "cm"}}]
    container = {"image": "nginx", "volumeMounts": [{"name": "v", **mount}]}
    found = program(container, config("cm", a="A"), volumes=volumes)
    assert own - set(texts(found)) == gone
    assert found.ready == ready
    if mount["mountPath"].endswith("default.conf"):
        assert texts(found)["/etc/nginx/conf.d/default.conf"] == ("A", 0o644)


def test_a_pods_files_and_directories() -> None:
    (pod,) = made(
        config("cm", a="A"),
        bare("p", volumes=[{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}])
        | {
            "spec": {
                "containers": [
                    {"name": "one", "image": "pause", "volumeMounts": [{"name": "v", "mountPath": "/a"}]},
                    {
                        "name": "two",
                        "image": "sshd",
                        "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "e", "mountPath": "/e"}],
                    },
                ],
                "volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}],
            }
        },
    )
    assert [file.path for file in pod.files].count("/a/a") == 1
    assert File("/a/a", "A") in pod.files
    assert pod.directories == ("/e", "/run/sshd")
    assert pod.role == "ssh"


def test_a_labs_own_image() -> None:
    text = """
images:
- names: [site]
  command: [/usr/bin/site]
  requires: [/usr/bin/site]
  packages: [site]
  files: {/etc/site: "{{ not a template }}", /x: {template: pods/index.html.j2}}
  ready: 8000
"""
    known = catalogue(load_images(text, "lab.yaml"))
    (pod,) = pods(manifests(bare("p", {"image": "registry.example:5000/site:2"})), THREE, known)
    assert pod.containers[0].argv == ("/usr/bin/site",)
    assert texts(pod.containers[0]) == {"/etc/site": ("{{ not a template }}", 0o644), "/x": ("p\n", 0o644)}
    assert pod.containers[0].ready == Ready("listen", 8000)


def test_a_template_that_fails_is_reported_at_the_image() -> None:
    own = load_images("images: [{names: [x], command: [/x], files: {/a: {template: kaputt}}}]", "lab.yaml")
    known = replace(IMAGES, images=own, texts={("template", "kaputt"): "{{ nothing }}"})
    with pytest.raises(InputError) as caught:
        pods(manifests(bare("p", {"image": "x"})), THREE, known)
    assert str(caught.value) == "lab.yaml:1:46: the template of /a in image 'x' failed: 'nothing' is undefined"


@pytest.mark.parametrize(
    ("container", "ready"),
    [
        ({"image": "nginx", "readinessProbe": {"httpGet": {"port": 81}}}, Ready("listen", 81)),
        ({"image": "pause", "startupProbe": {"tcpSocket": {"port": "web"}}}, Ready("listen", 8000)),
        ({"image": "nginx", "readinessProbe": {"exec": {"command": ["true"]}}}, Ready("listen", 80)),
        ({"image": "nginx", "args": ["/usr/sbin/nginx"]}, Ready()),
        ({"image": "busybox"}, Ready()),
    ],
)
def test_readiness(container: dict[str, Any], ready: Ready) -> None:
    found = program({**container, "ports": [{"name": "web", "containerPort": 8000}]})
    assert found.ready == ready
    if found.startup and found.startup.tcp_socket:
        assert found.startup.tcp_socket.port == 8000


# ------------------------------------------------------------------------------------------------ EndpointSlices


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"team": "a"}}
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def sliced(
    *objects: Mapping[str, Any], nodes: Sequence[Node] = THREE, dual: bool = False, not_ready: Sequence[str] = ()
) -> tuple[EndpointSlice, ...]:
    loaded = manifests(*objects)
    found = pods(loaded, nodes, IMAGES, not_ready)
    addresses = {
        pod.key: [f"10.0.0.{number}", *([f"fd00:0::{number}"] if dual else [])]
        for number, pod in enumerate(found, start=1)
    }
    return endpoint_slices(loaded.of(Service), found, addresses, loaded.of(EndpointSlice))


def test_endpoints() -> None:
    (found,) = sliced(service(), deployment("web", 2), bare("other"), nodes=(node("n1", zone="z1"), node("n2")))
    assert re.fullmatch(r"web-[a-z0-9]{5}", found.name)
    assert found.metadata.labels == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert [(port.name, port.port, port.protocol) for port in found.ports] == [("", 8080, "TCP")]
    first, second = found.endpoints
    assert (first.addresses, first.node_name, first.zone) == (("10.0.0.1",), "n1", "z1")
    assert (second.addresses, second.node_name, second.zone) == (("10.0.0.2",), "n2", "")
    assert first.conditions.ready
    assert first.conditions.serving
    assert first.target_ref is not None
    assert first.target_ref.name.startswith("web-")
    assert found.origin.at("spec") is not None


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        ({}, ["IPv4"]),
        ({"ipFamilies": ["IPv6"]}, ["IPv6"]),
        ({"ipFamilies": ["IPv6", "IPv4"]}, ["IPv6", "IPv4"]),
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"]),
        ({"ipFamilyPolicy": "SingleStack"}, ["IPv4"]),
        ({"clusterIP": "fd00:1::1"}, ["IPv6"]),
        ({"clusterIPs": ["10.96.0.1", "fd00:1::1"]}, ["IPv4", "IPv6"]),
        ({"clusterIP": "None"}, ["IPv4", "IPv6"]),
    ],
)
def test_families(spec: dict[str, Any], families: list[str]) -> None:
    found = sliced(service(**spec), deployment("web", 1), dual=True)
    assert [piece.address_type for piece in found] == families
    wanted = {"IPv4": ("10.0.0.1",), "IPv6": ("fd00::1",)}
    assert all(piece.endpoints[0].addresses == wanted[piece.address_type] for piece in found)
    assert len({piece.name for piece in found}) == len(found)


def test_named_ports_are_those_of_each_pod() -> None:
    def pod(name: str, *ports: tuple[str, int, str]) -> dict[str, Any]:
        declared = [{"name": port, "containerPort": number, "protocol": kind} for port, number, kind in ports]
        made_of = bare(name, {"ports": declared})
        made_of["metadata"]["labels"] = {"app": "web"}
        return made_of

    wanted = [
        {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
    ]
    found = sliced(
        service(ports=wanted),
        pod("a", ("http", 8080, "TCP"), ("dns", 5353, "UDP")),
        pod("b", ("http", 8080, "TCP"), ("dns", 5353, "UDP")),
        pod("c", ("http", 8081, "TCP"), ("dns", 5353, "TCP")),
        pod("d"),
    )
    assert [
        ([(port.name, port.port) for port in piece.ports], [item.target_ref.name for item in piece.endpoints])
        for piece in found
        if all(item.target_ref for item in piece.endpoints)
    ] == [
        ([("http", 8080), ("dns", 5353)], ["a", "b"]),
        ([("http", 8081)], ["c"]),
        ([], ["d"]),
    ]
    assert found[0].ports[0].app_protocol == "http"


def test_target_port_defaults_to_the_port() -> None:
    (found,) = sliced(service(ports=[{"port": 81}]), deployment("web", 1))
    assert found.ports[0].port == 81


def test_readiness_decides() -> None:
    for publish in (False, True):
        (found,) = sliced(service(publishNotReadyAddresses=publish), bare("web"), bare("x"), not_ready=["default/web"])
        conditions = found.endpoints[0].conditions
        assert (conditions.ready, conditions.serving, conditions.terminating) == (publish, False, False)


def test_services_without_pods_or_selector() -> None:
    manual = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "m", "labels": {"kubernetes.io/service-name": "outside"}},
        "addressType": "IPv4",
        "ports": [{"port": 443}],
        "endpoints": [{"addresses": ["192.0.2.1"]}],
    }
    found = sliced(
        manual,
        service("empty", selector={"app": "none"}),
        service("outside", selector={}),
        service("alias", type="ExternalName", externalName="x.example"),
    )
    assert [piece.metadata.labels["kubernetes.io/service-name"] for piece in found] == ["outside", "empty"]
    assert (found[0].name, found[0].endpoints[0].addresses) == ("m", ("192.0.2.1",))
    assert (found[1].endpoints, found[1].ports) == ((), ())


def test_other_namespaces_are_other_pods() -> None:
    elsewhere = deployment("web", 1)
    elsewhere["metadata"]["namespace"] = "other"
    (found,) = sliced(service(), elsewhere)
    assert found.endpoints == ()


def test_pods_without_address_are_left_out() -> None:
    loaded = manifests(service(), deployment("web", 2))
    first, _ = found = pods(loaded, THREE, IMAGES)
    (piece,) = endpoint_slices(loaded.of(Service), found, {first.key: ["10.0.0.1"]})
    assert [item.addresses for item in piece.endpoints] == [("10.0.0.1",)]


def test_headless_services_name_their_pods() -> None:
    headless = service("web", clusterIP="None")
    (found,) = sliced(headless, workload("StatefulSet", "web", {"replicas": 2, "serviceName": "web"}))
    assert [item.hostname for item in found.endpoints] == ["web-0", "web-1"]
    assert found.metadata.labels["service.kubernetes.io/headless"] == ""
    (other,) = sliced(service("other"), workload("StatefulSet", "web", {"replicas": 1, "serviceName": "web"}))
    assert [item.hostname for item in other.endpoints] == [""]


@pytest.mark.parametrize(
    ("wanted", "zones", "nodes"),
    [
        ("PreferClose", ["z1", None], [None, None]),
        ("PreferSameZone", ["z1", None], [None, None]),
        ("PreferSameNode", ["z1", None], ["n1", "n2"]),
    ],
)
def test_hints(wanted: str, zones: list[str | None], nodes: list[str | None]) -> None:
    objects = [service(trafficDistribution=wanted), deployment("web", 2)]
    (found,) = sliced(*objects, nodes=(node("n1", zone="z1"), node("n2")))

    def names(kind: str) -> list[str | None]:
        hints = [getattr(item.hints, kind) if item.hints else () for item in found.endpoints]
        return [hint[0].name if hint else None for hint in hints]

    assert names("for_zones") == zones
    assert names("for_nodes") == nodes
    key = found.endpoints[0].target_ref
    assert key is not None
    (again,) = sliced(*objects, nodes=(node("n1", zone="z1"), node("n2")), not_ready=[f"default/{key.name}"])
    assert again.endpoints[0].hints is None


def test_at_most_100_endpoints_in_a_slice() -> None:
    loaded = manifests(service(), deployment("web", 101))
    found = pods(loaded, THREE, IMAGES)
    addresses = {pod.key: [f"10.0.{number // 250}.{number % 250}"] for number, pod in enumerate(found)}
    pieces = endpoint_slices(loaded.of(Service), found, addresses)
    assert [len(piece.endpoints) for piece in pieces] == [100, 1]
    assert pieces[0].name != pieces[1].name


# ------------------------------------------------------------------------------------------------ anything


FULL = (
    config("cm", a="A"),
    service(ports=[{"port": 80, "targetPort": "http"}], trafficDistribution="PreferClose"),
    workload("StatefulSet", "db", {"replicas": 1, "serviceName": "db"}),
    deployment(
        "web",
        2,
        nodeSelector={"kubernetes.io/os": "linux"},
        tolerations=[{"key": "k", "operator": "Exists"}],
        volumes=[{"name": "v", "configMap": {"name": "cm", "items": [{"key": "a", "path": "b"}]}}],
        containers=[
            {
                "name": "c",
                "image": "agnhost",
                "args": ["netexec", "--http-port=$(P)"],
                "env": [
                    {"name": "P", "value": "90"},
                    {"name": "Q", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "cm"}}],
                "ports": [{"name": "http", "containerPort": 90}],
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "b"}],
                "readinessProbe": {"tcpSocket": {"port": "http"}},
            }
        ],
    ),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for step, part in steps for found in paths(part, (*path, step)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


STRANGE_TEXTS = (
    "",
    "a",
    "b",
    "A=b",
    "/",
    "/etc",
    "../x",
    "$(P)",
    "$(",
    "nginx",
    "busybox",
    "x" * 300,
    "é",
    "a\nb",
    "80",
)
STRANGE_DATA = ([], {}, ["a"], {"a": "b"}, {"operator": "Exists"})
STRANGE = st.sampled_from([None, True, 0, -1, 1, 70000, 1.5, *STRANGE_TEXTS, *STRANGE_DATA])


def sliced_or_refused(objects: Sequence[Any]) -> None:
    """Whatever is raised besides InputError fails the test."""
    try:
        sliced(*objects)
    except InputError as error:
        told = str(error)
        for word in ("pydantic", "Input should", "validation error", "Traceback"):
            assert word not in told


@given(st.sampled_from(paths(list(FULL))[1:]), STRANGE)
def test_any_change_of_a_manifest_is_compiled_or_refused(path: tuple[Any, ...], new: Any) -> None:
    sliced_or_refused(changed(list(FULL), path, new))


def test_the_manifest_that_is_changed_is_right() -> None:
    assert len(sliced(*FULL)) == 1
