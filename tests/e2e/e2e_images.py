"""Images for the tests, made of what is on this machine: a shell of busybox, and FRR as its own image starts it."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from testbed.runtime import engine

if TYPE_CHECKING:
    from docker import DockerClient

TOOLS = ("sh", "ip", "ping", "cat", "env", "false", "getent", "httpd", "sleep")
FRR = b"""\
FROM testbed/node
RUN rm -rf /usr/bin/python3* /usr/lib/python3*
ENTRYPOINT ["/bin/sh", "-c", "chown -R frr:frr /etc/frr; /usr/lib/frr/frrinit.sh start; exec sleep infinity"]
"""


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
            docker.images.build(fileobj=io.BytesIO(FRR), tag=frr, network_mode="none", rm=True, forcerm=True)
            yield box, frr
        finally:
            for reference in (box, frr):
                with contextlib.suppress(Exception):  # it may never have been made
                    docker.images.remove(reference)


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
