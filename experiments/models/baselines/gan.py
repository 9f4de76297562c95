"""The run's own GAN trained in one place, with the quantum generator or with another (../generators.py)."""

from __future__ import annotations

import numpy as np

from experiments.models.baselines.base import FloatArray, Training
from experiments.models.generators import Variant, generator_parameters
from experiments.models.qgan import QGAN
from experiments.models.score import Scorer


class Gan:
    """A generator against the QGAN's own discriminator, scored as the QGAN is.

    Args:
        model: The QGAN, its executor open.
        variant: Which generator.
        epochs: As many as a node of the run trains in all rounds.
    """

    def __init__(self, model: QGAN, variant: Variant, epochs: int) -> None:
        self.model, self.epochs = variant.make(model), epochs

    @property
    def parameters(self) -> int:
        """Of the generator."""
        return generator_parameters(self.model)

    def fit(self, data: Training) -> None:
        """Train on benign training records, calibrate the score on those of validation."""
        start = self.model.initial(np.random.default_rng(data.seed))
        trained = self.model.train(start, data.train, epochs=self.epochs, seed=data.seed)
        self._scorer = Scorer(self.model, trained.parameters, data.seed % 2**31)
        self._parts = self._scorer.part_counts(data.benign)

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) the QGAN's anomaly scores."""
        return self._scorer.scores(x, self._parts)
