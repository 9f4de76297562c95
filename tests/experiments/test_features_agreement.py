"""The map agreed from totals is that of the pooled records, whoever holds them, and shows no single record."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from circuits.errors import QrunError, UsageError
from experiments.datasets.nsl_kdd import read
from experiments.datasets.schema import NUMERIC_NAMES, VOCABULARIES
from experiments.datasets.types import Records
from experiments.features import disclosure
from experiments.features.agreement import Contributor, agree, begin, node
from experiments.features.encoding import Columns, standardise, transform
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import ExchangeKey, MaskedSum, plain_sum
from experiments.features.stage import Stage
from tests.experiments.features_support import OTH, SH, leverages, make_records, reference_fit

KEYS = [ExchangeKey.from_bytes(bytes([i]) * 32) for i in range(1, 6)]
RECORDS = make_records(300)
FILE = "KDDTrain+_20Percent.txt"


@cache
def read_benign(path: Path) -> Records:
    records = read(path)
    return records.take(~records.is_attack)


@pytest.fixture
def benign(data_dir: Path) -> Records:
    if not (data_dir / FILE).exists():
        pytest.skip(f"{FILE} is not in the data folder")
    return read_benign(data_dir / FILE)


class Recorder:
    """A plain sum that keeps every total by its stage."""

    def __init__(self) -> None:
        self.totals: dict[str, np.ndarray] = {}

    def __call__(self, stage: str, contributions: Sequence[np.ndarray]) -> np.ndarray:
        total = plain_sum(stage, contributions)
        self.totals[stage.split("/")[1]] = total
        return total


def assert_equals_reference(got: FeatureMap, records: Records, tolerance: float) -> None:
    expected = reference_fit(records, got.features)
    assert got.columns.numeric == expected["numeric"]
    assert got.columns.groups == expected["groups"]
    for name in ("mean", "sd", "centre", "components", "low", "high"):
        np.testing.assert_allclose(getattr(got, name), expected[name], rtol=0, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(got.apply(records), expected["features"], rtol=0, atol=tolerance)


# Equal to the pooled fit


@pytest.mark.parametrize(("n", "features", "seed"), [(301, 2, 1), (1234, 6, 2), (5001, 8, 3)])
def test_equals_the_map_fitted_on_pooled_records(n: int, features: int, seed: int) -> None:
    records = make_records(n, seed)
    shares = np.array_split(np.random.default_rng(seed).permutation(n), 3)
    got = agree([node(records.take(s)) for s in shares], features, MaskedSum(KEYS[:3], b"task"))
    assert_equals_reference(got, records, 1e-9)


@pytest.mark.parametrize("features", [6, 8])
def test_equals_the_map_fitted_on_pooled_real_records(benign: Records, features: int) -> None:
    shares = np.array_split(np.random.default_rng(0).permutation(len(benign)), 3)
    got = agree([node(benign.take(s)) for s in shares], features, MaskedSum(KEYS[:3], b"task"))
    assert_equals_reference(got, benign, 1e-9)


POOLED = agree([node(RECORDS)], 5, plain_sum).to_bytes()


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.data())
def test_same_bytes_whoever_holds_which_record(nodes: int, data: st.DataObject) -> None:
    owner = data.draw(arrays(np.int64, len(RECORDS), elements=st.integers(0, nodes - 1)))
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(RECORDS))
    shares = [RECORDS.take(order[owner[order] == i]) for i in range(nodes)]
    secure_sum = MaskedSum(KEYS[:nodes], b"task")
    assert agree([node(share) for share in shares], 5, secure_sum).to_bytes() == POOLED


def test_same_bytes_for_uneven_shares_of_real_records(benign: Records) -> None:
    whole = agree([node(benign)], 8, plain_sum).to_bytes()
    by_flag = [benign.take(benign.categorical[:, 2] == flag) for flag in range(11)]
    assert agree([node(share) for share in by_flag], 8, plain_sum).to_bytes() == whole


def test_the_same_sum_may_be_asked_again_and_never_for_other_records() -> None:
    secure_sum = MaskedSum(KEYS[:2], b"task")
    halves = [RECORDS.take(np.arange(0, 150)), RECORDS.take(np.arange(150, 300))]
    first = agree([node(h) for h in halves], 5, secure_sum)
    assert agree([node(h) for h in halves], 5, secure_sum).to_bytes() == first.to_bytes() == POOLED
    assert agree([node(h) for h in halves], 4, secure_sum).features == 4
    with pytest.raises(QrunError, match="other values"):
        agree([node(h) for h in halves[::-1]], 5, secure_sum)


# What totals show


def with_flag(flag: int) -> Records:
    records = make_records(700, seed=4)
    records.categorical[records.categorical[:, 2] == OTH, 2] = flag
    return records


def test_no_total_after_the_counts_tells_a_rare_category_from_its_group() -> None:
    # The single record has flag OTH or SH: both go into one group, and everything after the counts is the same.
    seen = {}
    for flag in (OTH, SH):
        recorder = Recorder()
        agree([node(with_flag(flag))], 5, recorder)
        seen[flag] = recorder.totals
    assert list(seen[OTH]) == ["counts", "moments", "spread", "products", "ranges"]
    assert not np.array_equal(seen[OTH]["counts"], seen[SH]["counts"])
    for title in ("moments", "spread", "products", "ranges"):
        np.testing.assert_array_equal(seen[OTH][title], seen[SH][title])


def stages(records: Records, features: int = 5) -> dict[str, Stage]:
    out: dict[str, Stage] = {}
    stage: Stage | FeatureMap = begin(features)
    while isinstance(stage, Stage):
        out[stage.title] = stage
        stage = stage.advance(stage.contribution(records))
    return out


def test_no_category_of_fewer_than_ten_has_a_row_in_the_products() -> None:
    records = with_flag(OTH)
    products = stages(records)["products"]
    table = transform(records, products.columns)
    for row in table[len(products.columns.numeric) :]:
        assert disclosure.MIN_RECORDS <= row.sum() <= len(records) - disclosure.MIN_RECORDS


def test_no_linear_combination_of_the_products_is_a_single_record() -> None:
    records = with_flag(OTH)
    products = stages(records)["products"]
    z = standardise(transform(records, products.columns), products.mean, products.sd)
    assert leverages(z.T).max() < 0.2
    # The danger is real: with a column of its own, the record is isolated, and its row of the products is the record.
    lone = np.flatnonzero(records.categorical[:, 2] == OTH)
    naive = np.vstack([z, records.categorical[:, 2] == OTH])
    assert leverages(naive.T)[lone] == pytest.approx(1)
    np.testing.assert_allclose((naive @ naive[-1])[:-1], z[:, lone[0]])
    # Nor would leaving the category out help: the others' sum and the total differ by that record.
    flags = [row for row in np.unique(records.categorical[:, 2]) if row != OTH]
    dropped = np.vstack([z[: len(products.columns.numeric)], [records.categorical[:, 2] == f for f in flags]])
    assert leverages(dropped.T)[lone] == pytest.approx(1)


def test_no_linear_combination_of_the_products_is_a_single_real_record(benign: Records) -> None:
    products = stages(benign)["products"]
    assert {NUMERIC_NAMES[i] for i in range(38)} - {NUMERIC_NAMES[i] for i in products.columns.numeric} == {
        *("land", "wrong_fragment", "urgent", "num_shells", "num_outbound_cmds", "is_host_login")
    }
    assert [VOCABULARIES[2][code] for code in products.columns.groups[1][0]] == ["OTH", "RSTOS0", "S3", "SH"]
    z = standardise(transform(benign, products.columns), products.mean, products.sd)
    assert leverages(z.T).max() < 0.2


LAND, RATE, HOT = (NUMERIC_NAMES.index(name) for name in ("land", "rerror_rate", "hot"))


@pytest.mark.parametrize(
    ("column", "rest", "values", "kept"),
    [
        (LAND, 0.0, [1.0] * 9, False),
        (LAND, 0.0, [1.0] * 10, True),
        (LAND, 1.0, [0.0] * 9, False),
        (LAND, 1.0, [0.0] * 10, True),
        (RATE, 0.5, [1.0] * 9, False),
        (RATE, 0.5, [1.0] * 40, True),
        (RATE, 0.0, [0.01] * 9 + [1.0], False),
        (RATE, 0.0, [0.01] * 30 + [1.0], False),
        (HOT, 0.0, [1.0] * 9 + [1023.0], True),
        (HOT, 0.0, [1.0] * 8 + [1023.0], False),
    ],
)
def test_columns_in_which_few_records_stand_out_are_left_out(
    column: int, rest: float, values: list[float], kept: bool
) -> None:
    records = make_records(2000, seed=6)
    records.numeric[:, column] = rest
    records.numeric[: len(values), column] = values
    assert (column in agree([node(records)], 3, plain_sum).columns.numeric) is kept


def test_one_record_adds_no_more_than_the_bound_of_a_stage() -> None:
    wild = RECORDS.take(np.arange(3))
    wild.numeric[:] = [[-1e300], [1e300], [1e9]]
    for stage in stages(RECORDS).values():
        for i in range(3):
            one = stage.contribution(wild.take(np.array([i])))
            assert one.dtype == np.int64
            assert one.shape == (stage.length,)
            assert np.abs(one).max() <= stage.bound
        assert stage.bound * max(stage.records, 2**24 if stage.title == "counts" else 0) < 2**62


# What goes wrong


def spoil(title: str, change: Callable[[np.ndarray], np.ndarray], records: Records = RECORDS) -> Contributor:
    honest = node(records)
    return lambda stage: change(honest(stage)) if stage.title == title else honest(stage)


def shift(place: int, by: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[place] += by
        return values

    return change


@pytest.mark.parametrize("title", ["counts", "moments", "spread", "products", "ranges"])
def test_noise_from_one_node_ends_the_agreement(title: str) -> None:
    def noise(values: np.ndarray) -> np.ndarray:
        return np.random.default_rng(1).integers(-(2**63), 2**63 - 1, len(values))

    with pytest.raises(QrunError, match=f"failed in stage '{title}'"):
        agree([node(RECORDS), spoil(title, noise)], 5, MaskedSum(KEYS[:2], b"task"))


@pytest.mark.parametrize(
    ("title", "change", "message"),
    [
        ("counts", shift(0, 1), "do not add up"),
        ("counts", shift(0, -(2**20)), "impossible"),
        ("counts", shift(-1, -1000), "impossible"),
        ("counts", lambda v: v * 2**17, "out of its bounds"),
        ("counts", lambda v: np.full_like(v, -(2**63)), "out of its bounds"),
        ("moments", shift(0, -(2**60)), "out of its bounds|negative"),
        ("moments", shift(0, 2**62), "out of its bounds"),
        ("spread", shift(0, -(2**32)), "out of its bounds"),
        ("products", shift(0, 1), "constant"),
        ("products", shift(-1, -(2**51)), "negative|out of its bounds"),
        ("products", shift(60, 2**50), "no records|out of its bounds"),
        ("ranges", shift(9, -1), "do not add up"),
        ("ranges", lambda v: shift(9, -1)(shift(10, 1)(v)), "do not add up"),
    ],
)
def test_a_total_that_no_records_have_ends_the_agreement(
    title: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with pytest.raises(QrunError, match=message):
        agree([spoil(title, change)], 5, plain_sum)


def test_a_node_that_leaves_ends_the_agreement() -> None:
    keys = MaskedSum(KEYS[:3], b"task").maskers

    def without_last(stage: str, contributions: Sequence[np.ndarray]) -> np.ndarray:
        return plain_sum(stage, [m(stage, c).view(np.int64) for m, c in zip(keys, contributions, strict=False)])

    with pytest.raises(QrunError, match="failed in stage 'counts'"):
        agree([node(RECORDS), node(RECORDS)], 5, without_last)


def test_too_few_or_too_equal_records_are_refused() -> None:
    for n in (0, 1, 9):
        with pytest.raises(QrunError, match=f"{n} benign records are too few or too alike"):
            agree([node(RECORDS.take(np.arange(n)))], 3, plain_sum)
    with pytest.raises(QrunError, match="too few or too alike"):
        agree([node(RECORDS.take(np.zeros(500, np.int64)))], 3, plain_sum)


def test_numbers_of_qubits_without_a_map_are_refused() -> None:
    for features in (1, 0, -3, 65):
        with pytest.raises(UsageError, match="2 to 64 features"):
            begin(features)


def test_more_qubits_than_dimensions_give_constant_features() -> None:
    # Two kinds of records span one dimension; what is beyond has a component of zeros.
    two = RECORDS.take(np.repeat([0, 1], 30))
    got = agree([node(two)], 5, plain_sum)
    assert np.count_nonzero(np.abs(got.components).max(1)) == 1
    x = got.apply(two)
    assert np.isfinite(x).all()
    assert np.ptp(x[:, 0]) > 1
    assert np.abs(np.ptp(x[:, 1:4], axis=0)).max() == 0
    assert FeatureMap.from_bytes(got.to_bytes()).to_bytes() == got.to_bytes()
    wide = agree([node(RECORDS)], 64, plain_sum)
    assert wide.apply(RECORDS).shape == (300, 64)
    assert FeatureMap.from_bytes(wide.to_bytes()).to_bytes() == wide.to_bytes()


def test_a_node_without_records_takes_part() -> None:
    empty = RECORDS.take(np.arange(0))
    assert agree([node(empty), node(RECORDS)], 5, MaskedSum(KEYS[:2], b"t")).to_bytes() == POOLED


def test_columns_count_their_groups() -> None:
    assert len(Columns((1, 2), (((0,), (1, 2)), ()))) == 4
