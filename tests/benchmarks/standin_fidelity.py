"""Do the stand-in's detection figures agree with those of the real files? `python -m tests.benchmarks.standin_fidelity`

Trains the same one-class detectors on the benign training part of the official files and of the stand-in (features
after the usual recipe: log1p, z-score, clip, one-hot; threshold at the 95 % quantile of benign validation scores) and
prints accuracy, F1 and AUROC on hold-out and test file side by side. Ends with 1 if a difference exceeds --points.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy
import sklearn
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from sklearn.mixture import GaussianMixture

from experiments.datasets.fetch import load
from experiments.datasets.schema import FLAGS, PROTOCOLS
from experiments.datasets.split import split
from experiments.datasets.standin import standin
from experiments.datasets.types import BoolArray, Dataset, FloatArray, Records

Scorer = Callable[[FloatArray], FloatArray]
METRICS = ("accuracy", "F1", "AUROC")


def raw_features(records: Records) -> FloatArray:
    """(n, 52) log1p of the numeric columns, one-hot protocol and flag."""
    one_hot = [np.eye(len(PROTOCOLS))[records.categorical[:, 0]], np.eye(len(FLAGS))[records.categorical[:, 2]]]
    return np.hstack([np.log1p(records.numeric), *one_hot])


def scaling(train: FloatArray) -> Scorer:
    """z-score with a floor of 0.05 on the deviation, clipped to [-4, 4]."""
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 0.05)
    return lambda x: np.clip((x - mean) / deviation, -4.0, 4.0)


def components(train: FloatArray, count: int) -> tuple[Scorer, Scorer]:
    """Projection on `count` principal components, and the squared residual."""
    mean = train.mean(axis=0)
    basis = np.linalg.svd(train - mean, full_matrices=False)[2][:count].T

    def project(x: FloatArray) -> FloatArray:
        return (x - mean) @ basis

    def residual(x: FloatArray) -> FloatArray:
        return np.sum((x - mean - project(x) @ basis.T) ** 2, axis=1)

    return project, residual


def latent(train: FloatArray, count: int) -> Scorer:
    """`count` components and the log residual, benign 1-99 % mapped to +-0.8, clipped to [-1, 1]: the QGAN's input."""
    project, residual = components(train, count)

    def join(x: FloatArray) -> FloatArray:
        return np.column_stack([project(x), np.log(residual(x) + 1e-6)])

    low, high = np.quantile(join(train), [0.01, 0.99], axis=0)
    return lambda x: np.clip(1.6 * (join(x) - low) / (high - low) - 0.8, -1.0, 1.0)


def residual_detector(count: int) -> Callable[[FloatArray, int], Scorer]:
    """The PCA residual as score."""
    return lambda train, seed: components(train, count)[1]


def neighbour_detector(count: int) -> Callable[[FloatArray, int], Scorer]:
    """Mean distance to the 5 nearest of 4000 benign records in the latent space."""

    def fit(train: FloatArray, seed: int) -> Scorer:
        encode = latent(train, count)
        chosen = np.random.default_rng(seed).permutation(len(train))[:4000]
        tree = cKDTree(encode(train[chosen]))
        return lambda x: np.asarray(tree.query(encode(x), k=5)[0]).mean(axis=1)

    return fit


def mixture_detector(count: int) -> Callable[[FloatArray, int], Scorer]:
    """Negative log likelihood under 12 Gaussians on components and log residual."""

    def fit(train: FloatArray, seed: int) -> Scorer:
        project, residual = components(train, count)

        def join(x: FloatArray) -> FloatArray:
            return np.column_stack([project(x), np.log(residual(x) + 1e-6)])

        model = GaussianMixture(12, covariance_type="full", reg_covar=1e-3, random_state=seed).fit(join(train))
        return lambda x: -model.score_samples(join(x))

    return fit


DETECTORS: dict[str, Callable[[FloatArray, int], Scorer]] = {
    "PCA residual, 5 components": residual_detector(5),
    "PCA residual, 8 components": residual_detector(8),
    "PCA residual, 16 components": residual_detector(16),
    "kNN, 5 components + residual": neighbour_detector(5),
    "kNN, 7 components + residual": neighbour_detector(7),
    "Gaussian mixture, 7 + residual": mixture_detector(7),
    "Gaussian mixture, 23 + residual": mixture_detector(23),
}


def figures(score: FloatArray, attack: BoolArray, threshold: float) -> npt.NDArray[np.float64]:
    """Accuracy, F1 and AUROC (Mann-Whitney, ties half)."""
    flagged = score > threshold
    hits = np.sum(flagged & attack)
    ranks = rankdata(score)
    positives = int(attack.sum())
    area = (ranks[attack].sum() - positives * (positives + 1) / 2) / (positives * (len(attack) - positives))
    return np.array([np.mean(flagged == attack), 2 * hits / (flagged.sum() + positives), area])


def measure(dataset: Dataset, seeds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Detector -> (seeds, 2, 3) figures on hold-out and test of each split."""
    results: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in DETECTORS}
    for seed in range(seeds):
        parts = split(dataset.train, np.random.default_rng(seed))
        raw = raw_features(dataset.train)
        benign = ~dataset.train.is_attack
        scale = scaling(raw[parts.train][benign[parts.train]])
        features, test = scale(raw), scale(raw_features(dataset.test))
        train = features[parts.train][benign[parts.train]]
        validation = features[parts.validation][benign[parts.validation]]
        for name, fit in DETECTORS.items():
            score = fit(train, seed)
            threshold = float(np.quantile(score(validation), 0.95))
            holdout = figures(score(features[parts.holdout]), ~benign[parts.holdout], threshold)
            results[name].append(np.array([holdout, figures(score(test), dataset.test.is_attack, threshold)]))
    return {name: np.array(values) for name, values in results.items()}


def main() -> int:
    """Prints the table; 1 if a figure differs by more than --points."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the official files (default: QRUN_DATA, cache)")
    parser.add_argument("--seeds", type=int, default=20, help="splits to average over")
    parser.add_argument("--points", type=float, default=3.0, help="largest difference allowed, in points")
    options = parser.parse_args()
    real = load(data=options.data, full=False, notify=lambda text: print(text, file=sys.stderr))
    if real.source != "official":
        print("The official files are needed to compare with.", file=sys.stderr)
        return 2
    ours, theirs = measure(standin(full=False), options.seeds), measure(real, options.seeds)
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}"
    print(f"python {platform.python_version()}, {versions}")
    print(f"means over {options.seeds} splits: real / stand-in / difference in points (its standard error)")
    worst = 0.0
    for name in DETECTORS:
        # The threshold, one quantile of 2000 scores, moves some figures by points from split to split.
        gaps = 100 * (ours[name].mean(axis=0) - theirs[name].mean(axis=0))
        errors = 100 * np.sqrt((ours[name].var(axis=0) + theirs[name].var(axis=0)) / max(options.seeds - 1, 1))
        worst = max(worst, float(np.abs(gaps).max()))
        for row, part in enumerate(("hold-out", "KDDTest+")):
            cells = []
            for column, metric in enumerate(METRICS):
                pair = f"{theirs[name][:, row, column].mean():.3f} / {ours[name][:, row, column].mean():.3f}"
                cells.append(f"{metric} {pair} / {gaps[row, column]:+4.1f} ({errors[row, column]:.1f})")
            print(f"{name:31s} {part:8s}  {'   '.join(cells)}")
    print(f"largest difference of means: {worst:.1f} points (allowed: {options.points:g})")
    return int(worst > options.points)


if __name__ == "__main__":
    sys.exit(main())
