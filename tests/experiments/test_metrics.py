"""The metrics are scikit-learn's where both are defined, and defined everywhere."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import QrunError
from experiments.metrics import Metrics, evaluate, evaluate_counts

# Few distinct scores, so that ties are the rule.
records = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=60)


def split(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p[0] for p in pairs], dtype=float), np.array([p[1] for p in pairs])


@settings(deadline=None)
@given(records, st.integers(-5, 5))
def test_agrees_with_scikit_learn(pairs: list[tuple[int, bool]], threshold: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    scores, attack = split(pairs)
    ours, called = evaluate(scores, attack, threshold), scores > threshold
    assert ours.accuracy == pytest.approx(sk.accuracy_score(attack, called), abs=1e-12)
    assert ours.precision == pytest.approx(sk.precision_score(attack, called, zero_division=0), abs=1e-12)
    assert ours.recall == pytest.approx(sk.recall_score(attack, called, zero_division=0), abs=1e-12)
    assert ours.f1 == pytest.approx(sk.f1_score(attack, called, zero_division=0), abs=1e-12)
    expected = sk.roc_auc_score(attack, scores) if attack.any() and not attack.all() else 0.5
    assert ours.auroc == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(records)
def test_auroc_is_the_chance_that_an_attack_scores_higher(pairs: list[tuple[int, bool]]) -> None:
    scores, attack = split(pairs)
    difference = scores[attack][:, None] - scores[~attack][None]
    expected = (np.sign(difference).mean() + 1) / 2 if difference.size else 0.5
    assert evaluate(scores, attack, 0.0).auroc == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(records, st.integers(-5, 5))
def test_monotone_transforms_change_nothing_and_reversal_complements(
    pairs: list[tuple[int, bool]], threshold: int
) -> None:
    scores, attack = split(pairs)
    plain = evaluate(scores, attack, threshold)
    moved = evaluate(np.exp(scores) * 3 - 1, attack, np.exp(threshold) * 3 - 1)
    assert {**moved.to_dict(), "threshold": 0} == {**plain.to_dict(), "threshold": 0}
    assert evaluate(-scores, attack, threshold).auroc == pytest.approx(1 - plain.auroc, abs=1e-12)
    assert evaluate(scores, ~attack, threshold).auroc == pytest.approx(1 - plain.auroc, abs=1e-12)


@settings(deadline=None)
@given(records, st.floats(-10, 10))
def test_everything_is_json_and_within_its_range(pairs: list[tuple[int, bool]], threshold: float) -> None:
    result = evaluate(*split(pairs), threshold).to_dict()
    assert list(result) == ["accuracy", "precision", "recall", "f1", "auroc", "threshold"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(0 <= v <= 1 for k, v in result.items() if k != "threshold")


def test_worked_example() -> None:
    scores, attack = np.array([1.0, 2.0, 3.0, 3.0]), np.array([False, True, False, True])
    # Called: both threes. Pairs (attack, benign): 2>1, 2<3, 3>1, 3=3, that is 2.5 of 4. At the threshold is not above.
    assert evaluate(scores, attack, 2.0) == Metrics(0.5, 0.5, 0.5, 0.5, 0.625, 2.0)


def test_one_class_only() -> None:
    benign = evaluate(np.array([1.0, 2.0]), np.array([False, False]), 1.5)
    assert benign == Metrics(0.5, 0.0, 0.0, 0.0, 0.5, 1.5)
    quiet = evaluate(np.array([1.0, 2.0]), np.array([True, True]), 9.0)
    assert quiet == Metrics(0.0, 0.0, 0.0, 0.0, 0.5, 9.0)


def test_what_cannot_be_measured_is_said() -> None:
    one = np.array([True])
    for bad in (np.nan, np.inf):
        with pytest.raises(QrunError, match="1 of 1 scores"):
            evaluate(np.array([bad]), one, 0.0)
        with pytest.raises(QrunError, match="the threshold"):
            evaluate(np.array([0.0]), one, bad)
    with pytest.raises(QrunError, match="no records"):
        evaluate(np.array([]), np.array([], dtype=bool), 0.0)
    with pytest.raises(ValueError, match="do not go with"):
        evaluate(np.zeros(2), one, 0.0)


@given(records, st.integers(0, 64))
def test_counts_in_bins_measure_the_same_as_scores_at_bin_centres(pairs: list[tuple[float, bool]], edge: int) -> None:
    scores, attack = split(pairs)
    low, high, bins = -10.0, 10.0, 64
    place = np.clip(((scores - low) / (high - low) * bins).astype(int), 0, bins - 1)
    centres = low + (place + 0.5) * (high - low) / bins
    threshold = low + edge * (high - low) / bins
    benign_counts, attack_counts = (np.bincount(place[attack == which], minlength=bins) for which in (False, True))
    assert evaluate_counts(benign_counts, attack_counts, low, high, threshold) == evaluate(centres, attack, threshold)


def test_histograms_that_cannot_be_measured() -> None:
    with pytest.raises(QrunError, match="no records"):
        evaluate_counts(np.zeros(4, dtype=int), np.zeros(4, dtype=int), 0.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="do not go together"):
        evaluate_counts(np.zeros(4, dtype=int), np.zeros(3, dtype=int), 0.0, 1.0, 0.5)
