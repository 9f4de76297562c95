"""Histograms in fixed bins over public bounds: they add up over nodes, so quantiles come from totals alone.

A histogram is a (bins,) array of counts over [low, high] in equal bins. Within a bin records count as evenly spread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from experiments.features.secure_sum import SecureSum

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_COUNT = 2**40
"""More than any federation's records: a bin over it, or below zero, means that masks did not cancel."""


def count(values: FloatArray, low: float, high: float, bins: int) -> IntArray:
    """Counts per bin; values out of the bounds fall into the first or last bin (a contribution is bounded).

    Args:
        values: (N,), finite.
        low: Lower bound of the first bin.
        high: Upper bound of the last, above `low`.
        bins: How many, at least one.

    Returns:
        (bins,) counts.

    Raises:
        QrunError: A value is not finite.
        ValueError: Bounds or bins make no histogram.
    """
    _check_bounds(low, high, bins)
    if not np.isfinite(values).all():
        raise QrunError("a histogram was asked of values that are not finite.", "A model that diverged gives such.")
    place = np.floor((np.ascontiguousarray(values) - low) / (high - low) * bins)
    return np.bincount(np.clip(place, 0, bins - 1).astype(np.int64), minlength=bins).astype(np.int64)


def pooled(
    stage: str, values: Sequence[FloatArray], low: float, high: float, *, bins: int, secure_sum: SecureSum
) -> IntArray:
    """(bins,) counts over all nodes, of which only the total is seen.

    Args:
        stage: Names the sum; once in a task.
        values: One (N_i,) array a node.
        low: Public lower bound.
        high: Public upper bound.
        bins: Number of bins.
        secure_sum: How totals are taken.

    Raises:
        QrunError: The agreement failed: the total is no histogram.
    """
    counts = secure_sum(stage, [count(v, low, high, bins) for v in values])
    if counts.shape != (bins,) or (counts < 0).any() or (counts > MAX_COUNT).any():
        raise QrunError(
            f"the sum of stage {stage!r} failed: its total is no histogram.",
            "A node's contribution was damaged, or was masked with other keys than those registered.",
        )
    return counts


def quantile(counts: IntArray, low: float, high: float, q: float) -> float:
    """The value below which a share q of the records lies, interpolated within its bin.

    With N records and cumulative counts F_b it is the least x with F(x) = q N, F rising linearly within a bin; q = 0
    gives the lower edge of the first bin with records, q = 1 the upper edge of the last.

    Raises:
        QrunError: The histogram is empty.
        ValueError: q is not in [0, 1], or the bounds make no histogram.
    """
    _check_bounds(low, high, len(counts))
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile is taken at a share in [0, 1], not {q}")
    cumulative = np.cumsum(counts)
    n = int(cumulative[-1])
    if n == 0:
        raise QrunError("a quantile was asked of no records.", "The nodes hold no benign validation records.")
    wanted = q * n
    # For q = 0 side="left" would name the first bin, empty or not.
    place = int(np.searchsorted(cumulative, wanted, side="left" if q > 0 else "right"))
    before = int(cumulative[place] - counts[place])
    inside = (wanted - before) / int(counts[place])
    return low + (place + inside) * (high - low) / len(counts)


def edge_above(counts: IntArray, low: float, high: float, q: float) -> float:
    """The first edge of the bins that at least a share q of the records lies below.

    Raises:
        QrunError: The histogram is empty.
        ValueError: q is not in (0, 1], or the bounds make no histogram.
    """
    _check_bounds(low, high, len(counts))
    if not 0 < q <= 1:
        raise ValueError(f"an edge is taken at a share in (0, 1], not {q}")
    cumulative = np.cumsum(counts)
    n = int(cumulative[-1])
    if n == 0:
        raise QrunError("a quantile was asked of no records.", "The nodes hold no benign validation records.")
    place = int(np.searchsorted(cumulative, q * n, side="left"))
    return low + (place + 1) * (high - low) / len(counts)


def tail_probability(counts: IntArray, low: float, high: float, values: FloatArray) -> FloatArray:
    """How probable a value at least as large is, smoothed: (records above + 1) / (N + 1), never zero.

    Args:
        counts: (bins,) counts over [low, high].
        low: Lower bound.
        high: Upper bound.
        values: Any shape. Records of a value's own bin count as above it in proportion to what of the bin is.

    Returns:
        As `values`, in (0, 1], falling in `values`.
    """
    _check_bounds(low, high, len(counts))
    bins = len(counts)
    n = int(counts.sum())
    above = np.concatenate([np.cumsum(counts[::-1])[::-1], [0]]).astype(np.float64)
    position = np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low) * bins, 0.0, float(bins))
    place = np.minimum(position.astype(np.int64), bins - 1)
    inside = position - place
    result: FloatArray = (above[place] * (1.0 - inside) + above[place + 1] * inside + 1.0) / (n + 1.0)
    return result


def _check_bounds(low: float, high: float, bins: int) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low < high and bins >= 1):
        raise ValueError(f"no histogram has {bins} bins over [{low}, {high}]")
