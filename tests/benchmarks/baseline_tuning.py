"""How the baselines' hyperparameters were chosen: AUROC on the labelled validation part of the training file.

    python -m tests.benchmarks.baseline_tuning --data DIR [--seeds 3] [--config FILE]

Neither the hold-out nor the test file is looked at (the test file is not even read). Prints a line a setting: mean and
range over seeds; the best of each model stands first. What was chosen stands as the default in experiments/models/
baselines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.metrics import evaluate
from experiments.models.baselines.autoencoder import Autoencoder
from experiments.models.baselines.base import Training
from experiments.models.baselines.gaussian_mixture import Mixture
from experiments.models.baselines.isolation_forest import Forest
from experiments.models.baselines.one_class_svm import OneClass
from experiments.models.baselines.pca import Pca
from runner.benchmark.bench import Bench, Features
from runner.options import config_from
from runner.seeds import derive

GRIDS: list[tuple[str, Features, Callable[..., Any], dict[str, list[Any]]]] = [
    ("pca", "agreed", Pca, {"components": [1, 2, 3, 4, 5, 8, 12, 16, 20]}),
    ("pca-all", "all", Pca, {"components": [2, 4, 6, 8, 12, 16, 20, 24]}),
    ("isolation-forest", "agreed", Forest, {"trees": [200], "records": [1024, 4096, 8192, 16384]}),
    ("one-class-svm", "agreed", OneClass, {"nu": [0.02, 0.05], "width": [1.0, 3.0, 10.0, 30.0, 100.0]}),
    ("gaussian-mixture", "agreed", Mixture, {"components": [4, 8, 16, 24, 32], "floor": [1e-3, 1e-2]}),
    ("autoencoder", "agreed", Autoencoder, {"middle": [2, 3, 4, 5, 8, 12], "noise": [0.0, 0.05, 0.15]}),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--model", action="append")
    asked = parser.parse_args()
    benches = []
    for seed in range(asked.seeds):
        config = config_from("nsl-kdd", {"seed": seed, "test": False}, asked.config)
        benches.append(Bench.load(config, asked.data, print))
    for name, features, make, grid in GRIDS:
        if asked.model and name not in asked.model:
            continue
        found = []
        for values in product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            if name == "pca" and settings["components"] >= benches[0].tables(features).holdout.shape[1]:
                continue
            aurocs = []
            for bench in benches:
                tables = bench.tables(features)
                model = make(**settings)
                benign = np.concatenate(tables.benign)
                seed = derive(bench.config.seed, "baseline")
                model.fit(Training(np.concatenate(tables.train), benign, np.zeros((0, 1)), seed))
                x = np.concatenate([benign, tables.attacks])
                labels = np.repeat([False, True], [len(benign), len(tables.attacks)])
                aurocs.append(evaluate(model.scores(x), labels, 0.0).auroc)
            found.append((float(np.mean(aurocs)), min(aurocs), max(aurocs), settings))
        for mean, low, high, settings in sorted(found, key=lambda f: -f[0]):
            said = ", ".join(f"{key}={value}" for key, value in settings.items())
            print(f"{name:18} {mean:.4f} ({low:.4f}-{high:.4f})  {said}", flush=True)


if __name__ == "__main__":
    main()
