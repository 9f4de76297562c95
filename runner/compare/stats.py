"""What a comparison says with figures: intervals over seeds, paired tests, corrections, distances. Pure functions.

interval         mean +- t(n - 1) s / sqrt(n), 95 % unless told otherwise; one value has none
paired test      of the mean difference of pairs (Student's t, two-sided); pairs that do not differ at all: p = 1
Holm             adjusted p of the k-th smallest of m: the largest of (m - j + 1) p_(j) over j <= k, at most 1
MMD^2            mean k(x, x') + mean k(y, y') - 2 mean k(x, y), without the diagonals (unbiased: it may be below
                 0); k(a, b) = exp(-|a - b|^2 / 2 h^2), h the median distance within the reference
Wasserstein-1    between the two samples of each feature, mean over features; sliced: mean over fixed directions
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVEL = 0.95
MOST = 1000
"""Records that a distance takes of each sample: evenly spaced ones of a longer one."""
DIRECTIONS = 64
"""Of the sliced distance; their seed is fixed."""
CURVE = 201
"""Points that a curve is kept with."""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` values with its interval; `low` and `high` are None for a single one."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and t interval.

    Args:
        values: One a seed, at least one.
        level: Of confidence.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError("there is no mean of no values")
    mean, n = float(found.mean()), len(found)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(0.5 + level / 2, n - 1) * float(found.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(share: float, degrees: int) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


@dataclass(frozen=True)
class Paired:
    """A mean difference over pairs.

    Attributes:
        difference: With its interval.
        p: Of the two-sided t test; None for a single pair.
        adjusted: The same by Holm over all comparisons that were made beside it; None where there is no p.
    """

    difference: Interval
    p: float | None
    adjusted: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**self.difference.to_dict(), "p": self.p, "p_holm": self.adjusted}


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Paired | None:
    """`values` against `reference`, by key (a seed) where both have one; None where no key is in both."""
    keys = sorted(values.keys() & reference.keys())
    if not keys:
        return None
    differences = np.array([values[k] - reference[k] for k in keys], dtype=np.float64)
    return Paired(interval(list(differences)), t_test(differences))


def t_test(differences: FloatArray) -> float | None:
    """p of the two-sided one-sample t test against 0: (n,) -> p; None for one value."""
    from scipy.special import stdtr

    n = len(differences)
    if n < 2:
        return None
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return 1.0 if abs(mean) <= 1e-12 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (spread / math.sqrt(n))))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted by Holm's step-down rule, in the given order; None stays None and counts for nothing."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    out: list[float | None] = [None] * len(values)
    highest = 0.0
    for place, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p))
        out[i] = highest
    return out


# -- distances --------------------------------------------------------------------------------------------------------


def thinned(x: FloatArray, most: int = MOST) -> FloatArray:
    """Evenly spaced rows of (N, ...), at most so many."""
    return x if len(x) <= most else x[np.linspace(0, len(x) - 1, most).round().astype(np.int64)]


def bandwidth(x: FloatArray) -> float:
    """The median distance between two rows of (N, d); 1 where all are the same."""
    x = thinned(np.asarray(x, dtype=np.float64))
    upper = np.triu_indices(len(x), 1)
    squared = _squared(x, x)[upper]
    found = float(np.sqrt(np.median(squared))) if len(squared) else 0.0
    return found if found > 0 else 1.0


def _squared(x: FloatArray, y: FloatArray) -> FloatArray:
    out: FloatArray = np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T, 0.0)
    return out


def mmd2(x: FloatArray, y: FloatArray, width: float) -> float:
    """Unbiased squared maximum mean discrepancy of (N, d) and (M, d), Gaussian kernel of that width."""
    x, y = thinned(np.asarray(x, dtype=np.float64)), thinned(np.asarray(y, dtype=np.float64))
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError("a distance needs two records of each sample")
    scale = -1.0 / (2 * width**2)
    within_x = (np.exp(scale * _squared(x, x)).sum() - n) / (n * (n - 1))
    within_y = (np.exp(scale * _squared(y, y)).sum() - m) / (m * (m - 1))
    return float(within_x + within_y - 2 * np.exp(scale * _squared(x, y)).mean())


def wasserstein(x: FloatArray, y: FloatArray) -> float:
    """Wasserstein-1 of each feature of (N, d) and (M, d), mean over features."""
    from scipy.stats import wasserstein_distance

    return float(np.mean([wasserstein_distance(x[:, j], y[:, j]) for j in range(x.shape[1])]))


def sliced_wasserstein(x: FloatArray, y: FloatArray, directions: int = DIRECTIONS) -> float:
    """Wasserstein-1 of the projections onto fixed random directions, mean over them."""
    rng = np.random.default_rng(0)
    lines = rng.normal(size=(x.shape[1], directions))
    lines /= np.linalg.norm(lines, axis=0)
    return wasserstein(thinned(x) @ lines, thinned(y) @ lines)


# -- curves -----------------------------------------------------------------------------------------------------------


def roc(scores: FloatArray, attack: BoolArray) -> dict[str, list[float]]:
    """False and true positive rates as the threshold falls from above all scores, (0, 0) to (1, 1).

    Thinned to `CURVE` points evenly spaced along the curve; empty where a class is absent.
    """
    positives = int(attack.sum())
    negatives = len(attack) - positives
    if not positives or not negatives:
        return {"fpr": [], "tpr": []}
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # one point a distinct score
    hits = np.cumsum(attack[order])[ends]
    fpr = np.concatenate([[0.0], (ends + 1 - hits) / negatives])
    tpr = np.concatenate([[0.0], hits / positives])
    if len(fpr) > CURVE:
        along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(fpr)) + np.abs(np.diff(tpr)))])
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], CURVE)).clip(0, len(fpr) - 1))
        fpr, tpr = fpr[kept], tpr[kept]
    return {"fpr": [round(float(v), 6) for v in fpr], "tpr": [round(float(v), 6) for v in tpr]}


def mean_roc(curves: Sequence[Mapping[str, Sequence[float]]], points: int = 101) -> dict[str, list[float]]:
    """Curves as one: mean, lowest and highest true positive rate over a grid of false positive rates."""
    grid = np.linspace(0.0, 1.0, points)
    rates = np.stack([np.interp(grid, c["fpr"], c["tpr"]) for c in curves])
    return {
        "fpr": grid.tolist(),
        "mean": rates.mean(0).tolist(),
        "low": rates.min(0).tolist(),
        "high": rates.max(0).tolist(),
    }


def histogram(scores: FloatArray, attack: BoolArray, bins: int = 40) -> dict[str, list[float]]:
    """Shares of benign records and of attacks by score, in even bins from the lowest score to the highest."""
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    out = {"edges": [round(float(v), 6) for v in edges]}
    for name, rows in (("benign", ~attack), ("attack", attack)):
        counts = np.histogram(scores[rows], edges)[0]
        out[name] = [round(float(v), 6) for v in counts / max(1, counts.sum())]
    return out
