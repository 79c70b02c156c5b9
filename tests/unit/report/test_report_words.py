"""Words, lines and progress, as tables of cases."""

from __future__ import annotations

import pytest
from report_samples import BAD_VERDICT, FAULTY, GOOD_VERDICT, LEAF, NODE, PLAN, WELL

from testbed.deploy.status import Outline
from testbed.events import Awaited, Event, Step
from testbed.plan import Link, Plan
from testbed.plan.diff import diff
from testbed.report.labs import Change, Risen, change_lines, lab_lines, up_summary
from testbed.report.plan import diff_lines
from testbed.report.progress import Progress, after, lines
from testbed.report.words import age, columns, count, cut, duration


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 ms"), (0.0123, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (4.06, "4.1 s"), (125, "125.0 s")],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3599, "60 min ago"),
        (7200, "2 h ago"),
        (200000, "2 d ago"),
    ],
)
def test_age(seconds: float, expected: str) -> None:
    assert age(seconds) == expected


def test_count_and_cut() -> None:
    assert [count(number, "node") for number in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [cut("abcdef", width) for width in (6, 5, 1)] == ["abcdef", "abcd…", "…"]


def test_columns_leave_out_what_is_empty() -> None:
    assert columns([("a", "", "long one"), ("bbb", "", "")], indent="> ") == ["> a    long one", "> bbb"]
    assert columns([]) == []


# --- progress ---------------------------------------------------------------------------------------------------------


def folded(*events: Event) -> Progress:
    progress = Progress()
    for event in events:
        progress = after(progress, event)
    return progress


ROUTES = tuple(f"leaf{number}: route to 10.0.0.0/8" for number in range(5))


def test_progress_names_what_is_awaited_and_forgets_it_when_the_step_ends() -> None:
    waiting = folded(Step("links"), Step("links", 0.25), Step("convergence"), Awaited("routes", ROUTES, 7))
    assert lines(waiting, 100) == [
        "links 250 ms",
        "convergence: routes 2 of 7",
        "awaiting leaf0: route to 10.0.0.0/8; leaf1: route to 10.0.0.0/8 and 3 more",
    ]
    assert lines(after(waiting, Step("convergence", 1.5)), 100) == ["links 250 ms · convergence 1.5 s"]


def test_progress_counts_each_kind_once() -> None:
    seen = folded(
        Step("convergence"), Awaited("routes", ROUTES, 7), Awaited("routes", (), 7), Awaited("sessions", (), 4)
    )
    assert lines(seen, 100) == ["convergence: routes 7 of 7, sessions 4 of 4"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_progress_keeps_within_the_width_and_three_lines(width: int) -> None:
    steps = [Step(f"step{number}", 1.0) for number in range(20)]
    found = lines(folded(*steps, Step("convergence"), Awaited("routes", ROUTES, 7)), width)
    assert len(found) == 3
    assert all(len(line) <= width for line in found)


# --- whole labs -------------------------------------------------------------------------------------------------------


def test_up_summary_counts_what_there_is() -> None:
    risen = Risen(PLAN, None, (GOOD_VERDICT, BAD_VERDICT), 4.06, {})
    expected = "small is up: 2 nodes, 1 pod, 2 BGP sessions, 8 routes, 1 of 2 flows as expected, 4.1 s"
    assert up_summary(risen) == expected
    assert (
        up_summary(Risen(Plan("bare", nodes=(NODE,)), None, (), 0.5, {}))
        == "bare is up: 1 node, no flows to ask, 500 ms"
    )


def test_change_lines() -> None:
    smaller = Plan("small", nodes=(LEAF,))
    larger = Plan("small", nodes=(type(LEAF)(**{**as_fields(LEAF), "sysctls": ()}), NODE), links=PLAN.links[:1])
    change = Change(diff(smaller, larger), ("leaf1: bgpd",))
    assert change_lines(change) == [
        "+ kubernetes n1",
        "~ router leaf1: sysctls",
        "+ 1 link",
        "! leaf1: bgpd did not run, and was started again",
    ]
    assert change_lines(change, most=3) == ["+ kubernetes n1", "~ router leaf1: sysctls", "… and 2 more"]
    assert change_lines(Change(diff(larger, larger))) == ["nothing had changed"]


def as_fields(node: object) -> dict[str, object]:
    return {name: getattr(node, name) for name in node.__slots__}  # type: ignore[attr-defined]


def test_diff_lines_tell_of_services_and_flows_too() -> None:
    bare = Plan("small", nodes=PLAN.nodes, links=PLAN.links)
    assert diff_lines(bare, PLAN, diff(bare, PLAN)) == [
        "+ Service web/echo",
        "+ flow pod-to-leaf",
        "+ flow web",
        "+ flow never-asked",
    ]
    assert diff_lines(PLAN, PLAN, diff(PLAN, PLAN)) == []
    assert diff_lines(PLAN, bare, diff(PLAN, bare))[-1] == "- flow never-asked"


def test_lab_lines() -> None:
    labs = [Outline("edge", True, 13, 9, 940.0), Outline("half", False, 1, 0, 0.0, "docker")]
    assert lab_lines(labs, ["edge"], 1000.0) == [
        "lab   runtime  state       nodes  pods  started",
        "edge  netns    running     13     9     1 min ago",
        "half  docker   half there  1      0",
    ]
    assert lab_lines([], ["edge", "two-routers"], 0.0) == [
        "no lab is running; `testbed up` starts one of edge, two-routers, or yours"
    ]


def test_problems_name_each_thing_that_is_not_as_planned() -> None:
    assert FAULTY.problems == (
        "leaf1: eth0 (VRF mgmt): down",
        "leaf1: eth1 (VRF sbi): no carrier",
        "leaf1: bgpd was ended by signal 9",
        "n1: eth0: missing",
        "echo-js8mb: gone",
        "n1: BGP to leaf1 (10.0.0.0): Active, last error: Socket: Connection refused",
    )
    assert WELL.problems == ()


def test_links_are_counted_by_direction() -> None:
    link: Link = PLAN.links[0]
    change = diff(Plan("x", links=(link,)), Plan("x"))
    assert change_lines(Change(change)) == ["- 1 link"]
