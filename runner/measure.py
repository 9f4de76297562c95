"""How good a model is: thresholds from benign validation records of all nodes, figures on labelled records.

The calibration of the aggregate needs benign records of every node. They do not move: each node counts its own in
fixed bins, and the counts are added up under pairwise masks, as for the feature map.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from experiments.base import Study
from experiments.datasets.types import BoolArray, FloatArray, Records
from experiments.features.map import FeatureMap
from experiments.metrics import Metrics, evaluate, evaluate_counts
from experiments.models.score import Calibration, Scorer
from runner.node import Peer

IntArray = npt.NDArray[np.int64]
SecureSum = Callable[[str, Sequence[IntArray]], IntArray]


def calibrate_together(scorer: Scorer, peers: Sequence[Peer], secure_sum: SecureSum, stage: str) -> Calibration:
    """The calibration on all nodes' benign validation records, from masked sums of counts.

    Args:
        scorer: Of the aggregate, the same for all.
        peers: The nodes.
        secure_sum: (stage, one array a node) -> their sum.
        stage: Unique in the run, so that no mask is used twice.
    """
    parts = secure_sum(f"{stage}/parts", [scorer.part_counts(p.validation_features) for p in peers])
    score = secure_sum(f"{stage}/score", [scorer.score_counts(p.validation_features, parts) for p in peers])
    return Calibration(parts, score)


def measure_together(
    scorer: Scorer, calibration: Calibration, peers: Sequence[Peer], secure_sum: SecureSum, stage: str
) -> Metrics:
    """The aggregate on all nodes' validation records, from masked sums of counts; arguments as above."""
    attacks = count_attacks(scorer, calibration, peers, secure_sum, stage)
    low, high = scorer.score_range(calibration.parts)
    return evaluate_counts(calibration.score, attacks, low, high, scorer.threshold(calibration))


def count_attacks(
    scorer: Scorer, calibration: Calibration, peers: Sequence[Peer], secure_sum: SecureSum, stage: str
) -> IntArray:
    """Counts of the scores of all nodes' attack records, from masked sums; arguments as above."""
    return secure_sum(f"{stage}/attacks", [scorer.score_counts(p.attack_features, calibration.parts) for p in peers])


@dataclass(frozen=True)
class Judge:
    """What finished models are scored on, as features: records that no node has."""

    holdout: FloatArray
    holdout_attack: BoolArray
    test: FloatArray | None
    test_attack: BoolArray | None
    seen: BoolArray | None

    @classmethod
    def of(cls, study: Study, feature_map: FeatureMap) -> Judge:
        """Apply the agreed map to hold-out and test records."""

        def features(records: Records | None) -> tuple[FloatArray | None, BoolArray | None]:
            return (None, None) if records is None else (feature_map.apply(records), records.is_attack)

        test, test_attack = features(study.test)
        return cls(feature_map.apply(study.holdout), study.holdout.is_attack, test, test_attack, study.seen)

    def set_aside(self) -> Judge:
        """The same, its features in a file that nobody else sees: in memory once they are looked at, and not before."""
        return replace(self, holdout=_in_file(self.holdout), test=None if self.test is None else _in_file(self.test))

    def score(self, scorer: Scorer, calibration: Calibration) -> dict[str, Metrics | None]:
        """Metrics by part: holdout, test, and test without the vectors that also stand in the training file."""
        threshold = scorer.threshold(calibration)
        out: dict[str, Metrics | None] = {
            "holdout": evaluate(scorer.scores(self.holdout, calibration.parts), self.holdout_attack, threshold),
            "test": None,
            "test_without_seen": None,
        }
        if self.test is not None and self.test_attack is not None and self.seen is not None:
            scores = scorer.scores(self.test, calibration.parts)
            fresh = ~self.seen
            out["test"] = evaluate(scores, self.test_attack, threshold)
            out["test_without_seen"] = evaluate(scores[fresh], self.test_attack[fresh], threshold)
        return out


def _in_file(array: FloatArray) -> FloatArray:
    if not array.size:
        return array
    with tempfile.TemporaryFile() as file:
        array.tofile(file)
        file.flush()
        # The mapping outlives the file's name and its handle.
        return np.memmap(file, dtype=array.dtype, mode="r", shape=array.shape)
