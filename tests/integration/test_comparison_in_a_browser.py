"""The page of a comparison in a real browser: at two widths, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import COMMAND, SPILLED, chromium
from compared_runs import make_grid

from pipeline.comparison.building import build_comparison
from pipeline.comparison.selecting import choose
from pipeline.pages.comparison_page import comparison_page

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(COMMAND is None, reason="chromium is not installed: `apt-get install chromium`"),
]


def test_nothing_is_complained_of_asked_for_or_cut_off(tmp_path: Path) -> None:
    make_grid(tmp_path)
    page = tmp_path / "comparison.html"
    page.write_text(comparison_page(build_comparison(choose(["sweep"], tmp_path))), encoding="utf-8")
    with chromium(tmp_path / "profile") as browser:
        for width in (1280, 390):
            for dark in (False, True):
                browser.open(page.as_uri(), width=width, dark=dark)
                assert browser.complaints() == []
                assert browser.requests() == [page.as_uri()]
                assert browser.value("document.documentElement.scrollWidth") == width
                assert browser.value(SPILLED) == []
