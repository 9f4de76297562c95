"""Means over seeds with t intervals, and paired comparisons with effect size and power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; `half` is half of its 95 % t interval, None with one seed."""

    mean: float
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one value a seed."""
        n = len(values)
        if n < 2:
            return cls(float(np.mean(values)), None)
        return cls(float(np.mean(values)), _t(n) * float(np.std(values, ddof=1)) / math.sqrt(n))


@dataclass(frozen=True)
class Paired:
    """One model against another over the same seeds.

    Attributes:
        seeds: Pairs.
        mean: Of the differences (first less second).
        low, high: Its 95 % t interval; None with one seed.
        effect: Cohen's d_z: mean over standard deviation of the differences; None where there is no deviation.
        p: Of the paired two-sided t test; None where there is none.
        power: Of that test at 5 %, were the true effect the one observed.
        detectable: The difference that it would find with a power of 80 %, at this number of seeds and this deviation.
    """

    seeds: int
    mean: float
    low: float | None
    high: float | None
    effect: float | None
    p: float | None
    power: float | None
    detectable: float | None

    @property
    def none(self) -> bool | None:
        """Whether the interval includes 0; None where there is no interval."""
        return None if self.low is None or self.high is None else self.low <= 0.0 <= self.high


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare, seed by seed."""
    from scipy.stats import t as student

    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return Paired(n, mean, None, None, None, None, None, None)
    deviation = float(np.std(differences, ddof=1))
    if deviation == 0.0:
        return Paired(n, mean, mean, mean, None, None, None, None)
    half = _t(n) * deviation / math.sqrt(n)
    effect = mean / deviation
    p = 2 * float(student.sf(abs(effect) * math.sqrt(n), n - 1))
    return Paired(n, mean, mean - half, mean + half, effect, p, power(effect, n), _detectable(n) * deviation)


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for how many they are, by Holm's step-down rule."""
    out, greatest = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        greatest = max(greatest, min(1.0, (len(p) - rank) * p[place]))
        out[place] = greatest
    return out


def power(effect: float, n: int) -> float:
    """Chance that a two-sided paired t test at 5 % of n pairs finds an effect d_z."""
    from scipy.stats import nct

    edge, shift = _t(n), effect * math.sqrt(n)
    found = float(nct.sf(edge, n - 1, shift) + nct.cdf(-edge, n - 1, shift))
    return min(1.0, found) if math.isfinite(found) else 1.0


def _detectable(n: int, wanted: float = 0.8) -> float:
    """The effect d_z that is found with this power."""
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, n) < wanted else (low, middle)
    return high


def _t(n: int) -> float:
    from scipy.stats import t as student

    return float(student.ppf((1 + LEVEL) / 2, n - 1))
