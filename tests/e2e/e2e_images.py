"""Images for the tests, made of what is on this machine: a shell of busybox, and FRR as its own image starts it.

And labs whose nodes name them.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clab_topology import TOPOLOGY, written

from testbed.runtime import engine, image

if TYPE_CHECKING:
    from docker import DockerClient

TOOLS = ("sh", "ip", "ping", "cat", "env", "false", "getent", "httpd", "sleep")
WITHOUT_PYTHON = "rm -rf /usr/bin/python3* /usr/lib/python3*"
STARTS_FRR = "chown -R frr:frr /etc/frr; /usr/lib/frr/frrinit.sh start; exec sleep infinity"
LAB = """\
apiVersion: testbed/v1
name: mixed
images:
  - {{names: [{frr_name}], capabilities: [frr]}}
nodes:
  r1: {{kind: router, image: "{frr}", bgp: {{asn: 65001}}}}
  r2: {{kind: router, bgp: {{asn: 65002}}, routes: [{{to: 198.51.100.0/24, via: h2}}]}}
  h1: {{kind: host, image: "{box}", container: true, env: {{COLOUR: blue}}}}
  h2: {{kind: host}}
links:
  - {{endpoints: [r1, r2], bgp: true}}
  - {{endpoints: [h1, r1]}}
  - {{endpoints: [h2, r2]}}
flows:
  - {{name: there, from: h1, to: h2, protocol: icmp, via: [r1, r2]}}
  - {{name: back, from: h2, to: h1, protocol: icmp, via: [r2, r1]}}
"""


def lab_file(folder: Path, made: tuple[str, str]) -> str:
    """A lab with a router and a host of their own images beside others; the path of its file."""
    box, frr = made
    file = folder / "lab.yaml"
    file.write_text(LAB.format(box=box, frr=frr, frr_name=frr.partition(":")[0]))
    return str(file)


def topology_file(folder: Path, made: tuple[str, str]) -> str:
    """The topology of `clab_topology` with these images, in a folder; the path of its file."""
    box, frr = made
    text = TOPOLOGY.replace("registry.example/frrouting/frr:10.5.1", frr).replace("alpine:${ALPINE:=3}", box)
    text = text.replace("nicolaka/netshoot", box).replace("image: alpine", f"image: {box}")
    file = written(folder, text)
    starts_frr(file, frr)
    return file


def with_images(topology: Path, made: tuple[str, str]) -> None:
    """Have a topology name these images: FRR's for FRR's, the shell for all others."""
    box, frr = made

    def chosen(found: re.Match[str]) -> str:
        return f"{found[1]}{frr if 'frrouting' in found[2] else box}"

    topology.write_text(re.sub(r"(\bimage: *)(\S+)", chosen, topology.read_text()))
    starts_frr(str(topology), frr)


def starts_frr(topology: str, image: str) -> None:
    """Say beside a topology that an image starts FRR."""
    text = f"images: [{{names: [{image.partition(':')[0]}], capabilities: [frr]}}]\n"
    Path(topology.removesuffix(".clab.yml") + ".testbed.yaml").write_text(text)


@contextlib.contextmanager
def client() -> Iterator[DockerClient]:
    import docker

    found = docker.DockerClient(base_url=engine.address())
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def images(name: str) -> Iterator[tuple[str, str]]:
    """The references of two images, NAME/box and NAME/frr, for the length of the block."""
    box, frr = f"{name}/box:1", f"{name}/frr:1"
    with client() as docker:
        try:
            docker.api.import_image_from_data(_box(), repository=f"{name}/box", tag="1", changes=['CMD ["/bin/sh"]'])
            _build_frr(docker, name)
            yield box, frr
        finally:
            for reference in (box, frr):
                with contextlib.suppress(Exception):  # it may never have been made
                    docker.images.remove(reference)


def _build_frr(docker: DockerClient, name: str) -> None:
    """Not by `docker build`: where the kernel has AppArmor, that needs its programs, too."""
    made = docker.containers.create(
        image.NAME,
        ["/bin/sh", "-c", WITHOUT_PYTHON],
        name=f"{name}-frr",
        network_mode="none",
        security_opt=["apparmor=unconfined"],
    )
    try:
        made.start()
        assert made.wait()["StatusCode"] == 0, made.logs()
        made.commit(f"{name}/frr", "1", changes=f"ENTRYPOINT {json.dumps(['/bin/sh', '-c', STARTS_FRR])}\nCMD []")
    finally:
        made.remove(force=True)


def _box() -> bytes:
    busybox = shutil.which("busybox")
    assert busybox, "busybox is not installed"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for folder in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "usr", "usr/bin"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.add(busybox, "bin/busybox")
        for path in (*(f"bin/{name}" for name in TOOLS), "usr/bin/env"):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/bin/busybox"
            archive.addfile(entry)
    return buffer.getvalue()
