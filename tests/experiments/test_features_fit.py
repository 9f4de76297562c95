"""A node votes for a map of records like its own, and against one that made-up records have bent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.base import NodeShare
from experiments.datasets.schema import NUMERIC
from experiments.datasets.types import Records
from experiments.features.agreement import agree, node
from experiments.features.fit import own_variance_and_shift, suits
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import plain_sum
from experiments.nsl_kdd import NslKdd
from experiments.settings import DataSettings
from tests.experiments.features_support import make_records

RULE = {"least_variance": 0.33, "most_shift": 0.5}


def fitted(parts: list[Records]) -> FeatureMap:
    return agree([node(part) for part in parts], 4, plain_sum)


def extremes(records: Records, claims: int) -> Records:
    many = records.take(np.arange(claims * len(records)) % len(records))
    random = np.random.default_rng(9)
    columns = [np.where(random.random(len(many)) < 0.5, c.minimum, c.maximum) for c in NUMERIC]
    return replace(many, numeric=np.stack(columns, axis=1).astype(float))


def attacks(share: NodeShare, claims: int) -> Records:
    count = claims * len(share.train)
    many = share.attacks.take(np.arange(count) % len(share.attacks))
    return replace(many, attack=np.zeros(count, dtype=np.int64))


@pytest.fixture(scope="module", params=["iid", "dirichlet:0.5"])
def shares(request: pytest.FixtureRequest, data_dir: Path) -> list[NodeShare]:
    def seeds(purpose: str, *parts: int) -> int:
        return len(purpose)

    data = DataSettings(partition=request.param, test=False)
    study = NslKdd().load(data, nodes=10, seeds=seeds, folder=data_dir, notify=print)
    return list(study.shares)


def votes(feature_map: FeatureMap, shares: list[NodeShare]) -> int:
    return sum(suits(feature_map, share.train, **RULE) for share in shares)


def test_an_honest_map_has_its_quorum(shares: list[NodeShare]) -> None:
    assert votes(fitted([s.train for s in shares]), shares) >= 9


@pytest.mark.parametrize("claims", [1, 10])
def test_made_up_extremes_have_none(shares: list[NodeShare], claims: int) -> None:
    honest = shares[:7]
    feature_map = fitted([*(s.train for s in honest), *(extremes(s.train, claims) for s in shares[7:])])
    assert 3 * (votes(feature_map, honest) + 3) <= 2 * 10


def test_many_records_of_attacks_have_none(shares: list[NodeShare]) -> None:
    honest = shares[:7]
    feature_map = fitted([*(s.train for s in honest), *(attacks(s, 10) for s in shares[7:])])
    assert 3 * (votes(feature_map, honest) + 3) <= 2 * 10


def test_variance_and_shift_are_those_of_the_map_s_own_units() -> None:
    everything = make_records(4000)
    feature_map = fitted([everything])
    # Over all records that the map was made of: mean 0, and variance 1 but for the floor and the clip.
    variance, shift = own_variance_and_shift(feature_map, everything)
    assert variance == pytest.approx(1, abs=0.15)
    assert shift == pytest.approx(0, abs=0.01)


def test_who_holds_no_records_has_nothing_against_a_map() -> None:
    everything = make_records(4000)
    nobody = everything.take(np.zeros(0, dtype=np.int64))
    feature_map = fitted([everything])
    assert own_variance_and_shift(feature_map, nobody) == (0.0, 0.0)
    assert suits(feature_map, nobody, **RULE)
