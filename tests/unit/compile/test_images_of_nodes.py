"""Nodes of a lab file with images of their own: what each runtime makes of them, and what is refused."""

from __future__ import annotations

import pytest

from testbed import plan
from testbed.compile import compile_lab
from testbed.errors import InputError
from testbed.load.images import catalogue
from testbed.load.lab import parse_lab
from testbed.load.manifests import Manifests

LAB = """\
apiVersion: testbed/v1
name: mixed
vrfs: [red]
nodes:
  r1: {{kind: router, bgp: {{asn: 65001}}{router}}}
  r2: {{kind: router, bgp: {{asn: 65002}}}}
  h1: {{kind: host{host}}}
links:
  - {{endpoints: [r1, r2], bgp: true{link}}}
  - {{endpoints: [h1, r1]}}
"""


def compiled(router: str = "", host: str = "", link: str = "", *, containers: bool) -> plan.Plan:
    lab = parse_lab(LAB.format(router=router, host=host, link=link), "lab.yaml")
    return compile_lab(lab, Manifests(), catalogue(lab.images), containers=containers)


def test_on_netns_the_machines_own_frr_stands_for_the_image() -> None:
    image = ", image: registry.example/frrouting/frr:10.2"
    assert compiled(image, containers=False).nodes == compiled(containers=False).nodes


def test_on_a_container_runtime_the_image_starts_the_daemons() -> None:
    made = compiled(", image: registry.example/frrouting/frr:10.2", containers=True)
    router, other = made.node("r1"), made.node("r2")
    assert (router.image, other.image) == ("registry.example/frrouting/frr:10.2", "")
    assert [(process.name, process.by_image) for process in router.processes] == [("zebra", True), ("bgpd", True)]
    files = {file.path: file.content for file in router.files}
    assert files["/etc/frr/daemons"] == "zebra=yes\nbgpd=yes\nvtysh_enable=yes\n"
    assert "router bgp 65001" in str(files["/etc/frr/frr.conf"])
    assert "ip nht resolve-via-default" in str(files["/etc/frr/frr.conf"])
    assert not [path for path in files if path in ("/etc/frr/zebra.conf", "/etc/frr/bgpd.conf")]
    assert not [process for process in other.processes if process.by_image]


def test_a_host_is_a_container_of_its_image_where_it_says_so() -> None:
    host = ', image: "example.com/own/thing:2", container: true, command: [run], env: {A: b}'
    node = compiled(host=host, containers=True).node("h1")
    assert (node.image, node.entrypoint, node.env) == ("example.com/own/thing:2", ("run",), (("A", "b"),))
    assert node.processes == ()
    assert {route.to for route in node.routes} == {"0.0.0.0/0", "::/0"}
    assert compiled(host=", image: echo", containers=True).node("h1").image == ""  # the catalogue's, on every runtime


@pytest.mark.parametrize(
    ("router", "link", "message"),
    [
        (", image: alpine", "", r"lab.yaml:5:.*the image 'alpine' does not start FRR \(choose from .*frrouting/frr"),
        (
            ", image: vendor/os",
            "",
            r"lab.yaml:5:.*whether the image 'vendor/os' starts FRR is not known \(.*capabilities",
        ),
        (", image: 'No Image'", "", r"lab.yaml:5:.*'No Image' is not the name of an image"),
        (", image: frrouting/frr", ", vrf: red", r"r1 has VRFs \(red\), which an image of its own does not make"),
        (", image: frrouting/frr, nat: [{outside: r2}]", "", r"r1 has nat, for which an image of its own may lack"),
    ],
)
@pytest.mark.parametrize("containers", [False, True])
def test_what_an_image_cannot_do_is_refused(router: str, link: str, message: str, containers: bool) -> None:
    with pytest.raises(InputError, match=message):
        compiled(router, link=link, containers=containers)


def test_an_unknown_image_is_refused_where_no_container_can_be_had() -> None:
    with pytest.raises(InputError, match=r"lab.yaml:7:.*h1: the image 'own/thing' is not in the catalogue"):
        compiled(host=", image: own/thing, container: true", containers=False)
    with pytest.raises(InputError, match="container belongs to an image, and h1 has none"):
        compiled(host=", container: true", containers=True)


def test_a_kubernetes_node_takes_no_image() -> None:
    with pytest.raises(InputError, match=r"'image' in lab.nodes.n1 is not supported \(its pods and VRFs are made"):
        parse_lab("apiVersion: testbed/v1\nname: x\nnodes: {n1: {kind: kubernetes, image: x}}\n", "lab.yaml")
