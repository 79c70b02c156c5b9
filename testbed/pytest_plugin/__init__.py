"""Labs as tests: `pytest labs/edge` asks the flows of a lab, and test modules get a live lab by fixture.

Loaded in every pytest run on the machine, so nothing heavy is imported before a lab is really there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.pytest_plugin.capabilities import CAPABILITIES, NOT_RUN, require, unknown

if TYPE_CHECKING:
    from testbed.probe.result import Answer
    from testbed.pytest_plugin.labs import Labs, LiveLab, NodeHandle

FILE = "lab.yaml"
MARKERS = (
    "lab(where): the lab of a test's fixtures: a path below the root folder or beside the test, or a lab's name",
    f"testbed_needs(*capabilities): not run where one is missing ({', '.join(CAPABILITIES)}); see --testbed-require",
)
_OURS = re.compile(r"""^apiVersion:\s*["']?testbed/""", re.MULTILINE)
_labs = pytest.StashKey["Labs"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("testbed", "network labs")
    group.addoption("--testbed-name", metavar="NAME", help="the name the lab runs under (default: its own)")
    group.addoption("--testbed-keep", action="store_true", help="leave labs that were brought up for the tests running")
    group.addoption(
        "--testbed-runtime",
        metavar="RUNTIME",
        default="",
        help="what nodes are made of, as `testbed up --runtime` (default: what the lab runs on, or netns)",
    )
    group.addoption(
        "--testbed-vrf-driver",
        metavar="DRIVER",
        default="",
        help="what VRFs are made of, as `testbed up --vrf-driver` (default: as the lab file says or the lab runs)",
    )
    group.addoption(
        "--testbed-require",
        metavar="NAMES",
        default=os.environ.get("TESTBED_REQUIRE", ""),
        help="capabilities whose absence makes tests fail, not skip: all, or some of "
        f"{', '.join(CAPABILITIES)}, with commas (default: $TESTBED_REQUIRE)",
    )
    group.addoption(
        "--testbed-report", metavar="FILE", help="write an HTML page: labs, flows, verdicts, what was not run"
    )
    parser.addini("testbed_lab", "the lab of tests that have no marker `lab`", default="")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if wrong := unknown(config.getoption("--testbed-require")):
        raise pytest.UsageError(
            f"--testbed-require: no capability {wrong!r} (choose from all, {', '.join(CAPABILITIES)})"
        )
    _refuse_unknown("--testbed-runtime", "RUNTIMES", config)
    _refuse_unknown("--testbed-vrf-driver", "VRF_DRIVERS", config)


def _refuse_unknown(option: str, choices: str, config: pytest.Config) -> None:
    """Raise UsageError for a value that is none of the choices `testbed.session` has under that name."""
    if value := config.getoption(option):
        from testbed import session

        known = tuple(getattr(session, choices))
        if value not in known:
            raise pytest.UsageError(f"{option}: no {value!r} (choose from {', '.join(known)})")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a lab file: one that says so itself, or that was named on the command line."""
    if file_path.name != FILE or not (parent.session.isinitpath(file_path) or _is_ours(file_path)):
        return None
    from testbed.pytest_plugin.flows import LabFile

    return LabFile.of(parent, file_path, _registry(parent.config))


def _is_ours(path: Path) -> bool:
    try:
        return bool(_OURS.search(path.read_text(errors="replace")))
    except OSError:
        return False


def _registry(config: pytest.Config) -> Labs:
    if _labs not in config.stash:
        from testbed.pytest_plugin.labs import Labs

        config.stash[_labs] = Labs(config)
    return config.stash[_labs]


@pytest.hookimpl(tryfirst=True)  # before any fixture is set up
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("testbed_needs"):
        for capability in marker.args:
            require(item.config, capability)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take down the labs that were brought up. A lab that does not go is a failure of the run."""
    if file := session.config.getoption("--testbed-report"):
        _report(session.config, Path(file))
    if _labs in session.config.stash and (errors := session.config.stash[_labs].close()):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        for error in errors if reporter else ():
            reporter.write_line(f"\n{error}", red=True)


def _not_run(terminalreporter: Any) -> dict[str, int]:
    """Why tests were not run, and how many for each reason."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        _, found, reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "").partition(NOT_RUN)
        if found:
            reasons[reason] = reasons.get(reason, 0) + 1
    return reasons


def _report(config: pytest.Config, file: Path) -> None:
    """Write the page of a run, while its labs are still there."""
    from testbed.report.page import Report, page

    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    not_run = _not_run(reporter) if reporter else {}
    labs = config.stash.get(_labs, None)
    text = page(
        Report(
            labs=tuple(labs.sections()) if labs else (),
            when=time.time(),
            versions=tuple(labs.versions()) if labs else (),
            not_run=tuple((number, reason) for reason, number in not_run.items()),
        )
    )
    file.write_text(text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was not run, and why; each reason once."""
    if reasons := _not_run(terminalreporter):
        terminalreporter.section("not run", yellow=True)
        for reason, count in reasons.items():
            terminalreporter.write_line(f"{count}: {reason}")


# --- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def testbed_labs(request: pytest.FixtureRequest) -> Callable[[str], LiveLab]:
    """Function of a lab's path or name: the lab, up. For fixtures of wider scope than `lab`."""
    registry = _registry(request.config)
    return lambda where: registry.up(registry.find(where, request.config.rootpath))


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> LiveLab:
    """The lab of the marker `lab`, else of the ini option `testbed_lab`; up, the same one in all tests of the run."""
    marker = request.node.get_closest_marker("lab")
    where = marker.args[0] if marker and marker.args else request.config.getini("testbed_lab")
    if not where:
        pytest.fail('which lab? Mark the test, @pytest.mark.lab("labs/edge"), or set testbed_lab', pytrace=False)
    registry = _registry(request.config)
    return registry.up(registry.find(where, request.path.parent))


@pytest.fixture
def node(lab: LiveLab) -> Callable[[str], NodeHandle]:
    """Function of a node's name: what can be done in that node of `lab`."""
    return lab.node


@pytest.fixture
def pod(lab: LiveLab) -> Callable[..., NodeHandle]:
    """Function of a workload ("deployment/web") or the beginning of a pod's name: what can be done in that pod."""
    return lab.pod


@pytest.fixture
def probe(lab: LiveLab) -> Callable[..., Answer]:
    """Function that asks the live network a question, in the words of a flow; see LiveLab.probe."""
    return lab.probe
