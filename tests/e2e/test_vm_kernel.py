"""On the distribution's kernel: what it has, labs on it, and that time limits bear emulation. See `make test-vm`."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import TWO_ROUTERS, assert_flows, own_name, running
from test_killed_up import TESTBED

from testbed.pytest_plugin.capabilities import not_run
from testbed.runtime import engine, image, kernel
from testbed.session import compiled

FEATURES = ("vrf", "ipvs", "ipset", "ipip", "vxlan", "vlan", "netem", "dummy")
pytestmark = [pytest.mark.live, pytest.mark.vm, pytest.mark.testbed_needs("netns", *FEATURES)]

NAMES = {"VRF devices", "IPVS", "ipset", "IPIP", "VXLAN", "VLAN", "netem", "dummy"}  # as doctor has them


def test_doctor_finds_every_kernel_feature():
    done = subprocess.run([*TESTBED, "doctor", "--json"], capture_output=True, text=True, timeout=600, check=False)
    found = {
        entry["name"]: entry["works"] for entry in json.loads(done.stdout)["findings"] if entry["kind"] == "kernel"
    }
    assert found.keys() >= NAMES
    assert [name for name, works in found.items() if not works] == []


def test_a_lab_beside_what_modules_bring():
    """Where tunnel modules are loaded, every new namespace has devices of theirs: the lab chooses other indexes."""
    assert kernel.try_all({"ipip": kernel.IPIP})["ipip"].works
    with running(compiled(TWO_ROUTERS, own_name("kernel"))) as session:
        assert_flows(session)
        assert session.status().problems == ()


@pytest.mark.docker
@pytest.mark.testbed_needs("docker")
def test_a_lab_in_containers(request):
    if image.state(engine.address()) != "present":
        not_run(request.config, "docker", f"there is no {image.NAME}: the host had none to take along")
    with running(compiled(TWO_ROUTERS, own_name("kernel")), "docker") as session:
        assert_flows(session)
        assert session.status().problems == ()
