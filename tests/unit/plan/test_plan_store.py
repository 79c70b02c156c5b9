"""Plans as JSON, and what a Plan may be made of."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed import plan as plans
from testbed.plan import File, Flow, Node, Plan, Process, SecretRef
from testbed.plan.store import from_json, to_json

CLASSES = [entry for entry in vars(plans).values() if dataclasses.is_dataclass(entry)]

finite = st.floats(allow_nan=False, allow_infinity=False)
flows = st.builds(Flow, timeout=finite)
files = st.builds(File, content=st.text() | st.builds(SecretRef))
nodes = st.builds(Node, files=st.lists(files, max_size=2).map(tuple))
some_plans = st.builds(Plan, nodes=st.lists(nodes, max_size=2).map(tuple), flows=st.lists(flows, max_size=2).map(tuple))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=50)
@given(some_plans)
def test_round_trip(plan: Plan) -> None:
    text = to_json(plan)
    assert from_json(text) == plan
    assert to_json(from_json(text)) == text
    assert json.loads(to_json(plan, indent=1)) == json.loads(text)


def test_a_secret_is_a_reference() -> None:
    plan = Plan("a", (Node("n", "host", files=(File("/key", SecretRef("ssh", "private")),)),))
    assert json.loads(to_json(plan))["nodes"][0]["files"][0]["content"] == {"secret": "ssh", "part": "private"}
    assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"name": 1}', '{"name": "a", "nodes": [{"name": "n"}]}'])
def test_other_texts_are_no_plan(text: str) -> None:
    with pytest.raises(ValueError, match="Plan"):
        from_json(text)


@pytest.mark.parametrize("entry", CLASSES, ids=lambda entry: entry.__name__)
def test_everything_is_frozen_and_plain(entry: type) -> None:
    """Strings, numbers, tuples and other parts of a Plan, so that two can be compared, hashed and stored."""
    assert entry.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for name, hint in get_type_hints(entry).items():
        assert plain(hint), f"{entry.__name__}.{name}: {hint}"


def plain(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return True
    if origin in (tuple, types.UnionType, typing.Union):
        return all(part is Ellipsis or plain(part) for part in get_args(hint))
    return hint in (str, int, float, bool, type(None)) or hint in CLASSES


def test_a_node_by_its_name() -> None:
    plan = Plan("a", (Node("x", "host"), Node("y", "router", processes=(Process("p", ("/bin/p",)),))))
    assert plan.node("y").processes[0].name == "p"
    with pytest.raises(KeyError, match="z"):
        plan.node("z")
