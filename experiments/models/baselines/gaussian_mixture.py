"""Gaussian mixture: how unlikely a record is under a density of benign traffic."""

from __future__ import annotations

import numpy as np

from experiments.models.baselines.base import FloatArray, Training, small_seed


class Mixture:
    """scikit-learn's, with full covariances.

    Args:
        components: How many Gaussians, at most one for 16 records.
        floor: Added to every variance.
    """

    def __init__(self, components: int = 32, floor: float = 1e-3) -> None:
        self.components, self.floor = components, floor

    def fit(self, data: Training) -> None:
        """Fit on benign training records."""
        from sklearn.mixture import GaussianMixture

        self._mixture = GaussianMixture(
            min(self.components, max(1, len(data.train) // 16)),
            reg_covar=self.floor,
            random_state=small_seed(data.seed),
            max_iter=300,
        ).fit(data.train)

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) negative log likelihoods."""
        out: FloatArray = -np.asarray(self._mixture.score_samples(x), dtype=np.float64)
        return out
