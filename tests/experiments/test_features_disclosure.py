"""What is merged and left out, so that no total is a single record's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from experiments.features.disclosure import CELLS, MIN_RECORDS, cell_edges, cells_of, deviation, merge


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_every_group_and_its_complement_has_ten_records(counts: list[int]) -> None:
    groups = merge(np.array(counts))
    if not groups:
        # Nothing can be told apart: at most one category is common, or one and a rest that had to join it.
        assert sum(n >= MIN_RECORDS for n in counts) <= 1 or len(counts) == 2
        return
    assert sorted(code for group in groups for code in group) == list(range(len(counts)))
    sizes = [sum(counts[code] for code in group) for group in groups]
    assert len(groups) >= 2
    assert min(sizes) >= MIN_RECORDS
    assert sum(counts) - max(sizes) >= MIN_RECORDS
    # No more is merged than needed: at most one common category is in a group with others.
    assert sum(counts[c] >= MIN_RECORDS for g in groups if len(g) > 1 for c in g) <= 1


def test_worked_merges() -> None:
    assert merge(np.array([20, 30, 10])) == ((0,), (1,), (2,))
    assert merge(np.array([1, 500, 80, 15, 0])) == ((0, 3, 4), (1,), (2,))
    assert merge(np.array([6, 500, 4, 15])) == ((0, 2), (1,), (3,))
    assert merge(np.array([1, 12, 12, 500])) == ((0, 1), (2,), (3,))
    assert merge(np.array([3, 500])) == ()
    assert merge(np.array([3, 3, 3])) == ()
    assert merge(np.array([0, 0, 99])) == ()


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 7)))
def test_values_lie_within_the_edges_of_their_cell(values: np.ndarray) -> None:
    for value, cell in zip(values, cells_of(values, 7.0), strict=True):
        low, high = cell_edges(int(cell), 7.0)
        assert low - 1e-12 <= value <= high + 1e-12
        assert (cell == 0) == (value == 0)
        assert (cell == CELLS - 1) == (value == 7.0)


@settings(deadline=None)
@given(
    arrays(np.float64, st.integers(1, 40), elements=st.floats(-4, 4)),
    st.tuples(st.floats(-4, 4), st.floats(-4, 4)).map(sorted),
)
def test_a_sum_of_deviations_of_ten_has_ten_parts_and_no_dominant_one(
    z: np.ndarray, edges: tuple[float, float]
) -> None:
    share = deviation(z, -4.0, edges[0], edges[1], 4.0)
    assert np.all((share >= 0) & (share <= 1))
    inside = (z >= edges[0]) & (z <= edges[1])
    assert not share[inside].any()
    if share.sum() >= MIN_RECORDS:
        assert np.count_nonzero(share) >= MIN_RECORDS
        assert share.max() <= share.sum() / MIN_RECORDS


def test_a_column_that_cannot_deviate_deviates_nowhere() -> None:
    assert not deviation(np.array([0.0, 3.0]), 0.0, 0.0, 4.0, 4.0).any()
    assert deviation(np.array([-4.0, 0.0, 1.0, 4.0]), -4.0, 0.0, 1.0, 4.0).tolist() == pytest.approx([1, 0, 0, 0.75])
