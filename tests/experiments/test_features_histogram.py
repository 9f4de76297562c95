"""Quantiles and tail probabilities from fixed bins, pooled over nodes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from circuits.errors import QrunError
from experiments.features.histogram import count, edge_above, pooled, quantile, tail_probability
from experiments.features.secure_sum import ExchangeKey, MaskedSum, plain_sum

values_in = arrays(np.float64, st.integers(1, 50), elements=st.floats(-3, 3))


@settings(deadline=None)
@given(values_in, st.floats(0, 1))
def test_a_quantile_lies_within_a_bin_of_the_records(values: np.ndarray, q: float) -> None:
    bins = 300
    x = quantile(count(values, -3, 3, bins), -3, 3, q)
    width = 6 / bins
    ordered = np.sort(values)
    # The order statistics to both sides of rank q N, each with its bin.
    lower = ordered[max(int(np.ceil(q * len(values) - 1e-9)) - 1, 0)]
    upper = ordered[min(int(np.floor(q * len(values) + 1e-9)), len(values) - 1)]
    assert lower - width - 1e-9 <= x <= upper + width + 1e-9


def test_quantiles_of_an_even_histogram_are_linear() -> None:
    counts = np.full(8, 5)
    for q in (0.0, 0.01, 0.3, 0.5, 0.99, 1.0):
        assert quantile(counts, -2, 6, q) == pytest.approx(-2 + 8 * q, abs=1e-12)


def test_empty_bins_at_the_ends_are_passed_over() -> None:
    counts = np.array([0, 0, 4, 0, 4, 0])
    assert quantile(counts, 0, 6, 0) == 2
    assert quantile(counts, 0, 6, 1) == 5
    assert quantile(counts, 0, 6, 0.5) == 3
    assert quantile(counts, 0, 6, 0.75) == 4.5


@settings(deadline=None)
@given(values_in, arrays(np.float64, st.integers(1, 20), elements=st.floats(-5, 5)))
def test_tail_probabilities_bracket_the_exact_ones(values: np.ndarray, at: np.ndarray) -> None:
    counts = count(values, -3, 3, 600)
    p = tail_probability(counts, -3, 3, at)
    n, width = len(values), 0.01
    above = ((values[None] > at[:, None] + width + 1e-9).sum(1) + 1) / (n + 1)
    at_least = ((values[None] > at[:, None] - width - 1e-9).sum(1) + 1) / (n + 1)
    assert np.all((above - 1e-12 <= p) & (p <= at_least + 1e-12))
    order = np.argsort(at)
    assert np.all(np.diff(p[order]) <= 1e-12)
    assert np.all((p > 0) & (p <= 1))


def test_tail_probability_is_interpolated_and_smoothed() -> None:
    counts = np.array([2, 2])
    p = tail_probability(counts, 0, 2, np.array([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 9.0]))
    np.testing.assert_allclose(p, np.array([5, 5, 4, 3, 2, 1, 1]) / 5, atol=1e-15)


def test_values_out_of_the_bounds_count_in_the_end_bins() -> None:
    np.testing.assert_array_equal(count(np.array([-1e300, -1.0, 0.5, 1.0, 1e300]), 0, 1, 4), [2, 0, 1, 2])


def test_pooled_equals_the_histogram_of_all() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=n) for n in (5, 0, 70)]
    keys = [ExchangeKey.generate() for _ in parts]
    got = pooled("scores", parts, -3, 3, bins=64, secure_sum=MaskedSum(keys, b"t"))
    np.testing.assert_array_equal(got, count(np.concatenate(parts), -3, 3, 64))
    np.testing.assert_array_equal(got, pooled("scores", parts, -3, 3, bins=64, secure_sum=plain_sum))


def test_a_damaged_total_is_noticed() -> None:
    def damaged(stage: str, contributions: object) -> np.ndarray:
        return np.array([1, -1, 0, 0])

    with pytest.raises(QrunError, match=r"'scores' failed"):
        pooled("scores", [np.zeros(1)], 0, 1, bins=4, secure_sum=damaged)


def test_what_makes_no_histogram_is_refused() -> None:
    with pytest.raises(QrunError, match="not finite"):
        count(np.array([np.nan]), 0, 1, 4)
    with pytest.raises(QrunError, match="no records"):
        quantile(np.zeros(4, np.int64), 0, 1, 0.5)
    with pytest.raises(ValueError, match="share"):
        quantile(np.ones(4, np.int64), 0, 1, 1.5)
    for low, high, bins in ((1, 1, 4), (0, np.inf, 4), (0, 1, 0)):
        with pytest.raises(ValueError, match="no histogram"):
            count(np.zeros(1), low, high, bins)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_an_edge_has_its_share_of_records_below_and_no_earlier_edge_has(values: list[float], q: float) -> None:
    counts = count(np.array(values), 0.0, 1.0, 16)
    edge = edge_above(counts, 0.0, 1.0, q)
    below = counts[: round(edge * 16)].sum()
    assert below >= q * len(values)
    assert counts[: round(edge * 16) - 1].sum() < q * len(values)


def test_an_edge_of_nothing_is_refused() -> None:
    with pytest.raises(QrunError, match="no records"):
        edge_above(np.zeros(4, dtype=np.int64), 0.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="share"):
        edge_above(np.ones(4, dtype=np.int64), 0.0, 1.0, 0.0)
