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

from experiments.datasets.fit_copula import MIN_SHARE, knots, loadings
from experiments.datasets.nsl_kdd import read
from experiments.datasets.official import TEST, TRAIN_20
from experiments.datasets.schema import ATTACKS, FAMILY_OF
from experiments.datasets.standin import A_SCALE, MODEL, P_SCALE, SCALES, apportion
from experiments.datasets.types import BoolArray, FloatArray, IntArray, Records

MIN_CELL = 30
"""Records that a component stands for at least."""

MIN_GROUP = 60
"""Records of one service that make a group of their own."""

SPLIT_ABOVE = 0.0003
"""A cell is split in two while its records' summed squared distance from its mean is above this share of the file's."""


@dataclass(frozen=True)
class Cell:
    """A component: what it is fitted on, the group and the class around it, and the labels of what it gives."""

    file: int
    fitted_on: Records
    kin: tuple[Records, Records]
    scale: FloatArray  # (38,) benign standard deviations of log(1 + x)
    labels: IntArray


def cells(files: tuple[Records, Records]) -> Iterator[Cell]:
    """The components' records: classes, then protocol, flag and service, then clusters of similar records."""
    for file, records in enumerate(files):
        scale = np.maximum(np.log1p(records.numeric[~records.is_attack]).std(axis=0), 0.05)
        features = np.log1p(records.numeric) / scale
        total = float(np.sum((features - features.mean(axis=0)) ** 2))
        for fitted_on, labels in _classes(files, file):
            groups = [fitted_on.take(mask) for mask in _groups(fitted_on)]
            pieces = [(piece, g) for g in groups for piece in _clusters(g, scale, SPLIT_ABOVE * total)]
            counts = apportion([len(piece) for piece, _ in pieces], len(labels))
            dealt = np.random.default_rng(0).permutation(labels)
            for (piece, group), mine in zip(pieces, np.split(dealt, np.cumsum(counts)[:-1]), strict=True):
                if len(mine):
                    yield Cell(file, piece, (group, fitted_on), scale, mine)


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
        cut = len(order) - MIN_CELL if side.sum() < len(order) / 2 else MIN_CELL
        side = np.zeros(len(records), dtype=np.bool_)
        side[order[cut:]] = True
    return [*_clusters(records.take(side), scale, bound), *_clusters(records.take(~side), scale, bound)]


def words(records: Records) -> list[tuple[int, int, int, int]]:
    """Protocol, service, flag and count of the combinations that enough records share."""
    found = Counter(map(tuple, records.categorical.tolist()))
    kept = [(*key, count) for key, count in sorted(found.items()) if count >= MIN_SHARE]
    if not kept:
        key = tuple(int(np.bincount(column).argmax()) for column in records.categorical.T)
        kept = [(*key, len(records))]
    return kept


def fit(files: tuple[Records, Records]) -> dict[str, npt.NDArray[Any]]:
    """The packed model (see `standin.Model`) of a training and a test file."""
    packed: dict[str, list[Any]] = {name: [] for name in ("source", "labels", "words", "knots_of", "factors_of")}
    p, v, a = [], [], []
    for number, cell in enumerate(cells(files)):
        columns = np.rint(cell.fitted_on.numeric * SCALES)
        kin = [np.rint(records.numeric * SCALES) for records in cell.kin]
        functions = [knots(column, [part[:, j] for part in kin]) for j, column in enumerate(columns.T)]
        matrix = loadings(cell.fitted_on, functions, cell.scale)
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
    model["knots_v"] = np.minimum(np.concatenate(v), 2**31 - 1).astype(np.int32)
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
