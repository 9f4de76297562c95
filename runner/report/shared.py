"""What several sections of a report share: means over seeds, figures over rounds, small pictures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from runner.compare import stats
from runner.report.material import Training

PANELS = 12
"""Small pictures in one; more are left to the tables."""


def of(values: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean and interval over seeds; None of nothing."""
    return stats.interval([values[k] for k in sorted(values)]).to_dict() if values else None


def median(values: Iterable[float | None], scale: float = 1.0) -> float | None:
    """Of the values that are known, times `scale`; None of none."""
    known = [v for v in values if v is not None]
    return statistics.median(known) * scale if known else None


def mean_of(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    found = list(values)
    return statistics.fmean(found) if found else None


def cut(panels: Sequence[Any]) -> str:
    """What is said where only the first panels are drawn."""
    return f"The first {PANELS} of {len(panels)}; the table has all." if len(panels) > PANELS else ""


def rounds_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rounds of a result that counted."""
    return [r for r in result["rounds"] if not r["void"]]


def over_rounds(training: Training, figure: Callable[[Mapping[str, Any]], float | None]) -> dict[str, Any]:
    """A figure of each round: mean over seeds, with its interval."""
    numbers = sorted({int(r["number"]) for result in training.results.values() for r in rounds_of(result)})
    out: dict[str, Any] = {"x": numbers, "y": [], "low": [], "high": []}
    for number in numbers:
        found = {}
        for seed, result in training.results.items():
            value = next((figure(r) for r in rounds_of(result) if r["number"] == number), None)
            if value is not None:
                found[seed] = value
        one = of(found)
        for key, name in (("y", "mean"), ("low", "low"), ("high", "high")):
            out[key].append(None if one is None else one[name])
    return out
