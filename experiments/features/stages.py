"""The five stages of the agreement; `agreement` says how they are run."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from experiments.datasets.schema import NUMERIC, VOCABULARIES
from experiments.datasets.types import Records
from experiments.features import disclosure
from experiments.features.eigen import symmetric_eigen
from experiments.features.encoding import (
    CLIP,
    ONE_HOT,
    SD_FLOOR,
    TOPS,
    Columns,
    category_codes,
    standardise,
    transform,
    transform_numeric,
)
from experiments.features.histogram import count, quantile
from experiments.features.map import FeatureMap, project, raw_bounds
from experiments.features.stage import MAX_RECORDS, Stage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BINS = 4096
OUTER = 0.01
"""The quantiles OUTER and 1 - OUTER of benign records set a feature's scale."""


class Counts(Stage):
    """How many records: in all, in each cell of each numeric column, in each category."""

    title = "counts"

    @property
    def length(self) -> int:
        """One, a histogram a numeric column, a count a word."""
        return 1 + disclosure.CELLS * len(NUMERIC) + sum(len(VOCABULARIES[which]) for which in ONE_HOT)

    @property
    def bound(self) -> int:
        """A record counts once."""
        return 1

    def contribution(self, records: Records) -> IntArray:
        """Counts of a node's records."""
        parts = [np.array([len(records)], dtype=np.int64)]
        for i in range(len(NUMERIC)):
            cells = disclosure.cells_of(transform_numeric(records, i), TOPS[i])
            parts.append(np.bincount(cells, minlength=disclosure.CELLS).astype(np.int64))
        for which in ONE_HOT:
            codes = category_codes(records, which)
            parts.append(np.bincount(codes, minlength=len(VOCABULARIES[which])).astype(np.int64))
        return np.concatenate(parts)

    def advance(self, total: IntArray) -> Stage:
        """Settles which columns can be in the map, and how categories are merged."""
        self.check_bounds(total)
        n = int(total[0])
        self.require(0 <= n <= MAX_RECORDS and bool((total >= 0).all()), "a count is impossible")
        split = np.cumsum([1] + [disclosure.CELLS] * len(NUMERIC) + [len(VOCABULARIES[w]) for w in ONE_HOT])
        parts = np.split(total[1:], split[1:-1] - 1)
        self.require(all(int(part.sum()) == n for part in parts), "the counts do not add up")
        numeric, words = parts[: len(NUMERIC)], parts[len(NUMERIC) :]
        kept = tuple(i for i, cells in enumerate(numeric) if n - int(cells.max()) >= disclosure.MIN_RECORDS)
        groups = tuple(disclosure.merge(counts) for counts in words)
        columns = Columns(kept, groups)
        if len(columns) == 0:
            raise QrunError(
                f"the nodes' {n} benign records are too few or too alike for a feature map that gives none away.",
                f"At least {disclosure.MIN_RECORDS} records have to differ from the rest in some column.",
            )
        modal = np.array([int(numeric[i].argmax()) for i in kept], dtype=np.int64)
        return Moments(self.features, self.settled(total), records=n, columns=columns, cells=modal)


class Moments(Stage):
    """Sums and sums of squares of the transformed columns, as parts of their public spans."""

    title = "moments"

    @property
    def length(self) -> int:
        """A sum and a sum of squares a column."""
        return 2 * len(self.columns)

    @property
    def bound(self) -> int:
        """1 in fixed point, with as many binary places as the records leave room for, at most 50."""
        return 1 << min(50, 62 - self.records.bit_length())

    def contribution(self, records: Records) -> IntArray:
        """Sums over a node's records."""
        u = transform(records, self.columns) / self.columns.spans[:, None]
        return np.concatenate([_fixed(u, self.bound).sum(1), _fixed(u * u, self.bound).sum(1)])

    def advance(self, total: IntArray) -> Stage:
        """Settles mean and standard deviation."""
        self.check_bounds(total)
        self.require(bool((total >= 0).all()), "a sum of squares is negative")
        p, n = len(self.columns), self.records
        mean, sd = np.empty(p), np.empty(p)
        for i, span in enumerate(self.columns.spans):
            first, second = int(total[i]), int(total[p + i])
            # Exact integers, so nothing cancels: n^2 var = n sum(u^2) - (sum u)^2. Rounding can leave it below zero.
            variance = max(0, n * second * self.bound - first * first) / (n * self.bound) ** 2
            mean[i] = first / (n * self.bound) * span
            sd[i] = max(math.sqrt(variance) * span, SD_FLOOR)
        return Spread(
            self.features, self.settled(total), records=n, columns=self.columns, cells=self.cells, mean=mean, sd=sd
        )


class Spread(Stage):
    """How far the records of a numeric column lie from its mode, in units of the farthest that one could."""

    title = "spread"

    @property
    def length(self) -> int:
        """One sum a numeric column."""
        return max(1, len(self.columns.numeric))

    @property
    def bound(self) -> int:
        """1 in fixed point."""
        return 1 << 20

    def contribution(self, records: Records) -> IntArray:
        """Sums over a node's records."""
        out = np.zeros(self.length, dtype=np.int64)
        q = len(self.columns.numeric)
        table = transform(records, Columns(self.columns.numeric, ((),) * len(ONE_HOT)))
        z = standardise(table, self.mean[:q], self.sd[:q])
        for row, index in enumerate(self.columns.numeric):
            low, high = disclosure.cell_edges(int(self.cells[row]), TOPS[index])
            ends = np.clip((np.array([0.0, low, high, TOPS[index]]) - self.mean[row]) / self.sd[row], -CLIP, CLIP)
            out[row] = _fixed(disclosure.deviation(z[row], *ends), self.bound).sum()
        return out

    def advance(self, total: IntArray) -> Stage:
        """Leaves out the columns of which a few records hold most of what there is to see."""
        self.check_bounds(total)
        self.require(bool((total >= 0).all()), "a distance is negative")
        q = len(self.columns.numeric)
        keep = np.ones(len(self.columns), dtype=np.bool_)
        keep[:q] = total[:q] >= disclosure.MIN_RECORDS * self.bound
        kept = tuple(i for i, yes in zip(self.columns.numeric, keep[:q], strict=True) if yes)
        columns = Columns(kept, self.columns.groups)
        if len(columns) == 0:
            raise QrunError(
                "the nodes' benign records are too alike for a feature map that gives none away.",
                f"At least {disclosure.MIN_RECORDS} records have to differ clearly from the rest in some column.",
            )
        return Products(
            self.features,
            self.settled(total),
            records=self.records,
            columns=columns,
            cells=self.cells[keep[:q]],
            mean=self.mean[keep],
            sd=self.sd[keep],
        )


class Products(Stage):
    """Products of all pairs of standardised columns and a constant 1: their sums and cross-products."""

    title = "products"

    @property
    def length(self) -> int:
        """The upper triangle, row by row; the constant comes first."""
        return (len(self.columns) + 1) * (len(self.columns) + 2) // 2

    @property
    def _one(self) -> int:
        return 1 << min(40, 57 - self.records.bit_length())

    @property
    def bound(self) -> int:
        """4 times 4 in fixed point, with as many binary places as the records leave room for, at most 40."""
        return int(CLIP * CLIP) * self._one

    def contribution(self, records: Records) -> IntArray:
        """Sums over a node's records, each product rounded by itself."""
        p = len(self.columns) + 1
        # Integers of at most 2^44 add up exactly in double precision, in any order, while there are at most 2^9.
        rows = 512
        out = np.zeros((p, p), dtype=np.int64)
        buffer = np.empty((p, rows))
        for start in range(0, len(records), 16 * rows):
            batch = records.take(np.arange(start, min(start + 16 * rows, len(records))))
            z = np.ones((p, len(batch)))
            z[1:] = standardise(transform(batch, self.columns), self.mean, self.sd)
            for begin in range(0, len(batch), rows):
                part = np.ascontiguousarray(z[:, begin : begin + rows])
                scaled = part * float(self._one)
                for i in range(p):
                    products = buffer[i:, : part.shape[1]]
                    np.multiply(scaled[i:], part[i], out=products)
                    np.rint(products, out=products)
                    out[i, i:] += products.sum(1).astype(np.int64)
        return out[np.triu_indices(p)]

    def advance(self, total: IntArray) -> Stage:
        """Settles centre and principal components."""
        self.check_bounds(total)
        p, n = len(self.columns), self.records
        table = np.zeros((p + 1, p + 1), dtype=object)
        table[np.triu_indices(p + 1)] = [int(v) for v in total]
        first, squares = table[0, 1:], np.diag(table)[1:]
        self.require(int(table[0, 0]) == n * self._one, "the constant does not add up")
        self.require(all(v >= 0 for v in squares), "a sum of squares is negative")
        centre = np.array([int(v) / (n * self._one) for v in first])
        covariance = np.empty((p, p))
        for i in range(p):
            for j in range(i, p):
                exact = n * self._one * table[i + 1, j + 1] - first[i] * first[j]
                covariance[i, j] = covariance[j, i] = exact / (n * self._one) ** 2
        values, vectors = symmetric_eigen(covariance)
        # Rounding moves each eigenvalue by p units of the fixed point at most.
        noise = 2.0 * p / self._one + 1e-12 * float(values[0])
        self.require(float(values[-1]) >= -noise, "the products are those of no records")
        self.require(float(values[0]) > noise, "all records are alike")
        components = np.zeros((self.features - 1, p))
        real = min(self.features - 1, int(np.count_nonzero(values > noise)))
        components[:real] = vectors[:real]
        return Ranges(
            self.features,
            self.settled(total),
            records=n,
            columns=self.columns,
            cells=self.cells,
            mean=self.mean,
            sd=self.sd,
            centre=centre,
            components=components,
        )


class Ranges(Stage):
    """Histograms of the raw features over bounds that follow from the clip."""

    title = "ranges"

    @property
    def length(self) -> int:
        """A histogram a feature."""
        return self.features * BINS

    @property
    def bound(self) -> int:
        """A record counts once."""
        return 1

    def contribution(self, records: Records) -> IntArray:
        """Counts of a node's records."""
        raw = project(records, self.columns, mean=self.mean, sd=self.sd, centre=self.centre, components=self.components)
        bounds = zip(*raw_bounds(self.centre, self.components), strict=True)
        return np.concatenate([count(x, lo, hi, BINS) for x, (lo, hi) in zip(raw, bounds, strict=True)])

    def advance(self, total: IntArray) -> FeatureMap:
        """Settles the scale of the features, and with it the map."""
        self.check_bounds(total)
        counts = total.reshape(self.features, BINS)
        self.require(bool((counts >= 0).all() and (counts.sum(1) == self.records).all()), "the counts do not add up")
        lower, upper = raw_bounds(self.centre, self.components)
        ends = [
            (quantile(c, lo, hi, OUTER), quantile(c, lo, hi, 1.0 - OUTER))
            for c, lo, hi in zip(counts, lower.tolist(), upper.tolist(), strict=True)
        ]
        low, high = np.array(ends).T
        return FeatureMap(self.columns, self.mean, self.sd, self.centre, self.components, low, high)


def _fixed(values: FloatArray, one: int) -> IntArray:
    """Fixed point: the nearest multiples of 1/one, each value by itself."""
    return np.rint(values * float(one)).astype(np.int64)
