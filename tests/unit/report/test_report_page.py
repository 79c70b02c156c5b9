"""The HTML page of a run: what it says, and how a browser shows it."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import BAD_VERDICT, FAULTY, GOOD_VERDICT, NOW, PLAN

from testbed import run
from testbed.pytest_plugin.capabilities import CHROMIUM
from testbed.report.page import FlowSection, Report, lab_section, page

pytestmark = pytest.mark.testbed_needs("graphviz")
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "img", "input", "link"}


def sample(*flows: FlowSection) -> str:
    section = lab_section(FAULTY, PLAN, "netns", flows)
    return page(Report((section,), NOW, (("kernel", "6.1"),), ((3, "no Docker engine answers"),)))


WHOLE = (
    FlowSection(GOOD_VERDICT, walk=("1  leaf1", "2  n1"), path=("leaf1", "n1")),
    FlowSection(BAD_VERDICT, evidence=("leaf1:", f"  {EVIL}")),
)


class Nesting(HTMLParser):
    """Fails on tags that are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_well_formed_and_its_links_lead_somewhere():
    parser = Nesting()
    parser.feed(sample(*WHOLE))
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert parser.links
    assert {link.removeprefix("#") for link in parser.links} <= set(parser.ids)


class Outline(HTMLParser):
    """The elements of a page in their order, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.found if tag in tags]


def scrolls(tag: str, attrs: dict[str, str]) -> bool:
    """Whether the page's style lets an element scroll by itself."""
    return tag == "pre" or attrs.get("class") in ("picture", "wide")


def test_what_scrolls_or_takes_the_focus_is_reached_in_order_and_has_a_name():
    found = Outline(sample(*WHOLE)).found
    boxes = [(tag, attrs) for tag, attrs in found if scrolls(tag, attrs)]
    assert {tag for tag, _ in boxes} == {"div", "figure", "pre"}
    assert all(attrs.get("tabindex") == "0" for _, attrs in boxes)
    focused = [(tag, attrs) for tag, attrs in found if "tabindex" in attrs]
    assert {attrs["tabindex"] for _, attrs in focused} == {"0"}, "another number would change the order"
    assert all(attrs.get("aria-label") for _, attrs in focused)
    assert all(attrs.get("role") or tag == "figure" for tag, attrs in focused), "a name without a role is not read out"
    labels = [attrs["aria-label"] for _, attrs in focused]
    assert len(set(labels)) == len(labels)


def test_its_outline_is_told_by_headings_and_landmarks():
    outline = Outline(sample(*WHOLE))
    levels = [int(tag[1]) for tag, _ in outline.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [len(outline.all(tag)) for tag in ("main", "header")] == [1, 1]
    assert outline.all("html")[0]["lang"] == "en"
    ids = {attrs["id"] for _, attrs in outline.found if "id" in attrs}
    assert {attrs["aria-labelledby"] for attrs in outline.all("section")} <= ids
    assert {attrs.get("scope") for attrs in outline.all("th")} == {"col", "row"}


def test_the_focus_is_seen():
    styles = sample()
    assert re.search(r":focus-visible\s*{[^}]*outline: 3px solid", styles)
    assert "outline: none" not in styles
    assert "outline: 0" not in styles


def test_it_says_what_a_reader_wants_to_know():
    text = sample(*WHOLE)
    for words in (
        "1 of 2 flows as expected",
        GOOD_VERDICT.flow.name,
        *BAD_VERDICT.reasons,
        "no Docker engine answers",
        "2  n1",
        *FAULTY.problems,
    ):
        assert words in text.replace("&#39;", "'").replace("&#34;", '"')


def test_what_failed_is_open_and_what_passed_is_closed():
    assert re.findall(r"<details( open)?>", sample(*WHOLE)) == ["", " open"]


def test_it_needs_no_network_and_runs_nothing():
    text = sample(*WHOLE)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r'(?:src|href)="(?!#)(?!http://www.w3.org)', text)
    assert "<script" not in text
    assert "@import" not in text


def browsed(tmp_path: Path, address: str, *more: str) -> str:
    """The page as Chromium has it once it is loaded."""
    quiet = ("gpu", "background-networking", "component-update", "sync", "quic")
    argv = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    return run.run([*argv, f"--user-data-dir={tmp_path / 'profile'}", *more, "--dump-dom", address])


@pytest.mark.testbed_needs("browser")
def test_a_link_of_the_table_opens_its_flow(tmp_path: Path):
    """By a link, as Enter follows it, what is closed opens, and nothing else does."""
    file = tmp_path / "page.html"
    file.write_text(sample(*WHOLE))
    links = [attrs["href"] for attrs in Outline(sample(*WHOLE)).all("a") if "href" in attrs]
    target = next(link for link in links if GOOD_VERDICT.flow.name in link)
    for address, opened in ((file.as_uri(), [False, True]), (file.as_uri() + target, [True, True])):
        shown = Outline(browsed(tmp_path, address)).all("details")
        assert ["open" in attrs for attrs in shown] == opened


@pytest.mark.testbed_needs("browser")
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 900)])
def test_a_browser_shows_it_without_sideways_scrolling(tmp_path: Path, width: int, height: int):
    """The page is never wider than its window; what is wide scrolls in a box of its own. (A copy measures itself.)"""
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    file = tmp_path / "page.html"
    file.write_text(sample(*WHOLE).replace("</body>", probe))
    shown = browsed(tmp_path, file.as_uri(), f"--window-size={width},{height}")
    found = re.search(r"<title>(\d+) of (\d+)</title>", shown)
    assert found, shown[:300]
    assert int(found[1]) <= int(found[2])
