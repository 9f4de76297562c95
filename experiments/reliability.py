"""A score as a probability: isotonic regression on counts, and how far what is said is from what comes true.

The probability of an attack is that of the mix of traffic that the counts are of (about one attack in two in NSL-KDD's
training file). Where attacks are rarer, it is too high; the order of records stays.
"""

from __future__ import annotations

import numpy as np

from experiments.metrics import BoolArray, FloatArray, IntArray


def isotonic(benign: IntArray, attack: IntArray) -> FloatArray:
    """(bins,) probability of an attack by bin of the score, never falling; pool-adjacent-violators.

    Each pool's share is (attacks + 1) / (records + 2), so that none is 0 or 1.

    Args:
        benign: (bins,) counts of benign scores, at least one record in benign and attack together.
        attack: (bins,) counts of attack scores.
    """
    pools: list[list[float]] = []  # attacks, records, bins
    for hits, others in zip(attack.tolist(), benign.tolist(), strict=True):
        pools.append([hits, hits + others, 1])
        # A pool without records joins the one before it; so do pools whose share falls.
        while len(pools) > 1 and (
            pools[-1][1] == 0 or pools[-2][1] == 0 or pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]
        ):
            last = pools.pop()
            pools[-1] = [one + other for one, other in zip(pools[-1], last, strict=True)]
    shares = np.array([(hits + 1) / (records + 2) for hits, records, _ in pools])
    # The smoothing pulls small pools to a half; what it would turn around stays in order.
    return np.repeat(np.maximum.accumulate(shares), [int(bins) for _, _, bins in pools])


def probability(by_bin: FloatArray, scores: FloatArray, low: float, high: float) -> FloatArray:
    """(N,) the probability of each score's bin over [low, high]."""
    place = np.floor((scores - low) / (high - low) * len(by_bin))
    return by_bin[np.clip(place, 0, len(by_bin) - 1).astype(np.int64)]


def reliability(chances: FloatArray, attack: BoolArray, bins: int = 10) -> tuple[float, list[tuple[int, float, float]]]:
    """The expected calibration error, and (records, mean probability, share of attacks) by bin of the probability."""
    place = np.clip((chances * bins).astype(np.int64), 0, bins - 1)
    rows = []
    for k in range(bins):
        own = place == k
        if own.any():
            rows.append((int(own.sum()), float(chances[own].mean()), float(attack[own].mean())))
    error = sum(n * abs(said - true) for n, said, true in rows) / len(chances)
    return error, rows
