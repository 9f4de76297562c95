"""The table's figures, from cells made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.attack.cells import ALONE, Cell, Line
from runner.attack.summary import columns, found, kept, markdown, summarise


def line(seed: int, attack: str, auroc: float, *, flagged: tuple[int | None, ...] = (), joined: str = "reputation",
         excluded: tuple[int | None, ...] = (), honest: tuple[int, int] = (0, 0), votes: int = 10) -> Line:  # fmt: skip
    return Line(Cell("iid", seed, attack, joined), flagged, excluded, *honest, votes, auroc, 1.0)


LINES = [
    line(0, ALONE, 0.98, joined="mean"),
    line(1, ALONE, 0.96, joined="mean"),
    line(0, "sign-flip", 0.97, flagged=(1, 1, 4), excluded=(2, 7, None)),
    line(1, "sign-flip", 0.98, flagged=(1, 2, 3), excluded=(2, 2, 6), honest=(2, 1)),
    line(0, "sign-flip", 0.5, joined="mean"),
    line(0, "moments", 0.95, votes=6),
    line(1, "moments", 0.96, votes=7),
]


def test_a_row_counts_what_is_told() -> None:
    flip, moments = summarise(LINES, 10)
    assert (flip.attack, flip.seeds, flip.hostile) == ("sign-flip", 2, 6)
    assert flip.flag == (2, 4)
    assert flip.exclude == (6, None)
    assert flip.flagged == pytest.approx(5 / 6)
    assert flip.excluded == pytest.approx(4 / 6)
    assert (flip.honest_flagged, flip.honest_excluded) == (2, 1)
    assert flip.points["reputation"].mean == pytest.approx(0.5)
    assert flip.points["reputation"].worst == pytest.approx(-1.0)
    assert flip.points["mean"].mean == pytest.approx(-48.0)
    assert (moments.hostile, moments.refused) == (0, 1)


def test_slow_nodes_are_counted_by_themselves_where_nobody_waits() -> None:
    rows = summarise([replace(one, slow=(4, one.honest_flagged, 0)) for one in LINES], 10)
    assert rows[0].slow == (8, 2, 0)
    assert rows[0].to_json()["slow_flagged"] == 2
    assert found(rows[0], 10)[-2:] == ["2 of 8", "0 of 8"]
    assert columns(rows)[-2:] == ("slow flagged", "slow excluded")
    assert "| 2 of 8 | 0 of 8 | +0.5 (-1.0)" in markdown(rows, 10)
    assert "slow" not in summarise(LINES, 10)[0].to_json()


def test_it_is_said_in_words_and_in_markdown() -> None:
    rows = summarise(LINES, 10)
    assert found(rows[0], 10) == ["sign-flip", "2 (4)", "83%", "6 (never)", "67%", "2 of 14", "1 of 14", "0 of 2"]
    assert kept(rows[0], ["reputation", "mean", "krum"]) == ["sign-flip", "+0.5 (-1.0)", "-48.0 (-48.0)", "-"]
    assert found(rows[1], 10)[1:5] == ["-"] * 4
    text = markdown(rows, 10)
    assert "| sign-flip | 2 (4) | 83% | 6 (never) | 67% | 2 of 14 | 1 of 14 | 0 of 2 | +0.5 (-1.0) | -48.0" in text
    table = [row for row in text.splitlines() if row.startswith("|")]
    assert len({row.count("|") for row in table}) == 1
