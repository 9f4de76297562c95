"""One component of the stand-in's model: coarse distribution functions of its columns, and the copula between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from experiments.datasets.standin import SCALES
from experiments.datasets.types import FloatArray, Records

MIN_SHARE = 5
"""What fewer records of a component share is not kept as such."""

MAX_KNOTS = 24
"""Means between two shared values."""

MAX_FACTORS = 12

WEIGHT_FLOOR = 0.2
"""Least weight of a column among the factors, in benign standard deviations."""

SIMULATED = 2000
ROUNDS = 8


def knots(values: FloatArray, kin: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Coarse distribution function of integer values: (k,) probabilities and (k,) values, both ascending.

    A value that `MIN_SHARE` records (and 2 % of them) share keeps its mass. Between such, means of at least
    `MIN_SHARE` records (of log(1 + x)) stand in the middle of their mass, joined and continued by straight lines.
    Fewer records than that get one mean, of all records of their group or else class (`kin`: the same column there,
    nearest first) in the same interval, or join the value before.
    """
    ordered = np.sort(values)
    n = len(ordered)
    distinct, counts = np.unique(ordered, return_counts=True)
    atoms = distinct[counts >= max(MIN_SHARE, 0.02 * n)].tolist()
    p: list[float] = []
    v: list[float] = []
    start = 0
    for below, atom in zip([-1.0, *atoms], [*atoms, np.inf], strict=True):
        stop = int(np.searchsorted(ordered, atom, side="left"))
        within = [other[(other > below) & (other < atom)] for other in kin]
        # Rounding may lead past a shared value next to them.
        means = [max(below + 1, min(mean, atom - 1)) for mean in _means(ordered[start:stop], within)]
        if means:
            ends = _ends(means, below + 1, atom - 1)
            centres = start + (stop - start) * (np.arange(len(means)) + 0.5) / len(means)
            p += [float(start), *centres.tolist(), float(stop)]
            v += [ends[0], *means, ends[1]]
        elif stop > start and v:
            p[-1] = float(stop)
        if atom < np.inf:
            last = int(np.searchsorted(ordered, atom, side="right"))
            p += [float(stop) if p else 0.0, float(last)]
            v += [atom, atom]
            start = last
    if len(set(v)) == 1:
        return np.array([0.0]), np.array(v[:1])
    return np.array(p) / n, np.array(v)


def _means(stretch: FloatArray, kin: Sequence[FloatArray]) -> list[float]:
    """Means of log(1 + x) over pieces of equal size of a stretch between two shared values, ascending."""
    if len(stretch) == 0:
        return []
    if len(stretch) < MIN_SHARE:
        # Too few to tell about: the nearest kin that has enough such values says what they are like.
        like = next((values for values in kin if len(values) >= MIN_SHARE), None)
        return [] if like is None else [_round(float(np.expm1(np.log1p(like).mean())))]
    pieces = np.array_split(np.log1p(stretch), min(len(stretch) // MIN_SHARE, MAX_KNOTS))
    return [_round(float(np.expm1(piece.mean()))) for piece in pieces]


def _ends(means: list[float], lowest: float, highest: float) -> tuple[float, float]:
    """Values at both ends of a stretch: the outer half pieces continue the lines between the means."""
    logs = np.log1p(means)
    if len(means) == 1:
        return means[0], means[0]
    first, last = np.expm1([1.5 * logs[0] - 0.5 * logs[1], 1.5 * logs[-1] - 0.5 * logs[-2]])
    return max(lowest, min(means[0], _round(float(first)))), min(highest, max(means[-1], _round(float(last))))


def _round(value: float) -> float:
    """To a whole number of at most three digits."""
    return float(f"{round(value):.3g}")


def loadings(records: Records, functions: list[tuple[FloatArray, FloatArray]], scale: FloatArray) -> FloatArray:
    """(active, factors) matrix A whose copula gives log(1 + x) the correlations that the records have.

    Starts from the correlations of normal scores (middle ranks) and moves them by what the simulated columns miss,
    since shared values weaken correlations.

    Args:
        records: What the component stands for.
        functions: `knots` of its 38 columns.
        scale: (38,) standard deviations of log(1 + x) in the file's benign traffic.
    """
    active = [j for j, (p, _) in enumerate(functions) if len(p) > 1]
    if not active:
        return np.zeros((0, 0))
    n = len(records)
    real = np.log1p(records.numeric[:, active])
    target = _correlation(real)
    # Columns that vary much, in units of the whole file's benign traffic, are to be met best.
    weights = np.maximum(real.std(axis=0) / scale[active], WEIGHT_FLOOR)
    scores = ndtri((rankdata(real, axis=0) - 0.5) / n)
    latent = _correlation(scores)
    factors = min(MAX_FACTORS, len(active))
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((SIMULATED, factors)), rng.standard_normal((SIMULATED, len(active)))
    best: FloatArray = np.zeros((len(active), factors))
    least = np.inf
    for _ in range(ROUNDS):
        matrix = _factor(latent, weights, factors)
        z = common @ matrix.T + own * np.sqrt(np.clip(1.0 - np.sum(matrix**2, axis=1), 0.0, 1.0))
        u = ndtr(z)
        drawn = np.column_stack([np.rint(np.interp(u[:, i], *functions[j])) for i, j in enumerate(active)])
        miss = target - _correlation(np.log1p(drawn / SCALES[active]))
        if (error := float(np.sum((miss * np.outer(weights, weights)) ** 2))) < least:
            best, least = matrix, error
        latent = np.clip(latent + 0.7 * miss, -0.999, 0.999)
    return best


def _correlation(x: FloatArray) -> FloatArray:
    centred = x - x.mean(axis=0)
    norm = np.sqrt(np.sum(centred**2, axis=0))
    return (centred.T @ centred) / np.maximum(np.outer(norm, norm), 1e-12)


def _factor(correlation: FloatArray, weights: FloatArray, factors: int) -> FloatArray:
    """Principal factors of the weighted correlations, the unique variances iterated; rows no longer than one."""
    matrix = correlation * np.outer(weights, weights)
    np.fill_diagonal(matrix, weights**2)
    result = np.zeros((len(weights), factors))
    for _ in range(10):
        values, vectors = np.linalg.eigh(matrix)
        result = vectors[:, ::-1][:, :factors] * np.sqrt(np.maximum(values[::-1][:factors], 0.0)) / weights[:, None]
        length = np.sqrt(np.sum(result**2, axis=1))
        result = result / np.maximum(length, 1.0)[:, None]
        np.fill_diagonal(matrix, np.minimum(length, 1.0) ** 2 * weights**2)
    return result
