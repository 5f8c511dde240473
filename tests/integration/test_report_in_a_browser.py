"""The report's page in a real browser: at two widths, light and dark, with and without JavaScript.

Set REPORT_PICTURES to a folder to keep the screenshots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import made_report
import pytest
from browser import COMMAND, SPILLED, Browser, chromium
from outline import HOSTILE

from pipeline.pages.report_page import report_page

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(COMMAND is None, reason="chromium is not installed: `apt-get install chromium`"),
]
WIDTHS = (1280, 390, 320)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(made_report.page(), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_complained_of_asked_for_or_cut_off(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page.as_uri(), width=width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.value("document.documentElement.scrollWidth") == width
    # The answer, its numbers, the gates and the costs are seen without scrolling on a desktop, the answer on a phone.
    first = ".glance" if width == 1280 else ".card"
    assert browser.value(f"document.querySelector('{first}').getBoundingClientRect().bottom") < 900
    assert browser.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)"
    )
    folder = os.environ.get("REPORT_PICTURES")
    if folder:
        browser.picture(Path(folder) / f"{'dark' if dark else 'light'}-{width}.png", height=3000)


def test_the_text_of_every_plot_stays_inside_it(browser: Browser, page: Path) -> None:
    for width in WIDTHS:
        browser.open(page.as_uri(), width=width)
        assert browser.value(SPILLED) == []
    shown = "[...document.querySelectorAll('svg text')].find(text => text.getBoundingClientRect().width)"
    browser.value(f"{shown}.textContent = 'W'.repeat(200)")
    assert browser.value(SPILLED) != []  # the control


def test_without_javascript_the_page_is_the_same(browser: Browser, page: Path) -> None:
    heights = []
    for script in (True, False):
        browser.open(page.as_uri(), width=1280, script=script)
        heights.append(browser.call("Page.getLayoutMetrics")["cssContentSize"]["height"])
    assert heights[0] == heights[1]


def test_what_a_policy_wrote_runs_nothing_and_breaks_nothing(browser: Browser, tmp_path: Path) -> None:
    report = made_report.report()
    for example in report["examples"]:
        for answer in example["answers"]:
            if "completion" in answer:
                answer["completion"] = HOSTILE
    for judge in report["judges"]:
        judge["reasons"] = [HOSTILE]
    for gate in report["gates"]:
        gate["reason"] = HOSTILE
    path = tmp_path / "hostile.html"
    path.write_text(report_page(report), encoding="utf-8")
    for width in WIDTHS:
        browser.open(path.as_uri(), width=width)
        assert browser.complaints() == []
        assert browser.requests() == [path.as_uri()]
        assert browser.value("document.documentElement.scrollWidth") == width
    # The control: a page in which one place forgot to escape asks for a picture, and is heard.
    path.write_text(report_page(report).replace("&lt;img src=x", "<img src=x", 1), encoding="utf-8")
    browser.open(path.as_uri(), width=1280)
    assert browser.complaints()
