"""Builds the node image: on a Debian base image where a registry is reachable, else from Debian's packages alone.

The second way is mmdebstrap(1), an archive of a root file system, and the engine's "import". Both end with
`configs/image/finish`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from testbed import run
from testbed.errors import CommandError, DeployError, UnsupportedError
from testbed.events import Awaited, Observer, Step
from testbed.patience import stretched
from testbed.render import configs, environment
from testbed.runtime import engine, workshop
from testbed.runtime.image import HASH, NAME, SOURCE, Image, Recipe, found, recipe

if TYPE_CHECKING:
    from docker import APIClient

MMDEBSTRAP = "/usr/bin/mmdebstrap"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
ENVIRONMENT = {name: run.ENVIRONMENT[name] for name in ("PATH", "LANG")}

STAGE = "testbed.image.stage"  # label of what is left of a build's first stage
PACKAGES, IMPORT = "Debian's packages (a minute, and only once)", "the engine's import"  # what is awaited

Source = Literal["registry", "packages"]


def build(where: str, observer: Observer, *, source: Source | None = None, anew: bool = False) -> Image:
    """Build the image; one build at a time, and only when it is not there.

    Args:
        source: what to build it from; None: a registry where one is reachable, else Debian's packages.
        anew: although it is there (there may be newer packages).

    Raises:
        UnsupportedError: no engine answers, or what the build needs is not there. CommandError, DeployError: it failed.
    """
    with workshop.alone(lambda: observer(Awaited("builds", ("another build of the image",), 1))):
        old = found(where)
        if old and old.hash == recipe().hash and not anew:
            return old
        start = time.monotonic()
        observer(Step("image"))
        _build(where, recipe(), source, observer)
        observer(Step("image", time.monotonic() - start))
        new = found(where)
        if new is None or new.hash != recipe().hash:
            raise DeployError(f"the image {NAME} was built, but the engine does not have it")
        if old and old.id != new.id:
            _discard(where, old.id)
    return new


def _build(where: str, wanted: Recipe, source: Source | None, observer: Observer) -> None:
    client = _client(where)
    reason = "" if source == "packages" else _no_base(client, wanted.base, observer)
    if source == "registry" and reason:
        raise UnsupportedError(f"the image {wanted.base} cannot be had: {reason}")
    if source == "packages" or reason:
        if not os.access(MMDEBSTRAP, os.X_OK):
            why = f"no registry has {wanted.base} for us ({reason}), and " if reason else ""
            raise UnsupportedError(f"{why}mmdebstrap is not installed: apt install mmdebstrap")
        _from_packages(client, wanted, observer)
    else:
        _from_base(client, wanted, observer)


def _client(where: str) -> APIClient:
    engine.containers(where, engine.LAB)  # says better than the SDK what is wrong
    import docker

    return docker.APIClient(base_url=where, timeout=int(stretched(workshop.LAST)))


def save(where: str, path: Path) -> None:
    """Write the image into an archive, which another engine can load. Raises UnsupportedError: no engine answers."""
    with contextlib.closing(_client(where)) as client, path.open("wb") as archive:
        for part in client.get_image(NAME):
            archive.write(part)


def _discard(where: str, image: str) -> None:
    """Remove an image that has lost its name, unless it has another, or containers still use it."""
    import docker

    answer = engine.ask(where, f"/images/{image}/json")
    if answer is None or answer["RepoTags"]:
        return
    with contextlib.suppress(docker.errors.APIError):
        _client(where).remove_image(image)


def _labels(wanted: Recipe, source: Source) -> dict[str, str]:
    return {HASH: wanted.hash, SOURCE: source}


# --- on a base image --------------------------------------------------------------------------------------------------


def _no_base(client: APIClient, base: str, observer: Observer) -> str:
    """Why the base image cannot be had; empty: the engine has it (now)."""
    import docker

    try:
        if not client.images(base):
            observer(Awaited("parts", (f"{base} from its registry", PACKAGES), 2))
            name, _, tag = base.partition(":")
            client.pull(name, tag)
    except docker.errors.APIError as error:
        return error.explanation or str(error)
    return ""


def dockerfile(wanted: Recipe) -> str:
    """The Dockerfile of `docker build`."""
    template = environment().get_template("image/Dockerfile.j2")
    text: str = template.render(base=wanted.base, packages=wanted.packages, date=wanted.date, stage=STAGE)
    settings = [f"ENV {name}={value}" for name, value in ENVIRONMENT.items()]
    return "\n".join([text, *settings, ""])


def _from_base(client: APIClient, wanted: Recipe, observer: Observer) -> None:
    observer(Awaited("parts", (PACKAGES,), 2))
    context = io.BytesIO(_context({"Dockerfile": dockerfile(wanted).encode(), "finish": _finish().read_bytes()}))
    labels = _labels(wanted, "registry")
    lines = client.build(
        fileobj=context, custom_context=True, decode=True,
        tag=NAME, labels=labels, network_mode="host", rm=True, forcerm=True,
    )  # fmt: skip
    _succeed(lines)
    client.prune_images({"dangling": True, "label": [STAGE]})  # type: ignore[no-untyped-call]  # of types-docker


def _context(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _succeed(lines: Iterable[Mapping[str, str]]) -> None:
    """Read what the engine says while it builds. Raises DeployError with its last words when it fails."""
    said: list[str] = []
    for line in lines:
        said.append(line.get("stream", ""))
        if "error" in line:
            raise DeployError(f"the image {NAME} cannot be built: {line['error']}\n{''.join(said[-20:]).strip()}")


# --- from packages alone ----------------------------------------------------------------------------------------------


def _from_packages(client: APIClient, wanted: Recipe, observer: Observer) -> None:
    observer(Awaited("parts", (PACKAGES, IMPORT), 2))
    with workshop.folder() as folder:
        archive = folder / "image.tar"
        _mmdebstrap(wanted, folder, archive)
        observer(Awaited("parts", (IMPORT,), 2))
        changes = [f"LABEL {name}={value}" for name, value in _labels(wanted, "packages").items()]
        changes += [f"ENV {name}={value}" for name, value in ENVIRONMENT.items()]
        repository, tag = NAME.split(":")
        import_image: Callable[..., Any] = client.import_image
        said: str = import_image(str(archive), repository=repository, tag=tag, changes=changes)
        _succeed(json.loads(line) for line in said.splitlines())


def _finish() -> Path:
    return configs() / "image" / "finish"


def _mmdebstrap(wanted: Recipe, folder: Path, archive: Path) -> None:
    """Write the image's root file system as a tar archive. Whatever ends us ends all of it."""
    hook = folder / "finish"
    shutil.copyfile(_finish(), hook)
    hook.chmod(0o755)  # where the package is installed from a wheel, it may have lost that
    argv = (
        *run.TIED,
        *mmdebstrap(wanted, hook, archive),
    )
    env = {**run.ENVIRONMENT, "SOURCE_DATE_EPOCH": str(wanted.date), "TMPDIR": str(folder)}
    env |= {name: os.environ[name] for name in PROXIES if name in os.environ}
    try:
        run.run(argv, env=env, timeout=workshop.LAST)
    except CommandError as error:
        end = "\n".join(error.output.splitlines()[-20:])
        raise CommandError([MMDEBSTRAP, wanted.suite], error.status, end) from None


def mmdebstrap(wanted: Recipe, hook: Path, archive: Path) -> Sequence[str]:
    """The command line that makes the root file system."""
    return (
        MMDEBSTRAP,
        "--mode=root",
        "--variant=apt",
        f"--hook-dir={MERGED_USR}",
        "--aptopt=Acquire::Languages none",
        f"--include={','.join(wanted.packages)}",
        f"--customize-hook={hook}",
        wanted.suite,
        str(archive),
    )
