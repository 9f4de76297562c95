"""The common feature map: from records to features in [-1, 1]."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from circuits.hostile import load_json
from experiments.datasets.schema import CATEGORICAL, NUMERIC, NUMERIC_NAMES, VOCABULARIES
from experiments.datasets.types import Records
from experiments.features.encoding import CLIP, ONE_HOT, SCHEMA_DIGEST, SD_FLOOR, Columns, standardise, transform

FloatArray = npt.NDArray[np.float64]

FORMAT = "qrun-feature-map-1"
MAX_BYTES = 2**20
MAX_FEATURES = 64
RESIDUAL_FLOOR = 1e-3
"""Added to the residual energy before its logarithm, so that the logarithm has a public lower bound."""
RESIDUAL_BOUNDS = (-7.0, 9.0)
"""Of that logarithm: from log 1e-3 to log(64 columns times 8^2), with room."""
INNER = 0.8
"""Where the 1 % and 99 % quantiles of benign records go; the rest up to 1 is room for what is not benign."""

_CHUNK = 1024
_KEYS = {"format", "schema", "numeric", "groups", "mean", "sd", "centre", "components", "low", "high"}


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What all nodes apply to their records; made by `experiments.features.agreement`, with p columns and d features.

    z = clip((t - mean) / sd, -4, 4) are the standardised columns (`encoding`), y = z - centre. Raw feature k < d - 1
    is the principal component components_k . y; the last is log(1e-3 + |y|^2 - sum of the squared components), the
    energy that the components leave over. A feature is clip(0.8 (2 (raw - low) / (high - low) - 1), -1, 1).

    Attributes:
        columns: Which columns, p of them.
        mean: (p,) of the transformed columns over all benign training records.
        sd: (p,) their standard deviations, at least 0.05.
        centre: (p,) means of z.
        components: (d - 1, p) orthonormal rows; a row is zero where the records span fewer dimensions.
        low: (d,) 1 % quantiles of the raw features.
        high: (d,) 99 % quantiles.
    """

    columns: Columns
    mean: FloatArray
    sd: FloatArray
    centre: FloatArray
    components: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def features(self) -> int:
        """d, the number of features."""
        return len(self.low)

    def apply(self, records: Records) -> FloatArray:
        """(N, d) features in [-1, 1] of N records.

        Raises:
            QrunError: A record holds what the schema does not know.
        """
        scaled = INNER * (2.0 * (self.raw(records) - self.low) / (self.high - self.low) - 1.0)
        return np.clip(scaled, -1.0, 1.0)

    def raw(self, records: Records) -> FloatArray:
        """(N, d) principal components and, last, the log residual energy, neither scaled nor clipped.

        Raises:
            QrunError: As `apply`.
        """
        features = project(
            records, self.columns, mean=self.mean, sd=self.sd, centre=self.centre, components=self.components
        )
        return np.ascontiguousarray(features.T)

    def to_bytes(self) -> bytes:
        """Canonical: the same map gives the same bytes, numbers stand in hexadecimal with every bit."""
        body = {
            "format": FORMAT,
            "schema": SCHEMA_DIGEST,
            "numeric": [NUMERIC[i].name for i in self.columns.numeric],
            "groups": {
                CATEGORICAL[which].name: [[VOCABULARIES[which][code] for code in group] for group in groups]
                for which, groups in zip(ONE_HOT, self.columns.groups, strict=True)
            },
            "mean": _hex(self.mean),
            "sd": _hex(self.sd),
            "centre": _hex(self.centre),
            "components": [_hex(row) for row in self.components],
            "low": _hex(self.low),
            "high": _hex(self.high),
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> FeatureMap:
        """The map of these bytes, which may come from anyone.

        Raises:
            QrunError: Too large, not canonical, of another schema, or no map that an agreement can end with.
        """
        try:
            body = load_json(data, max_bytes=MAX_BYTES, what="it was")
        except QrunError as error:
            raise _refused(error.message.rstrip(".")) from None
        try:
            result = cls._parse(body)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise _refused("it is malformed") from None
        result._check()
        if result.to_bytes() != data:
            raise _refused("its bytes are not canonical")
        return result

    @classmethod
    def _parse(cls, body: dict[str, Any]) -> FeatureMap:
        if set(body) != _KEYS or body["format"] != FORMAT:
            raise _refused(f"its format is not {FORMAT}")
        if body["schema"] != SCHEMA_DIGEST:
            raise _refused("it was made for another schema")
        groups = []
        for which in ONE_HOT:
            code = {word: i for i, word in enumerate(VOCABULARIES[which])}
            named = body["groups"][CATEGORICAL[which].name]
            groups.append(tuple(tuple(code[word] for word in group) for group in named))
        columns = Columns(tuple(NUMERIC_NAMES.index(name) for name in body["numeric"]), tuple(groups))
        vectors = [_unhex(body[key]) for key in ("mean", "sd", "centre", "low", "high")]
        rows = [_unhex(row) for row in body["components"]]
        if any(len(row) != len(columns) for row in rows):
            raise ValueError
        mean, sd, centre, low, high = vectors
        return cls(columns, mean, sd, centre, np.array(rows).reshape(len(rows), len(columns)), low, high)

    def _check(self) -> None:
        """Refuses whatever no agreement ends with, so that a loaded map computes finite features."""
        p, d = len(self.columns), len(self.low)
        if not 2 <= d <= MAX_FEATURES or len(self.high) != d or self.components.shape != (d - 1, p) or p == 0:
            raise _refused("its shapes do not fit")
        if any(len(v) != p for v in (self.mean, self.sd, self.centre)):
            raise _refused("its shapes do not fit")
        numbers = [self.mean, self.sd, self.centre, self.components.ravel(), self.low, self.high]
        if not all(np.isfinite(v).all() for v in numbers):
            raise _refused("a number is not finite")
        if list(self.columns.numeric) != sorted(set(self.columns.numeric)):
            raise _refused("its columns are out of order")
        for which, groups in zip(ONE_HOT, self.columns.groups, strict=True):
            words = sorted(code for group in groups for code in group)
            whole = words == list(range(len(VOCABULARIES[which]))) and all(groups)
            if groups and (not whole or len(groups) < 2 or list(groups) != sorted(tuple(sorted(g)) for g in groups)):
                raise _refused("its groups of categories are no partition")
        spans = self.columns.spans
        if (self.mean < 0).any() or (self.mean > spans).any() or (np.abs(self.centre) > CLIP).any():
            raise _refused("a mean is out of its public bounds")
        if (self.sd < SD_FLOOR).any() or (self.sd > np.maximum(spans, SD_FLOOR)).any():
            raise _refused("a standard deviation is out of its public bounds")
        if np.abs(self.components).max() > 1.001:
            raise _refused("its components are not orthonormal")
        gram = self.components @ self.components.T
        if np.abs(gram - np.diag(np.round(np.diag(gram)))).max() > 1e-9 or np.diag(gram).max() > 1.5:
            raise _refused("its components are not orthonormal")
        lower, upper = raw_bounds(self.centre, self.components)
        if (self.low < lower).any() or (self.high > upper).any() or (self.high - self.low <= 0).any():
            raise _refused("a quantile is out of its public bounds")


def project(
    records: Records,
    columns: Columns,
    *,
    mean: FloatArray,
    sd: FloatArray,
    centre: FloatArray,
    components: FloatArray,
) -> FloatArray:
    """(d, N) raw features of N records; shapes as in `FeatureMap`.

    Sums run over the columns one at a time, so that a record's result does not depend on the batch it is in, which a
    matrix product does not promise.
    """
    out = np.empty((len(components) + 1, len(records)))
    for start in range(0, len(records), _CHUNK):
        batch = slice(start, start + _CHUNK)
        part = records.take(np.arange(start, min(start + _CHUNK, len(records))))
        y = standardise(transform(part, columns), mean, sd) - centre[:, None]
        scores = np.zeros((len(components), len(part)))
        energy = np.zeros(len(part))
        for weights, column in zip(components.T, y, strict=True):
            scores += weights[:, None] * column
            energy += column * column
        for score in scores:
            energy -= score * score
        out[:-1, batch] = scores
        out[-1, batch] = np.log(RESIDUAL_FLOOR + np.maximum(energy, 0.0))
    return out


def raw_bounds(centre: FloatArray, components: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(d,), (d,) bounds of the raw features that follow from z in [-4, 4]; -1 and 1 for a zero component."""
    lower: FloatArray = np.zeros(len(components))
    upper: FloatArray = np.zeros(len(components))
    for weights, c in zip(components.T, centre, strict=True):
        ends = np.stack([weights * (-CLIP - c), weights * (CLIP - c)])
        lower, upper = lower + ends.min(0), upper + ends.max(0)
    empty = lower >= upper
    lower, upper = np.where(empty, -1.0, lower), np.where(empty, 1.0, upper)
    return np.append(lower, RESIDUAL_BOUNDS[0]), np.append(upper, RESIDUAL_BOUNDS[1])


def _hex(values: FloatArray) -> list[str]:
    # Zero is added so that -0.0 and 0.0 are written alike.
    return [float(v + 0.0).hex() for v in values]


def _unhex(values: list[str]) -> FloatArray:
    if not isinstance(values, list):
        raise TypeError
    return np.array([float.fromhex(v) for v in values], dtype=np.float64)


def _refused(why: str) -> QrunError:
    return QrunError(
        f"the feature map is refused: {why}.",
        "The file is damaged, or another version of qrun made it: all nodes need the same.",
    )
