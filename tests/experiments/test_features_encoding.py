"""Records become columns as the schema says, each by itself."""

import numpy as np
import pytest

from circuits.errors import QrunError
from experiments.datasets.schema import NUMERIC, NUMERIC_NAMES
from experiments.features.encoding import SPANS, TOPS, Columns, standardise, transform
from tests.experiments.features_support import make_records

BYTES, RATE, LAND = (NUMERIC_NAMES.index(name) for name in ("src_bytes", "serror_rate", "land"))
ALL = Columns(tuple(range(len(NUMERIC))), (((0,), (1, 2)), ((0, 3, 4), (1, 2, 5, 6, 7, 8, 9, 10))))


def test_columns_are_transformed_by_their_public_bounds() -> None:
    records = make_records(4)
    records.numeric[:, BYTES] = [0, 1, 2**31 - 1, 1e18]
    records.numeric[:, RATE] = [0, 0.25, 1, -3]
    records.categorical[:, 0] = [0, 1, 2, 0]
    records.categorical[:, 2] = [0, 1, 4, 10]
    table = transform(records, ALL)
    assert table.shape == (len(ALL), 4) == (42, 4)
    np.testing.assert_allclose(table[BYTES], [0, np.log(2), 31 * np.log(2), 31 * np.log(2)], rtol=1e-14)
    np.testing.assert_array_equal(table[RATE], [0, 0.25, 1, 0])
    np.testing.assert_array_equal(table[-4:], [[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0], [0, 1, 0, 1]])
    assert np.all(table >= 0)
    assert np.all(table <= ALL.spans[:, None])


def test_spans_bound_the_tops_closely() -> None:
    assert all(top <= span < top + 1 / 64 for top, span in zip(TOPS, SPANS, strict=True))
    assert (TOPS[LAND], SPANS[LAND]) == (1.0, 1.0)


def test_a_record_does_not_depend_on_its_batch() -> None:
    records = make_records(101)
    whole = transform(records, ALL)
    for part in (np.arange(7), np.array([100]), np.arange(100, -1, -3)):
        assert transform(records.take(part), ALL).tobytes() == np.ascontiguousarray(whole[:, part]).tobytes()


def test_standardised_columns_are_clipped() -> None:
    table = np.array([[0.0, 1.0, 100.0], [5.0, 5.0, -100.0]])
    z = standardise(table, np.array([1.0, 5.0]), np.array([2.0, 0.05]))
    np.testing.assert_allclose(z, [[-0.5, 0, 4], [0, 0, -4]])
    np.testing.assert_array_equal(standardise(table[:, 0], np.array([1.0, 5.0]), np.array([2.0, 0.05])), z[:, 0])


def test_unreadable_records_are_named() -> None:
    records = make_records(5)
    records.numeric[3, BYTES] = np.nan
    with pytest.raises(QrunError, match="made up, line 4, column src_bytes: not a finite number"):
        transform(records, ALL)
    for bad in (-1, 11):
        records = make_records(5)
        records.categorical[2, 2] = bad
        with pytest.raises(QrunError, match="made up, line 3, column flag: unknown code"):
            transform(records, ALL)
