"""Whether samples of the federated generator help a node that has few records of its own.

A federation whose nodes hold few benign training records is played (without chain, as the ablation does), and the final
aggregate's generator gives samples. Each node then fits detectors of its own, some baselines that need no time, on

    own                 its own records alone: what all else is held against
    own + quantum       with samples of the federated circuit
    quantum only        those alone
    own + classical     with samples of a federated network of as many parameters
    own + uniform       with uniform noise
    own + gaussian      with samples of a Gaussian fitted to the node's own records: no federation at all
    all nodes' records  what sharing records would give: nothing that a federation can do

on the map that these nodes agreed on. The threshold is a quantile of the node's benign validation scores. Of those the
node keeps all, so that what differs is what was learned, not the threshold. Nothing is chosen by these figures, which
are those of the hold-out and of KDDTest+: detectors have the defaults of the table of models, or the library's.

    python -m tests.benchmarks.augmentation --out docs/decisions/0013-augmentation.jsonl [--records 50 ...] [--seeds 5]

A line a size and seed; what the file has already is not played again. --summary plays nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.base import Study
from experiments.detection import Scored, detect, label_free, parts_of
from experiments.models.baselines.base import Baseline, FloatArray, Training
from experiments.models.baselines.one_class_svm import OneClass
from experiments.models.baselines.registry import find
from experiments.models.generators import VARIANTS
from experiments.models.outputs import energy_distance
from runner.attack.attacks import ATTACKS
from runner.attack.simulate import simulate
from runner.benchmark.ablation import world_of
from runner.benchmark.bench import Bench, Tables
from runner.config import RunConfig
from runner.options import config_from
from runner.row_file import RowFile
from runner.seeds import derive, generator
from runner.update import dequantise
from tests.benchmarks.differences import (
    FIGURES,
    PARTS,
    Figures,
    absolute,
    difference,
    figures_of,
    header,
    line,
    mean_of,
)

FORMAT = "qrun-augmentation/1"
SIZES = (50, 100, 200, 500)
SAMPLES = 2000


def _baseline(name: str, bench: Bench) -> Baseline:
    return find(name).make(bench.model, 1)


DETECTORS: dict[str, Callable[[Bench], Baseline]] = {
    "pca": partial(_baseline, "pca"),
    "gaussian-mixture": partial(_baseline, "gaussian-mixture"),
    # With scikit-learn's default kernel. That of the table of models was chosen for thousands of records: fitted on
    # few, it scores all that is not near one of them the same, and no record lies above the quantile.
    "one-class-svm": lambda bench: OneClass(width=1.0),
}
ARMS = {"quantum": "trained", "classical": "classical", "uniform": "uniform"}
"""Samples by name -> the ablation's arm whose federation gives them."""
OWN = "own"
TRAININGS = (
    OWN,
    "own + quantum",
    "quantum only",
    "own + classical",
    "own + uniform",
    "own + gaussian",
    "all nodes' records",
)


@dataclass(frozen=True)
class Row:
    """One size and seed.

    Attributes:
        records: Benign training records of a node.
        seed: Deals the records, starts the models.
        figures: By detector and training, the mean over nodes.
        energy: By origin of samples, their energy distance to the benign validation records of all nodes; the mean
            over nodes where each has its own.
        seconds: Playing and fitting.
    """

    records: int
    seed: int
    figures: dict[str, dict[str, Figures]]
    energy: dict[str, float]
    seconds: float


def federated_samples(bench: Bench, arm: str, count: int) -> FloatArray:
    """(count, features) samples of the final aggregate of a federation with this generator."""
    model = VARIANTS[arm].make(bench.model())
    world = world_of(bench, model)
    outcome = simulate(world, ATTACKS["none"], frozenset(), bench.config.federation.aggregation)
    return _within(model.generate(dequantise(outcome.final), count, derive(bench.config.seed, "augmentation")))


def gaussian_samples(own: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """(count, features) samples of the Gaussian with the records' mean and covariance."""
    # By the eigenvectors: with fewer records than features the covariance has no Cholesky factor.
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(own, rowvar=False)))
    normal = rng.standard_normal((count, own.shape[1]))
    return _within(own.mean(0) + (normal * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _within(samples: FloatArray) -> FloatArray:
    """No record lies outside: the feature map clips."""
    out: FloatArray = np.clip(samples, -1.0, 1.0)
    return out


def training_of(
    name: str, own: FloatArray, everyone: FloatArray, samples: Mapping[str, FloatArray]
) -> tuple[FloatArray, bool]:
    """What a detector is fitted on, and whether that is the same for all nodes.

    Args:
        name: One of TRAININGS.
        own: The node's records.
        everyone: All nodes' records.
        samples: By origin; those of the Gaussian are the node's own.
    """
    if name == OWN:
        return own, False
    if name == "all nodes' records":
        return everyone, True
    if name.endswith(" only"):
        return samples[name.removesuffix(" only")], True
    return np.concatenate([own, samples[name.removeprefix("own + ")]]), False


def measure(bench: Bench, samples: Mapping[str, FloatArray]) -> tuple[dict[str, dict[str, Figures]], float]:
    """Fit and score all detectors.

    Args:
        bench: The data.
        samples: Of the federations, by origin.

    Returns:
        Figures by detector and training, and the energy distance of the nodes' Gaussians.
    """
    tables, seed = bench.tables("agreed"), bench.config.seed
    everyone, benign = np.concatenate(tables.train), np.concatenate(tables.benign)
    count = len(next(iter(samples.values())))
    gaussians = [gaussian_samples(own, count, generator(seed, "augmentation", i)) for i, own in enumerate(tables.train)]
    out: dict[str, dict[str, Figures]] = {}
    for name, make in DETECTORS.items():
        out[name] = {}
        for training in TRAININGS:
            made: _Scores | None = None
            nodes: list[Figures] = []
            for i, (own, validation) in enumerate(zip(tables.train, tables.benign, strict=True)):
                x, common = training_of(training, own, everyone, {**samples, "gaussian": gaussians[i]})
                if made is None or not common:
                    made = _Scores.of(make(bench), x, benign, tables, derive(seed, "baseline", i))
                known = made.model.scores(validation)
                nodes.append(made.figures(bench.study, label_free(known, bench.config.model.threshold_quantile)))
            out[name][training] = mean_of(nodes)
    return out, float(np.mean([energy(benign, g) for g in gaussians]))


@dataclass(frozen=True)
class _Scores:
    """A fitted detector, and its scores of what is reported: the same at each node's threshold."""

    model: Baseline
    holdout: FloatArray
    test: FloatArray | None

    @classmethod
    def of(cls, model: Baseline, x: FloatArray, benign: FloatArray, tables: Tables, seed: int) -> _Scores:
        model.fit(Training(x, benign, np.zeros((0, x.shape[1])), seed))
        return cls(model, model.scores(tables.holdout), None if tables.test is None else model.scores(tables.test))

    def figures(self, study: Study, threshold: float) -> Figures:
        test = None if self.test is None or study.test is None else Scored(self.test, study.test.attack)
        parts = parts_of(Scored(self.holdout, study.holdout.attack), test, None)
        return figures_of(detect(parts, {"label_free": threshold}))


def energy(benign: FloatArray, samples: FloatArray) -> float:
    """Energy distance of samples to benign records, over at most a thousand of each."""
    chosen = np.random.default_rng(0).permutation(len(benign))[:1000]
    return float(energy_distance(torch.tensor(benign[chosen]), torch.tensor(samples[:1000])))


def play(config: RunConfig, data: Path | None, records: int, count: int = SAMPLES) -> Row:
    """One size and seed: all federations, then all detectors."""
    begin = time.perf_counter()
    bench = Bench.load(config, data, records=records)
    try:
        samples = {name: federated_samples(bench, arm, count) for name, arm in ARMS.items()}
        figures, gaussian = measure(bench, samples)
        benign = np.concatenate(bench.tables("agreed").benign)
        distances = {**{name: energy(benign, s) for name, s in samples.items()}, "gaussian": gaussian}
    finally:
        bench.close()
    distances = {name: round(value, 4) for name, value in distances.items()}
    return Row(records, config.seed, figures, distances, round(time.perf_counter() - begin, 1))


Found = dict[str, dict[int, Figures]]
"""By training, then seed."""


def by_training(rows: Sequence[Row], records: int, detector: str | None) -> Found:
    """Figures of the rows of that size; the mean over detectors where none is named."""
    return {
        training: {
            row.seed: mean_of([row.figures[name][training] for name in ([detector] if detector else DETECTORS)])
            for row in rows
            if row.records == records
        }
        for training in TRAININGS
    }


def table(rows: Sequence[Row], detectors: Sequence[str | None]) -> list[str]:
    """Markdown: `own` as it is, all else as the paired difference to it in points; None is the mean over detectors."""
    out = header("records", "detector", "fitted on")
    for records in sorted({row.records for row in rows}):
        for detector in detectors:
            found = by_training(rows, records, detector)
            parts = _parts(found)
            for training, figures in found.items():
                cells = [
                    absolute(figures, part, name) if training == OWN else difference(figures, found[OWN], part, name)
                    for part in parts
                    for name in FIGURES
                ]
                out.append(line(str(records), detector or "mean", training, *cells))
    return out


def rivals(rows: Sequence[Row]) -> list[str]:
    """Markdown: own records and the circuit's samples, less own records and others; the mean over detectors."""
    out = header("records", "`own + quantum` less")
    for records in sorted({row.records for row in rows}):
        found = by_training(rows, records, None)
        for other in ("own + classical", "own + uniform", "own + gaussian", "all nodes' records"):
            cells = [
                difference(found["own + quantum"], found[other], part, name)
                for part in _parts(found)
                for name in FIGURES
            ]
            out.append(line(str(records), other, *cells))
    return out


def _parts(found: Found) -> list[str]:
    return [part for part in PARTS if part in next(iter(found[OWN].values()))]


def energies(rows: Sequence[Row]) -> list[str]:
    """Markdown: energy distance of the samples to benign records, mean and range over seeds."""
    origins = (*ARMS, "gaussian")
    out = [line("records", *origins), "|" + "---|" * (len(origins) + 1)]
    for records in sorted({row.records for row in rows}):
        found = {name: [row.energy[name] for row in rows if row.records == records] for name in origins}
        cells = [f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in found.values()]
        out.append(line(str(records), *cells))
    return out


def read(values: dict[str, Any]) -> Row:
    """A row from a line of the file.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    row = Row(**values)
    if set(row.figures) != set(DETECTORS) or any(set(found) != set(TRAININGS) for found in row.figures.values()):
        raise ValueError("not a row")
    return row


def main() -> None:
    """Play what is not in the file yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--records", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--summary", action="store_true", help="Play nothing.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config = config_from("nsl-kdd", {"seed": 0})
    about = {"format": FORMAT, "config": config.digest.hex(), "samples": SAMPLES}
    file = RowFile(asked.out, about, read=read, write=asdict, key=lambda row: (row.records, row.seed))
    try:
        # Seed by seed: what is there when a run is cut short has all sizes.
        for seed in range(asked.seeds):
            for records in asked.records:
                if asked.summary or (records, seed) in file.rows:
                    continue
                row = play(config.model_copy(update={"seed": seed}), asked.data, records)
                file.add(row)
                print(f"{records} records, seed {seed}: {row.seconds:.0f} s", flush=True)
        rows = list(file.rows.values())
    finally:
        file.close()
    if rows:
        print(
            "\n".join([*table(rows, list(DETECTORS)), "", *table(rows, [None]), "", *rivals(rows), "", *energies(rows)])
        )


if __name__ == "__main__":
    main()
