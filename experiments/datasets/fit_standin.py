"""Fits the stand-in's model: `python -m experiments.datasets.fit_standin --data DIR` (once, on the official files).

Takes KDDTrain+_20Percent.txt and KDDTest+.txt and writes the package data of `standin`. Nothing is random: the same
files give the same bytes (on one build of numpy).

Privacy: a component stands for at least `MIN_CELL` records; a value or a combination of words is kept if at least
`MIN_SHARE` records of the component share it; all else is a mean over at least as many, rounded to three digits.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from experiments.datasets.nsl_kdd import read
from experiments.datasets.official import TEST, TRAIN_20
from experiments.datasets.schema import ATTACKS, FAMILY_OF, NUMERIC
from experiments.datasets.standin import A_SCALE, MODEL, P_SCALE, RATE_SCALE, apportion
from experiments.datasets.types import BoolArray, FloatArray, IntArray, Records

MIN_CELL = 30
MIN_SHARE = 5
MAX_FACTORS = 8
MAX_KNOTS = 24
MIN_GROUP = 60
"""Records of one service that make a group of their own."""

SPLIT_ABOVE = 0.0004
"""A cell is split in two while its records' summed squared distance from its mean is above this share of the file's."""

SIMULATED = 2000
ROUNDS = 8

_SCALES = np.array([RATE_SCALE if column.kind == "rate" else 1 for column in NUMERIC], dtype=np.float64)


@dataclass(frozen=True)
class Cell:
    """A component: what it is fitted on, all records of its class (`kin`), and the labels of what it gives to `file`."""

    file: int
    fitted_on: Records
    kin: Records
    labels: IntArray


def cells(files: tuple[Records, Records]) -> Iterator[Cell]:
    """The components' records: classes, then protocol, flag and service, then clusters of similar records."""
    for file, records in enumerate(files):
        scale = np.maximum(np.log1p(records.numeric[~records.is_attack]).std(axis=0), 0.05)
        features = np.log1p(records.numeric) / scale
        total = float(np.sum((features - features.mean(axis=0)) ** 2))
        for fitted_on, labels in _classes(files, file):
            pieces = [
                piece
                for group in _groups(fitted_on)
                for piece in _clusters(fitted_on.take(group), scale, SPLIT_ABOVE * total)
            ]
            counts = apportion([len(piece) for piece in pieces], len(labels))
            dealt = np.random.default_rng(0).permutation(labels)
            for piece, mine in zip(pieces, np.split(dealt, np.cumsum(counts)[:-1]), strict=True):
                if len(mine):
                    yield Cell(file, piece, fitted_on, mine)


def _classes(files: tuple[Records, Records], file: int) -> Iterator[tuple[Records, IntArray]]:
    """Classes of a file: what to fit on, and the labels (of this file only). Rare attacks of a family go together."""
    counts = [np.bincount(records.attack, minlength=len(ATTACKS)) for records in files]
    rare_here = (counts[file] > 0) & (counts[file] < MIN_CELL)
    rare_anywhere = ((counts[0] < MIN_CELL) | (counts[1] < MIN_CELL)) & (counts[0] + counts[1] > 0)
    for code in np.flatnonzero(counts[file] >= MIN_CELL):
        yield files[file].take(files[file].attack == code), np.full(counts[file][code], code)
    for family in dict.fromkeys(FAMILY_OF.values()):
        kin = np.array([FAMILY_OF[name] == family for name in ATTACKS])
        codes = np.flatnonzero(rare_here & kin)
        if len(codes) == 0:
            continue
        # Too few here: the other file's records of the same attacks, then of all rare attacks of the family.
        for pool in (
            _pick(files[file : file + 1], codes),
            _pick(files, codes),
            _pick(files, np.flatnonzero(rare_anywhere & kin)),
        ):
            if len(pool) >= MIN_CELL:
                yield pool, np.repeat(codes, counts[file][codes])
                break
        else:
            raise ValueError(f"too few records of the family {family}")


def _pick(files: tuple[Records, ...], codes: IntArray) -> Records:
    return _join([records.take(np.isin(records.attack, codes)) for records in files])


def _join(parts: list[Records]) -> Records:
    return Records(
        np.vstack([part.numeric for part in parts]),
        np.vstack([part.categorical for part in parts]),
        np.concatenate([part.attack for part in parts]),
        np.concatenate([part.line for part in parts]),
        parts[0].file,
    )


def _groups(records: Records) -> list[BoolArray]:
    """Masks: a service of a (protocol, flag) that is frequent; the rest of the (protocol, flag); the rest."""
    state = records.categorical[:, 0] * 100 + records.categorical[:, 2]
    service = state * 100 + records.categorical[:, 1]
    group = np.zeros(len(records), dtype=np.int64)
    for keys, least in ((state, MIN_CELL), (service, max(MIN_GROUP, len(records) // 50))):
        for key in np.unique(keys):
            mask = keys == key
            if mask.sum() >= least:
                group[mask] = 1 + key + (10**6 if least > MIN_CELL else 0)
    # What is left of a state after its services were taken out may be too little, and joins the rest; a rest that is
    # too little joins the largest group.
    for key in np.unique(group):
        if 0 < np.sum(group == key) < MIN_CELL:
            group[group == key] = 0
    values, sizes = np.unique(group, return_counts=True)
    if 0 < np.sum(group == 0) < MIN_CELL and len(values) > 1:
        group[group == 0] = values[1:][np.argmax(sizes[1:])]
    return [group == key for key in np.unique(group)]


def _clusters(records: Records, scale: FloatArray, bound: float) -> list[Records]:
    """Halves the records (2-means from the first principal axis) until their spread is small or they are few."""
    features = np.log1p(records.numeric) / scale
    centred = features - features.mean(axis=0)
    if len(records) < 2 * MIN_CELL or float(np.sum(centred**2)) <= bound:
        return [records]
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    side = centred @ axis > 0
    for _ in range(20):
        if not side.any() or side.all():
            return [records]
        means = centred[side].mean(axis=0), centred[~side].mean(axis=0)
        nearer = np.sum((centred - means[0]) ** 2, axis=1) < np.sum((centred - means[1]) ** 2, axis=1)
        if np.array_equal(nearer, side):
            break
        side = nearer
    if min(int(side.sum()), int((~side).sum())) < MIN_CELL:
        # A few outliers: cut along the axis where both halves are large enough.
        order = np.argsort(centred @ axis, kind="stable")
        side = np.zeros(len(records), dtype=np.bool_)
        side[order[MIN_CELL if side.sum() else len(order) - MIN_CELL :]] = True
    return [*_clusters(records.take(side), scale, bound), *_clusters(records.take(~side), scale, bound)]


def knots(values: FloatArray, kin: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coarse distribution function of integer values: (k,) probabilities and (k,) values, both ascending.

    A value that `MIN_SHARE` records (and 2 % of them) share keeps its mass. Between such, means of at least
    `MIN_SHARE` records (of log(1 + x)) stand in the middle of their mass, joined and continued by straight lines.
    Fewer records than that get one mean, of all records of their class (`kin`) in the same interval, or else join the
    value before.
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
        means = _means(ordered[start:stop], kin[(kin > below) & (kin < atom)])
        if means:
            ends = _ends(means, below + 1, atom - 1)
            pieces = np.array_split(np.arange(start, stop), len(means))
            p += [float(start), *(float(piece[0] + piece[-1] + 1) / 2 for piece in pieces), float(stop)]
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


def _means(stretch: FloatArray, kin: FloatArray) -> list[float]:
    """Means of log(1 + x) over pieces of equal size of a stretch between two shared values, ascending."""
    if len(stretch) == 0:
        return []
    if len(stretch) < MIN_SHARE:
        return [_round(float(np.expm1(np.log1p(kin).mean())))] if len(kin) >= MIN_SHARE else []
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


def words(records: Records) -> list[tuple[int, int, int, int]]:
    """Protocol, service, flag and count of the combinations that enough records share."""
    found = Counter(map(tuple, records.categorical.tolist()))
    kept = [(*key, count) for key, count in sorted(found.items()) if count >= MIN_SHARE]
    if not kept:
        key = tuple(int(np.bincount(column).argmax()) for column in records.categorical.T)
        kept = [(*key, len(records))]
    return kept


def loadings(records: Records, functions: list[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """(active, factors) matrix A whose copula gives log(1 + x) the correlations that the records have.

    Starts from the correlations of normal scores (middle ranks) and moves them by what the simulated columns miss,
    since shared values weaken correlations.
    """
    active = [j for j, (p, _) in enumerate(functions) if len(p) > 1]
    if not active:
        return np.zeros((0, 0))
    n = len(records)
    real = np.log1p(records.numeric[:, active])
    target = _correlation(real)
    scores = ndtri((rankdata(real, axis=0) - 0.5) / n)
    latent = _correlation(scores)
    factors = min(MAX_FACTORS, len(active))
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((SIMULATED, factors)), rng.standard_normal((SIMULATED, len(active)))
    best, least = np.zeros((len(active), factors)), np.inf
    for _ in range(ROUNDS):
        matrix = _factor(latent, factors)
        z = common @ matrix.T + own * np.sqrt(np.clip(1.0 - np.sum(matrix**2, axis=1), 0.0, 1.0))
        u = ndtr(z)
        drawn = np.column_stack([np.rint(np.interp(u[:, i], *functions[j])) for i, j in enumerate(active)])
        miss = target - _correlation(np.log1p(drawn / _SCALES[active]))
        if (error := float(np.sum(miss**2))) < least:
            best, least = matrix, error
        latent = np.clip(latent + 0.7 * miss, -0.999, 0.999)
    return best


def _correlation(x: FloatArray) -> FloatArray:
    centred = x - x.mean(axis=0)
    norm = np.sqrt(np.sum(centred**2, axis=0))
    return (centred.T @ centred) / np.maximum(np.outer(norm, norm), 1e-12)


def _factor(correlation: FloatArray, factors: int) -> FloatArray:
    """Principal factors, the unique variances iterated to a fixed point; rows no longer than one."""
    matrix = correlation.copy()
    np.fill_diagonal(matrix, 1.0)
    for _ in range(10):
        values, vectors = np.linalg.eigh(matrix)
        result = vectors[:, ::-1][:, :factors] * np.sqrt(np.maximum(values[::-1][:factors], 0.0))
        length = np.sqrt(np.sum(result**2, axis=1))
        result = result / np.maximum(length, 1.0)[:, None]
        np.fill_diagonal(matrix, np.minimum(length**2, 1.0))
    return np.asarray(result)


def fit(files: tuple[Records, Records]) -> dict[str, npt.NDArray[Any]]:
    """The packed model (see `standin.Model`) of a training and a test file."""
    packed: dict[str, list[Any]] = {name: [] for name in ("source", "labels", "words", "knots_of", "factors_of")}
    p, v, a = [], [], []
    for number, cell in enumerate(cells(files)):
        columns = cell.fitted_on.numeric * _SCALES
        kin = cell.kin.numeric * _SCALES
        functions = [knots(np.rint(columns[:, j]), np.rint(kin[:, j])) for j in range(columns.shape[1])]
        matrix = loadings(cell.fitted_on, functions)
        packed["source"].append(cell.file)
        packed["labels"] += [(number, code, count) for code, count in sorted(Counter(cell.labels.tolist()).items())]
        packed["words"] += [(number, *row) for row in words(cell.fitted_on)]
        packed["knots_of"].append([len(part) for part, _ in functions])
        packed["factors_of"].append(matrix.shape[1])
        p += [part for part, _ in functions]
        v += [part for _, part in functions]
        a.append(matrix.ravel())
    model: dict[str, npt.NDArray[Any]] = {name: np.array(rows, dtype=np.int32) for name, rows in packed.items()}
    model["knots_p"] = np.rint(np.concatenate(p) * P_SCALE).astype(np.uint16)
    model["knots_v"] = np.concatenate(v).astype(np.int32)
    model["loadings"] = np.rint(np.concatenate(a) * A_SCALE).astype(np.int16)
    return model


def main() -> None:
    """Reads the two official files in --data and writes the model beside this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the official files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / MODEL)
    options = parser.parse_args()
    model = fit((read(options.data / TRAIN_20.name), read(options.data / TEST.name)))
    with options.out.open("wb") as file:
        np.savez_compressed(file, **model)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
