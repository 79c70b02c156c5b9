"""Calico's selector language."""

from __future__ import annotations

import re

import pytest

from testbed.compile.kube.calico.selector import matches

LABELS = {"role": "leaf", "rack": "a1", "example.com/zone": "east", "empty": ""}

SELECTED = [
    ("", True),
    ("all()", True),
    ("!all()", False),
    ("has(role)", True),
    ("has(spine)", False),
    ("! has( spine )", True),
    ("role == 'leaf'", True),
    ('role=="leaf"', True),
    ("role == 'spine'", False),
    ("spine == ''", False),
    ("empty == ''", True),
    ("role != 'spine'", True),
    ("spine != 'x'", True),
    ("role in {'spine', 'leaf'}", True),
    ("role in {'spine'}", False),
    ("spine in {'x'}", False),
    ("role not in {'spine'}", True),
    ("role not in {'leaf'}", False),
    ("spine not in {'x'}", True),
    ("rack contains '1'", True),
    ("rack starts with 'a'", True),
    ("rack starts with 'b'", False),
    ("rack ends with '1'", True),
    ("spine contains ''", False),
    ("example.com/zone == 'east'", True),
    ("role == 'leaf' && rack == 'b'", False),
    ("role == 'spine' || rack == 'a1'", True),
    ("role == 'leaf' || rack == 'b' && has(spine)", True),
    ("(role == 'leaf' || rack == 'b') && has(spine)", False),
    ("!(role == 'leaf' && has(spine))", True),
    ("!!has(role)", True),
]


@pytest.mark.parametrize(("selector", "selected"), SELECTED)
def test_selected(selector: str, selected: bool) -> None:
    assert matches(selector, LABELS) is selected


WRONG = [
    ("role", "at character 5: expected an operator after role, found the end"),
    ("role = 'leaf'", "at character 5: not a selector"),
    ("role == leaf", "expected string, found leaf"),
    ("role == 'leaf", "not a selector"),
    ("role == 'a' 'b'", "at character 13: expected end, found 'b'"),
    ("(role == 'a'", "expected ), found the end"),
    ("role in 'a'", "expected {, found 'a'"),
    ("role not 'a'", "expected in, found 'a'"),
    ("has()", "expected word, found )"),
    ("global()", "global() is not supported"),
    ("role starts 'a'", "expected with, found 'a'"),
]


@pytest.mark.parametrize(("selector", "message"), WRONG)
def test_wrong(selector: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        matches(selector, LABELS)
