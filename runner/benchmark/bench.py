"""What all models of a table share for one seed: the data as dealt, the agreed feature map, the judge's records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np

from backends.catalog import get_target
from circuits.errors import QrunError
from experiments.base import NodeShare, Study, find
from experiments.datasets.types import FloatArray, Records
from experiments.features.agreement import agree, node
from experiments.features.encoding import standardise, transform
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import plain_sum
from experiments.models.qgan import QGAN
from experiments.settings import ModelSettings
from runner.compiled import generator_for
from runner.config import RunConfig
from runner.measure import Judge
from runner.models import model_for
from runner.seeds import derive, generator

Features = Literal["agreed", "all"]


@dataclass(frozen=True)
class Tables:
    """Records as a model sees them, (N, d) each; lists have one entry a node."""

    train: list[FloatArray]
    benign: list[FloatArray]
    attacks: FloatArray
    training_attacks: FloatArray | None
    holdout: FloatArray
    test: FloatArray | None


@dataclass
class Bench:
    """A federation's data, and its model.

    Attributes:
        config: The run's; its seed deals the records.
        study: Data and shares.
    """

    config: RunConfig
    study: Study
    _tables: dict[Features, Tables] = field(default_factory=dict)
    _model: QGAN | None = None

    @classmethod
    def load(
        cls,
        config: RunConfig,
        folder: Path | None,
        notify: Callable[[str], None] = lambda text: None,
        *,
        records: int | None = None,
    ) -> Self:
        """Load and deal the data.

        Args:
            config: The run's.
            folder: Of the data set's files.
            notify: Told e.g. that a stand-in is used.
            records: Benign training records that each node keeps, at random; all where None.
        """
        study = find(config.experiment).load(
            config.data,
            nodes=config.nodes,
            seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
            folder=folder,
            notify=notify,
        )
        if records is not None:
            shares = tuple(_fewer(share, records, config.seed, i) for i, share in enumerate(study.shares))
            study = replace(study, shares=shares)
        return cls(config, study)

    @cached_property
    def feature_map(self) -> FeatureMap:
        """That which the nodes of a run agree on: masks cancel, the plain sum gives the same totals."""
        return agree([node(share.train) for share in self.study.shares], width(self.config.model), plain_sum)

    @cached_property
    def judge(self) -> Judge:
        """Hold-out and test records on the agreed map."""
        return Judge.of(self.study, self.feature_map)

    def tables(self, features: Features) -> Tables:
        """All records as features: those of the agreed map, or all columns that it stands on, standardised."""
        if features not in self._tables:
            study = self.study
            self._tables[features] = Tables(
                [self._of(features, share.train) for share in study.shares],
                [self._of(features, share.validation) for share in study.shares],
                np.concatenate([self._of(features, share.attacks) for share in study.shares]),
                None if study.training_attacks is None else self._of(features, study.training_attacks),
                self._of(features, study.holdout),
                None if study.test is None else self._of(features, study.test),
            )
        return self._tables[features]

    def _of(self, features: Features, records: Records) -> FloatArray:
        agreed = self.feature_map
        if features == "agreed":
            return agreed.apply(records)
        return np.ascontiguousarray(standardise(transform(records, agreed.columns), agreed.mean, agreed.sd).T)

    def model(self) -> QGAN:
        """The run's QGAN on its device, open; made once."""
        if self._model is None:
            config = self.config
            if config.engine == "runtime" or config.runtime is not None:
                raise QrunError("the table is made on twins: nothing is sent to a device.", "Take --engine twin.")
            target = get_target(config.backend)
            self._model = model_for(config, target, generator_for(config, target), "cpu")
            self._model.executor.__enter__()
        return self._model

    def close(self) -> None:
        """Close the model's engine."""
        if self._model is not None:
            self._model.executor.__exit__(None, None, None)
            self._model = None


def width(model: ModelSettings) -> int:
    """Features of a record: one a qubit, unless the model says otherwise."""
    return int(getattr(model, "features", model.qubits))


def _fewer(share: NodeShare, records: int, seed: int, index: int) -> NodeShare:
    order = generator(seed, "fewer", index).permutation(len(share.train))[:records]
    return replace(share, train=share.train.take(np.sort(order)))
