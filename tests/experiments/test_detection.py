"""Thresholds and figures in detail: what they are by definition, and that records and counts agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.datasets.schema import ATTACKS, FAMILY_OF
from experiments.detection import (
    ATTACK_FAMILIES,
    Scored,
    detect,
    figures,
    label_free,
    parts_of,
    validated,
    validated_counts,
)
from experiments.features.histogram import count
from experiments.metrics import evaluate

scores = st.lists(st.integers(-5, 5), min_size=1, max_size=40)


def f1(benign: np.ndarray, attack: np.ndarray, threshold: float) -> float:
    labels = np.repeat([False, True], [len(benign), len(attack)])
    return evaluate(np.concatenate([benign, attack]), labels, threshold).f1


@given(scores, st.sampled_from([0.51, 0.9, 0.95, 0.99]))
def test_the_label_free_threshold_is_the_least_that_leaves_the_share_at_or_below(values: list[int], q: float) -> None:
    benign = np.array(values, dtype=float)
    found = label_free(benign, q)
    assert (benign <= found).mean() >= q - 1e-9
    assert all((benign <= lower).mean() < q for lower in benign[benign < found])


@given(scores, scores)
def test_no_threshold_has_a_better_f1_than_the_validated_one(one: list[int], two: list[int]) -> None:
    benign, attack = np.array(one, dtype=float), np.array(two, dtype=float)
    best = max(f1(benign, attack, t) for t in np.arange(-6.5, 6.5))
    assert f1(benign, attack, validated(benign, attack)) == pytest.approx(best)


@given(scores, scores)
def test_counts_give_a_validated_threshold_as_good_as_records_do(one: list[int], two: list[int]) -> None:
    benign, attack = np.array(one, dtype=float), np.array(two, dtype=float)
    counts = [count(x, -5.5, 5.5, 11) for x in (benign, attack)]
    found = validated_counts(counts[0], counts[1], -5.5, 5.5)
    assert f1(benign, attack, found) == pytest.approx(f1(benign, attack, validated(benign, attack)))


def test_a_validated_threshold_lies_in_the_middle_of_what_is_equally_good() -> None:
    assert validated(np.array([0.0]), np.array([10.0])) == 5.0
    assert validated_counts(np.array([1, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 1]), 0.0, 5.0) == 2.0


def test_recall_is_told_by_family_and_nothing_where_there_is_none() -> None:
    codes = np.array([0, 0, 0, 0, *(ATTACKS.index(n) for n in ("smurf", "neptune", "satan", "guess_passwd"))])
    found = figures(np.array([0.0, 0.0, 0.0, 9.0, 9.0, 0.0, 9.0, 0.0]), codes, 1.0)
    assert found.recall_by_family == {"DoS": 0.5, "Probe": 1.0, "R2L": 0.0, "U2R": None}
    assert found.false_positive_rate == 0.25
    assert found.metrics.recall == 0.5
    assert set(found.to_dict()) == {*found.metrics.to_dict(), "false_positive_rate", "recall_by_family"}


@given(st.lists(st.tuples(st.integers(0, len(ATTACKS) - 1), st.booleans()), min_size=1, max_size=50))
def test_recall_of_all_attacks_is_made_of_the_families(pairs: list[tuple[int, bool]]) -> None:
    codes, called = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    found = figures(called.astype(float), codes, 0.5)
    family = [FAMILY_OF[ATTACKS[c]] for c in codes]
    hits = sum((found.recall_by_family[f] or 0.0) * family.count(f) for f in ATTACK_FAMILIES)
    assert hits == pytest.approx(found.metrics.recall * int((codes != 0).sum()))


def test_without_a_test_file_there_is_the_holdout_alone() -> None:
    holdout = Scored(np.array([0.0, 2.0]), np.array([0, 1]))
    found = detect(parts_of(holdout, None, None), {"label_free": 1.0})
    assert found["test"] is None
    assert found["test_without_seen"] is None
    assert found["holdout"] is not None
    seen = detect(parts_of(holdout, holdout, np.array([False, True])), {"label_free": 1.0})["test_without_seen"]
    assert seen is not None
    assert seen["label_free"].metrics.recall == 0.0
