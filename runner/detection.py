"""The final model's figures in detail, and the detector that gives them again: what a run and an ablation have."""

from __future__ import annotations

from typing import Any

from experiments.base import Study
from experiments.detection import Detection, Scored, detect, parts_of, validated_counts
from experiments.metrics import IntArray
from experiments.models.score import Calibration, Scorer
from runner.measure import Judge

DIGITS = 6
"""As of all metrics in a result."""


def thresholds_of(scorer: Scorer, calibration: Calibration, attacks: IntArray) -> dict[str, float]:
    """Label-free and validated; `attacks` are counts of the scores of all nodes' attack records, as the calibration."""
    low, high = scorer.score_range(calibration.parts)
    return {
        "label_free": scorer.threshold(calibration),
        "validated": validated_counts(calibration.score, attacks, low, high),
    }


def detection_of(
    scorer: Scorer, calibration: Calibration, thresholds: dict[str, float], judge: Judge, study: Study
) -> Detection:
    """Every part at every threshold; the records of `judge` and `study` are the same."""
    holdout = Scored(scorer.scores(judge.holdout, calibration.parts), study.holdout.attack)
    test = None
    if judge.test is not None and study.test is not None:
        test = Scored(scorer.scores(judge.test, calibration.parts), study.test.attack)
    return detect(parts_of(holdout, test, judge.seen), thresholds)


def to_json(detection: Detection) -> dict[str, Any]:
    """As it stands in results: rounded, names as in docs/result.md."""
    return {
        part: None if found is None else {name: rounded(figures.to_dict()) for name, figures in found.items()}
        for part, found in detection.items()
    }


def rounded(value: Any) -> Any:
    """Floats rounded to as many digits as a result has, in nested values too."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return value
