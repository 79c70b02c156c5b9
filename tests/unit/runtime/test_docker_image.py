"""The node image: what it is made of, when it is stale, and how it would be built."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from docker_engine import FakeEngine

from testbed.errors import DeployError, UnsupportedError
from testbed.load.images import builtin_images
from testbed.render import configs
from testbed.runtime import doctor, image, image_build, workshop
from testbed.runtime.image import HASH, SOURCE

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of configs/image that a test may change."""
    return Path(shutil.copytree(configs() / "image", tmp_path / "image"))


def show(fake: FakeEngine, hash_: str) -> None:
    labels = {HASH: hash_, SOURCE: "packages"}
    facts = {"Id": "sha256:1", "Size": 150_000_000, "Config": {"Labels": labels}, "RepoTags": [image.NAME]}
    fake.put(f"/images/{image.NAME}/json", facts)


def test_the_hash_is_of_every_file_and_its_name(folder: Path) -> None:
    seen = {image.recipe(folder).hash}
    assert seen == {image.recipe().hash}
    for path in sorted(folder.iterdir()):
        before = path.read_text()
        path.write_text(before + "\n# changed\n")
        seen.add(image.recipe(folder).hash)
        path.write_text(before)
    (folder / "more").write_text("")
    seen.add(image.recipe(folder).hash)
    assert len(seen) == 6, "each of the five states has a hash of its own"
    (folder / "more").unlink()
    assert image.recipe(folder).hash == image.recipe().hash


def test_packages_are_listed_once_and_without_comments(folder: Path) -> None:
    (folder / "packages").write_text("# a heading\nzebra  # of the router\n\npython3\n")
    assert image.recipe(folder).packages == ("ca-certificates", "haproxy", "mount", "python3", "usr-is-merged", "zebra")


def test_the_image_is_missing_stale_or_present(fake_engine: FakeEngine) -> None:
    where = fake_engine.address
    assert (image.state(where), image.found(where)) == ("missing", None)
    show(fake_engine, "0000")
    assert image.state(where) == "stale"
    show(fake_engine, image.recipe().hash)
    assert image.state(where) == "present"
    assert image.found(where) == image.Image("sha256:1", image.recipe().hash, "packages", 150_000_000)


def test_the_image_has_what_the_host_must_have() -> None:
    """One list for both: what the doctor looks for on the host, and what stands for container images, is in it."""
    packages = {*image.recipe().packages, "coreutils"}  # coreutils is essential
    alternatives = {"busybox": "busybox-static", "nginx": "nginx-light"}
    wanted = {program.package for program in doctor._PROGRAMS}
    wanted |= {package for entry in builtin_images() for package in entry.packages}
    assert {alternatives.get(package, package) for package in wanted} <= packages
    assert "configs/image/packages" in (ROOT / "Makefile").read_text()


# --- building ---------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_built(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_build, "_build", lambda *_: pytest.fail("it was built"))
    show(fake_engine, image.recipe().hash)
    told: list[object] = []
    assert image_build.build(fake_engine.address, told.append).hash == image.recipe().hash
    assert told == []


@pytest.mark.parametrize(("there", "anew"), [("", False), ("0000", False), (image.recipe().hash, True)])
def test_it_is_built_when_missing_stale_or_wanted(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, there: str, anew: bool
) -> None:
    if there:
        show(fake_engine, there)
    built: list[object] = []

    def build(_where: str, wanted: image.Recipe, source: str, _observer: object) -> None:
        built.append(source)
        show(fake_engine, wanted.hash)

    monkeypatch.setattr(image_build, "_build", build)
    image_build.build(fake_engine.address, lambda _: None, source="packages", anew=anew)
    assert built == ["packages"]


def test_an_image_that_does_not_come_is_an_error(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_build, "_build", lambda *_: None)
    with pytest.raises(DeployError, match="was built, but the engine does not have it"):
        image_build.build(fake_engine.address, lambda _: None)


def test_what_the_engine_says_of_a_failure_is_told() -> None:
    lines = [{"stream": "Step 1/3\n"}, {"stream": "E: no package zebra\n"}, {"error": "returned a non-zero code: 100"}]
    with pytest.raises(DeployError, match=r"non-zero code: 100\nStep 1/3\nE: no package zebra"):
        image_build._succeed(lines)
    image_build._succeed(lines[:2])


@pytest.mark.parametrize(
    ("source", "base", "installed", "expected"),
    [
        (None, "", True, "base"),
        (None, "no such host", True, "packages"),
        ("packages", "", True, "packages"),
        ("registry", "", False, "base"),
        ("registry", "no such host", True, "the image debian:bookworm-slim cannot be had: no such host"),
        (
            None,
            "no such host",
            False,
            "no registry has .* (no such host), and mmdebstrap is not installed: apt install",
        ),
        ("packages", "", False, "^mmdebstrap is not installed: apt install mmdebstrap"),
    ],
)
def test_what_it_is_built_from(
    monkeypatch: pytest.MonkeyPatch, source: image_build.Source | None, base: str, installed: bool, expected: str
) -> None:
    done: list[str] = []
    monkeypatch.setattr(image_build, "_client", lambda _: None)
    monkeypatch.setattr(image_build, "_no_base", lambda *_: base)
    monkeypatch.setattr(image_build, "_from_base", lambda *_: done.append("base"))
    monkeypatch.setattr(image_build, "_from_packages", lambda *_: done.append("packages"))
    monkeypatch.setattr(image_build, "MMDEBSTRAP", "/bin/sh" if installed else "/no/such/mmdebstrap")
    if expected in ("base", "packages"):
        image_build._build("unix:///x", image.recipe(), source, lambda _: None)
        assert done == [expected]
    else:
        with pytest.raises(UnsupportedError, match=expected.replace("(", r"\(").replace(")", r"\)")):
            image_build._build("unix:///x", image.recipe(), source, lambda _: None)
        assert done == []


def test_both_ways_install_the_same_packages() -> None:
    wanted = image.recipe()
    text = image_build.dockerfile(wanted)
    command = image_build.mmdebstrap(wanted, Path("/w/finish"), Path("/w/image.tar"))
    assert f" {' '.join(wanted.packages)} " in text
    assert f"--include={','.join(wanted.packages)}" in command
    assert text.startswith(f"FROM {wanted.base} AS build\n")
    assert "FROM scratch\nCOPY --from=build / /\n" in text
    assert (command[0], command[-2:]) == ("/usr/bin/mmdebstrap", ("bookworm", "/w/image.tar"))
    assert "--customize-hook=/w/finish" in command
    assert wanted.base == f"debian:{wanted.suite}-slim"


def test_finish_takes_out_what_no_node_needs(tmp_path: Path) -> None:
    from testbed import run

    gone = (
        "usr/share/doc/frr/README", "usr/share/man/man8/zebra.8.gz", "usr/share/locale/de/x.mo",
        "etc/ssh/ssh_host_rsa_key", "var/cache/apt/pkgcache.bin", "var/lib/apt/lists/x",
        "var/log/dpkg.log", "etc/passwd-", "tmp/x",
    )  # fmt: skip
    kept = ("usr/share/doc/frr/copyright", "etc/passwd", "usr/lib/frr/zebra", "etc/ssh/sshd_config", "etc/machine-id")
    for path in (*gone, *kept, "root/.profile", "var/tmp/x", "usr/lib/python3.11/os.py", "var/lib/dpkg/status"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    run.run(("/bin/sh", str(configs() / "image" / "finish"), str(tmp_path)))
    assert [path for path in gone if (tmp_path / path).exists()] == []
    assert [path for path in kept if not (tmp_path / path).exists()] == []
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert (tmp_path / "var/log").is_dir()


# --- the workshop -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(workshop, "PLACE", tmp_path)
    monkeypatch.setattr(workshop, "LOCK", f"test/{tmp_path}")
    (tmp_path / "testbed-image-killed").mkdir()
    (tmp_path / "other").mkdir()
    return tmp_path


def test_what_a_killed_build_left_is_swept(place: Path) -> None:
    workshop.sweep()
    assert [entry.name for entry in place.iterdir()] == ["other"]


def test_what_a_running_build_uses_is_not_swept(place: Path) -> None:
    with workshop.alone(lambda: None):
        workshop.sweep()
        assert {entry.name for entry in place.iterdir()} == {"other", "testbed-image-killed"}
        with workshop.folder() as folder:
            assert {entry.name for entry in place.iterdir()} == {"other", folder.name}
        assert [entry.name for entry in place.iterdir()] == ["other"]


def test_a_build_waits_for_another(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "LAST", 0.05)
    asked: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"\0testbed/{workshop.LOCK}")
        with pytest.raises(DeployError, match="another build"), workshop.alone(lambda: asked.append(1)):
            pytest.fail("it did not wait")
    assert asked
    with workshop.alone(lambda: None):
        pass
