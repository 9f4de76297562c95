"""nsl-kdd: a federated QGAN learns benign traffic of NSL-KDD and flags intrusions.

After Cirillo and Esposito, "Intrusion Detection System based on QGAN and Blockchain-based Federated Learning". The
training file is split 70/15/15 into training, validation and hold-out. Nodes train on benign records only; attacks of
the validation part measure rounds; the hold-out and KDDTest+ are scored once, after the last round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from circuits.qgan import generator
from circuits.types import Ansatz
from experiments.base import NodeShare, Seeds, Study
from experiments.datasets.fetch import load
from experiments.datasets.nsl_kdd import duplicates_of
from experiments.datasets.split import partition, split
from experiments.settings import DataSettings, ModelSettings

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "better": {
        "model": {
            "discriminators": 8,
            "hidden": [32, 16],
            "waves": 256,
            "score": {"discriminator": 1.0, "distance": 0.5, "residual": 0.5},
        }
    },
    "best": {
        "model": {
            "discriminators": 8,
            "waves": 256,
            "detector_steps": 1500,
            "score": {"discriminator": 1.0, "distance": 0.5, "residual": 0.5},
        }
    },
    "fast": {"rounds": 3, "model": {"qubits": 4, "steps_per_epoch": 30, "discriminators": 2, "detector_steps": 200}},
}
"""Chosen as the defaults were (docs/decisions/0010-detection.md)."""


class NslKdd:
    """Intrusion detection on NSL-KDD."""

    name = "nsl-kdd"
    summary = "A federated QGAN learns benign traffic of NSL-KDD and flags intrusions."

    def defaults(self) -> Mapping[str, Any]:
        """RunConfig's defaults are this experiment's."""
        return {}

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Named values over the defaults: `fast` takes seconds, `better` up to twice the default, `best` minutes."""
        return PRESETS

    def ansatz(self, model: ModelSettings) -> Ansatz:
        """RY(z) and EfficientSU2."""
        return generator(model.qubits, model.reps, model.entanglement, reuploads=model.reuploads or 0)

    def load(
        self, data: DataSettings, *, nodes: int, seeds: Seeds, folder: Path | None, notify: Callable[[str], None]
    ) -> Study:
        """Read the official files (or the stand-in), split the training file, and deal benign records to the nodes."""
        dataset = load(data=folder, full=data.full, notify=notify, test=data.test)
        train = dataset.train
        parts = split(train, np.random.default_rng(seeds("split")))
        training, validation = train.take(parts.train), train.take(parts.validation)
        benign = training.take(~training.is_attack)
        benign_validation = validation.take(~validation.is_attack)
        attacks = validation.take(validation.is_attack)

        rng = np.random.default_rng(seeds("partition"))
        dealt = partition(benign, nodes, data.partition, rng)
        mine_validation = dealt.assign(benign_validation, rng)
        attack_parts = np.array_split(rng.permutation(len(attacks)), nodes)
        shares = tuple(
            NodeShare(
                train=benign.take(dealt.parts[i]),
                validation=benign_validation.take(mine_validation[i]),
                attacks=attacks.take(np.sort(attack_parts[i])),
            )
            for i in range(nodes)
        )
        test = dataset.test
        return Study(
            dataset=dataset,
            shares=shares,
            holdout=train.take(parts.holdout),
            test=test,
            seen=duplicates_of(train, test) if test is not None else None,
            training_attacks=training.take(training.is_attack),
        )
