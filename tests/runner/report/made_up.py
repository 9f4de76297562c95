"""A report of made-up figures: every kind of cell and of plot, and texts that are markup elsewhere."""

from __future__ import annotations

from typing import Any

from runner.report.document import Column, Plot, Report, Section, Table

HOSTILE = '<script>document.title="taken"</script> & "quotes" | `code` \\input{x} 100 % _a_ $x$'


def mean(value: float, half: float | None = 0.01) -> dict[str, Any]:
    low, high = (None, None) if half is None else (value - half, value + half)
    return {"mean": value, "low": low, "high": high, "n": 5}


def report() -> Report:
    columns = (
        Column("name", "name"),
        Column("count", "count", "whole"),
        Column("quality", "AUROC", "interval"),
        Column("apart", "difference", "points", 2, "points"),
        Column("p", "p", "p"),
        Column("error", "error", "figures", 3),
        Column("model", "model", "mono"),
        Column("empty", "empty", "fixed"),
    )
    rows = (
        {"name": "b", "count": 12345, "quality": mean(0.9123456), "apart": mean(-0.0123), "p": 0.0004, "error": 9.1e-5},
        {"name": "a", "count": 7, "quality": mean(0.95, None), "p": 0.25, "error": 0.0123, "model": "bafk"},
        {"name": HOSTILE, "count": 900, "quality": mean(0.5), "apart": mean(0.02), "p": 1.0, "error": 0.0},
        {"name": "=1+1", "count": None},
    )
    points = {"categories": ["x", "y"], "xlabel": "AUROC", "panels": [
        {"title": "one", "series": [{"label": "no mitigation", "values": [mean(0.9), mean(0.8, None)]},
                                    {"label": "zne", "values": [None, mean(0.85)]}], "reference": 0.91},
        {"title": "two", "series": [{"label": "zne", "values": [mean(0.95), None]}]},
    ]}  # fmt: skip
    line = {"label": "node 0", "x": [1, 2, 3], "y": [0.1, None, 0.3], "low": [0.0, None, 0.2], "high": [0.2, None, 0.4]}
    fit = {"label": "⟨Z0⟩", "x": [0.0, 1.0, 3.0], "y": [0.9, 0.8, 0.6], "truth": 0.91}
    lines = {"xlabel": "round", "ylabel": "AUROC", "panels": [{"title": "one", "series": [line]}]}
    fits = {"xlabel": "noise scale", "ylabel": "⟨Z⟩", "fit": True, "panels": [{"title": "one", "series": [fit]}]}
    steps = {"xlabel": "score", "ylabel": "share", "panels": [
        {"title": f"$x_{HOSTILE[:20]}$", "edges": [0.0, 1.0, 2.0], "benign": [0.9, 0.1], "attack": [0.2, 0.8]}
    ]}  # fmt: skip
    plots = (
        Plot("points", "Points", "Points with intervals.", "intervals", points),
        Plot("bars", "Bars", "Bars from zero.", "bars", points),
        Plot("lines", "Lines", f"A line. {HOSTILE}", "lines", lines, "A note."),
        Plot("fits", "Fits", "A fit.", "lines", fits),
        Plot("steps", "Steps", "Histograms.", "steps", steps),
    )
    section = Section(
        "all", "All of it", (f"Text. {HOSTILE}",), (Table("made", "Made up", columns, rows, HOSTILE),), plots
    )
    few = Table("few", "Few", (Column("x", "x", "whole"),), ({"x": 1},))
    sections = (section, Section("few", "Few", (), (few,)), Section("more", "More", ("Text.",)))
    return Report(f"A title {HOSTILE}", ("One.", "Two.", "Three."), ("Stand-in data.",), sections, {"made": "now"})
