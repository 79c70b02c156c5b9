"""How errors read."""

from __future__ import annotations

import pytest

from testbed import errors
from testbed.errors import (
    CommandError,
    InputError,
    NotReadyError,
    Position,
    Problem,
    TestbedError,
    UnsupportedError,
)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("no node 'x'"), "no node 'x'"),
        (Problem("no node 'x'", hint="did you mean y?"), "no node 'x' (did you mean y?)"),
        (Problem("no node 'x'", Position("lab.yaml", 3, 7)), "lab.yaml:3:7: no node 'x'"),
        (Problem("no", Position("a b.yaml", 1, 1), "so"), "a b.yaml:1:1: no (so)"),
    ],
)
def test_a_problem(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_problems_are_told_in_the_order_of_the_files() -> None:
    error = InputError(
        [
            Problem("four", Position("b.yaml", 1, 1)),
            Problem("three", Position("a.yaml", 10, 1)),
            Problem("two", Position("a.yaml", 9, 12)),
            Problem("one", Position("a.yaml", 9, 2)),
            Problem("nowhere"),
            Problem("anywhere"),
        ]
    )
    assert [problem.message for problem in error.problems] == ["anywhere", "nowhere", "one", "two", "three", "four"]
    assert str(error).splitlines()[2] == "a.yaml:9:2: one"


def test_problems_at_one_place_stay_in_the_order_they_were_found() -> None:
    place = Position("a.yaml", 1, 1)
    error = InputError([Problem("z", place), Problem("a", place)])
    assert [problem.message for problem in error.problems] == ["z", "a"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CommandError(["/bin/x", "-a"], 3, "why\n"), "/bin/x -a ended with status 3: why"),
        (CommandError(["/bin/x"], -9, "", "r1"), "/bin/x in r1 ended with status -9: (no output)"),
        (NotReadyError(1.5, ["r1: BGP", "r2: up"]), "not ready after 1.5 s; still awaited:\n  r1: BGP\n  r2: up"),
    ],
)
def test_texts(error: TestbedError, text: str) -> None:
    assert str(error) == text


def test_every_error_is_of_the_one_tree_and_has_an_exit_code() -> None:
    every = [entry for entry in vars(errors).values() if isinstance(entry, type) and issubclass(entry, Exception)]
    assert len(every) >= 9
    assert all(issubclass(entry, TestbedError) for entry in every)
    assert {entry.exit_code for entry in every} == {1, 2, 3, 4, 5}
    assert (InputError.exit_code, UnsupportedError.exit_code, NotReadyError.exit_code) == (2, 3, 4)
