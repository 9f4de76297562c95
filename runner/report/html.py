"""A report as one HTML file that needs nothing else: styles, script and plots are in it, and it asks no network."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from runner.report.document import NUMERIC, Column, Plot, Report, Section, Table, order_of, shown
from runner.report.formats import filled_columns
from runner.report.plots import draw, inline


@functools.cache
def _page() -> Any:
    """The template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("runner.report", "page"), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )
    return made.get_template("report.html.j2")


@functools.cache
def _asset(name: str) -> Any:
    from markupsafe import Markup

    return Markup(files("runner.report").joinpath("page", name).read_text(encoding="utf-8"))  # our own files


def as_html(
    report: Report,
    svgs: Mapping[str, str] | None = None,
    *,
    refresh: int | None = None,
    back: str | None = None,
) -> str:
    """The page.

    Args:
        report: What to show.
        svgs: Plots that are drawn already, by id.
        refresh: Seconds after which a live page asks again.
        back: Link to the page above.
    """
    drawn = dict(svgs or {})
    return str(
        _page().render(
            title=report.title,
            sentences=report.sentences,
            notices=report.notices,
            sections=[_section(section, drawn) for section in report.sections],
            about=_about(report.about),
            style=_asset("style.css"),
            script=_asset("page.js"),
            refresh=refresh,
            back=back,
        )
    )


def _section(section: Section, drawn: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": section.id,
        "title": section.title,
        "text": section.text,
        "plots": [_plot(plot, drawn) for plot in section.plots],
        "tables": [_table(table) for table in section.tables],
    }


def _plot(plot: Plot, drawn: Mapping[str, str]) -> dict[str, Any]:
    from markupsafe import Markup

    svg = drawn[plot.id] if plot.id in drawn else draw(plot)[1]
    small = len(plot.data["panels"]) == 1 and plot.kind in ("lines", "steps")
    # matplotlib escapes the texts of its SVG, and `inline` leaves only its own elements.
    return {"id": plot.id, "title": plot.title, "alt": plot.alt, "note": plot.note, "small": small,
            "svg": Markup(inline(svg, plot))}  # fmt: skip


def _table(table: Table) -> dict[str, Any]:
    columns = filled_columns(table)
    return {
        "id": table.id,
        "title": table.title,
        "note": table.note,
        "columns": [
            {"head": c.head, "numeric": c.kind in NUMERIC, "css": "number" if c.kind in NUMERIC else c.kind}
            for c in columns
        ],
        "rows": [[_cell(row.get(c.key), c) for c in columns] for row in table.rows],
    }


def _cell(value: Any, column: Column) -> dict[str, Any]:
    raw = None if value is None or column.kind not in NUMERIC else json.dumps(value, sort_keys=True)
    href = f"/runs/{quote(str(value), safe='')}" if column.kind == "link" and value is not None else None
    return {"text": shown(value, column), "order": order_of(value), "raw": raw, "href": href}


def _about(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    out = []
    for name, value in about.items():
        if name == "versions":
            text = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        elif name == "data":
            hashes = ", ".join(f"{k} {str(v)[:12]}…" for k, v in value["sha256"].items())
            text = f"{value['name']}, {value['source']}; SHA-256: {hashes}"
        elif isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        else:
            text = str(value)
        out.append((name, text))
    return out
