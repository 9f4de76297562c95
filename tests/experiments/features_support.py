"""Records for the tests of the feature map, and the map fitted on pooled records by plain numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from experiments.datasets.schema import FLAGS, NUMERIC, PROTOCOLS
from experiments.datasets.types import Records

OTH, SF, SH = FLAGS.index("OTH"), FLAGS.index("SF"), FLAGS.index("SH")


def make_records(n: int, seed: int = 0) -> Records:
    """n benign-looking records: correlated columns, heavy tails, mostly at a mode, one single record with flag OTH."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 6))
    numeric = np.zeros((n, len(NUMERIC)))
    for j, column in enumerate(NUMERIC):
        drive = latent @ rng.normal(size=6) / 2 + rng.normal(size=n) * 0.5
        if column.kind == "flag":
            numeric[:, j] = drive > 1.0
        elif column.kind == "rate":
            numeric[:, j] = np.round(np.clip(drive / 3, 0, 1), 2)
        else:
            numeric[:, j] = np.clip(np.floor(np.exp(3 * drive) - 1), 0, column.maximum)
    categorical = np.stack(
        [
            rng.choice(len(PROTOCOLS), n, p=[0.1, 0.7, 0.2]),
            rng.integers(0, 70, n),
            rng.choice([SF, FLAGS.index("REJ"), FLAGS.index("S0")], n, p=[0.8, 0.15, 0.05]),
        ],
        axis=1,
    ).astype(np.int64)
    categorical[n // 2, 2] = OTH
    return Records(numeric, categorical, np.zeros(n, np.int64), np.arange(1, n + 1), "made up")


def reference_fit(records: Records, features: int) -> dict[str, Any]:
    """The map fitted on pooled records with numpy alone: float64 statistics, LAPACK, np.histogram, np.interp."""
    n = len(records)
    tables, numeric = [], []
    for j, column in enumerate(NUMERIC):
        x = np.clip(records.numeric[:, j], column.minimum, column.maximum)
        t, top = (np.log1p(x), np.log1p(column.maximum)) if column.maximum > 1 else (x, 1.0)
        edges = np.linspace(0, top, 15)
        inner = [t == 0, *((t > 0) & (t < top) & (t >= a) & (t < b) for a, b in pairwise(edges))]
        cells = np.array([c.sum() for c in [*inner, t == top]])
        modal = int(cells.argmax())
        if n - cells[modal] < 10:
            continue
        low, high = (0.0, 0.0) if modal == 0 else (top, top) if modal == 15 else (edges[modal - 1], edges[modal])
        mean, sd = t.mean(), max(t.std(), 0.05)

        def z(v: Any, mean: float = mean, sd: float = sd) -> Any:
            return np.clip((v - mean) / sd, -4, 4)

        outside = np.maximum(np.maximum(z(low) - z(t), z(t) - z(high)), 0)
        if outside.sum() < 10 * max(z(low) - z(0.0), z(top) - z(high)):
            continue
        tables.append(t)
        numeric.append(j)
    groups = []
    for which, words in ((0, 3), (2, 11)):
        codes = records.categorical[:, which]
        counts = np.bincount(codes, minlength=words)
        rare = {c for c in range(words) if counts[c] < 10}
        if rare and counts[list(rare)].sum() < 10:
            rare.add(min((c for c in range(words) if c not in rare), key=lambda c: counts[c]))
        parts = sorted([{c} for c in range(words) if c not in rare] + ([rare] if rare else []), key=min)
        groups.append(tuple(tuple(sorted(part)) for part in parts))
        tables += [np.isin(codes, list(part)).astype(float) for part in parts]
    t = np.stack(tables, axis=1)
    mean, sd = t.mean(0), np.maximum(t.std(0), 0.05)
    z = np.clip((t - mean) / sd, -4, 4)
    centre = z.mean(0)
    y = z - centre
    values, vectors = np.linalg.eigh(y.T @ y / n)
    components = vectors[:, ::-1][:, : features - 1].T
    first = np.array([np.flatnonzero(np.abs(v) >= np.abs(v).max() - 1e-6)[0] for v in components])
    components = components * np.sign(components[np.arange(len(components)), first])[:, None]
    scores = y @ components.T
    residual = np.log(1e-3 + ((y - scores @ components) ** 2).sum(1))
    raw = np.column_stack([scores, residual])
    ends = np.stack([components * (-4 - centre), components * (4 - centre)])
    lower, upper = np.append(ends.min(0).sum(1), -7.0), np.append(ends.max(0).sum(1), 9.0)
    quantiles = []
    for k in range(features):
        counts, edges = np.histogram(raw[:, k], bins=4096, range=(lower[k], upper[k]))
        # Where the function is flat its inverse is not unique: callers choose n so that q n is no integer.
        quantiles.append(np.interp([0.01 * n, 0.99 * n], np.append(0, np.cumsum(counts)), edges))
    low, high = np.array(quantiles).T
    return {
        "numeric": tuple(numeric),
        "groups": tuple(groups),
        "mean": mean,
        "sd": sd,
        "centre": centre,
        "components": components,
        "low": low,
        "high": high,
        "features": np.clip(0.8 * (2 * (raw - low) / (high - low) - 1), -1, 1),
        "eigenvalues": values[::-1],
    }


def leverages(table: np.ndarray) -> np.ndarray:
    """(N, p) standardised columns -> (N,): the greatest share that a record has in sum (u . (1, z))^2 for any u.

    1 means that some linear combination of the columns is zero for all other records: the total of the products
    multiplied by it is that record.
    """
    full = np.column_stack([np.ones(len(table)), table])
    u, s, _ = np.linalg.svd(full, full_matrices=False)
    return (u[:, s > 1e-9 * s[0]] ** 2).sum(1)
