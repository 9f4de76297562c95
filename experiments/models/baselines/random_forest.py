"""Random Forest, supervised: it sees the attacks of the training part, and so is no rival but an upper line."""

from __future__ import annotations

import numpy as np

from experiments.models.baselines.base import FloatArray, Training, small_seed


class Supervised:
    """scikit-learn's, with its defaults.

    Args:
        trees: How many.
    """

    def __init__(self, trees: int = 200) -> None:
        self.trees = trees

    def fit(self, data: Training) -> None:
        """Fit on benign and attack records of the training part."""
        from sklearn.ensemble import RandomForestClassifier

        x = np.concatenate([data.train, data.attacks])
        y = np.repeat([0, 1], [len(data.train), len(data.attacks)])
        self._forest = RandomForestClassifier(self.trees, random_state=small_seed(data.seed)).fit(x, y)

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) share of trees that say attack."""
        chances = np.asarray(self._forest.predict_proba(x), dtype=np.float64)
        out: FloatArray = chances[:, -1] if chances.shape[1] > 1 else np.zeros(len(x))
        return out
