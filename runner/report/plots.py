"""Plots of a report, drawn with matplotlib from plain values: the same picture as PNG, as an SVG file, and as an SVG
whose colours follow a page's.

    intervals   points with their intervals, one line a category, a colour and a marker a series
    bars        bars from zero with intervals, never cut
    lines       lines with bands or bars for intervals, also fits (`truth`: a cross at scale 0)
    steps       histograms, filled, from zero

Colours are Okabe and Ito's, told apart with any colour vision; series differ in marker and line besides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from runner.report.document import Plot

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
INK = "#1b1e23"
"""Of text and axes; a page puts its own in its place."""
GRID = "#8a9099"
WIDTH = 8.0
"""Inches; of one panel less."""
COLUMNS = 3

_RC = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "qrun",
    "savefig.transparent": True,
}


@contextmanager
def figure_of(plot: Plot) -> Iterator[Any]:
    """The drawn figure."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        panels = list(plot.data["panels"])
        columns = min(len(panels), COLUMNS)
        rows = -(-len(panels) // columns)
        height = _height(plot, rows)
        width = WIDTH if columns > 1 or plot.kind in ("intervals", "bars") else 5.6
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=plot.kind in ("intervals", "bars"))
        places: dict[str, int] = {}
        for panel in panels:
            for series in panel.get("series", ()):
                places.setdefault(series["label"], len(places))
        for k, axes in enumerate(grid.flat):
            if k >= len(panels):
                axes.set_axis_off()
                continue
            _DRAW[plot.kind](axes, panels[k], plot.data, places)
            if len(panels) > 1 or plot.kind in ("steps",):
                axes.set_title(_broken(panels[k]["title"]))
            if k // columns == rows - 1 or k + columns >= len(panels):
                axes.set_xlabel(plot.data["xlabel"])
                axes.tick_params(labelbottom=True)
            if k % columns == 0 and plot.kind not in ("intervals", "bars"):
                axes.set_ylabel(plot.data["ylabel"])
        if plot.kind == "bars":
            grid[0][0].set_xlim(0, _furthest(panels) * 1.06 or 1.0)
        _legend(figure, grid[0][0], plot)
        yield figure


def _furthest(panels: Sequence[Mapping[str, Any]]) -> float:
    """The right end of the longest bar, with its interval."""
    values = [v for panel in panels for series in panel["series"] for v in series["values"] if v is not None]
    return max((v["mean"] if v["high"] is None else max(v["high"], v["mean"]) for v in values), default=0.0)


def _height(plot: Plot, rows: int) -> float:
    if plot.kind in ("intervals", "bars"):
        count = len(plot.data["categories"])
        series = max(len(panel["series"]) for panel in plot.data["panels"])
        return rows * (0.7 + count * max(0.34, 0.15 * series + 0.1)) + 0.4
    if plot.data.get("square"):
        return rows * (3.1 if len(plot.data["panels"]) > 1 else 4.2) + 0.4
    return rows * (2.3 if rows > 1 else 2.7) + 0.4


def _broken(title: str) -> str:
    """A long title on two lines."""
    return title.replace(", ", ",\n", 1) if len(title) > 30 else title


def _legend(figure: Any, axes: Any, plot: Plot) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if plot.kind == "lines" and len(plot.data["panels"]) > 1:
        known = dict(zip(labels, handles, strict=True))
        for other in figure.axes:
            for handle, label in zip(*other.get_legend_handles_labels(), strict=True):
                known.setdefault(label, handle)
        labels, handles = list(known), list(known.values())
    if len(labels) > 1 or plot.kind == "steps":
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))


def _intervals(axes: Any, panel: Mapping[str, Any], data: Mapping[str, Any], places: Mapping[str, int]) -> None:
    categories = data["categories"]
    count = len(panel["series"])
    for row, series in enumerate(panel["series"]):
        k = places[series["label"]]
        offset = ((count - 1) / 2 - row) * min(0.22, 0.7 / max(count, 1))
        found = [(i, v) for i, v in enumerate(series["values"]) if v is not None]
        place = [len(categories) - 1 - i + offset for i, _ in found]
        axes.errorbar(
            [v["mean"] for _, v in found],
            place,
            xerr=_errors([v for _, v in found]),
            fmt=MARKERS[k % 7],
            color=COLOURS[k % 7],
            markersize=5,
            capsize=2.5,
            linewidth=1.3,
            label=series["label"],
        )
    if panel.get("reference") is not None:
        axes.axvline(panel["reference"], color=INK, linestyle=":", linewidth=1)
    _categories(axes, categories)


def _bars(axes: Any, panel: Mapping[str, Any], data: Mapping[str, Any], places: Mapping[str, int]) -> None:
    categories = data["categories"]
    count = len(panel["series"])
    thick = 0.8 / max(count, 1)
    for row, series in enumerate(panel["series"]):
        k = places[series["label"]]
        offset = ((count - 1) / 2 - row) * thick
        found = [(i, v) for i, v in enumerate(series["values"]) if v is not None]
        axes.barh(
            [len(categories) - 1 - i + offset for i, _ in found],
            [v["mean"] for _, v in found],
            height=thick * 0.92,
            xerr=_errors([v for _, v in found]),
            color=COLOURS[k % 7],
            hatch=("", "//", "..", "xx", "--", "++", "oo")[k % 7],
            edgecolor=INK,
            linewidth=0.5,
            error_kw={"ecolor": INK, "capsize": 2, "linewidth": 1},
            label=series["label"],
        )
    _categories(axes, categories)


def _categories(axes: Any, categories: Sequence[str]) -> None:
    axes.set_yticks(range(len(categories)), list(reversed(categories)))
    axes.set_ylim(-0.6, len(categories) - 0.4)
    axes.grid(axis="x", color=GRID, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)


def _errors(values: Sequence[Mapping[str, Any]]) -> Any:
    """Lengths below and above, or None where no value has an interval."""
    if all(v["low"] is None for v in values):
        return None
    low = [0.0 if v["low"] is None else v["mean"] - v["low"] for v in values]
    high = [0.0 if v["high"] is None else v["high"] - v["mean"] for v in values]
    return [low, high]


def _lines(axes: Any, panel: Mapping[str, Any], data: Mapping[str, Any], places: Mapping[str, int]) -> None:
    from matplotlib.ticker import MaxNLocator

    for series in panel["series"]:
        k = places[series["label"]]
        x, y = series["x"], [float("nan") if v is None else v for v in series["y"]]
        ink, thin = series.get("ink", False), series.get("thin", False)
        colour = INK if ink else COLOURS[k % 7]
        if data.get("fit"):
            axes.plot(x[1:], y[1:], marker=MARKERS[k % 7], markersize=4, linewidth=1, color=colour)
            axes.plot(x[:2], y[:2], linestyle=":", linewidth=1, color=colour)
            axes.plot(
                x[0], y[0], marker=MARKERS[k % 7], markersize=6, markerfacecolor="none", color=colour,
                linestyle="none", label=series["label"],
            )  # fmt: skip
            axes.plot(0.0, series["truth"], marker="x", markersize=6, color=INK, linestyle="none")
            continue
        plain = series.get("plain", False)
        axes.plot(
            x, y,
            color=colour,
            linestyle=LINES[k % 7] if plain else "-",
            marker=None if plain else "o" if ink else MARKERS[k % 7],
            markersize=4.5 if ink else 3.5,
            linewidth=2.0 if ink else 0.9 if thin else 1.4,
            label=series["label"],
        )  # fmt: skip
        low, high = series.get("low"), series.get("high")
        if low is not None and high is not None and any(v is not None for v in low):
            bounds = [[float("nan") if v is None else v for v in side] for side in (low, high)]
            if plain or ink or len(x) > 8:
                axes.fill_between(x, *bounds, color=colour, alpha=0.15, linewidth=0)
            else:
                reach = [
                    [a - b for a, b in zip(y, bounds[0], strict=True)],
                    [b - a for a, b in zip(y, bounds[1], strict=True)],
                ]
                axes.errorbar(x, y, yerr=reach, fmt="none", ecolor=colour, capsize=2.5, linewidth=1)
    if data.get("square"):
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=0.8, linestyle=":")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
        axes.set_aspect("equal")
    if data.get("whole"):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if data.get("ticks"):
        axes.set_xticks(range(len(data["ticks"])), data["ticks"])
    if data.get("ylim"):
        axes.set_ylim(*data["ylim"])
    axes.grid(color=GRID, alpha=0.3, linewidth=0.6)


def _steps(axes: Any, panel: Mapping[str, Any], data: Mapping[str, Any], places: Mapping[str, int]) -> None:
    for k, (name, label) in enumerate((("benign", "benign"), ("attack", "attacks"))):
        axes.stairs(panel[name], panel["edges"], fill=True, color=COLOURS[(0, 5)[k]], alpha=0.35, label=label)
        axes.stairs(panel[name], panel["edges"], color=COLOURS[(0, 5)[k]], linewidth=1, linestyle=("-", "--")[k])
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID, alpha=0.3, linewidth=0.6)


_DRAW = {"intervals": _intervals, "bars": _bars, "lines": _lines, "steps": _steps}

_ID = re.compile(r'(id="|xlink:href="#|url\(#)([^")]+)')


def draw(plot: Plot) -> tuple[bytes, str]:
    """(PNG, SVG) of a plot; the PNG on white."""
    with figure_of(plot) as figure:
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=150, transparent=False, facecolor="white", metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": plot.title})
    return png.getvalue(), svg.getvalue()


def inline(svg: str, plot: Plot) -> str:
    """An SVG as part of a page: without its head, with ids of its own, in the page's colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<title>.*?</title>", "", body, flags=re.DOTALL)
    body = _ID.sub(lambda found: f"{found[1]}{plot.id}-{found[2]}", body)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = body.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    return body.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
