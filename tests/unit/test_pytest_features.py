"""Tests name the kernel features they need, and are not run without them, with the reason."""

from __future__ import annotations

import pytest

from testbed.pytest_plugin import capabilities, features
from testbed.runtime import kernel
from testbed.runtime.kernel import Answer


class Config:
    """Of a run that demands something."""

    def __init__(self, demanded: str = "") -> None:
        self.demanded = demanded

    def getoption(self, _: str) -> str:
        return self.demanded


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch):
    """A kernel with everything but VRF devices."""

    def tried(trials: dict[str, kernel.Trial]) -> dict[str, Answer]:
        return {
            name: Answer(name != "vrf", "" if name != "vrf" else "the kernel has no vrf devices") for name in trials
        }

    monkeypatch.setattr(kernel, "try_all", tried)
    features._missing.cache_clear()
    yield
    features._missing.cache_clear()


def test_one_that_is_there(lacking):
    for name in features.FEATURES:
        if name != "vrf":
            capabilities.require(Config("all"), name)


def test_one_that_is_missing(lacking):
    reason = r"not run: the kernel has no vrf devices \(`testbed vm` runs it"
    with pytest.raises(pytest.skip.Exception, match=reason):
        capabilities.require(Config(), "vrf")
    with pytest.raises(pytest.fail.Exception, match=f"{reason}.*--testbed-require demands vrf"):
        capabilities.require(Config("netns,vrf"), "vrf")


def test_every_feature_is_one_that_doctor_knows():
    """What is tried for tests is what doctor tries."""
    from testbed.runtime import doctor

    known = {feature.trial for feature in doctor._FEATURES}
    trials = (
        kernel.VRF,
        kernel.ipvs,
        kernel.IPSETS,
        kernel.IPIP,
        kernel.VXLAN,
        kernel.VLAN,
        kernel.netem,
        kernel.DUMMY,
    )
    assert len(trials) == len(features.FEATURES)
    assert set(trials) <= known
