"""Hosts: default routes and programs."""

from __future__ import annotations

import lab_texts
import pytest

from testbed.plan import Ready, Route


@pytest.mark.parametrize(
    ("host", "links", "routes"),
    [
        (
            "{kind: host}",
            "[{endpoints: [r1, h1]}]",
            [("0.0.0.0/0", "10.0.0.0", "eth0"), ("::/0", "fd00::", "eth0")],
        ),
        ("{kind: host}", "[{endpoints: [r1, h1], ipv4: 10.1.0.0/24}]", [("0.0.0.0/0", "10.1.0.1", "eth0")]),
        ("{kind: host, gateway: none}", "[{endpoints: [r1, h1]}]", []),
        ("{kind: host}", "[{endpoints: [h2, h1]}]", []),
        ("{kind: host}", "[]", []),
        (
            "{kind: host, gateway: r2}",
            "[{endpoints: [r1, h1]}, {endpoints: [r2, h1], ipv4: 10.1.0.0/24}]",
            [("0.0.0.0/0", "10.1.0.1", "eth1")],
        ),
        (  # each family by the first link that has it
            "{kind: host}",
            "[{endpoints: [r1, h1], ipv4: 10.1.0.0/24}, {endpoints: [r1, h1], ipv6: 'fd01::/64'}]",
            [("0.0.0.0/0", "10.1.0.1", "eth0"), ("::/0", "fd01::1", "eth1")],
        ),
        ("{kind: host}", "[{endpoints: [h2, h1]}, {endpoints: [r1, h2, h1], ipv4: 10.1.0.0/24}]", None),
    ],
)
def test_default_routes(host: str, links: str, routes: list[tuple[str, str, str]] | None) -> None:
    text = f"nodes: {{r1: {{kind: router}}, r2: {{kind: router}}, h1: {host}, h2: {{kind: host}}}}\nlinks: {links}"
    if routes is None:  # a bridge is a router's, wherever else the host is
        routes = [("0.0.0.0/0", "10.1.0.1", "eth1")]
    made = lab_texts.compiled(text).node("h1").routes
    assert made == tuple(Route(to, via=via, dev=dev) for to, via, dev in routes)


def test_a_program_of_the_catalogue() -> None:
    node = lab_texts.compiled("nodes: {h1: {kind: host, image: echo, env: {GREETING: hi}}}").node("h1")
    [process] = node.processes
    assert process.name == "echo"
    assert ("GREETING", "hi") in process.env
    assert process.ready == Ready("listen", 8080)
    assert set(process.files) <= {file.path for file in node.files}
    assert process.files


def test_a_command_of_its_own() -> None:
    text = "nodes: {h1: {kind: host, image: busybox, command: [sleep, '60']}}"
    [process] = lab_texts.compiled(text).node("h1").processes
    assert process.argv[-2:] == ("sleep", "60")
    assert process.ready == Ready("running")


def test_an_image_of_the_labs_own() -> None:
    text = """
        images: [{names: [mine], command: [/bin/sleep], args: ["60"]}]
        nodes: {h1: {kind: host, image: mine}}
    """
    [process] = lab_texts.compiled(text).node("h1").processes
    assert process.argv == ("/bin/sleep", "60")


def test_without_an_image_it_runs_nothing() -> None:
    assert lab_texts.compiled("nodes: {h1: {kind: host}}").node("h1").processes == ()


@pytest.mark.parametrize("image", ["ingress-nginx/controller", "coredns/coredns"])
def test_what_serves_a_cluster_is_refused(image: str) -> None:
    [problem] = lab_texts.problems(f"nodes: {{h1: {{kind: host, image: {image}}}}}")
    assert problem.message == f"h1: the image '{image}' works in a pod of the cluster only"
    assert problem.position is not None
