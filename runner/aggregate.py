"""How models become one: the reputation-weighted mean, and what robust aggregation offers beside it.

Models are in fixed point (runner/update.py), and everything here is integer arithmetic: whoever has the models gets
the same aggregate, bit for bit. With n models p_k, of which f = floor(hostile share * n) are taken to be hostile:

    reputation    sum(w_k p_k) / sum(w_k)
    mean          the same with equal weights
    median        of each coordinate; of the middle two the mean
    trimmed-mean  of each coordinate the mean without the f lowest and the f highest (Yin et al., ICML 2018)
    krum          the model whose n - f - 2 nearest others are nearest (Blanchard et al., NIPS 2017)

Quotients are rounded half up. All but the first ignore the reputation.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from runner.update import Blocks, IntArray, UpdateError

MAX_WEIGHT_SUM = 255 * 10_000
"""Every node of the largest task at full reputation: 2 * 2**40 * MAX_WEIGHT_SUM stays inside 63 bits."""

METHODS = ("reputation", "mean", "median", "trimmed-mean", "krum")


def aggregate(models: Sequence[Blocks], weights: Sequence[int]) -> Blocks:
    """The weighted mean of models in fixed point, rounded half up: sum(w_i p_i) / sum(w_i), exact integers.

    Raises:
        UpdateError: no positive weight, a negative one, a sum over 2,550,000, or models of different shapes.
    """
    total = sum(weights)
    if not models or len(models) != len(weights) or total <= 0 or min(weights) < 0 or total > MAX_WEIGHT_SUM:
        raise UpdateError(f"cannot aggregate {len(models)} models with weights {list(weights)[:8]}.")
    _check_shapes(models)
    out: dict[str, IntArray] = {}
    for name, block in models[0].items():
        weighted = np.zeros(block.shape, dtype=np.int64)
        for model, weight in zip(models, weights, strict=True):
            weighted += np.int64(weight) * model[name]
        out[name] = (2 * weighted + total) // (2 * total)
    return out


def join(method: str, models: Sequence[Blocks], weights: Sequence[int], hostile_share: float) -> Blocks:
    """One model of many.

    Args:
        method: One of METHODS.
        models: name -> int64 array in fixed point, magnitudes up to 2**40; all of the same shapes.
        weights: One a model, 0 or more; only "reputation" heeds them.
        hostile_share: In [0, 0.5); what "trimmed-mean" and "krum" are set for.

    Raises:
        UpdateError: no models, weights that do not go with them, models of different shapes, an unknown method.
    """
    if method not in METHODS:
        raise UpdateError(f"unknown aggregation {method!r}.", f"Known: {', '.join(METHODS)}.")
    if not models or len(models) != len(weights):
        raise UpdateError(f"cannot join {len(models)} models with {len(weights)} weights.")
    if not 0 <= hostile_share < 0.5:
        raise UpdateError(f"the hostile share is at least 0 and less than 0.5, not {hostile_share}.")
    if method == "reputation":
        return aggregate(models, weights)
    if method == "mean":
        return aggregate(models, [1] * len(models))
    _check_shapes(models)
    hostile = int(Fraction(str(float(hostile_share))) * len(models))  # floats would make 29 % of 100 nodes 28
    if method == "krum":
        return {name: block.copy() for name, block in models[krum(models, hostile)].items()}
    trim = (len(models) - 1) // 2 if method == "median" else hostile
    return {name: _trimmed(np.stack([m[name] for m in models]), trim) for name in models[0]}


def krum(models: Sequence[Blocks], hostile: int) -> int:
    """The position of the model with the least sum of squared distances to its n - f - 2 nearest others.

    Krum asks for 2 f + 2 < n; of fewer models f is taken as large as that allows, and one neighbour is the least. Of
    equal models the first counts, of equal scores the model with the least parameters, in their order.
    """
    n = len(models)
    hostile = max(0, min(hostile, (n - 3) // 2))
    neighbours = max(1, n - hostile - 2)
    names = sorted(models[0])
    # Objects are Python's integers: squares of 2**41 leave 63 bits.
    flat = [np.concatenate([m[name].reshape(-1) for name in names]) for m in models]
    squared = [[0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i):
            apart = (flat[i] - flat[j]).astype(object)
            squared[i][j] = squared[j][i] = int(apart @ apart)
    scores = [sum(sorted(row[:i] + row[i + 1 :])[:neighbours]) for i, row in enumerate(squared)]
    best = min(scores)
    return min((i for i in range(n) if scores[i] == best), key=lambda i: flat[i].tolist())


def _trimmed(stack: IntArray, trim: int) -> IntArray:
    """(n, ...) -> (...): the mean of each coordinate without the `trim` lowest and highest, rounded half up."""
    kept = np.sort(stack, axis=0)[trim : len(stack) - trim]
    count = len(kept)
    out: IntArray = (2 * kept.sum(axis=0) + count) // (2 * count)
    return out


def _check_shapes(models: Sequence[Blocks]) -> None:
    shapes = {name: block.shape for name, block in models[0].items()}
    for model in models:
        if {name: block.shape for name, block in model.items()} != shapes:
            raise UpdateError("cannot aggregate models of different shapes.")
