"""The rules that keep a single record out of the totals: what is merged, and what is left out.

Totals of products are sums of records, weighted by a column. Where a column differs from its mode for one record
alone, its row is that record. So every column in the products must be one in which at least `MIN_RECORDS` differ
from the mode, and none of them by far more than the others (the dominance rule of official statistics, Hundepool et
al., Statistical Disclosure Control, 2012, ch. 4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_RECORDS = 10

CELLS = 16
"""Of a numeric column's histogram: one for the public minimum, one for the maximum, the rest equal between them."""


def cells_of(transformed: FloatArray, top: float) -> IntArray:
    """(N,) cells of transformed values in [0, top].

    The ends have cells of their own, for most columns have their mode there. Records outside the fullest cell differ
    from the mode, and differ by enough to say so.
    """
    inner = 1 + np.clip(np.floor(transformed / top * (CELLS - 2)), 0, CELLS - 3).astype(np.int64)
    cells: IntArray = np.where(transformed <= 0.0, 0, np.where(transformed >= top, CELLS - 1, inner))
    return cells


def cell_edges(cell: int, top: float) -> tuple[float, float]:
    """Least and greatest transformed value of a cell."""
    if cell == 0:
        return 0.0, 0.0
    if cell == CELLS - 1:
        return top, top
    width = top / (CELLS - 2)
    return (cell - 1) * width, cell * width


def deviation(z: FloatArray, least: float, low: float, high: float, greatest: float) -> FloatArray:
    """(N,) distance of standardised values from [low, high], the edges of the modal cell, in [0, 1].

    1 is the greatest distance that any value in [least, greatest] can have. The sum over all records is therefore at
    least `MIN_RECORDS` only if at least that many deviate and none holds more than its 1/MIN_RECORDS of the sum.
    """
    farthest = max(low - least, greatest - high)
    if farthest <= 0.0:
        return np.zeros(len(z))
    return np.clip(np.maximum(low - z, z - high) / farthest, 0.0, 1.0)


def merge(counts: IntArray) -> tuple[tuple[int, ...], ...]:
    """Groups of categories, each of at least `MIN_RECORDS` records.

    Categories with fewer form one group; if that is still too small, the smallest of the others (the first of equal
    ones) joins it. A category is never left without a group: the other columns would then add up to all records but
    its own, and the difference would be those. What no record has belongs to the group as well, so that every word
    of the vocabulary has its place.

    Args:
        counts: (words,) records of each category.

    Returns:
        A partition of range(words), groups and members ascending; empty if it would be a single group.
    """
    rare = [code for code, n in enumerate(counts) if n < MIN_RECORDS]
    common = [code for code, n in enumerate(counts) if n >= MIN_RECORDS]
    if rare and common and sum(int(counts[code]) for code in rare) < MIN_RECORDS:
        smallest = min(common, key=lambda code: (int(counts[code]), code))
        common.remove(smallest)
        rare.append(smallest)
    groups = sorted(tuple(sorted(group)) for group in [*([code] for code in common), rare] if group)
    return tuple(groups) if len(groups) > 1 else ()
