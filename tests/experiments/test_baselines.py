"""Baselines: each finds what is far from benign traffic, repeats, and is found by its name."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.errors import UsageError
from experiments.metrics import evaluate
from experiments.models.baselines.base import Training
from experiments.models.baselines.registry import BASELINES, find
from tests.experiments.test_qgan import benign, model

CLASSICAL = [name for name, spec in BASELINES.items() if not name.endswith(("gan", "10x", "central", "circuits"))]


def training(seed: int = 0, count: int = 400) -> Training:
    x = benign(count + 200, qubits=4)
    rng = np.random.default_rng(9)
    return Training(x[:count], x[count:], rng.uniform(-1, 1, (100, 4)), seed)


def unused() -> object:
    raise AssertionError("a model was asked for, which takes seconds to compile")


@pytest.mark.parametrize("name", CLASSICAL)
def test_each_tells_benign_records_from_noise_and_repeats(name: str) -> None:
    data = training()
    attacks = np.random.default_rng(1).uniform(-1, 1, (300, 4))
    scores = []
    for _ in range(2):
        made = BASELINES[name].make(unused, 3)  # type: ignore[arg-type]
        made.fit(data)
        scores.append(made.scores(np.concatenate([data.benign, attacks])))
    np.testing.assert_array_equal(*scores)
    assert scores[0].dtype == np.float64
    assert np.isfinite(scores[0]).all()
    labels = np.repeat([False, True], [len(data.benign), len(attacks)])
    assert evaluate(scores[0], labels, 0.0).auroc > 0.85


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in CLASSICAL])
def test_the_gans_tell_them_too(name: str) -> None:
    x = benign(400)
    data = Training(x[:300], x[300:], np.zeros((0, 2)), 4)
    qgan = model(target="fake_manila")
    with qgan.executor:
        made = BASELINES[name].make(lambda: qgan, 3)
        made.fit(data)
        attacks = np.random.default_rng(1).uniform(-1, 1, (300, 2))
        scores = made.scores(np.concatenate([data.benign, attacks]))
    labels = np.repeat([False, True], [len(data.benign), len(attacks)])
    assert evaluate(scores, labels, 0.0).auroc > 0.75
    assert made.parameters > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CLASSICAL)
def test_few_and_equal_records_are_no_harm(name: str) -> None:
    x = np.zeros((20, 3))
    made = BASELINES[name].make(unused, 1)  # type: ignore[arg-type]
    made.fit(Training(x, x, np.ones((20, 3)), 0))
    assert np.isfinite(made.scores(np.concatenate([x, np.ones((5, 3))]))).all()


def test_names_are_suggested() -> None:
    assert find("pca").name == "pca"
    with pytest.raises(UsageError, match="Did you mean 'gaussian-mixture'"):
        find("gausian-mixture")
    with pytest.raises(UsageError, match="Known: qgan, "):
        find("zzzzzz")
