"""Ingress objects as nginx configuration; and nginx itself: whether it takes it, and what it answers then."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kube_objects import endpoint, endpoints, service

from testbed.compile.kube.ingress import nginx
from testbed.model.kube import EndpointSlice, Service
from testbed.model.workloads import Ingress, IngressClass

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
WEB, API = service("web"), service("api", clusterIP="10.96.0.11", ports=[{"name": "http", "port": 81}])
EMPTY = service("empty", clusterIP="10.96.0.12")
SLICES = (
    endpoints(endpoint("10.0.0.1"), endpoint("10.0.0.2"), endpoint("10.0.0.3", ready=False)),
    endpoints(endpoint("10.0.0.9"), name="api-1", of="api", port=9000, port_name="http"),
)


def cls(name: str = "nginx", controller: str = "k8s.io/ingress-nginx", default: bool = False) -> IngressClass:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    return IngressClass.model_validate(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"controller": controller},
        }
    )


def backend(name: str = "web", port: int | str = 80) -> dict[str, Any]:
    return {"service": {"name": name, "port": {"number": port} if isinstance(port, int) else {"name": port}}}


def ingress(*rules: dict[str, Any], name: str = "main", of: str | None = "nginx", **spec: Any) -> Ingress:
    """An Ingress; rules as `rule` makes them."""
    annotations = spec.pop("annotations", {})
    full = ({"ingressClassName": of} if of else {}) | ({"rules": list(rules)} if rules else {}) | spec
    return Ingress.model_validate(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": full,
        }
    )


def rule(host: str, *paths: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """A rule: host and (path type, path, backend)."""
    entries = [{"pathType": kind, "path": path, "backend": target} for kind, path, target in paths]
    return ({"host": host} if host else {}) | ({"http": {"paths": entries}} if entries else {})


def rendered(
    *ingresses: Ingress,
    classes: Sequence[IngressClass] = (cls(),),
    services: Sequence[Service] = (WEB, API, EMPTY),
    slices: Sequence[EndpointSlice] = SLICES,
) -> str:
    text, problems = nginx(ingresses, classes, services, slices, 18080)
    assert problems == []
    return text


def routes(text: str) -> dict[str, dict[str, str]]:
    """Server name → location → upstream or status."""
    found: dict[str, dict[str, str]] = {}
    for block in text.split("    server {\n")[1:]:
        name = re.search(r"server_name (\S+);", block)
        assert name
        locations = re.findall(r"location (.+?) \{\n(.*?)\n        \}", block, re.DOTALL)
        found[name[1]] = {}
        for match, body in locations:
            answer = re.search(r"(?:proxy_pass http://|return )(\S+);", body)
            assert answer
            found[name[1]][match] = answer[1]
    return found


WEB_UP, API_UP = "default-web-80", "default-api-81"

CASES: dict[str, tuple[list[Ingress], dict[str, dict[str, str]]]] = {
    "nothing": ([], {"_": {"/": "404"}}),
    "prefix": (
        [ingress(rule("a.example", ("Prefix", "/", backend()), ("Prefix", "/api", backend("api", 81))))],
        {"_": {"/": "404"}, "a.example": {"/": WEB_UP, "= /api": API_UP, "/api/": API_UP}},
    ),
    "prefix with a slash at its end": (
        [ingress(rule("a.example", ("Prefix", "/api/", backend("api", "http"))))],
        {"_": {"/": "404"}, "a.example": {"/": "404", "= /api": API_UP, "/api/": API_UP}},
    ),
    "exact": (
        [ingress(rule("a.example", ("Exact", "/api", backend("api", 81))))],
        {"_": {"/": "404"}, "a.example": {"/": "404", "= /api": API_UP}},
    ),
    "exact goes before prefix, wherever it stands": (
        [ingress(rule("a.example", ("Prefix", "/api", backend()), ("Exact", "/api", backend("api", 81))))],
        {"_": {"/": "404"}, "a.example": {"/": "404", "= /api": API_UP, "/api/": WEB_UP}},
    ),
    "implementation specific is nginx's own prefix": (
        [ingress(rule("a.example", ("ImplementationSpecific", "/api", backend("api", 81))))],
        {"_": {"/": "404"}, "a.example": {"/": "404", "/api": API_UP}},
    ),
    "a wildcard stands for one label": (
        [ingress(rule("*.a.example", ("Prefix", "/", backend())))],
        {"_": {"/": "404"}, r"~^[a-z0-9-]+\.a\.example$": {"/": WEB_UP}},
    ),
    "no host": ([ingress(rule("", ("Prefix", "/", backend())))], {"_": {"/": WEB_UP}}),
    "a default backend without rules serves all else": (
        [
            ingress(name="all", defaultBackend=backend()),
            ingress(rule("a.example", ("Prefix", "/api", backend("api", 81)))),
        ],
        {"_": {"/": WEB_UP}, "a.example": {"/": "404", "= /api": API_UP, "/api/": API_UP}},
    ),
    "a default backend with rules serves the rest of its hosts": (
        [
            ingress(
                rule("a.example", ("Prefix", "/api", backend("api", 81))), rule("b.example"), defaultBackend=backend()
            )
        ],
        {
            "_": {"/": "404"},
            "a.example": {"/": WEB_UP, "= /api": API_UP, "/api/": API_UP},
            "b.example": {"/": WEB_UP},
        },
    ),
    "no endpoint is ready": (
        [ingress(rule("a.example", ("Prefix", "/", backend("empty"))))],
        {"_": {"/": "404"}, "a.example": {"/": "503"}},
    ),
    "the first Ingress that claims a path has it": (
        [
            ingress(rule("a.example", ("Prefix", "/", backend())), name="one"),
            ingress(rule("a.example", ("Prefix", "/", backend("api", 81)), ("Exact", "/x", backend())), name="two"),
        ],
        {"_": {"/": "404"}, "a.example": {"/": WEB_UP, "= /x": WEB_UP}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    ingresses, expected = CASES[name]
    assert routes(rendered(*ingresses)) == expected


def test_upstreams_are_the_ready_endpoints() -> None:
    text = rendered(ingress(rule("a.example", ("Prefix", "/", backend()), ("Prefix", "/api", backend("api", 81)))))
    assert re.findall(r"server (\S+) max_fails=0;", text) == ["10.0.0.9:9000", "10.0.0.1:8080", "10.0.0.2:8080"]


def test_services_whose_names_read_alike_are_told_apart() -> None:
    one = service("c", namespace="a-b")
    two = service("b-c", namespace="a", clusterIP="10.96.0.11")
    slices = [
        endpoints(endpoint("10.0.0.1"), of="c", namespace="a-b"),
        endpoints(endpoint("10.0.0.2"), of="b-c", namespace="a"),
    ]
    made = [ingress(rule(f"{name}.example", ("Prefix", "/", backend(name))), name=name) for name in ("c", "b-c")]
    moved = [
        entry.model_copy(update={"metadata": entry.metadata.model_copy(update={"namespace": space})})
        for entry, space in zip(made, ("a-b", "a"), strict=True)
    ]
    text = rendered(*moved, services=(one, two), slices=slices)
    upstreams = dict(re.findall(r"upstream (\S+) \{\n\s+server (\S+) ", text))
    found = routes(text)
    assert upstreams[found["c.example"]["/"]] == "10.0.0.1:8080"
    assert upstreams[found["b-c.example"]["/"]] == "10.0.0.2:8080"


EXTERNAL = service("far", clusterIP="", type="ExternalName", externalName="a.example", ports=[])

REFUSED: dict[str, tuple[Ingress, str]] = {
    "a missing Service": (
        ingress(defaultBackend=backend("wbe")),
        "Ingress default/main: no Service 'wbe' in namespace default (did you mean web?)",
    ),
    "a missing port": (
        ingress(defaultBackend=backend("web", 81)),
        "Ingress default/main: Service web has no port 81 (choose from 80)",
    ),
    "a missing port by name": (
        ingress(defaultBackend=backend("api", "https")),
        "Ingress default/main: Service api has no port https (choose from http)",
    ),
    "an ExternalName": (
        ingress(defaultBackend=backend("far")),
        "Ingress default/main: Service far is an ExternalName, which is not supported here",
    ),
    "TLS": (
        ingress(defaultBackend=backend(), tls=[{"hosts": ["a.example"]}]),
        "Ingress default/main: tls is not supported yet",
    ),
    "an annotation of the controller, also after others": (
        ingress(
            defaultBackend=backend(),
            annotations={"example.com/owner": "me", "nginx.ingress.kubernetes.io/rewrite-target": "/"},
        ),
        "Ingress default/main: the annotation nginx.ingress.kubernetes.io/rewrite-target is not supported",
    ),
    "an unknown class": (
        ingress(of="ngnix", defaultBackend=backend()),
        "Ingress default/main: no IngressClass 'ngnix' (did you mean nginx?)",
    ),
    "no class": (
        ingress(of=None, defaultBackend=backend()),
        "Ingress default/main: it names no class, and no IngressClass is the default (add ingressClassName: nginx)",
    ),
    "a path that means something to nginx": (
        ingress(rule("a.example", ("Prefix", "/a { return 200; }", backend()))),
        "Ingress default/main: the path '/a { return 200; }' is not supported (letters, digits and - . _ ~ /)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    item, message = REFUSED[name]
    _, problems = nginx([item], [cls()], [WEB, API, EXTERNAL], SLICES)
    assert [str(problem) for problem in problems] == [message]


def test_another_controller_is_refused() -> None:
    _, problems = nginx([], [cls("haproxy", "haproxy.org/ingress-controller")], [], [])
    assert [str(problem) for problem in problems] == [
        "IngressClass haproxy: there is no controller 'haproxy.org/ingress-controller' "
        "(supported is k8s.io/ingress-nginx)"
    ]


def test_the_default_class_takes_those_without() -> None:
    text = rendered(ingress(of=None, defaultBackend=backend()), classes=[cls(default=True)])
    assert routes(text) == {"_": {"/": WEB_UP}}


# --- nginx itself -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0 or not Path(NGINX).exists(), reason="needs root and nginx")
@pytest.mark.parametrize("name", CASES)
def test_nginx_accepts_it(name: str, tmp_path: Path) -> None:
    assert checked(rendered(*CASES[name][0]), tmp_path) == (0, [])


@pytest.mark.skipif(os.geteuid() != 0 or not Path(NGINX).exists(), reason="needs root and nginx")
def test_nginx_would_have_complained(tmp_path: Path) -> None:
    status, said = checked(rendered().replace("return 404;", "return 404"), tmp_path)
    assert status != 0
    assert said


def checked(text: str, folder: Path) -> tuple[int, list[str]]:
    """What `nginx -t` says to a configuration, all its files below a folder of the test's, in a network of its own."""
    config = folder / "nginx.conf"
    config.write_text(in_folder(text, folder))
    argv = ["unshare", "--net", NGINX, "-t", "-q", "-p", folder, "-e", folder / "error.log", "-c", config]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def in_folder(text: str, folder: Path) -> str:
    """The configuration with all files that it names in a folder of the test's."""
    for path in ("/run/nginx.pid", "/tmp/nginx-", "/dev/stdout"):
        text = text.replace(path, f"{folder}/{path.rpartition('/')[2]}")
    return text


ANSWERS = {
    ("a.example", "/"): WEB_UP,
    ("a.example", "/api"): API_UP,
    ("a.example", "/api/x"): API_UP,
    ("a.example", "/apix"): WEB_UP,  # a prefix is one of path elements
    ("a.example", "/exact"): API_UP,
    ("a.example", "/exact/x"): WEB_UP,
    ("a.example:18080", "/api"): API_UP,
    ("A.Example", "/api"): API_UP,
    ("x.w.example", "/any"): WEB_UP,
    ("x.y.w.example", "/any"): "404",
    ("w.example", "/any"): "404",
    ("b.example", "/api"): API_UP,
    ("b.example", "/other"): WEB_UP,  # the default backend of the Ingress that has the host
    ("c.example", "/"): "503",
    ("unknown.example", "/"): "404",
}

# Runs nginx in the network namespace it is started in, and prints what it answers to each (host, path).
ASK = """
import http.client, json, os, subprocess, sys, time
nginx, folder, config, questions = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
argv = [nginx, "-p", folder, "-e", folder + "/error.log", "-c", config]
subprocess.run(argv, check=True)  # it goes into the background once it listens
try:
    answers = []
    for host, path in questions:
        connection = http.client.HTTPConnection("127.0.0.1", 18080, timeout=5)
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        answers.append(response.read().decode() if response.status == 200 else str(response.status))
    print(json.dumps(answers))
finally:
    subprocess.run([*argv, "-s", "stop"], check=True)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not Path(NGINX).exists(), reason="needs root and nginx")
def test_nginx_answers_as_the_ingresses_say(tmp_path: Path) -> None:
    text = rendered(
        ingress(
            rule(
                "a.example",
                ("Prefix", "/", backend()),
                ("Prefix", "/api", backend("api", 81)),
                ("Exact", "/exact", backend("api", 81)),
            ),
            rule("*.w.example", ("Prefix", "/", backend())),
            rule("c.example", ("Prefix", "/", backend("empty"))),
            name="one",
        ),
        ingress(rule("b.example", ("Prefix", "/api", backend("api", 81))), name="two", defaultBackend=backend()),
    )
    config = tmp_path / "nginx.conf"
    named = re.sub(r"proxy_pass http://(\S+);", r'return 200 "\1";', text)  # the upstream's name is the answer
    config.write_text(in_folder(named, tmp_path))
    argv = ["unshare", "--net", sys.executable, "-c", ASK, NGINX, tmp_path, config, json.dumps(list(ANSWERS))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert dict(zip(ANSWERS, json.loads(done.stdout), strict=True)) == ANSWERS
