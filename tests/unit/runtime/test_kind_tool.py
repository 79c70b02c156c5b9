"""kind as a program: what is said where it is missing, and its own loader on our configuration.

kind has no dry run. It reads and checks a configuration before it asks Docker for an image; with a `docker` that fails
at that point nothing is made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from testbed.compile import compile_lab
from testbed.errors import CommandError
from testbed.export import kind
from testbed.load.lab import load
from testbed.plan import Plan
from testbed.runtime import kind_tool

SITE = Path(__file__).resolve().parents[2] / "golden" / "export" / "site"
DOCKER = """\
#!/bin/sh
echo "$*" >> {log}
case "$1" in
  ps) exit 0 ;;
  info) echo '{{"CgroupVersion": "2", "SecurityOptions": []}}'; exit 0 ;;
esac
exit 1
"""


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def docker_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with such a `docker` and the real kind in PATH; returns the log of what `docker` was asked."""
    found = shutil.which("kind")
    if found is None:
        pytest.skip(f"not run: kind is not installed: {kind_tool.ADVICE}")
    log = tmp_path / "log"
    program(tmp_path / "bin", "docker", DOCKER.format(log=log))
    (tmp_path / "bin" / "kind").symlink_to(found)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return log


def plan() -> Plan:
    loaded = load(str(SITE))
    return compile_lab(loaded.lab, loaded.manifests, loaded.images)


def refusal(folder: Path, config: str) -> str:
    """What kind says of a configuration."""
    (folder / "kind.yaml").write_text(config)
    with pytest.raises(CommandError) as caught:
        kind_tool.create(
            "site", folder / "kind.yaml", folder / "kubeconfig", engine="", network="testbed-site", timeout=60
        )
    return caught.value.output


def test_kinds_loader_takes_the_configuration(tmp_path: Path, docker_without_images: Path) -> None:
    output = refusal(tmp_path, kind.config_text(plan()))
    assert "failed to pull image" in output  # the first thing that kind does after it has checked everything
    asked = {line.split()[0] for line in docker_without_images.read_text().splitlines()}
    assert asked
    assert not asked & {"run", "create", "network"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nosuch": 1}, "nosuch"),
        ({"networking": {"podSubnet": "10.0.0.0/99"}}, "invalid pod subnet"),
        ({"networking": {"kubeProxyMode": "magic"}}, "kubeProxyMode"),
        ({"nodes": [{"role": "worker"}]}, "must have at least one control-plane"),
    ],
)
def test_kinds_loader_is_asked(
    tmp_path: Path, docker_without_images: Path, change: dict[str, object], words: str
) -> None:
    config = yaml.safe_load(kind.config_text(plan())) | change
    output = refusal(tmp_path, yaml.safe_dump(config))
    assert words in output
    assert "failed to pull image" not in output


# --- what is missing --------------------------------------------------------------------------------------------------


def test_missing_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kind_tool.missing().startswith("kind is not installed: ")
    program(tmp_path, "kind", "#!/bin/sh\necho 0.32.0\n")
    assert kind_tool.missing().startswith("docker is not installed: ")
    program(tmp_path, "docker", "#!/bin/sh\n")
    assert kind_tool.missing() == ""
    assert kind_tool.version() == (0, 32, 0)


@pytest.mark.parametrize(
    ("says", "words"), [("0.20.0", "kind is of version 0.20.0, and 0.27.0 is needed"), ("who knows", "who knows")]
)
def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, words: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "kind", f"#!/bin/sh\necho {says}\n")
    program(tmp_path, "docker", "#!/bin/sh\n")
    assert words in kind_tool.missing()


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kind is told its engine and network, and finds `docker` where the user has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "docker", "#!/bin/sh\n")
    program(tmp_path, "kind", f'#!/bin/sh\necho "$@" > {tmp_path}/argv\nenv > {tmp_path}/env\n')
    kind_tool.create("x", tmp_path / "c", tmp_path / "k", engine="unix:///e", network="n", timeout=10)
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert env["DOCKER_HOST"] == "unix:///e"
    assert env["KIND_EXPERIMENTAL_DOCKER_NETWORK"] == "n"
    assert str(tmp_path) in env["PATH"].split(":")
    words = (tmp_path / "argv").read_text().split()
    assert words == f"create cluster --name x --config {tmp_path}/c --kubeconfig {tmp_path}/k --wait 0s".split()
    kind_tool.load("x", "/a.tar", engine="unix:///e")
    assert (tmp_path / "argv").read_text().split() == ["load", "image-archive", "/a.tar", "--name", "x"]
    kind_tool.load("x", "echo:1", engine="unix:///e")
    assert (tmp_path / "argv").read_text().split() == ["load", "docker-image", "echo:1", "--name", "x"]
