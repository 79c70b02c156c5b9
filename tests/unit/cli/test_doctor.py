"""The doctor: what it makes of trials and programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UnsupportedError
from testbed.load.images import builtin_images
from testbed.model.images import Image
from testbed.runtime import doctor, kernel
from testbed.runtime.doctor import Program, with_images


def test_programs_of_images_come_with_what_they_are_for() -> None:
    images = [
        Image(names=("web",), packages=("nginx-light",), requires=("/usr/sbin/nginx",)),
        Image(names=("proxy",), packages=("nginx-light",), requires=("/usr/sbin/nginx", "/usr/bin/python3")),
    ]
    found = with_images([Program("/usr/bin/python3", "python3", "reloads")], images)
    assert found == [
        Program("/usr/bin/python3", "python3", "reloads, image proxy"),
        Program("/usr/sbin/nginx", "nginx-light", "images web, proxy", required=False),
    ]


def test_every_program_of_the_catalogue_is_looked_for() -> None:
    looked = {finding.name for finding in doctor.examine() if finding.kind == "program"}
    assert {path for image in builtin_images() for path in image.requires} <= looked


def test_a_program_that_is_missing_or_wrong_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("")
    there.chmod(0o755)

    def wrong() -> str:
        raise UnsupportedError("not BIRD 1.6")

    programs = (
        Program("/no/such/program", "nosuch", "a", required=True),
        Program(str(there), "wrong", "b", required=True, trial=wrong),
        Program(str(there), "right", "c", trial=lambda: "1.0"),
    )
    monkeypatch.setattr(doctor, "_PROGRAMS", programs)
    monkeypatch.setattr(doctor, "with_images", lambda programs, _: list(programs))
    monkeypatch.setattr(kernel, "try_all", lambda trials: dict.fromkeys(trials, kernel.Answer(True)))
    missing, bad, good = (finding for finding in doctor.examine() if finding.kind == "program")
    assert (missing.works, missing.detail, missing.advice) == (False, "not installed", "apt install nosuch")
    assert (bad.works, bad.detail, bad.advice, bad.fatal) == (False, "not BIRD 1.6", "apt install wrong", True)
    assert (good.works, good.detail, good.advice, good.fatal) == (True, "1.0", "", False)


@pytest.mark.parametrize(("works", "fatal"), [(True, False), (False, True), (None, True)])
def test_a_feature_that_could_not_be_tried_is_not_taken_for_granted(
    monkeypatch: pytest.MonkeyPatch, works: bool | None, fatal: bool
) -> None:
    monkeypatch.setattr(kernel, "try_all", lambda trials: dict.fromkeys(trials, kernel.Answer(works, "because")))
    features = [finding for finding in doctor.examine() if finding.kind == "kernel"]
    assert {finding.fatal for finding in features if finding.required} == {fatal}
    assert not any(finding.fatal for finding in features if not finding.required)
    assert all(bool(finding.advice) != bool(works) for finding in features)


@pytest.mark.live
@pytest.mark.testbed_needs("netns")
def test_trials_tell_what_is_there_from_what_is_not() -> None:
    interfaces = Path("/proc/net/dev").read_text()
    found = kernel.try_all(
        {
            "there": kernel.VETH,
            "not there": kernel.link("x0", "nosuchkind"),
            "no such subsystem": kernel.netfilter(15, "nothing"),
            "a program that is not there": lambda: kernel.run.run(("/no/such/program",)),
        }
    )
    assert found == {
        "there": kernel.Answer(True),
        "not there": kernel.Answer(False, "the kernel has no nosuchkind devices"),
        "no such subsystem": kernel.Answer(False, "the kernel has no nothing"),
        "a program that is not there": kernel.Answer(False, "/no/such/program is not installed"),
    }
    assert Path("/proc/net/dev").read_text().count("\n") == interfaces.count("\n")
