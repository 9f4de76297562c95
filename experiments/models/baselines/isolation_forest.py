"""Isolation Forest (Liu, Ting, Zhou 2008): anomalous records are cut off by few random cuts."""

from __future__ import annotations

import numpy as np

from experiments.models.baselines.base import FloatArray, Training, small_seed


class Forest:
    """scikit-learn's, with more trees and records a tree than its defaults.

    Args:
        trees: How many.
        records: That each tree is grown on.
    """

    def __init__(self, trees: int = 200, records: int = 16384) -> None:
        self.trees, self.records = trees, records

    def fit(self, data: Training) -> None:
        """Fit on benign training records."""
        from sklearn.ensemble import IsolationForest

        records = min(self.records, len(data.train))
        self._forest = IsolationForest(
            n_estimators=self.trees, max_samples=records, random_state=small_seed(data.seed)
        ).fit(data.train)

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) in [0, 1], by mean depth."""
        out: FloatArray = -np.asarray(self._forest.score_samples(x), dtype=np.float64)
        return out
