"""A score as a probability: never falling, in (0, 1), and what scikit-learn's isotonic regression says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.reliability import isotonic, probability, reliability

counts = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30).filter(
    lambda pairs: any(a + b for a, b in pairs)
)


@given(counts)
def test_a_higher_score_is_never_less_probable(pairs: list[tuple[int, int]]) -> None:
    benign, attack = np.array(pairs).T
    found = isotonic(benign, attack)
    assert found.shape == benign.shape
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()


@given(counts)
def test_with_many_records_it_is_isotonic_regression(pairs: list[tuple[int, int]]) -> None:
    sk = pytest.importorskip("sklearn.isotonic")
    benign, attack = np.array(pairs).T * 10**6
    known = benign + attack > 0
    wanted = sk.isotonic_regression(
        (attack / np.maximum(benign + attack, 1))[known], sample_weight=(benign + attack)[known]
    )
    np.testing.assert_allclose(isotonic(benign, attack)[known], wanted, atol=1e-5)


def test_scores_get_the_probability_of_their_bin() -> None:
    by_bin = np.array([0.1, 0.5, 0.9])
    found = probability(by_bin, np.array([-5.0, 0.0, 0.99, 1.0, 2.5, 3.0, 99.0]), 0.0, 3.0)
    np.testing.assert_array_equal(found, [0.1, 0.1, 0.1, 0.5, 0.9, 0.9, 0.9])


def test_the_error_of_calibration_is_the_mean_distance_weighted_by_records() -> None:
    chances = np.array([0.05] * 10 + [0.95] * 30)
    attack = np.array([False] * 10 + [True] * 27 + [False] * 3)
    error, rows = reliability(chances, attack)
    assert error == pytest.approx((10 * 0.05 + 30 * 0.05) / 40)
    assert [n for n, _, _ in rows] == [10, 30]
    assert reliability(np.array([1.0]), np.array([True]))[0] == 0.0
