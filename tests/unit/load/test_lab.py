"""The lab file and its loader.

Bad labs and the exact text of what their author is told: tests/golden/labs/NAME.yaml, or NAME/lab.yaml with manifests
beside it, and NAME.err. In the .err files {kinds} and {images} stand for lists of what is supported, which grow.
`pytest --update-golden` writes them anew; read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.compile import compile_lab
from testbed.errors import InputError, Position
from testbed.load.images import catalogue
from testbed.load.lab import find, labs_folder, load, parse_lab
from testbed.load.manifests import KINDS
from testbed.model.lab import Host, Router

TESTS = Path(__file__).resolve().parents[2]
GOLDEN = TESTS / "golden" / "labs"
CASES = sorted({path.name.removesuffix(".yaml") for path in GOLDEN.iterdir() if path.suffix != ".err"})


def test_there_are_cases() -> None:
    assert len(CASES) >= 45
    assert sorted(path.stem for path in GOLDEN.glob("*.err")) == CASES


@pytest.mark.parametrize("name", CASES)
def test_error_text(name: str, monkeypatch: pytest.MonkeyPatch, golden: Callable[[Path, str], None]) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(InputError) as caught:
        compiled(f"{name}.yaml" if (GOLDEN / f"{name}.yaml").exists() else name)
    golden(GOLDEN / f"{name}.err", told(caught.value))


def compiled(name: str) -> None:
    loaded = load(name)
    compile_lab(loaded.lab, loaded.manifests, loaded.images)


def told(error: InputError) -> str:
    kinds = ", ".join(sorted({kind for _, kind in KINDS}))
    return f"{error}\n".replace(kinds, "{kinds}").replace(", ".join(catalogue().names), "{images}")
