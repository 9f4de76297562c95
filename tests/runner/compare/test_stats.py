"""Statistics against scipy, and against cases that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from experiments.metrics import evaluate
from runner.compare import stats

FLOATS = st.lists(st.floats(-1, 1, allow_nan=False, width=32), min_size=2, max_size=12)


@given(FLOATS)
def test_intervals_are_those_of_scipy(values: list[float]) -> None:
    found = stats.interval(values)
    assert found.mean == pytest.approx(np.mean(values))
    scale = reference.sem(values)
    if scale > 1e-9:
        low, high = reference.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scale)
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_no_test() -> None:
    assert stats.interval([0.5]) == stats.Interval(0.5, None, None, 1)
    found = stats.paired({3: 0.5}, {3: 0.4})
    assert found is not None
    assert found.p is None
    assert found.difference.low is None
    assert stats.holm([found.p, 0.01]) == [None, 0.01]
    with pytest.raises(ValueError, match="no mean"):
        stats.interval([])


@given(FLOATS, st.integers(0, 1000))
def test_paired_tests_are_those_of_scipy(values: list[float], seed: int) -> None:
    other = np.random.default_rng(seed).normal(size=len(values))
    found = stats.paired(dict(enumerate(values)), dict(enumerate(other)))
    expected = reference.ttest_rel(values, other)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    low, high = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == (pytest.approx(low), pytest.approx(high))


def test_pairs_are_by_key_and_the_same_values_do_not_differ() -> None:
    found = stats.paired({0: 1.0, 1: 2.0, 7: 9.0}, {1: 2.0, 0: 1.0, 8: 0.0})
    assert found is not None
    assert (found.difference.n, found.difference.mean, found.p) == (2, 0.0, 1.0)
    assert stats.paired({0: 1.0}, {1: 1.0}) is None
    assert stats.t_test(np.array([0.25, 0.25, 0.25])) == 0.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_what_stepping_down_rejects(values: list[float]) -> None:
    found = stats.holm(values)
    for level in (0.01, 0.05, 0.2):
        order, rejected = sorted(range(len(values)), key=lambda i: values[i]), set()
        for place, i in enumerate(order):
            if values[i] * (len(values) - place) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(found) if p is not None and p <= level} == rejected


def test_holm_of_a_known_case() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_wasserstein_is_scipys_and_of_a_shift_its_length() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 3)), rng.normal(size=(150, 3)) + 0.5
    each = [reference.wasserstein_distance(x[:, j], y[:, j]) for j in range(3)]
    assert stats.wasserstein(x, y) == pytest.approx(np.mean(each))
    assert stats.wasserstein(x, x + 0.25) == pytest.approx(0.25)
    # A shift by v projects to |v . u|, whose mean over directions is |v| times a constant below 1.
    assert 0 < stats.sliced_wasserstein(x, x + 0.25) < 0.25 * math.sqrt(3)
    assert stats.sliced_wasserstein(x, x) == 0.0


def test_mmd_is_that_of_its_definition_and_unbiased() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * 0.7**2)))

    expected = (
        np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    assert stats.mmd2(x, y, 0.7) == pytest.approx(expected)
    same = [stats.mmd2(rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), 1.0) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    assert stats.mmd2(x, x + 5.0, 0.7) > 0.5


def test_the_bandwidth_is_the_median_distance() -> None:
    x = np.array([[0.0], [1.0], [3.0]])
    assert stats.bandwidth(x) == 2.0
    assert stats.bandwidth(np.zeros((4, 2))) == 1.0


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_curve_is_the_auroc(ties: bool) -> None:
    rng = np.random.default_rng(2)
    attack = rng.random(5000) < 0.4
    scores = rng.normal(size=5000) + attack
    if ties:
        scores = scores.round(1)
    curve = stats.roc(scores, attack)
    area = np.trapezoid(curve["tpr"], curve["fpr"])
    assert area == pytest.approx(evaluate(scores, attack, 0.0).auroc, abs=2e-4)
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    assert len(curve["fpr"]) <= stats.CURVE
    mean = stats.mean_roc([curve, curve])
    assert mean["mean"] == mean["low"] == mean["high"]


def test_without_one_of_the_classes_there_is_no_curve() -> None:
    assert stats.roc(np.arange(3.0), np.zeros(3, dtype=bool)) == {"fpr": [], "tpr": []}


def test_shares_of_a_histogram_add_up_to_one() -> None:
    scores, attack = np.array([0.0, 0.1, 0.9, 1.0, 1.0]), np.array([False, False, False, True, True])
    found = stats.histogram(scores, attack, bins=4)
    assert found["edges"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert sum(found["benign"]) == pytest.approx(1, abs=1e-5)
    assert found["attack"] == [0.0, 0.0, 0.0, 1.0]
    assert stats.histogram(np.ones(2), np.array([True, False]))["edges"][-1] == 2.0
