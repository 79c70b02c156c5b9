"""Rules of the house that a search can check; the layers are import-linter's (make lint)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "testbed"
SOURCES = sorted(PACKAGE.rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def names(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_sleep_no_shell_one_door(source: Path) -> None:
    tree = ast.parse(source.read_text())
    own = str(source.relative_to(PACKAGE))
    for call in calls(tree):
        assert names(call).rpartition(".")[2] != "sleep", f"line {call.lineno}: waits belong to testbed/wait.py"
        assert not any(word.arg == "shell" for word in call.keywords), f"line {call.lineno}: no shell strings"
        assert names(call) not in ("os.system", "os.popen"), f"line {call.lineno}: no shell strings"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            at_the_door = "subprocess" not in modules or own == "run.py"
            assert at_the_door, f"line {node.lineno}: processes go through testbed/run.py"


def test_the_search_finds_something_to_search() -> None:
    assert len(SOURCES) > 50
