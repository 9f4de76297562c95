from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import UsageError
from experiments.datasets.split import MIN_RECORDS, Partition, parse_partition, partition, split
from experiments.datasets.standin import standin
from experiments.datasets.types import Dataset, FloatArray, IntArray, Records


@cache
def made() -> Dataset:
    return standin(full=False)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made()


@pytest.fixture(scope="module")
def train(dataset: Dataset) -> Records:
    return dataset.train


def benign_parts(train: Records) -> tuple[Records, Records]:
    parts = split(train, np.random.default_rng(1))
    training, validation = train.take(parts.train), train.take(parts.validation)
    return training.take(~training.is_attack), validation


@given(seed=st.integers(0, 2**32), size=st.integers(1, 400))
@settings(deadline=None)
def test_each_record_stands_in_one_part(seed: int, size: int) -> None:
    records = made().train.take(np.arange(size))
    parts = split(records, np.random.default_rng(seed))
    joined = np.concatenate([parts.train, parts.validation, parts.holdout])
    assert np.array_equal(np.sort(joined), np.arange(size))
    again = split(records, np.random.default_rng(seed))
    assert np.array_equal(parts.train, again.train)
    assert np.array_equal(parts.holdout, again.holdout)


def test_shares_are_70_15_15_within_each_label(train: Records) -> None:
    parts = split(train, np.random.default_rng(0))
    for code, count in zip(*np.unique(train.attack, return_counts=True), strict=True):
        for part, share in ((parts.train, 0.7), (parts.validation, 0.15), (parts.holdout, 0.15)):
            assert abs(np.sum(train.attack[part] == code) - share * count) <= 1.0
    assert not np.array_equal(parts.train, split(train, np.random.default_rng(1)).train)


def test_no_record_of_the_test_file_reaches_training(dataset: Dataset) -> None:
    parts = split(dataset.train, np.random.default_rng(0))
    training = dataset.train.take(parts.train)
    benign = training.take(~training.is_attack)
    dealt = partition(benign, 3, "dirichlet:0.5", np.random.default_rng(0))
    origin = [benign.take(part) for part in dealt.parts]
    seen = {(records.file, line) for records in origin for line in records.line.tolist()}
    assert len(seen) == len(benign)
    assert not seen & {(dataset.test.file, line) for line in dataset.test.line.tolist()}
    for part in (parts.validation, parts.holdout):
        records = dataset.train.take(part)
        assert not seen & {(records.file, line) for line in records.line.tolist()}


@pytest.mark.parametrize(("spec", "alpha"), [("iid", None), ("dirichlet:0.5", 0.5), ("dirichlet:1e2", 100.0)])
def test_specs(spec: str, alpha: float | None) -> None:
    assert parse_partition(spec) == alpha


@pytest.mark.parametrize(
    "spec",
    ["", "IID", "iid ", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1", "dirichlet:nan", "dirichlet:inf"],
)
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        parse_partition(spec)


@pytest.mark.parametrize(
    "spec", ["dirichlet:1e999", "dirichlet: 1", "dirichlet:1:2", "dirichlet:1_0", "dirichlet:.5\n", "x" * 99]
)
def test_malformed_specs_are_refused_with_an_example(spec: str) -> None:
    with pytest.raises(UsageError, match=r"dirichlet:0\.5") as caught:
        parse_partition(spec)
    assert "\n" not in str(caught.value)
    assert len(caught.value.message) < 80


@pytest.mark.parametrize("spec", ["iid", "dirichlet:0.5", "dirichlet:1000"])
def test_everyone_gets_enough_and_nobody_the_same(train: Records, spec: str) -> None:
    benign, validation = benign_parts(train)
    dealt = partition(benign, 4, spec, np.random.default_rng(3))
    assert np.array_equal(np.sort(np.concatenate(dealt.parts)), np.arange(len(benign)))
    assert min(map(len, dealt.parts)) >= MIN_RECORDS
    parts = dealt.assign(validation, np.random.default_rng(4))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(validation)))
    attacks = [int(validation.is_attack[part].sum()) for part in parts]
    assert max(attacks) - min(attacks) <= 1


def shares(records: Records, parts: tuple[IntArray, ...]) -> FloatArray:
    """(service, node) share of each node in the benign records of the frequent services."""
    benign = [records.take(part).take(~records.is_attack[part]) for part in parts]
    counts = np.array([np.bincount(part.categorical[:, 1], minlength=70) for part in benign]).T
    frequent = np.flatnonzero(np.bincount(records.categorical[~records.is_attack, 1], minlength=70) > 150)
    return np.asarray(counts[frequent] / counts[frequent].sum(axis=1, keepdims=True))


def test_validation_follows_the_proportions_of_training(train: Records) -> None:
    benign, validation = benign_parts(train)
    dealt = partition(benign, 3, "dirichlet:0.3", np.random.default_rng(5))
    own = shares(benign, dealt.parts)
    assert own.std() > 0.25
    frequent = np.bincount(validation.categorical[~validation.is_attack, 1], minlength=70) > 150
    in_training = np.bincount(benign.categorical[:, 1], minlength=70) > 150
    theirs = shares(validation, dealt.assign(validation, np.random.default_rng(6)))
    assert np.abs(theirs - own[frequent[in_training]]).max() < 0.12


def test_alpha_says_how_uneven(train: Records) -> None:
    benign, _ = benign_parts(train)
    spread = {
        spec: np.std([len(part) for part in partition(benign, 4, spec, np.random.default_rng(7)).parts])
        for spec in ("iid", "dirichlet:1000", "dirichlet:0.2")
    }
    assert spread["iid"] <= 0.5
    assert spread["iid"] < spread["dirichlet:1000"] < 200 < spread["dirichlet:0.2"]


def test_the_same_generator_deals_the_same(train: Records) -> None:
    benign, _ = benign_parts(train)

    def draw() -> Partition:
        return partition(benign, 3, "dirichlet:0.5", np.random.default_rng(8))

    assert all(map(np.array_equal, draw().parts, draw().parts))


@pytest.mark.parametrize(("nodes", "spec"), [(0, "iid"), (-1, "iid"), (1000, "iid"), (147, "dirichlet:100")])
def test_too_many_nodes_are_refused_with_what_would_do(train: Records, nodes: int, spec: str) -> None:
    benign, _ = benign_parts(train)
    with pytest.raises(UsageError, match=rf"1 to {len(benign) // MIN_RECORDS} nodes|would") as caught:
        partition(benign, nodes, spec, np.random.default_rng(0))
    assert str(nodes) in caught.value.message


def test_too_uneven_a_draw_is_refused_with_an_alpha_that_works(train: Records) -> None:
    benign, _ = benign_parts(train)
    with pytest.raises(UsageError) as caught:
        partition(benign, 60, "dirichlet:0.002", np.random.default_rng(0))
    advised = next(word for word in caught.value.hint.split() if word.lower().startswith("dirichlet:")).lower()
    assert min(map(len, partition(benign, 60, advised, np.random.default_rng(1)).parts)) >= MIN_RECORDS
    assert "with dirichlet:0.002," in caught.value.hint
