"""TESTBED_PATIENCE stretches every time limit, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed import patience, run
from testbed.errors import CommandError, InputError
from testbed.plan import Flow
from testbed.probe import opening
from testbed.wait import Deadline


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_to(value: str) -> None:
        monkeypatch.setenv(patience.VARIABLE, value)
        patience.factor.cache_clear()

    yield set_to
    monkeypatch.undo()
    patience.factor.cache_clear()


def test_without_a_word_limits_are_what_they_are(patient):
    patient("")
    assert patience.stretched(3) == 3
    assert Deadline(3).seconds == 3


def test_every_kind_of_limit(patient):
    patient("2.5")
    assert Deadline(4).seconds == 10
    assert Deadline(4, exact=True).seconds == 4
    flow = Flow("f", source="a", target="b", address="192.0.2.1", port=1, protocol="tcp", expect="timeout", timeout=2)
    assert opening.patience(flow) == 5
    with pytest.raises(CommandError, match=r"took longer than 0\.25 s"):
        run.run(["/bin/cat", "/dev/zero"], timeout=0.1)


@pytest.mark.parametrize("value", ["fast", "0.5", "-1", "nan", "inf"])
def test_what_is_no_factor_is_refused(patient, value):
    patient(value)
    with pytest.raises(InputError, match=f"TESTBED_PATIENCE is '{value}'.*a number of 1 or more"):
        Deadline(1)
