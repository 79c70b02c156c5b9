"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from testbed.pytest_plugin.features import FEATURES

# How long an example takes says nothing on a busy machine; a run that hangs is ended by its caller.
settings.register_profile("testbed", deadline=None)
settings.load_profile("testbed")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--recordings",
        type=Path,
        default=Path(os.environ.get("TESTBED_FIXTURES") or ROOT.parent / "shared" / "fixtures"),
        help="folder with the recordings of the real kube-proxy, Calico and MetalLB",
    )
    parser.addoption("--clab-examples", type=Path, help="a checkout of containerlab, whose examples are run")
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing with them"
    )


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a feature that not every kernel has is run by `make test-vm`; every distribution's has VXLAN."""
    features = set(FEATURES) - {"vxlan"}
    for item in items:
        if any(features & set(marker.args) for marker in item.iter_markers("testbed_needs")):
            item.add_marker("vm")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a golden file; with --update-golden, write the file."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        known = path.read_text() if path.exists() else ""
        assert text == known, f"{path} differs; pytest --update-golden writes it anew"

    return compare


@pytest.fixture(scope="session")
def fixtures(request: pytest.FixtureRequest) -> Path:
    """The folder of recordings; a test that needs it is skipped, with the reason, where it is missing."""
    path: Path = request.config.getoption("--recordings")
    if not path.is_dir():
        pytest.skip(f"recordings not found at {path}: give --recordings DIR")
    return path
