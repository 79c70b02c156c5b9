"""The HTML page of a run: what it says, and how a browser shows it."""

from __future__ import annotations

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


@pytest.mark.testbed_needs("browser")
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 900)])
def test_a_browser_shows_it_without_sideways_scrolling(tmp_path: Path, width: int, height: int):
    """The page is never wider than its window; what is wide scrolls in a box of its own. (A copy measures itself.)"""
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    file = tmp_path / "page.html"
    file.write_text(sample(*WHOLE).replace("</body>", probe))
    quiet = ("gpu", "background-networking", "component-update", "sync", "quic")
    argv = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}", "--dump-dom", file.as_uri()]
    shown = run.run(argv)
    found = re.search(r"<title>(\d+) of (\d+)</title>", shown)
    assert found, shown[:300]
    assert int(found[1]) <= int(found[2])
