"""Every format from one model: the same numbers, and nothing in a text is markup."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.image import imread

from circuits.errors import UsageError
from runner.report.document import Column, figures, interval, p_value, shown
from runner.report.formats import as_csv, as_json, as_latex, as_markdown
from runner.report.html import as_html
from runner.report.plots import draw, figure_of
from runner.report.write import write
from tests.runner.report.made_up import mean, report


def test_cells_are_shown_as_readers_expect() -> None:
    assert interval(mean(0.9123456)) == "0.9123 [0.9023, 0.9223]"
    assert interval(mean(-0.0123), 2, scale=100, sign=True) == "−1.23 [−2.23, −0.23]"
    assert interval(mean(0.5, None)) == "0.5000"
    assert [p_value(p) for p in (0.0, 0.0009, 0.001, 0.04999, 1.0)] == ["<0.001", "<0.001", "0.001", "0.050", "1.000"]
    assert [figures(x) for x in (0, 0.00702, 9.1e-5, 152.3, 12345.6, -0.5)] == [
        "0", "0.00702", "9.10e-05", "152", "12346", "−0.500",
    ]  # fmt: skip
    assert shown(None, Column("x", "x", "whole")) == "–"
    assert shown(12345, Column("x", "x", "whole")) == "12,345"


def test_json_has_every_number() -> None:
    made = report()
    body = json.loads(as_json(made))
    assert body["format"] == "qrun-report/1"
    assert body["sections"][0]["tables"][0]["rows"][0]["quality"]["mean"] == 0.9123456


def test_csv_has_every_number_and_no_formula() -> None:
    table = next(report().tables())
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert float(rows[0]["quality_mean"]) == 0.9123456
    assert rows[1]["quality_low"] == ""
    assert rows[3]["name"] == "'=1+1"
    assert [row["count"] for row in rows] == ["12345", "7", "900", ""]


def test_html_escapes_and_carries_the_numbers() -> None:
    made = report()
    page = as_html(made)
    assert "<script>document.title" not in page
    values = [json.loads(v.replace("&#34;", '"')) for v in re.findall(r'data-value="([^"]*)"', page)]
    expected = [
        row[c.key]
        for table in made.tables()
        for row in table.rows
        for c in table.columns
        if c.kind not in ("text", "mono") and row.get(c.key) is not None
    ]
    assert values == expected
    assert "empty" not in page.split("<thead>")[1].split("</thead>")[0]  # a column of nothing is left out
    assert re.findall(r'(?:src|href)="(?!data:,|#)([^"]*)"', page) == []
    assert 'http-equiv="refresh"' not in page


def test_markdown_has_the_numbers_and_no_markup_of_others() -> None:
    text = as_markdown(report())
    assert (
        "| b | 12,345 | 0.9123 [0.9023, 0.9223] | −1.23 [−2.23, −0.23] | <0.001 |".replace("<", r"\<")
        .replace("[", r"\[")
        .replace("]", r"\]")
        in text
    )
    assert "<script>" not in text.replace(r"\<script\>", "")
    assert "](plots/points.png)" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace(r"\|", "").count("|") for line in lines[:6]}) == 1


def test_latex_tables_are_balanced_and_hold_no_commands_of_others() -> None:
    text = as_latex(report())
    assert r"\input{x}" not in "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\textbackslash{}input\{x\}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.strip().splitlines()} == {6}
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 2
    assert all(ord(c) < 128 for c in body)


@pytest.mark.parametrize("number", range(5))
def test_plots_are_pictures(number: int, tmp_path: Path) -> None:
    plot = list(report().plots())[number]
    png, svg = draw(plot)
    (tmp_path / "x.png").write_bytes(png)
    assert min(imread(tmp_path / "x.png").shape[:2]) > 200
    assert ET.fromstring(svg).tag.endswith("svg")
    assert draw(plot)[1] == svg  # the same figures give the same file


def test_bars_begin_at_zero_and_hold_their_intervals() -> None:
    plot = next(p for p in report().plots() if p.kind == "bars")
    with figure_of(plot) as figure:
        for axes in figure.axes:
            low, high = axes.get_xlim()
            assert low == 0
            assert high >= 0.96


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and no report"):
        write(report(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is no folder"):
        write(report(), tmp_path / "thesis.tex")


def test_a_report_replaces_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(report(), out)
    (out / "plots" / "old.png").write_bytes(b"")
    files = write(report(), out)
    assert files[0].name == "report.html"
    assert not (out / "plots" / "old.png").exists()
    assert all(file.is_file() and file.stat().st_size for file in files)
