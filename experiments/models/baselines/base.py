"""What a baseline is, and what it may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """All that a baseline sees before it is judged.

    Attributes:
        train: (N, d) benign training records.
        benign: (M, d) benign validation records, for calibration.
        attacks: (A, d) attack records of the training part; only supervised models look at them.
        seed: Of all its randomness.
    """

    train: FloatArray
    benign: FloatArray
    attacks: FloatArray
    seed: int


class Baseline(Protocol):
    """A detector: fitted once, then it scores."""

    def fit(self, data: Training) -> None:
        """Learn from what may be seen."""
        ...

    def scores(self, x: FloatArray) -> FloatArray:
        """(N, d) -> (N,) anomaly scores, higher is more anomalous; finite."""
        ...


def small_seed(seed: int) -> int:
    """A seed as scikit-learn takes it."""
    return seed % 2**32
