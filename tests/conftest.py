"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--recordings",
        type=Path,
        default=Path(os.environ.get("TESTBED_FIXTURES") or ROOT.parent / "shared" / "fixtures"),
        help="folder with the recordings of the real kube-proxy, Calico and MetalLB",
    )


@pytest.fixture(scope="session")
def fixtures(request: pytest.FixtureRequest) -> Path:
    """The folder of recordings; a test that needs it is skipped, with the reason, where it is missing."""
    path: Path = request.config.getoption("--recordings")
    if not path.is_dir():
        pytest.skip(f"recordings not found at {path}: give --recordings DIR")
    return path
