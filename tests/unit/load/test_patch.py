"""JSON merge patches: the examples of RFC 7396, appendix A, as far as YAML documents can be such, and positions."""

from __future__ import annotations

import json

import pytest

from testbed.errors import Position
from testbed.load.document import Document
from testbed.load.patch import merged
from testbed.load.yaml import parse

EXAMPLES = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b", "b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b", "b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d", "c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"e":null}', '{"a":1}', '{"e":null, "a":1}'),
    ("[1,2]", '{"a":"b", "c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


def document(text: str, file: str = "a.yaml") -> Document:
    [found] = parse(text, file)
    return found


@pytest.mark.parametrize(("original", "patch", "result"), EXAMPLES)
def test_examples(original: str, patch: str, result: str) -> None:
    made = merged(document(original), document(patch, "b.yaml"))
    assert made.value == json.loads(result)
    for path in made.positions:  # none is left of what is gone
        value = made.value
        for step in path:
            value = value[step]


def test_positions_are_those_of_what_stands_there() -> None:
    base = document("spec:\n  name: web\n  ports: [1, 2, 3]\n  old: {x: 1}\n")
    made = merged(base, document("spec:\n\n\n  ports: [4]\n  old: null\n  new: {z: 1}\n", "b.yaml"))
    assert made.value == {"spec": {"name": "web", "ports": [4], "new": {"z": 1}}}
    assert made.at("spec", "name") == Position("a.yaml", 2, 9)
    assert made.at("spec", "ports", 0) == Position("b.yaml", 4, 11)
    assert made.at("spec", "new", "z") == Position("b.yaml", 6, 12)
    assert made.key_at("spec", "new") == Position("b.yaml", 6, 3)
    assert not [path for path in (*made.positions, *made.keys) if path[:2] == ("spec", "old")]
    assert ("spec", "ports", 1) not in made.positions
    assert base.value["spec"]["ports"] == [1, 2, 3], "the document itself is left alone"
