"""PCA reconstruction: how far a record lies from the space of the largest principal components of benign traffic."""

from __future__ import annotations

import numpy as np

from experiments.models.baselines.base import FloatArray, Training, small_seed


class Pca:
    """Squared distance to the space of `components` principal components.

    Args:
        components: How many; with fewer features, half of the features.
    """

    def __init__(self, components: int) -> None:
        self.components = components

    def fit(self, data: Training) -> None:
        """Fit on benign training records."""
        from sklearn.decomposition import PCA

        features = data.train.shape[1]
        keep = self.components if self.components < features else max(1, features // 2)
        self._pca = PCA(keep, random_state=small_seed(data.seed)).fit(data.train)

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) squared reconstruction errors."""
        rebuilt = self._pca.inverse_transform(self._pca.transform(x))
        out: FloatArray = np.sum((x - rebuilt) ** 2, axis=1)
        return out
