"""One-class SVM (Schölkopf et al. 2001): a boundary around benign traffic in the space of a Gaussian kernel."""

from __future__ import annotations

import numpy as np

from experiments.models.baselines.base import FloatArray, Training, small_seed


class OneClass:
    """scikit-learn's.

    Args:
        nu: Share of benign records that may lie outside.
        width: gamma is `width` / (features x variance), scikit-learn's "scale" at 1.
        records: At most so many are fitted, drawn at random: the fit takes the square of their number.
    """

    def __init__(self, nu: float = 0.05, width: float = 10.0, records: int = 8192) -> None:
        self.nu, self.width, self.records = nu, width, records

    def fit(self, data: Training) -> None:
        """Fit on benign training records."""
        from sklearn.svm import OneClassSVM

        x = data.train
        if len(x) > self.records:
            x = x[np.random.default_rng(small_seed(data.seed)).permutation(len(x))[: self.records]]
        gamma = self.width / (x.shape[1] * max(float(x.var()), 1e-12))
        self._svm = OneClassSVM(nu=self.nu, gamma=gamma).fit(x)

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) distances past the boundary."""
        out: FloatArray = -np.asarray(self._svm.decision_function(x), dtype=np.float64)
        return out
