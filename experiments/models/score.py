"""The anomaly score: how far into the tail of benign traffic a record lies, by one part or several.

Parts of a record x (model.score): -D(x); the mean distance to the k nearest of M generated samples; the residual, the
last feature: what the principal components leave over. Each part becomes a tail
probability p under the benign validation records, and the score is -sum(w log p) (Fisher's way to combine tails, with
weights). What
calibrates it is counts in fixed bins, which add up over nodes: no record moves, and the sum can be taken under masks.
A threshold is an edge of the bins; a node's own, which it publishes, is one of few, so that it does not give away the
score of a record of a small node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from experiments.features.histogram import count, edge_above, tail_probability
from experiments.models.qgan import QGAN, RECORDS, Parameters

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BINS = 1024
NODE_BINS = 64
"""Bins of a single node's scores: its threshold is published."""
LOGIT_LIMIT = 30.0


@dataclass(frozen=True)
class Calibration:
    """Benign validation records, as counts: (parts, BINS) of the parts, and (bins,) of the score."""

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
        self.samples = np.zeros((0, model.features)) if samples is None else samples
        if samples is None and "distance" in settings.score:
            self.samples = model.generate(parameters, settings.samples, seed)
        self.neighbours = min(settings.neighbours, len(self.samples))
        bounds = {
            "discriminator": (-LOGIT_LIMIT, LOGIT_LIMIT),
            "distance": (0.0, 2.0 * math.sqrt(model.features)),
            "residual": (-1.0, 1.0),
        }
        self.names = sorted(settings.score)
        self.weights = [settings.score[name] for name in self.names]
        self.ranges = tuple(bounds[name] for name in self.names)

    def parts(self, x: FloatArray) -> FloatArray:
        """(N, features) -> (N, parts), in the order of their names; -D(x) is cut to +-30."""
        columns = {
            "discriminator": lambda: np.clip(-self.model.logits(self.parameters, x), -LOGIT_LIMIT, LOGIT_LIMIT),
            "distance": lambda: self._distances(x),
            "residual": lambda: x[:, -1],
        }
        return np.stack([columns[name]() for name in self.names], axis=1)

    def _distances(self, x: FloatArray) -> FloatArray:
        """(N, features) -> (N,) mean distances to the nearest generated samples."""
        out = np.empty(len(x))
        norm = (self.samples**2).sum(1)
        k = self.neighbours
        for i in range(0, len(x), RECORDS):
            chunk = x[i : i + RECORDS]
            squared = chunk @ (-2 * self.samples.T)
            squared += norm
            squared += (chunk**2).sum(1)[:, None]
            squared.partition(k - 1, axis=1)
            nearest = squared[:, :k]
            out[i : i + RECORDS] = np.sqrt(np.maximum(nearest, 0)).mean(1)
        return out

    def part_counts(self, x: FloatArray) -> IntArray:
        """(parts, BINS) counts of the parts of benign records."""
        parts = self.parts(x)
        return np.stack([count(parts[:, k], low, high, BINS) for k, (low, high) in enumerate(self.ranges)])

    def scores(self, x: FloatArray, part_counts: IntArray) -> FloatArray:
        """(N,) anomaly scores, higher is more anomalous, given the benign counts of the parts."""
        parts = self.parts(x)
        tails = [
            weight * np.log(tail_probability(part_counts[k], low, high, parts[:, k]))
            for k, (weight, (low, high)) in enumerate(zip(self.weights, self.ranges, strict=True))
        ]
        out: FloatArray = -np.sum(tails, axis=0)
        return out

    def score_range(self, part_counts: IntArray) -> tuple[float, float]:
        """Bounds of a score: no tail probability is under 1/(n + 1)."""
        most = sum(w * np.log(c.sum() + 1.0) for w, c in zip(self.weights, part_counts, strict=True))
        return 0.0, float(most) + 1e-9

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

    def validated_threshold(self, calibration: Calibration, attacks: IntArray) -> float:
        """The edge of the bins with the best F1 on labelled validation records; of equal ones the lowest.

        Args:
            calibration: Of benign validation records.
            attacks: (bins,) counts of attack records' scores, in as many bins as the calibration has.

        Raises:
            QrunError: There are no attacks.
        """
        low, high = self.score_range(calibration.parts)
        total = int(attacks.sum())
        if total == 0:
            raise QrunError("a validated threshold was asked of no attacks.", "Take the label-free one.")
        bins = len(attacks)
        # Behind edge b + 1 are the records of the bins above b.
        hit = total - np.cumsum(attacks)
        called = hit + int(calibration.score.sum()) - np.cumsum(calibration.score)
        best = int(np.argmax(2 * hit / (called + total)))
        return low + (best + 1) * (high - low) / bins

    def calibrate(self, benign: FloatArray) -> Calibration:
        """Calibration on one node's benign validation records."""
        parts = self.part_counts(benign)
        return Calibration(parts, self.score_counts(benign, parts, NODE_BINS))
