"""Records that behave like NSL-KDD where the files cannot be had: drawn from a statistical model, none of them real.

The model, fitted once by `fit_standin` and shipped as package data, is a mixture of Gaussian copulas. A component is a
group of at least 30 similar records of one class (attack, protocol, flag, group of services). It keeps

- how many records it stands for, and their labels and words as counts of at least five;
- for each numeric column a coarse distribution function: values that many records share keep their mass, between them
  means of at least five records are joined by straight lines;
- a matrix of at most twelve factors that correlates the columns: z_i = (A f)_i + sqrt(1 - |a_i|^2) e_i, with f, e
  standard normal; column i of a record is the quantile of the rank of z_i.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.datasets.official import TEST, TRAIN_20, TRAIN_FULL, Official
from experiments.datasets.schema import NUMERIC
from experiments.datasets.types import Dataset, FloatArray, IntArray, Records

MODEL = "standin.npz"
"""Package data. The arrays: see `Model`."""

SEED = 1999
"""Of the records, the same in every run: the stand-in is a file that happens not to be stored."""

P_SCALE = 65_535
A_SCALE = 32_767
RATE_SCALE = 100
"""Rates are kept in hundredths."""

SCALES = np.array([RATE_SCALE if column.kind == "rate" else 1 for column in NUMERIC], dtype=np.float64)
_MAXIMA = np.array([column.maximum for column in NUMERIC], dtype=np.float64) * SCALES

Model = Mapping[str, npt.NDArray[Any]]
"""The packed model of C components.

- source: (C,) 0 for the training, 1 for the test file; components stand in the order of their use.
- labels: (L, 3) component, attack code, count.
- words: (W, 5) component, protocol, service, flag, count.
- knots_of: (C, 38) number of knots of each column's distribution function.
- knots_p, knots_v: the knots, column after column: probability in 1/65535 and value (rates in hundredths).
- factors_of: (C,) number of factors.
- loadings: the matrices A of the columns with more than one knot, row after row, in 1/32767.
"""


@cache
def model() -> Model:
    """The shipped model."""
    with resources.files(__package__).joinpath(MODEL).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def standin(*, full: bool) -> Dataset:
    """The stand-in for KDDTrain+_20Percent (or KDDTrain+) and KDDTest+, of the same sizes; always the same records."""
    train, test = generate(model(), 0, TRAIN_FULL if full else TRAIN_20), generate(model(), 1, TEST)
    return Dataset("nsl-kdd", "stand-in", train, test, {part.file: _sha256(part) for part in (train, test)})


def generate(model: Model, file: int, official: Official, seed: int = SEED) -> Records:
    """Draws as many records as the official file has.

    Args:
        model: Packed model.
        file: 0 for the training, 1 for the test mix of components.
        official: The file to stand in for.
        seed: Of everything drawn.

    Returns:
        The records in random order, each legal in the schema.
    """
    rng = np.random.default_rng([seed, file, official.records])
    chosen = np.flatnonzero(model["source"] == file)
    labels, words = model["labels"], model["words"]
    weights = np.bincount(labels[:, 0], weights=labels[:, 2], minlength=len(model["source"]))[chosen]
    counts = apportion(weights, official.records)
    knots_end = np.cumsum(model["knots_of"]).reshape(model["knots_of"].shape)
    active_of = (model["knots_of"] > 1).sum(axis=1)
    loadings_end = np.cumsum(active_of * model["factors_of"])
    numeric, categorical, attack = [], [], []
    for component, count in zip(chosen.tolist(), counts.tolist(), strict=True):
        active, factors = int(active_of[component]), int(model["factors_of"][component])
        end = int(loadings_end[component])
        loadings = model["loadings"][end - active * factors : end].reshape(active, factors) / A_SCALE
        uniform = _uniform(loadings, count, rng)
        columns = []
        for position, knots in enumerate(model["knots_of"][component].tolist()):
            stop = int(knots_end[component, position])
            p = model["knots_p"][stop - knots : stop] / P_SCALE
            v = model["knots_v"][stop - knots : stop].astype(np.float64)
            columns.append(np.full(count, v[0]) if knots == 1 else np.interp(uniform.pop(), p, v))
        numeric.append(np.column_stack(columns))
        mine = words[words[:, 0] == component]
        categorical.append(rng.permutation(np.repeat(mine[:, 1:4], apportion(mine[:, 4], count), axis=0)))
        mine = labels[labels[:, 0] == component]
        attack.append(rng.permutation(np.repeat(mine[:, 1], apportion(mine[:, 2], count))))
    order = rng.permutation(official.records)
    table = np.clip(np.rint(np.vstack(numeric)), 0.0, _MAXIMA) / SCALES
    line = np.arange(1, official.records + 1)
    name = f"{official.name} (stand-in)"
    codes = np.vstack(categorical).astype(np.int64)
    return Records(table[order], codes[order], np.concatenate(attack).astype(np.int64)[order], line, name)


def apportion(weights: npt.ArrayLike, total: int) -> IntArray:
    """Whole numbers in proportion to `weights` that sum to `total` (largest remainders; ties to the first)."""
    quota = np.asarray(weights, dtype=np.float64)
    quota = quota * total / quota.sum()
    counts = np.floor(quota).astype(np.int64)
    # Rounded, so that the order of equal remainders does not hang on the last bit.
    order = np.argsort(-np.round(quota - counts, 9), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def _uniform(loadings: FloatArray, count: int, rng: np.random.Generator) -> list[FloatArray]:
    """Per active column, last first, `count` uniform numbers with the ranks of correlated normal ones."""
    active, factors = loadings.shape
    unique = np.sqrt(np.clip(1.0 - np.sum(loadings**2, axis=1), 0.0, 1.0))
    z = rng.standard_normal((count, factors)) @ loadings.T + rng.standard_normal((count, active)) * unique
    # Ranks in place of Phi(z): each column then follows its distribution function without the noise of the draw.
    order = np.argsort(z, axis=0, kind="stable")
    ranks = np.empty_like(z)
    np.put_along_axis(ranks, order, np.arange(count)[:, None] + 0.5, axis=0)
    return list((ranks / count).T[::-1])


def _sha256(records: Records) -> str:
    """SHA-256 of the columns as little-endian float64 and int64, numeric, categorical, attack."""
    digest = hashlib.sha256()
    for array, kind in ((records.numeric, "<f8"), (records.categorical, "<i8"), (records.attack, "<i8")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()
