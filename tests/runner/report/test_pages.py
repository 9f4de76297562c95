"""Pages in headless Chromium: no error on the console, no request, all there, sorted and themed as asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.report.write import write
from tests.browser import Page, browser, chromium
from tests.runner.report.made_up import report

pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium() is None, reason="no Chromium here")]

CELLS = """[...document.querySelectorAll('#table-made tbody tr')].map(r => r.cells[%d].textContent)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report"
    write(report(), out)
    return out


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


@pytest.fixture
def opened(page: Page, folder: Path) -> Page:
    page.open((folder / "report.html").as_uri())
    page.run("localStorage.clear()")
    page.open((folder / "report.html").as_uri())
    return page


def test_it_is_quiet_and_asks_nothing(opened: Page, folder: Path) -> None:
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [(folder / "report.html").as_uri()]
    assert opened.run("document.title").startswith("A title <script>")


def test_every_plot_is_drawn_and_told(opened: Page) -> None:
    plots = opened.run(
        """[...document.querySelectorAll('figure')].map(f => {
          const box = f.querySelector('svg').getBoundingClientRect();
          return {width: box.width, height: box.height, drawn: f.querySelectorAll('svg path').length,
                  alt: f.querySelector('[role=img]').getAttribute('aria-label')}; })"""
    )
    assert len(plots) == 5
    assert all(p["width"] > 300 and p["height"] > 150 and p["drawn"] > 5 and len(p["alt"]) > 5 for p in plots)
    # No id stands twice, so that no plot takes over a part of another.
    assert (
        opened.run(
            "(() => { const ids = [...document.querySelectorAll('[id]')].map(e => e.id);"
            " return ids.filter((x, i) => ids.indexOf(x) !== i); })()"
        )
        == []
    )


def test_columns_sort_by_number_with_mouse_and_keyboard(opened: Page) -> None:
    before = opened.run(CELLS % 1)
    opened.run("document.querySelectorAll('#table-made th button')[1].click()")
    assert opened.run(CELLS % 1) == ["7", "900", "12,345", "–"]
    opened.run("document.querySelectorAll('#table-made th button')[1].focus()")
    opened.press("Enter")
    assert opened.run(CELLS % 1) == ["12,345", "900", "7", "–"]
    assert opened.run("document.querySelectorAll('#table-made th')[1].getAttribute('aria-sort')") == "descending"
    opened.press("Enter")
    assert opened.run(CELLS % 1) == before
    opened.run("document.querySelectorAll('#table-made th button')[2].click()")
    assert opened.run(CELLS % 2)[0].startswith("0.5000")
    opened.run("document.querySelectorAll('#table-made th button')[0].click()")
    assert opened.run(CELLS % 0)[-2:] == ["a", "b"]
    assert opened.said == []


def test_the_theme_follows_the_system_and_the_button(page: Page, folder: Path) -> None:
    url = (folder / "report.html").as_uri()
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
    page.open(url, dark=False)
    page.run("localStorage.clear()")
    page.open(url, dark=False)
    light = page.run(paper), page.run(ink)
    page.open(url, dark=True)
    dark = page.run(paper), page.run(ink)
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    button = "document.getElementById('theme')"
    page.run(f"{button}.click()")
    assert (page.run(f"{button}.textContent"), page.run(paper)) == ("Theme: light", light[0])
    page.run(f"{button}.click()")
    assert (page.run(f"{button}.textContent"), page.run(paper)) == ("Theme: dark", dark[0])
    page.open(url, dark=False)
    assert page.run(paper) == dark[0]  # it is remembered
    page.run("localStorage.clear()")


def luminance(colour: str) -> float:
    channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page: Page, folder: Path, dark: bool) -> None:
    page.open((folder / "report.html").as_uri(), dark=dark)
    colours = page.run(
        """(() => { const of = (s, p) => getComputedStyle(document.querySelector(s))[p];
          const paper = of('body', 'backgroundColor');
          return [['body','color'],['.note','color'],['a[href]','color'],['figcaption','color']].map(
            ([s, p]) => [of(s, p), paper]).concat([[of('.notice','color'), of('.notice','backgroundColor')],
            [of('thead th','color'), of('thead th','backgroundColor')]]); })()"""
    )
    for text, ground in colours:
        a, b = sorted((luminance(text), luminance(ground)))
        assert (b + 0.05) / (a + 0.05) >= 4.5, (text, ground)


def test_nothing_but_tables_is_wider_than_a_phone(page: Page, folder: Path) -> None:
    page.open((folder / "report.html").as_uri(), width=390, height=844)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.said == []


def test_it_prints(opened: Page) -> None:
    pdf = opened.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000


def test_the_figures_on_the_page_are_those_of_the_json(opened: Page, folder: Path) -> None:
    body = json.loads((folder / "report.json").read_text())
    for section in body["sections"]:
        for table in section["tables"]:
            found = opened.run(
                f"[...document.querySelectorAll('#table-{table['id']} tbody tr')].map(r => "
                "[...r.cells].map(c => c.dataset.value === undefined ? null : JSON.parse(c.dataset.value)))"
            )
            assert found == [_numbers(table, row) for row in table["rows"]]


def _numbers(table: dict[str, Any], row: dict[str, Any]) -> list[Any]:
    kept = [c for c in table["columns"] if any(r.get(c["key"]) is not None for r in table["rows"])]
    return [None if c["kind"] in ("text", "mono") else row.get(c["key"]) for c in kept]
