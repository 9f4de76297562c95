"""The anomaly score: how far into the tail of benign traffic a record lies, by discriminator and by distance.

Parts of a record x: -D(x), and the mean distance to the k nearest of M generated samples. Each part becomes a tail
probability p under the benign validation records, and the score is -sum(log p) (Fisher's way to combine tails). What
calibrates it is counts in fixed bins, which add up over nodes: no record moves, and the sum can be taken under masks.
A threshold is an edge of the bins; a node's own, which it publishes, is one of few, so that it does not give away the
score of a record of a small node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.features.histogram import count, edge_above, tail_probability
from experiments.models.qgan import QGAN, Parameters

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BINS = 1024
NODE_BINS = 64
"""Bins of a single node's scores: its threshold is published."""
LOGIT_LIMIT = 30.0


@dataclass(frozen=True)
class Calibration:
    """Benign validation records, as counts: (2, BINS) of the parts, and (bins,) of the score."""

    parts: IntArray
    score: IntArray


class Scorer:
    """Scores records with one model.

    Args:
        model: The QGAN, its executor open.
        parameters: The model's parameters.
        seed: Fixes the generated samples that distances are taken to.
        samples: (M, features) samples that were generated elsewhere, on a device; then no circuit is run.
    """

    def __init__(
        self, model: QGAN, parameters: Parameters, seed: int = 0, *, samples: FloatArray | None = None
    ) -> None:
        self.model = model
        self.parameters = parameters
        settings = model.settings
        self.samples = model.generate(parameters, settings.samples, seed) if samples is None else samples
        self.neighbours = min(settings.neighbours, len(self.samples))
        self.ranges: tuple[tuple[float, float], ...] = (
            (-LOGIT_LIMIT, LOGIT_LIMIT),
            (0.0, 2.0 * math.sqrt(model.features)),
        )

    def parts(self, x: FloatArray) -> FloatArray:
        """(N, features) -> (N, 2): -D(x) within +-30, and the mean distance to the nearest generated samples."""
        out = np.empty((len(x), 2))
        out[:, 0] = np.clip(-self.model.logits(self.parameters, x), -LOGIT_LIMIT, LOGIT_LIMIT)
        norm = (self.samples**2).sum(1)
        k = self.neighbours
        for i in range(0, len(x), 2048):
            chunk = x[i : i + 2048]
            squared = (chunk**2).sum(1)[:, None] + norm[None] - 2 * chunk @ self.samples.T
            nearest = np.partition(squared, k - 1, axis=1)[:, :k]
            out[i : i + 2048, 1] = np.sqrt(np.maximum(nearest, 0)).mean(1)
        return out

    def part_counts(self, x: FloatArray) -> IntArray:
        """(2, BINS) counts of the parts of benign records."""
        parts = self.parts(x)
        return np.stack([count(parts[:, k], low, high, BINS) for k, (low, high) in enumerate(self.ranges)])

    def scores(self, x: FloatArray, part_counts: IntArray) -> FloatArray:
        """(N,) anomaly scores, higher is more anomalous, given the benign counts of the parts."""
        parts = self.parts(x)
        tails = [
            np.log(tail_probability(part_counts[k], low, high, parts[:, k]))
            for k, (low, high) in enumerate(self.ranges)
        ]
        out: FloatArray = -np.sum(tails, axis=0)
        return out

    def score_range(self, part_counts: IntArray) -> tuple[float, float]:
        """Bounds of a score: no tail probability is under 1/(n + 1)."""
        return 0.0, float(sum(np.log(c.sum() + 1.0) for c in part_counts)) + 1e-9

    def score_counts(self, x: FloatArray, part_counts: IntArray, bins: int = BINS) -> IntArray:
        """(bins,) counts of the scores of records."""
        low, high = self.score_range(part_counts)
        return count(self.scores(x, part_counts), low, high, bins)

    def threshold(self, calibration: Calibration) -> float:
        """The score over which a record counts as an attack: a quantile of benign scores, no label used.

        It is the first edge of the bins that at least `threshold_quantile` of the benign records lie below.
        """
        low, high = self.score_range(calibration.parts)
        return edge_above(calibration.score, low, high, self.model.settings.threshold_quantile)

    def calibrate(self, benign: FloatArray) -> Calibration:
        """Calibration on one node's benign validation records."""
        parts = self.part_counts(benign)
        return Calibration(parts, self.score_counts(benign, parts, NODE_BINS))
