"""From records to standardised columns: clip to the public bounds, logarithm, one-hot, z-score, clip.

Tables stand transposed here, (columns, records), and are made by elementwise operations only: what a record becomes
depends on nothing but the record, not on which others are in the batch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from experiments.datasets.schema import CATEGORICAL, COLUMNS, NUMERIC, VOCABULARIES
from experiments.datasets.types import Records

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CLIP = 4.0
"""Standardised columns are cut to [-4, 4]: a record's influence on the map is bounded."""
SD_FLOOR = 0.05
"""A column's standard deviation counts as at least this, so that a nearly constant one is not blown up."""

ONE_HOT = tuple(i for i, column in enumerate(CATEGORICAL) if column.kind != "service")
"""Columns of `Records.categorical` in the map; service has 70 words, too many for the few records of most."""

Groups = tuple[tuple[int, ...], ...]


def _top(index: int) -> float:
    column = NUMERIC[index]
    width = float(column.maximum - column.minimum)
    return float(np.log1p(width)) if _is_log(index) else width


def _is_log(index: int) -> bool:
    # Rates and flags end at 1; what can be greater is a count with a heavy tail.
    return NUMERIC[index].maximum > 1


TOPS: tuple[float, ...] = tuple(_top(i) for i in range(len(NUMERIC)))
"""What the public maxima of the numeric columns become; the minima become 0."""

SPANS: tuple[float, ...] = tuple(float(np.ceil(top * 64)) / 64 for top in TOPS)
"""The same rounded up to 1/64: whatever the last bit of a machine's logarithm, all scale by the same number."""

SCHEMA_DIGEST = hashlib.sha256(repr((COLUMNS, VOCABULARIES)).encode()).hexdigest()
"""Names the schema (columns, bounds, vocabularies) that a map speaks of."""


@dataclass(frozen=True)
class Columns:
    """Which columns are in the map, in the order of their rows in every table.

    Attributes:
        numeric: Ascending indices into the schema's NUMERIC.
        groups: For each of `ONE_HOT` its groups of codes, a partition of the vocabulary into at least two, each of
            which becomes a 0/1 column; empty where the column is not in the map.
    """

    numeric: tuple[int, ...]
    groups: tuple[Groups, ...]

    def __len__(self) -> int:
        return len(self.numeric) + sum(len(groups) for groups in self.groups)

    @property
    def spans(self) -> FloatArray:
        """(p,) upper bounds of the transformed columns; the lower bounds are 0."""
        return np.array([SPANS[i] for i in self.numeric] + [1.0] * (len(self) - len(self.numeric)))


def transform(records: Records, columns: Columns) -> FloatArray:
    """(p, N) columns before standardisation, each in [0, top].

    A numeric x becomes log(1 + x - minimum) where the public maximum exceeds 1, else x - minimum, x first clipped to
    its public bounds; a group of categories becomes 0 or 1.

    Raises:
        QrunError: A value is not finite, or a code is not in its vocabulary.
    """
    out = np.empty((len(columns), len(records)))
    for row, index in enumerate(columns.numeric):
        out[row] = transform_numeric(records, index)
    row = len(columns.numeric)
    for which, groups in zip(ONE_HOT, columns.groups, strict=True):
        codes = category_codes(records, which)
        for group in groups:
            member = np.zeros(len(VOCABULARIES[which]))
            member[list(group)] = 1.0
            out[row] = member[codes]
            row += 1
    return out


def transform_numeric(records: Records, index: int) -> FloatArray:
    """(N,) the numeric column `index`, transformed, in [0, TOPS[index]].

    Raises:
        QrunError: A value is not finite.
    """
    column = NUMERIC[index]
    values = np.ascontiguousarray(records.numeric[:, index])
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        raise QrunError(
            f"{records.file}, line {records.line[broken[0]]}, column {column.name}: not a finite number.",
            "Mend or leave out that record.",
        )
    values = np.clip(values, column.minimum, column.maximum) - column.minimum
    return np.log1p(values) if _is_log(index) else values


def category_codes(records: Records, which: int) -> IntArray:
    """(N,) codes of the categorical column `which`.

    Raises:
        QrunError: A code is not in the vocabulary.
    """
    codes = records.categorical[:, which]
    broken = np.flatnonzero((codes < 0) | (codes >= len(VOCABULARIES[which])))
    if len(broken):
        raise QrunError(
            f"{records.file}, line {records.line[broken[0]]}, column {CATEGORICAL[which].name}: unknown code.",
            "Mend or leave out that record.",
        )
    return codes


def standardise(transformed: FloatArray, mean: FloatArray, sd: FloatArray) -> FloatArray:
    """clip((t - mean) / sd, -4, 4) of every column.

    Args:
        transformed: (p, N), or (p,) for one value a column.
        mean: (p,).
        sd: (p,), at least `SD_FLOOR`.
    """
    if transformed.ndim == 2:
        mean, sd = mean[:, None], sd[:, None]
    return np.clip((transformed - mean) / sd, -CLIP, CLIP)
