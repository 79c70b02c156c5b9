"""Reading YAML: values as Kubernetes takes them, positions, limits. Errors' texts are in tests/golden/manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import InputError, Position, Problem
from testbed.load.yaml import MAX_BYTES, Document, parse, read_text


def one(text: str) -> Document:
    (document,) = parse(text, "f")
    return document


def at(line: int, column: int) -> Position:
    return Position("f", line, column)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("N", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("0x1F", 31),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("-017", -15),
        ("08", 8.0),
        ("+12", 12),
        ("1_000", 1000),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-1.", -1.0),
        ("1e999", "1e999"),
        ("22:22", "22:22"),  # no base 60
        ("1:30.5", "1:30.5"),
        ("2001-01-01", "2001-01-01"),
        ("2001-01-01T10:00:00Z", "2001-01-01T10:00:00Z"),
        ("10.0.0.1", "10.0.0.1"),
        ("0xzz", "0xzz"),
        ("=", "="),
        ("<<", "<<"),
        ("yEs", "yEs"),
        ("'80'", "80"),
        ('"yes"', "yes"),
        ("|\n  80\n", "80\n"),
        ("!!str 80", "80"),
        ("!!float 80", 80.0),
        ("!!int '80'", 80),
        ("!!bool 'yes'", True),
        ("!!null ''", None),
        ('"\\u00e9\\t"', "é\t"),
    ],
)
def test_scalars(written: str, value: Any) -> None:
    found = one(f"a: {written}").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_documents() -> None:
    documents = parse("\ufeff---\n---\na: 1\n---\n# nothing\n---\n- x\n...\n", "f")
    assert [document.value for document in documents] == [{"a": 1}, ["x"]]
    assert [document.at() for document in documents] == [at(3, 1), at(7, 1)]
    assert parse("", "f") == []


def test_positions() -> None:
    document = one("a:\n  b: [1, {c: x}]\n  d:\n  - e: 1\n    f: ~\n")
    assert document.at("a") == at(1, 1)  # of what holds others: its key
    assert document.at("a", "b") == at(2, 3)
    assert document.at("a", "b", 0) == at(2, 7)  # of a scalar: itself
    assert document.at("a", "b", 1) == at(2, 10)
    assert document.at("a", "b", 1, "c") == at(2, 14)
    assert document.at("a", "d", 0) == at(4, 5)
    assert document.at("a", "d", 0, "f") == at(5, 5)  # of nothing: its key
    assert document.key_at("a", "b", 1, "c") == at(2, 11)
    assert document.key_at("a", "b", 1) == at(2, 10)
    assert document.at("a", "b", 1, "no", "such") == at(2, 10)
    assert document.origin.at("a", "x") == at(1, 1)


def test_parts() -> None:
    document = one("items:\n- a: 1\n- b: ~\n  c: [~]\n")
    part = document.part("items", 1)
    assert part.value == {"b": None, "c": [None]}
    assert part.at() == at(3, 3)
    assert part.key_at("c") == at(4, 3)
    assert part.without_nulls().value == {"c": [None]}
    with pytest.raises(IndexError):
        document.part("items", 2)


def test_aliases_and_merging() -> None:
    text = "base: &b {x: 1, y1: {z: 2}}\nuse: *b\nmore: {<<: [{x: 0}, *b], w: 3, <<x: 4}\n"
    assert one(text).value == {
        "base": {"x": 1, "y1": {"z": 2}},
        "use": {"x": 1, "y1": {"z": 2}},
        "more": {"x": 0, "y1": {"z": 2}, "w": 3, "<<x": 4},
    }
    own_first = one("a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n")
    assert own_first.value["b"] == {"x": 2}
    assert own_first.at("b", "x") == at(4, 6)


def test_a_quoted_merge_key_is_a_key() -> None:
    assert one('"<<": {a: 1}').value == {"<<": {"a": 1}}


def test_anchors_end_with_their_document() -> None:
    with pytest.raises(InputError, match="refers to no anchor"):
        parse("a: &a 1\n---\nb: *a\n", "f")


def test_large_input() -> None:
    with pytest.raises(InputError, match="larger than 4 MiB"):
        parse("#" * (MAX_BYTES + 1), "f")
    with pytest.raises(InputError, match="more than 100000 values"):
        parse("- x\n" * 100_001, "f")
    assert len(one("- x\n" * 99_000).value) == 99_000
    with pytest.raises(InputError, match="nested more than 100 levels"):
        parse("[" * 1_000_000, "f")
    assert one("[" * 100 + "]" * 100).value


def test_merging_is_limited_as_well() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{number}: &a{number} {{<<: [{', '.join([f'*a{number - 1}'] * 10)}]}}" for number in range(1, 9)]
    with pytest.raises(InputError, match="more than 100000 values"):
        parse("\n".join(lines), "f")


@pytest.mark.parametrize("text", ["a\0", "a: \x1b[0m", "\ud800", "a: \x7f", "a: \ufffe", 'a: "\\ud800"'])
def test_control_characters(text: str) -> None:
    with pytest.raises(InputError, match=r"control character U|invalid YAML"):
        parse(text, "f")


def test_read_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(InputError, match=r"cannot read .*x\.yaml: No such file"):
        read_text(path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InputError, match=r"x\.yaml:2:1: not UTF-8"):
        read_text(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than"):
        read_text(path)
    path.write_text("\ufeffa: é\n")
    assert read_text(path) == "a: é\n"


PLAIN = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
TEXTS = st.text(PLAIN, max_size=8).filter(lambda text: not any(ord(char) & 0xFFFF >= 0xFFFE for char in text))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES.filter(lambda value: value is not None))
def test_json_is_read_as_it_is(value: Any) -> None:
    assert one(json.dumps(value, ensure_ascii=False)).value == value


def read(text: str) -> list[Document] | tuple[Problem, ...]:
    """The documents, or the problems; whatever else is raised fails the test."""
    try:
        return parse(text, "f")
    except InputError as error:
        return error.problems


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@#,? \n\t<=~1.y", max_size=40))
def test_yaml_like_text_is_read_or_refused(text: str) -> None:
    found = read(text)
    if isinstance(found, tuple):
        assert found
        assert all(problem.position and problem.position.line >= 1 for problem in found)
        return
    assert all(isinstance(document.value, str | int | float | bool | list | dict) for document in found)
    assert len(found) <= len(list(yaml.compose_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
