"""Jacobi's method agrees with LAPACK, and leaves order and sign no freedom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.features.eigen import symmetric_eigen


def check(matrix: np.ndarray) -> None:
    values, vectors = symmetric_eigen(matrix)
    scale = max(1e-300, float(np.abs(matrix).max(initial=0)))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], atol=1e-12 * scale * len(matrix))
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(matrix)), atol=1e-12)
    np.testing.assert_allclose(vectors.T * values @ vectors, matrix, atol=1e-12 * scale * len(matrix))
    assert np.all(np.diff(values) <= 0)
    rounded = np.round(np.abs(vectors), 6)
    assert np.all(vectors[np.arange(len(matrix)), rounded.argmax(1)] > 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 24), st.integers(0, 24), st.integers(-30, 30), st.integers(0, 2**32 - 1))
def test_any_symmetric_matrix(p: int, rank: int, exponent: int, seed: int) -> None:
    factor = np.random.default_rng(seed).normal(size=(p, rank)) * 2.0**exponent
    check(factor @ np.diag(np.resize([1.0, -1.0, 1.0], rank)) @ factor.T)


@pytest.mark.parametrize(
    "matrix", [np.zeros((5, 5)), np.eye(4), np.ones((7, 7)), np.diag([1.0, 3, 2]), np.array([[0.0, 1], [1, 0]])]
)
def test_degenerate_matrices(matrix: np.ndarray) -> None:
    check(matrix)


def test_an_anticorrelated_pair_keeps_its_sign_under_rounding() -> None:
    # Two groups of a category give components of equal magnitude and opposite sign: the first is made positive.
    for nudge in (-1e-14, 0.0, 1e-14):
        _, vectors = symmetric_eigen(np.array([[1.0, -1.0], [-1.0, 1.0 + nudge]]))
        assert vectors[0, 0] > 0 > vectors[0, 1]


def test_same_bits_every_time_and_the_argument_is_left_alone() -> None:
    factor = np.random.default_rng(3).normal(size=(40, 40))
    matrix = factor @ factor.T
    matrix = (matrix + matrix.T) / 2
    before = matrix.copy()
    first, second = symmetric_eigen(matrix), symmetric_eigen(np.asfortranarray(matrix))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()
    np.testing.assert_array_equal(matrix, before)
